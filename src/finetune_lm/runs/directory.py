"""Where a run writes: named as documented, never over another run's results."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_lm import constants
from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.runs.run_identity import names_of_differences
from finetune_lm.whole_files import unsealed

NOW = "{now}"

METRICS = "metrics.csv.gz"
PROBE_RESULTS = "probe_results.csv.gz"
TEST_RESULTS_SUFFIX = "-test_results.csv.gz"
WORDS = "words.csv.gz"
PROBE_WORDS = "probe_words.csv.gz"
TEST_WORDS_SUFFIX = "-test_words.csv.gz"
RUN_JSON = constants.RUN_JSON
LOSS_CURVES = "loss_curves.pdf"
CONFIG_TEXT = "config.txt"
OPTIMIZATION_RESULTS = "optimization_results.csv.gz"
OPTIMIZATION_PLOTS = "optimization_plots.pdf"
OPTIMIZATION_PLOTS_HTML = "optimization_plots.html"
JOURNAL = "optimization_journal.log"
BEST_TRIAL = "best_trial"
MODEL = "model"
ADAPTER = "adapter"
TOKENIZER = "tokenizer"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"


def timestamp() -> str:
    """The local time to the nanosecond: ``2026-01-31_18_05_09.123456789``."""
    nanoseconds = time.time_ns()
    seconds = time.strftime("%Y-%m-%d_%H_%M_%S", time.localtime(nanoseconds // 10**9))
    return f"{seconds}.{nanoseconds % 10**9:09d}"


def as_file_name(model_name: str) -> str:
    """A model's name as part of a path."""
    return model_name.replace("/", "-")


def choose_output_dir(given: str | None, model_name: str, train_names: list[str]) -> Path:
    """The output directory, not yet made.

    Args:
        given: What the user says; ``{now}`` in it stands for the time.
        model_name: The model as named on the command line.
        train_names: The name of the training data; none if there is only testing.
    """
    if given is not None:
        return Path(given.replace(NOW, timestamp()))
    model = as_file_name(model_name)
    if not train_names:
        return Path("outputs", "test_only", model)
    return Path("outputs", train_names[0], model, timestamp())


def check_output_dir(
    directory: Path, args: DataTrainingArguments, identity: dict[str, Any]
) -> None:
    """See that a directory can be written into and has no other run's results in it.

    It is not made yet. A run that only tests gives the same results each time, so the same one may
    replace its own.

    Args:
        directory: The output directory.
        args: The run's arguments.
        identity: All that its results depend on.

    Raises:
        UserError: If not, saying what to do.
    """
    check_writable(directory)
    _check_no_results(directory, args, identity)


LONGEST_NAME = 255
"""Of a file, in bytes, on nearly all file systems."""


LONGEST_PATH = 4096 if sys.platform == "linux" else 1024
"""Of a file, in bytes."""


def results_name(prefix: str | None, model_name: str) -> str:
    """The name of the table of test results.

    Args:
        prefix: How it begins, as the user says.
        model_name: The model as named on the command line, which else it begins with.
    """
    return f"{as_file_name(prefix or model_name)}{TEST_RESULTS_SUFFIX}"


def check_results_name(prefix: str | None, model_name: str) -> None:
    """See, before a run rather than at its end, that `results_name` is a name for a file.

    Raises:
        UserError: If it is too long.
    """
    name = results_name(prefix, model_name)
    # While it is written there are a few characters more.
    if len(os.fsencode(name)) > LONGEST_NAME - len("..tmp"):
        whose = "test_output_file_prefix" if prefix else "model_name_or_path"
        raise UserError(
            f"{whose} is too long for the name of a file ({len(name)} characters). Give a short "
            f"--test_output_file_prefix."
        )


def words_path(table: Path) -> Path:
    """Where the words of a table of tokens go: beside it."""
    names = {METRICS: WORDS, PROBE_RESULTS: PROBE_WORDS}
    test = table.name.removesuffix(TEST_RESULTS_SUFFIX) + TEST_WORDS_SUFFIX
    return table.with_name(names.get(table.name, test))


