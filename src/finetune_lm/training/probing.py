"""When the probes of a training are due, and that the training goes on as if they had not been."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from finetune_lm.evaluation.probes import measure_probes
from finetune_lm.evaluation.splits import Split
from finetune_lm.recording.recorder import ProbePass
from finetune_lm.runs.context import Run
from finetune_lm.training.best_state import BestState
from finetune_lm.training.optimizer_modes import has_modes, set_mode
from finetune_lm.training.progress import BEFORE_TRAINING, Progress
from finetune_lm.training.step import Learner


class Probing:
    """Measures the probes of a training when they are due.

    A pass that a signal has interrupted is due until it is finished.

    Args:
        run: What is run, with those who listen.
        learner: What learns.
        probes: The data; there may be none.
        progress: Where the training is.
        stop_if_asked: Saves, and raises, if a signal asks the run to stop.
    """

    def __init__(
        self,
        run: Run,
        learner: Learner,
        probes: Sequence[Split],
        progress: Progress,
        stop_if_asked: Callable[[], object],
    ) -> None:
        self._run, self._learner, self._probes = run, learner, probes
        self._progress, self._stop_if_asked = progress, stop_if_asked

    def before_training(self) -> None:
        """Measure the probes before anything is learned."""
        if self._progress.probes.last_step is None:
            self._measure(BEFORE_TRAINING)

    def after_step(self) -> None:
        """Measure them in the middle of an epoch if there were enough updates."""
        every, progress = self._run.args.probe_every_steps, self._progress
        is_due = every is not None and progress.n_updates % every == 0
        if is_due and progress.probes.last_step != progress.n_updates:
            self._measure(progress.epoch, _as_judged(self._learner))

    def after_epoch(self) -> None:
        """Measure them after the training and the validation of an epoch if it is one of those."""
        args, epoch = self._run.args, self._progress.epoch
        is_due = args.probe_every_steps is None and (epoch + 1) % args.probe_every == 0
        if is_due and self._progress.probes.last_epoch != epoch:
            self._measure(epoch)

    def _measure(self, epoch: int, prepared: AbstractContextManager[object] | None = None) -> None:
        if not self._probes:
            return
        at = ProbePass(epoch, self._progress.n_updates)
        with prepared or nullcontext():
            measure_probes(self._run, self._probes, at, self._progress.probes)
        # Only now, since the weights that are saved are to be those that learn.
        self._stop_if_asked()


@contextmanager
def _as_judged(learner: Learner) -> Iterator[None]:
    """Inside, the model has the weights that it is judged by, if its optimizer has two sets."""
    if not has_modes(learner.optimizer):
        yield
        return
    # To the last bit, which the optimizer's own way back is not.
    learning = BestState(learner.model)
    learning.keep()
    set_mode(learner.optimizer, learner.callbacks, learning=False)
    try:
        yield
    finally:
        set_mode(learner.optimizer, learner.callbacks, learning=True)
        learning.restore()
