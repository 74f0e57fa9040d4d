"""What the tasks of a job do: a run each, or one study; checked before the job waits in a queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_lm.arguments import ParsedArguments, config_dict, parse_arguments, without_token
from finetune_lm.arguments.command_line import names_given
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.data.files import arguments_of_missing_files
from finetune_lm.errors import UserError
from finetune_lm.messages import warn
from finetune_lm.runs.directory import NOW
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.run_identity import AllArguments
from finetune_lm.slurm.batch_script import TASK, Command
from finetune_lm.slurm.sbatch_options import SbatchOptions

_SEVERAL_TASKS = ("ntasks", "ntasks-per-node")
_GPUS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")
_LOAD_IF_EXISTS = "study_kwargs.load_if_exists"
_N_TRIALS = "optimize_kwargs.n_trials"


def job_command(words: Sequence[str], options: SbatchOptions) -> Command:
    """What a job is to do with a run's or a study's arguments.

    Args:
        words: The arguments, as on the command line, `TASK` for the number of the array's task.
        options: What the job needs.

    Raises:
        UserError: With all that is wrong in any of the tasks.
    """
    tasks = options.tasks()
    problems = _Problems({})
    if tasks is None and any(TASK in word for word in words):
        problems.add(None, [f"{TASK} stands for the number of an array's task; give --array."])
    all_parsed = []
    which: list[int | None] = [*tasks] if tasks is not None else [None]
    for task in which:
        try:
            parsed = parse_arguments(_of_task(words, task))
        except UserError as error:
            problems.add(task, error.problems)
            continue
        all_parsed.append(parsed)
        problems.add(task, _problems(parsed, words, options))
    if tasks is not None and not problems.found:
        problems.add(None, _problems_between(all_parsed))
    problems.tell()
    return _command(words, all_parsed[-1], options)


@dataclass
class _Problems:
    """What is wrong, each once, with the first task in which it is."""

    found: dict[str, int | None]

    def add(self, task: int | None, problems: Iterable[str]) -> None:
        for problem in problems:
            self.found.setdefault(problem, task)

    def tell(self) -> None:
        if self.found:
            raise UserError(
                *(
                    problem if task is None else f"task {task}: {problem}"
                    for problem, task in self.found.items()
                )
            )


def _of_task(words: Sequence[str], task: int | None) -> list[str]:
    return [word if task is None else word.replace(TASK, str(task)) for word in words]


def _problems(
    parsed: ParsedArguments, words: Sequence[str], options: SbatchOptions
) -> Iterator[str]:
    model, data, optimization = parsed.model, parsed.data, parsed.optimization
    if model is None or data is None or optimization is None or _is_only_shown(parsed):
        yield (
            "after -- must come the arguments of a run or a study, without --version, "
            "--print_config and --preview."
        )
        return
    all_args = (model, data, optimization)
    for args in all_args:
        yield from args.problems()
    for name in arguments_of_missing_files(data):
        yield f"{name} names a file that is not there."
    text = "\n".join(words)
    if model.token or without_token(text, *all_args) != text:
        yield (
            "a script must not show tokens and passwords. Set HF_TOKEN, which the job inherits; "
            "put other secrets into a file that only you can read, and give --config FILE."
        )
    if parsed.resume is None and data.output_dir is None:
        yield "output_dir must be given: a job that is started again continues from there."
    if NOW in (data.output_dir or ""):
        yield f"output_dir must be the same whenever the job is started but has {NOW} in it."
    if optimization.do_optimize:
        if optimization.max_trials is None:
            yield (
                "max_trials must be given for a study in jobs: n_trials counts anew each time a "
                "job is started."
            )
        return
    if parsed.resume is None:
        yield from _problems_of_earlier(all_args)
    if data.train_file and data.checkpoint_every == 0:
        yield "checkpoint_every must not be 0, which leaves nothing to resume from."
    for name in _SEVERAL_TASKS:
        if (options.value(name) or "1") != "1":
            yield f"--{name} must be 1, since a run is one process, but got {options.value(name)}."


def _problems_of_earlier(all_args: AllArguments) -> Iterator[str]:
    """What is wrong with the run that is in the output directory already, if one is."""
    data = all_args[1]
    directory = Path(data.output_dir or "")
    if data.output_dir is None or not (directory / CONFIG_YAML).exists():
        return
    try:
        earlier = EarlierRun.read(directory)
    except UserError as error:
        yield from error.problems
        return
    config = config_dict(*all_args)
    if isinstance(data.seed, DrawnSeed):
        config["seed"] = earlier.config.get("seed")
    for change in earlier.given_anew(config):
        yield (
            f"output_dir must not have another run, but {directory} has one that the job would "
            f"resume, and {change}. Give another --output_dir."
        )


def _is_only_shown(parsed: ParsedArguments) -> bool:
    return parsed.print_config or parsed.preview is not None


def _problems_between(all_parsed: Sequence[ParsedArguments]) -> Iterator[str]:
    """What is wrong with the tasks of an array, taken together."""
    if any(each.optimization and each.optimization.do_optimize for each in all_parsed):
        return
    directories = [each.resume or (each.data and each.data.output_dir) for each in all_parsed]
    if len(set(directories)) < len(directories):
        yield (
            f"each task of an array must have an output_dir of its own, with {TASK} in it, as in "
            f"--output_dir outputs/mine/{TASK}."
        )


def _command(words: Sequence[str], parsed: ParsedArguments, options: SbatchOptions) -> Command:
    model, data, optimization = parsed.model, parsed.data, parsed.optimization
    # What was checked has all three, and a directory.
    assert model is not None
    assert data is not None
    assert optimization is not None
    if options.has(*_GPUS) and not model.use_gpu:
        warn("the job asks for a GPU, but --use_gpu is not given, so the run does not use it.")
    given = names_given(words, [])
    # As it was given, where it may have the number of the task in it.
    named = [each.texts[0] for each in given if each.name == "output_dir" and each.texts]
    directory = parsed.resume or (named[-1] if named else str(data.output_dir))
    job_name = Path(directory.replace(TASK, "")).name.strip("-_.") or "finetune-lm"
    if optimization.do_optimize:
        # Whoever comes later goes on with the study, and has no number of trials of its own.
        added = [(_LOAD_IF_EXISTS, "True"), (_N_TRIALS, "None")]
        names = {each.name for each in given}
        more = [text for name, value in added if name not in names for text in (f"--{name}", value)]
        return Command(job_name, [*words, *more])
    return Command(job_name, words, None if parsed.resume else directory)
