"""Studies: many short runs that search for hyperparameters with Optuna.

`search` goes through a study from start to end. What is searched for is worked out in
`search_space` and put into arguments by `trial_arguments`; `trial_runner` does a trial's run;
`study`, `storage` and `workers` let several processes work at one study; `results`, `plots` and
`trial_log` leave what was found.
"""