def check_writable(directory: Path) -> None:
    """See that a directory is there and can be written into, or could be made.

    Raises:
        UserError: If not.
    """
    if max((len(os.fsencode(part)) for part in directory.parts), default=0) > LONGEST_NAME:
        raise UserError(f"output_dir must not have a name longer than {LONGEST_NAME} bytes in it.")
    n_bytes = len(os.fsencode(directory.absolute()))
    if n_bytes > LONGEST_PATH - LONGEST_NAME:
        raise UserError(
            f"output_dir must leave room for the names of files in it, within the {LONGEST_PATH} "
            f"bytes that a path may have, but has {n_bytes}."
        )
    existing = directory
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if existing.is_symlink() and not existing.exists():
        raise UserError(
            f"output_dir must be a directory but {existing} is a link that leads nowhere."
        )
    if not existing.is_dir():
        raise UserError(f"output_dir must be a directory but {existing} is a file.")
    try:
        # Asking is not enough: root may write everywhere, but not where nothing can be written.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"output_dir must be writable but {existing} is not ({error.strerror}). Give another "
            f"--output_dir."
        ) from None


def make_output_dir(directory: Path) -> None:
    """Make a directory and those above it.

    Raises:
        UserError: If that is not possible.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output_dir must be writable but {directory} cannot be made: {error.strerror}. "
            f"Give another --output_dir."
        ) from error


SEALED = (CONFIG_YAML, MODEL, ADAPTER, TOKENIZER)
"""What `run.json` has the checksums of."""

WORD_PATTERNS = (WORDS, PROBE_WORDS, f"*{TEST_WORDS_SUFFIX}")
RUN_PATTERNS = (METRICS, PROBE_RESULTS, f"*{TEST_RESULTS_SUFFIX}", *WORD_PATTERNS, MODEL)
STUDY_PATTERNS = (OPTIMIZATION_RESULTS, JOURNAL)
RESULT_PATTERNS = (*RUN_PATTERNS, *STUDY_PATTERNS)


def results_in(directory: Path, patterns: Sequence[str] = RESULT_PATTERNS) -> list[str]:
    """Names of what an earlier run or study has left in a directory."""
    found = [path for pattern in patterns for path in directory.glob(pattern)]
    # A table without any row is what a run leaves that ended before its first step.
    return sorted(path.name for path in found if path.stat().st_size > 0)


_NO_RANDOMNESS = (
    "data_preprocessing.identity",
    "data_preprocessing.remove_non_mask_tokens_from_labels",
)


def _check_no_results(
    output_dir: Path, args: DataTrainingArguments, identity: dict[str, Any]
) -> None:
    remedy = f"Give {'an' if args.output_dir is None else 'another'} --output_dir."
    if not (output_dir / RUN_JSON).is_file():
        for name in (CONFIG_YAML, CONFIG_TEXT):
            if (output_dir / name).exists():
                raise UserError(
                    f"output_dir must not have a {name} that is not of a run, which the run's own "
                    f"would replace, but {output_dir} has one. {remedy}"
                )
    found = results_in(output_dir)
    if not found:
        return
    if (output_dir / CHECKPOINTS).is_dir():
        remedy += f" To resume the run that was stopped there: --resume {output_dir}"
    if args.train_file is not None or not (output_dir / RUN_JSON).is_file():
        raise UserError(
            f"output_dir must not have results of another run, but {output_dir} has "
            f"{', '.join(found)}. {remedy}"
        )
    differing = _differing(output_dir, identity)
    if differing:
        raise UserError(
            f"output_dir must not have results of another run, but those in {output_dir} were made "
            f"with another {' and '.join(differing)}. {remedy}"
        )


def _differing(output_dir: Path, identity: dict[str, Any]) -> list[str]:
    """In what the run whose results are in a directory differs from this one, by name."""
    try:
        earlier = unsealed(output_dir / RUN_JSON).get("identity")
    except (OSError, ValueError):
        earlier = None
    if not isinstance(earlier, dict):
        return [f"version of the program, or their {RUN_JSON} is damaged"]
    names = names_of_differences(earlier, identity)
    if identity["data_preprocessing_fn"]["test"] in _NO_RANDOMNESS:
        names = [name for name in names if name != "seed"]
    return names


def is_about_writing(error: OSError, directory: Path) -> bool:
    """Whether an error comes from writing results, not from something else that the run does."""
    no_room = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
    return error.errno in no_room or str(error.filename or "").startswith(str(directory))
