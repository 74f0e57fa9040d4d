"""Experiment trackers, told by way of ``accelerate.tracking``: a few numbers an epoch, no rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_lm.errors import first_line
from finetune_lm.messages import warn
from finetune_lm.randomness import generator_states, restore_generators
from finetune_lm.recording.recorder import EpochResult, ProbePass, Recorder, named_in_mode

TENSORBOARD = "tensorboard"
PROJECT = "finetune-lm"
"""What a run is filed under, unless a tracker is told otherwise."""

_RUN_NAMES = {
    "wandb": "name",
    "trackio": "name",
    "mlflow": "run_name",
    "swanlab": "experiment_name",
}
"""The keyword argument by which a tracker is told the name of a run."""


class Trackers(Recorder):
    """Tells trackers the losses, the learning rate and the numbers of pairs, once an epoch.

    Step n is after n epochs, that is after epoch n - 1 of the tables; step 0 is before the
    training. A tracker that fails is not told any more, and the run goes on. Whatever a tracker
    draws, the run draws the numbers that it would have drawn without.

    Args:
        wanted: The keyword arguments of each tracker, by its name. ``project`` and ``logging_dir``
            among them are what accelerate gives it first.
        config: The arguments of the run, without secrets, nested.
        directory: Where the run writes.
        pair_numbers: Tells what the last pass over probes has come to, by name.
        has_news: Whether the epoch that the run begins in has had such a pass already.
    """

    def __init__(
        self,
        wanted: Mapping[str, Mapping[str, Any]],
        config: Mapping[str, Any],
        directory: Path,
        pair_numbers: Callable[[], Mapping[str, float]] = dict,
        *,
        has_news: bool = False,
    ) -> None:
        self._wanted, self._config, self._directory = wanted, config, directory
        self._pair_numbers, self._has_news = pair_numbers, has_news
        self._trackers: dict[str, Any] = {}

    def begin(self, n_epochs_done: int) -> None:
        """Start the trackers, and tell them the arguments."""
        config = dict(_flat(self._config))
        for name, kwargs in self._wanted.items():
            with self._going_on(name):
                tracker = self._made(name, dict(kwargs), n_epochs_done)
                tracker.start()
                self._trackers[name] = tracker
                # Where a run is gone on with in the same place they are there already.
                if not (name == TENSORBOARD and n_epochs_done):
                    tracker.store_init_configuration(config)

    def _made(self, name: str, kwargs: dict[str, Any], n_epochs_done: int) -> Any:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        made = LOGGER_TYPE_TO_CLASS[name]
        project, directory = PROJECT, self._directory
        if name == TENSORBOARD:
            project, directory = "", self._directory / TENSORBOARD
            # What was logged after the checkpoint that the run goes on from counts no more.
            kwargs.setdefault("purge_step", n_epochs_done + 1 if n_epochs_done else None)
        if name in _RUN_NAMES:
            kwargs.setdefault(_RUN_NAMES[name], str(self._directory))
        places = [kwargs.pop("project", project)]
        directory = kwargs.pop("logging_dir", str(directory))
        if made.requires_logging_directory:
            places.append(directory)
        return made(*places, **kwargs)

    def pass_over(
        self, dataset_type: str, epoch: int, means: Mapping[str, float], mode: str | None = None
    ) -> None:
        """Tell what is measured before the training."""
        if epoch < 0:
            self._tell(0, _named(named_in_mode(dataset_type, mode), means))

    def probes_over(self, at: ProbePass) -> None:
        """Tell what the pass before the training has come to, and remember that there was one."""
        if at.is_first:
            self._tell(0, self._pair_numbers())
        else:
            self._has_news = True

    def epoch(self, result: EpochResult) -> None:
        """Tell what an epoch has come to."""
        by_name = result.by_mode or {"train": result.train, "validation": result.validation}
        values = {k: v for name, means in by_name.items() for k, v in _named(name, means).items()}
        if self._has_news:
            values |= self._pair_numbers()
            self._has_news = False
        if result.lr is not None:
            values["lr"] = result.lr
        self._tell(result.number + 1, values)

    def _tell(self, step: int, values: Mapping[str, float]) -> None:
        if not values:
            return
        for name, tracker in list(self._trackers.items()):
            with self._going_on(name):
                tracker.log({key: float(value) for key, value in values.items()}, step=step)

    def end(self) -> None:
        """Close the trackers."""
        for name, tracker in list(self._trackers.items()):
            with self._going_on(name):
                tracker.finish()
        self._trackers.clear()

    @contextmanager
    def _going_on(self, name: str) -> Iterator[None]:
        """Let a tracker do something; if it fails, leave it out from now on."""
        generators = generator_states()
        try:
            yield
        except (Exception, SystemExit) as error:
            self._trackers.pop(name, None)
            warn(
                f"{name} failed and gets no more data; the run continues. "
                f"{type(error).__name__}: {first_line(error)}"
            )
        finally:
            restore_generators(generators)


def _named(dataset_type: str, means: Mapping[str, float]) -> dict[str, float]:
    return {f"{dataset_type}/{name}": value for name, value in means.items()}


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names, as trackers take them: numbers, truth values and text."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{before}{name}", value
        elif value is not None and value != []:
            yield f"{before}{name}", str(value)
