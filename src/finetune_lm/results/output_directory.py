"""Where a run writes: named as documented, never over another run's results."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

from finetune_lm.errors import UserError

NOW = "{now}"

METRICS = "metrics.csv.gz"
TEST_RESULTS_SUFFIX = "-test_results.csv.gz"
LOSS_CURVES = "loss_curves.pdf"
CONFIG_YAML = "config.yaml"
CONFIG_TEXT = "config.txt"
RUN_JSON = "run.json"
MODEL = "model"
TOKENIZER = "tokenizer"


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


def check_output_dir(directory: Path, config: dict[str, Any]) -> None:
    """See that a directory can be written into and has no other run's results in it.

    It is not made yet. A run that only tests gives the same results each time, so the same one may
    replace its own.

    Args:
        directory: The output directory.
        config: The run's arguments, as they are put on record.

    Raises:
        UserError: If not, saying what to do.
    """
    _check_writable(directory)
    _check_no_results(directory, config)


def _check_writable(directory: Path) -> None:
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"output_dir must be a directory but {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"output_dir must be writable but {existing} is not. Give --output_dir.")


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


RESULT_PATTERNS = (METRICS, f"*{TEST_RESULTS_SUFFIX}", MODEL)


def results_in(directory: Path) -> list[str]:
    """Names of what an earlier run has left in a directory."""
    found = [path.name for pattern in RESULT_PATTERNS for path in directory.glob(pattern)]
    return sorted(found)


def _check_no_results(output_dir: Path, config: dict[str, Any]) -> None:
    found = results_in(output_dir)
    if not found:
        return
    given = config["output_dir"] is not None
    remedy = f"Give {'another' if given else 'an'} --output_dir."
    if config["train_file"] is not None or not (output_dir / CONFIG_YAML).is_file():
        raise UserError(
            f"output_dir must not have results of another run, but {output_dir} has "
            f"{', '.join(found)}. {remedy}"
        )
    import yaml

    with (output_dir / CONFIG_YAML).open(encoding="utf-8") as file:
        earlier = yaml.safe_load(file)
    of_no_matter = {"seed", "output_dir", "save_tmp_test_files", "overwrite_cache"}
    differing = sorted(
        name
        for name in (earlier.keys() | config.keys()) - of_no_matter
        if earlier.get(name) != config.get(name)
    )
    if differing:
        raise UserError(
            f"output_dir must not have results of another run, but those in {output_dir} were made "
            f"with another {' and '.join(differing)}. {remedy}"
        )


def is_about_writing(error: OSError, directory: Path) -> bool:
    """Whether an error comes from writing results, not from something else that the run does."""
    no_room = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
    return error.errno in no_room or str(error.filename or "").startswith(str(directory))
