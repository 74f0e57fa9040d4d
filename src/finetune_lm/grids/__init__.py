"""Many runs from one file: each an ordinary run in a directory of its own, the only truth about it.

`grid_file` reads the file, `grid_runs` says which runs it stands for, `grid_checks` finds what is
wrong with any of them, `run_states` reads off a directory how far its run is, `walking` is a worker
that does what is left, `grid_status` tells, `collecting` makes one table of all tables.
"""
