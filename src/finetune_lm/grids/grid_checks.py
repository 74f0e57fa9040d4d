"""What is wrong with any run of a grid, found before the first begins."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments, ModelArguments, config_dict
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.data.examples import METADATA_ENDINGS, Files
from finetune_lm.data.feeding import check_kinds, used_types
from finetune_lm.data.files import read_files
from finetune_lm.data.patterns import files_of_patterns
from finetune_lm.data.reading_examples import ReadingOfPairs, read_examples, reading_once
from finetune_lm.errors import UserError
from finetune_lm.grids.grid_file import GridFile
from finetune_lm.grids.grid_runs import GridRun
from finetune_lm.grids.run_states import GridRunRecord, State, state_of
from finetune_lm.ranks import world
from finetune_lm.recording.columns import SEED
from finetune_lm.runs.directory import check_results_name, check_writable
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.measure_checks import check_measures
from finetune_lm.runs.one_process import check_one_process
from finetune_lm.runs.over_ranks import over_ranks_problems
from finetune_lm.runs.run_identity import FILES, AllArguments
from finetune_lm.runs.run_plan import columns_of, read_loss_files
from finetune_lm.series.members import is_series, members_of

if TYPE_CHECKING:
    from finetune_lm.models.tasks import Task

_SHOWN_NAMES = 3
_MOST_COMPARED = 200
"""Runs whose arguments are compared one by one with what they were, which takes time."""


def check_grid(runs: Sequence[GridRun]) -> None:
    """Find what is wrong with the runs of a grid, as far as that can be told without their models.

    Runs that differ in nothing but the seed are looked at once, and so is each data file.

    Args:
        runs: All of them.

    Raises:
        UserError: With a message for each mistake, and the runs that have it.
    """
    check_one_process()
    grid = runs[0].grid
    found: dict[str, list[str]] = {}
    checks = _Checks()
    problems = _problems_of(lambda: check_writable(grid.output_dir))
    with reading_once():
        for group in _alike_but_for_seed(grid, runs):
            for problem, names in checks.of_group(group):
                found.setdefault(problem, []).extend(names)
        found = found or dict(_changed_runs(runs))
    problems += [_told(problem, names) for problem, names in found.items()]
    if problems:
        raise UserError(*problems)


def _alike_but_for_seed(grid: GridFile, runs: Sequence[GridRun]) -> list[list[GridRun]]:
    """Runs in groups that differ in nothing but the seed."""
    used = grid.used_in_templates()
    seeds = {
        number
        for number, axis in enumerate(grid.axes)
        if axis.name == SEED and axis.is_argument and SEED not in used
    }
    groups: dict[tuple[int, ...], list[GridRun]] = {}
    for run in runs:
        key = tuple(i for number, i in enumerate(run.chosen) if number not in seeds)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


class _Checks:
    """Looks at runs, and remembers what it has seen of seeds, files and models."""

    def __init__(self) -> None:
        self._of_seeds: dict[str, list[str]] = {}
        self._seen: dict[Any, list[str]] = {}
        self._tasks: dict[Any, list[Task]] = {}

    def of_group(self, group: Sequence[GridRun]) -> Iterator[tuple[str, list[str]]]:
        """The problems of runs that differ in nothing but the seed, each with their names."""
        names = [run.name for run in group]
        if len(group) == 1:
            yield from ((problem, names) for problem in self._of_run(group[0]))
            return
        seeds = {run.values[SEED]: run for run in group}
        if not seeds.keys() <= self._of_seeds.keys():
            problems = {seed: _arguments(run)[0] for seed, run in seeds.items()}
            common = set.intersection(*map(set, problems.values()))
            self._of_seeds |= {
                seed: [each for each in of_seed if each not in common]
                for seed, of_seed in problems.items()
            }
        for seed, run in seeds.items():
            yield from ((problem, [run.name]) for problem in self._of_seeds[seed])
        # One stands for all, which has no problem of its own if there is such a one.
        seed, run = min(seeds.items(), key=lambda pair: len(self._of_seeds[pair[0]]))
        own = self._of_seeds[seed]
        yield from ((problem, names) for problem in self._of_run(run) if problem not in own)

    def _of_run(self, run: GridRun) -> list[str]:
        """The problems of one run."""
        problems, all_args = _arguments(run)
        if all_args is None:
            return [*problems, *_raw_file_problems(run)]
        model_args, data_args, optimization = all_args
        if world().size > 1 and not problems:
            problems += _problems_of(lambda: _check_over_ranks(all_args))
        files: Files | None = None
        try:
            files = read_files(data_args)
        except UserError as error:
            problems += error.problems
        problems += _problems_of(lambda: read_loss_files(data_args))
        problems += self._of_model(model_args, data_args, files)
        if files is not None:
            problems += self._of_columns(files, data_args)
            if files["test"]:
                prefix, name = data_args.test_output_file_prefix, model_args.model_name_or_path
                problems += _problems_of(lambda: check_results_name(prefix, name))
        if optimization.do_optimize and not problems:
            problems += _problems_of(lambda: _plan_study(all_args))
        return problems

    def _of_columns(self, files: Files, args: DataTrainingArguments) -> list[str]:
        """What is wrong with the names of columns."""
        data = [[each.path for each in group] for group in files.values()]
        key = str((data, args.loss_classes, args.measures, args.measures_kwargs, args.contrasts))
        if key not in self._seen:
            self._seen[key] = _problems_of(lambda: columns_of(args, files))
        return self._seen[key]

    def _of_model(
        self, args: ModelArguments, data_args: DataTrainingArguments, files: Files | None
    ) -> list[str]:
        """What is wrong with the model, as far as its configuration tells."""
        from finetune_lm.models.loading import identify
        from finetune_lm.models.two_modes import arguments_by_mode

        if is_series(args):
            try:
                args = members_of(args)[0].args
            except UserError as error:
                return list(error.problems)
        name = args.model_name_or_path
        key = str(
            [
                *(name, args.config_name, args.config_kwargs, args.model_revision),
                *(args.cache_dir, args.model_task, args.trust_remote_code),
            ]
        )
        if key not in self._seen:
            try:
                self._tasks[key] = [identify(a)[1] for a in arguments_by_mode(args).values()]
                self._seen[key] = []
            except UserError as error:
                self._seen[key] = list(error.problems)
        if self._seen[key] or files is None:
            return self._seen[key]
        tasks, types = self._tasks[key], used_types(files)
        if found := _problems_of(lambda: check_kinds(files, name, tasks, data_args)):
            return found
        place = (args.tokenizer_name, args.tokenizer_kwargs, args.use_fast_tokenizer)
        measures = (data_args.measures, data_args.measures_kwargs, args.model_modifier_fns, types)
        key = str((key, place, measures))
        if key not in self._seen:
            self._seen[key] = [
                problem
                for task in tasks
                for problem in _problems_of(partial(check_measures, args, data_args, task, types))
            ]
        return self._seen[key]


def _problems_of(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except UserError as error:
        return list(error.problems)
    return []


def _check_over_ranks(all_args: AllArguments) -> None:
    if problems := over_ranks_problems(all_args):
        raise UserError(*problems)


def _arguments(run: GridRun) -> tuple[list[str], AllArguments | None]:
    """The arguments of a run, or what is wrong with them."""
    try:
        all_args = run.arguments()
    except UserError as error:
        return list(error.problems), None
    return [], all_args


def _raw_file_problems(run: GridRun) -> list[str]:
    """What is wrong with the data files of a run whose other arguments cannot be read."""
    try:
        given = {path: raw for source in run.sources() for path, raw in source.entries}
    except UserError:  # of a study, and told already
        return []
    problems = []
    for name, kind in FILES.items():
        raw = given.get((name,))
        named = [path for path in (raw if isinstance(raw, list) else [raw]) if path]
        pairs = None if kind == "train" else ReadingOfPairs()

        def read(paths: list[str], pairs: ReadingOfPairs | None = pairs) -> None:
            for path in files_of_patterns(paths, but=METADATA_ENDINGS):
                read_examples(path, None, pairs)

        for path in named:
            problems += _problems_of(partial(read, [str(path)]))
    return problems


def _plan_study(all_args: AllArguments) -> None:
    """See that a study can be planned. What is warned of is said when it is begun."""
    from finetune_lm.study.plan import make_plan
    from finetune_lm.study.search import OptunaMessages

    with contextlib.redirect_stderr(io.StringIO()), OptunaMessages().active():
        make_plan(*all_args)


def _changed_runs(runs: Sequence[GridRun]) -> Iterator[tuple[str, list[str]]]:
    """Runs that are finished, but were made with other arguments than they have now."""
    changed: list[tuple[str, str]] = []
    for run in runs:
        said = GridRunRecord.read(run.directory)
        if said is not None and said.digest == run.digest():
            continue
        if not run.directory.is_dir() or state_of(run.directory).state is not State.FINISHED:
            continue
        if len(changed) >= _MOST_COMPARED:
            changed.append((run.name, "have other arguments"))
        elif clauses := _changes(run):
            changed.append((run.name, clauses[0]))
    if changed:
        name, clause = changed[0]
        yield (
            f"output_dir must not have runs that were made with other arguments: of {name}, "
            f"{clause}. Give another output_dir, or put back what was changed.",
            [name for name, _ in changed],
        )


def _changes(run: GridRun) -> list[str]:
    """What was otherwise when a run was made, a clause each."""
    all_args = run.arguments()
    config = config_dict(*all_args)
    try:
        earlier = EarlierRun.read(run.directory)
    except UserError as error:
        return [error.problems[0]]
    if isinstance(all_args[1].seed, DrawnSeed):
        config["seed"] = earlier.config.get("seed")
    if all_args[2].do_optimize:
        # Which of them a worker has set to go on with a study.
        for name in ("study_kwargs", "max_trials"):
            config[name] = earlier.config.get(name)
    return earlier.given_anew(config)


def _told(problem: str, names: Sequence[str]) -> str:
    """A problem with the runs that have it."""
    names = list(dict.fromkeys(names))
    if not names:
        return problem
    shown = ", ".join(names[:_SHOWN_NAMES])
    if len(names) > _SHOWN_NAMES:
        shown += f" and {len(names) - _SHOWN_NAMES} more"
    return f"{problem} (in {len(names)} run{'s' * (len(names) > 1)}: {shown})"
