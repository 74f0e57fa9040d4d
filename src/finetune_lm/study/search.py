"""A study from start to end: check, load, open, do the trials, write what was found."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_yaml,
)
from finetune_lm.data.examples import file_hashes
from finetune_lm.full_collections import passing_over_what_is_there
from finetune_lm.messages import say, warn
from finetune_lm.models.loading import Loader
from finetune_lm.ranks import world
from finetune_lm.runs.following import End, tell
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.on_record import cannot_write, end_on_record, facts_of
from finetune_lm.runs.record import RunRecord
from finetune_lm.runs.run_identity import MODEL
from finetune_lm.study.followed_trials import Begin, follow_trials
from finetune_lm.study.plan import Plan, make_plan
from finetune_lm.study.plots import save_plots
from finetune_lm.study.results import (
    StudyResult,
    check_not_all_failed,
    results_table,
    study_result,
    summary,
    write_results,
)
from finetune_lm.study.sampling import (
    StudySampler,
    make_pruner,
    make_sampler,
    sampler_seed,
)
from finetune_lm.study.storage import short_reason
from finetune_lm.study.study_directory import StudyDirectory, make_study_dir
from finetune_lm.study.study_record import (
    StudyRecord,
    begin_study,
    check_same,
    find_study,
    load_study,
)
from finetune_lm.study.trial_run import TrialRunner
from finetune_lm.study.trials import Trials
from finetune_lm.study.workers import counted_trials
from finetune_lm.whole_files import write_whole

_OPTUNA = str(Path(optuna.__file__).parent)
# It tells of each trial in several lines; a study says so itself, in one.
_ABOUT_TRIALS = ("optuna.study.study", "optuna.study._optimize")


def search(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    optimization_args: OptimizationArguments,
    loader: Loader | None = None,
) -> StudyResult:
    """Search for hyperparameters, as one process of a study.

    Args:
        model_args: Which model, and how it is loaded and changed.
        data_args: Which data, how the model learns.
        optimization_args: What to search for, and how.
        loader: Loads the model; by default anew.

    Returns:
        What the study has found by now, in all of its processes.

    Raises:
        UserError: If something is wrong that the user can put right.
        KeyboardInterrupt: If a signal came; the results are written all the same.
    """
    if not world().is_first:
        return StudyResult(follow_trials())
    messages = OptunaMessages()
    with messages.active():
        plan = make_plan(model_args, data_args, optimization_args)
        plan, runner, record = _load(plan, loader)
        messages.tell_experimental()
        directory = make_study_dir(plan.output_dir)
        # Signals wait until the end of it all, when it is on record how the search ended.
        with (
            Interruption() as interruption,
            _on_record(directory, plan, runner, record) as run_record,
        ):
            study = _open(plan)
            _write_config(directory, plan)
            try:
                with run_record.timed("search"), _told(study, plan), passing_over_what_is_there():
                    trials = Trials(study, plan, runner, directory, interruption)
                    if trials.are_needed():
                        trials.do()
                    trials.end()
                    tell(End(directory.path))
            finally:
                _write(study, plan, directory)
                run_record.add(**summary(study))
            check_not_all_failed(study, directory.results)
        return study_result(study, plan.parameters, plan.model_args, plan.data_args, directory.path)


def _load(plan: Plan, loader: Loader | None) -> tuple[Plan, TrialRunner, StudyRecord]:
    """Load all that trials share, and find the study or begin it.

    A study is begun only when everything is loaded, so that a mistake leaves none behind. One that
    is there already says which seed its trials have, which is then that of the plan.
    """
    mine = StudyRecord(plan.identity, plan.data_args.seed)
    found = find_study(plan.place, plan.name, mine, load_if_exists=plan.load_if_exists)
    while True:
        seed = (found or mine).seed
        plan = plan.seeded(seed)
        searched = {str(parameter.place[0]) for parameter in plan.parameters}
        tell(Begin(plan.model_args, plan.data_args, searched))
        runner = TrialRunner(plan.model_args, plan.data_args, searched, loader)
        mine = replace(mine, identity={**plan.identity, MODEL: runner.loaded.origin})
        if found is not None:
            check_same(found, mine, plan.name, plan.place)
            return plan, runner, found
        begun = begin_study(
            plan.place, plan.name, mine, plan.direction, load_if_exists=plan.load_if_exists
        )
        if begun.seed == seed:
            return plan, runner, begun
        found = begun  # another process has begun it meanwhile, from another seed


def _open(plan: Plan) -> optuna.Study:
    kwargs, seed = plan.study_kwargs, plan.data_args.seed
    sampler = StudySampler(make_sampler(kwargs, seed), sampler_seed(kwargs, seed))
    return load_study(plan.place, plan.name, sampler, make_pruner(kwargs))


@contextmanager
def _told(study: optuna.Study, plan: Plan) -> Iterator[None]:
    """Say which study it is, and how it goes on if it is interrupted."""
    n_before = len(counted_trials(study))
    say(
        f"study {plan.name!r}, kept in {plan.place.shown}, seed {plan.data_args.seed}"
        + (f", {n_before} trials so far" if n_before else "")
    )
    try:
        yield
    except KeyboardInterrupt:
        say(
            f"to continue the study, repeat the command with --output_dir {plan.output_dir} "
            f"--study_kwargs.study_name {plan.name} --study_kwargs.load_if_exists."
        )
        raise


def _write(study: optuna.Study, plan: Plan, directory: StudyDirectory) -> None:
    """Leave the table and the plots, with what other processes have found by now."""
    seed = plan.data_args.seed
    while True:
        table = results_table(study, plan.parameters, seed)
        write_results(directory.results, table)
        # What another process has written meanwhile may have been newer than this.
        if results_table(study, plan.parameters, seed).equals(table):
            break
    save_plots(study, directory.plots, directory.interactive_plots)


def _write_config(directory: StudyDirectory, plan: Plan) -> None:
    """Write the arguments, for ``--config``."""
    with write_whole(directory.config_yaml) as aside:
        text = config_yaml(plan.model_args, plan.data_args, plan.optimization_args)
        aside.write_text(text, encoding="utf-8")


@contextmanager
def _on_record(
    directory: StudyDirectory, plan: Plan, runner: TrialRunner, record: StudyRecord
) -> Iterator[RunRecord]:
    """Keep ``run.json`` while the search is under way, and say in it how it ended."""
    import sqlalchemy.exc

    facts: dict[str, Any] = {
        "study": {
            "name": plan.name,
            "storage": plan.storage,
            "direction": plan.direction,
            "params": {parameter.name: parameter.describe() for parameter in plan.parameters},
        },
        "seed": int(record.seed),
    }
    try:
        run_record = RunRecord(
            directory.run_json,
            model=facts_of(runner.loaded),
            device=str(runner.accelerator.device),
            data={
                kind: {f.path: len(f) for f in group} for kind, group in plan.files.items() if group
            },
            data_sha256=file_hashes(plan.files),
            identity={**record.identity, "seed": int(record.seed)},
            **facts,
        )
    except OSError as error:
        raise cannot_write(directory.path, error) from error

    def problem(error: BaseException) -> str | None:
        if not isinstance(error, sqlalchemy.exc.SQLAlchemyError | optuna.exceptions.OptunaError):
            return None
        return (
            f"study_kwargs.storage {plan.place.shown} was lost: "
            f"{short_reason(error).rstrip('. ')}. What it has is kept; continue with "
            "--study_kwargs.load_if_exists."
        )

    with end_on_record(run_record, directory.path, [plan.model_args], problem):
        yield run_record


class OptunaMessages:
    """Gathers Optuna's warnings while it is active, and passes each on once.

    What Optuna calls experimental is put together into one line, by `tell_experimental`.
    """

    def __init__(self) -> None:
        self._experimental: dict[str, None] = {}
        self._has_told: set[str] = set()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Take Optuna's warnings and log records."""
        handler = _Handler(self._tell)
        logger = logging.getLogger("optuna")
        verbosity = optuna.logging.get_verbosity()
        has_default_handler = optuna.logging._default_handler in logger.handlers
        optuna.logging.disable_default_handler()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logger.addHandler(handler)
        try:
            with warnings.catch_warnings():
                shown = warnings.showwarning
                warnings.simplefilter("always", ExperimentalWarning)

                def show(
                    message: Warning | str, category: type[Warning], filename: str, *rest: Any
                ) -> None:
                    if issubclass(category, ExperimentalWarning):
                        self._experimental.setdefault(_feature(str(message)))
                    elif filename.startswith(_OPTUNA) or "optuna" in str(message):
                        self._tell(str(message))
                    else:
                        shown(message, category, filename, *rest)

                warnings.showwarning = show  # type: ignore[assignment]
                yield
        finally:
            logger.removeHandler(handler)
            optuna.logging.set_verbosity(verbosity)
            if has_default_handler:
                optuna.logging.enable_default_handler()

    def tell_experimental(self) -> None:
        """Say what may change with another version of Optuna, as far as it is not said yet."""
        new = [name for name in self._experimental if name not in self._has_told]
        if new:
            warn(
                f"Optuna {optuna.__version__} calls {', '.join(new)} experimental: other "
                "versions may behave differently."
            )
            self._has_told.update(new)

    def _tell(self, message: str) -> None:
        message = " ".join(message.split())
        # The number of a trial does not make another message of it.
        key = re.sub(r"\d+", "0", message)
        if key not in self._has_told:
            self._has_told.add(key)
            warn(message)


class _Handler(logging.Handler):
    def __init__(self, tell: Any) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if record.name not in _ABOUT_TRIALS:
            self._tell(record.getMessage())


def _feature(message: str) -> str:
    """What a warning calls experimental."""
    found = re.match(r"Argument ``(\w+)``|([\w.]+) is experimental", message)
    if found is None:
        return message
    return found[1] or found[2].rpartition(".")[2]
