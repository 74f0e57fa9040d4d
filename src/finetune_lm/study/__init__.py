"""Studies: many short runs that search for hyperparameters with Optuna.

`search` goes through a study from start to end, as its `plan` says. What is searched for is worked
out in `search_space`: `targets` finds the arguments, `parameters` are put into them. `trials` does
the trials of a process, each as a `trial_run`; `storage`, `study_record` and `workers` let several
processes work at one study; `results` and `plots` leave what was found.
"""
