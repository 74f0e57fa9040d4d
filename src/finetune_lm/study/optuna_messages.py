"""What Optuna has to say, each thing once and in a line of our own."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning

from finetune_lm.messages import warn

_HOME = str(Path(optuna.__file__).parent)
# It tells of each trial in several lines; a study says so itself, in one.
_ABOUT_TRIALS = ("optuna.study.study", "optuna.study._optimize")


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
                    elif filename.startswith(_HOME) or "optuna" in str(message):
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
                f"Optuna {optuna.__version__} calls {', '.join(new)} experimental: another version "
                f"of it may do otherwise."
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
