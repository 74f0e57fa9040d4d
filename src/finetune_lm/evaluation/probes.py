"""Probes: what each of their tokens costs a model that is learning, which notices nothing of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.evaluation.evaluate import measured_surprisals
from finetune_lm.evaluation.splits import Split
from finetune_lm.randomness import PROBES, OwnRandomness, stream_seed
from finetune_lm.recording.recorder import BatchAt, ProbePass
from finetune_lm.runs.context import Run


@dataclass
class ProbeProgress:
    """Which passes over the probes a training has made, and how far the one under way has come.

    Attributes:
        n_files: How many files of the pass under way are done.
        n_examples: How many examples of the next one are, before preprocessing for each batch.
        n_batches: How many batches these made.
        n_passes: How many whole passes there were.
        last_epoch: The epoch of the last of them; None before the first.
        last_step: After how many updates it was made.
        seconds: How long all of it has taken.
    """

    n_files: int = 0
    n_examples: int = 0
    n_batches: int = 0
    n_passes: int = 0
    last_epoch: int | None = None
    last_step: int | None = None
    seconds: float = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether a pass has begun that is not finished."""
        return self.n_files > 0 or self.n_examples > 0

    @property
    def has_begun(self) -> bool:
        """Whether anything was measured yet."""
        return self.n_passes > 0 or self.is_under_way

    def end(self, at: ProbePass) -> None:
        """Take in that a pass is finished."""
        self.n_files = self.n_examples = self.n_batches = 0
        self.n_passes += 1
        self.last_epoch, self.last_step = at.epoch, at.step

    def state_dict(self) -> dict[str, Any]:
        """All of it in plain types."""
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, value in state.items():
            setattr(self, name, value)


def measure_probes(
    run: Run, splits: Sequence[Split], at: ProbePass, progress: ProbeProgress
) -> bool:
    """Tell those who listen what every token of all probes costs, or of those that are left.

    Nothing that the run does afterwards depends on it: the model's modules are in the modes in
    which they were, and random numbers go on from where they were. No callbacks are called. Masks
    that are drawn for each batch are the same ones in each pass, so that passes can be compared.

    Args:
        run: What is run, with those who listen.
        splits: The probes.
        at: Which pass it is.
        progress: How far it has come.

    Returns:
        Whether it was finished: it is left, after a batch, if a signal asks the run to stop.

    Raises:
        UserError: If a surprisal is not finite and that is to stop the run.
    """
    begun = time.monotonic()
    try:
        with _modes_kept({split.forward.model for split in splits}):
            for rest in range(progress.n_files, len(splits)):
                for _ in _measure_file(run, splits, at, progress):
                    if run.interruption.is_asked:
                        return False
                progress.n_files, progress.n_examples, progress.n_batches = rest + 1, 0, 0
    finally:
        progress.seconds += time.monotonic() - begun
    progress.end(at)
    run.recorders.probes_over(at)
    return True


def _measure_file(
    run: Run, splits: Sequence[Split], at: ProbePass, progress: ProbeProgress
) -> Iterator[None]:
    """Measure what is left of the file that is next; yields after each batch of its examples."""
    import numpy as np

    number = progress.n_files
    split, lengths = splits[number], [len(split.dataset) for split in splits]
    # In both modes of a model the same is drawn, and as in a run of one of them.
    file = sum(each.mode == split.mode for each in splits[:number])
    order: IntArray = np.arange(lengths[number])
    split.forward.forget()
    for begin in range(progress.n_examples, len(order), split.batch_size):
        part = order[begin : begin + split.batch_size]
        share = (sum(lengths[:number]) + begin + len(part)) / sum(lengths)
        # Random numbers of its own for each batch, so that a pass can be taken up at any of them.
        with OwnRandomness(stream_seed(run.args.seed, PROBES, file, begin)):
            for batch in split.dataset.batches(split.batch_size, part, bounded=True):
                where = BatchAt(split, batch, at.epoch, progress.n_batches, step=at.step)
                measured = measured_surprisals(run, where)
                progress.n_batches += 1
                run.recorders.probe(measured, at, share)
        progress.n_examples = begin + len(part)
        yield
    if at.is_first:
        split.warn_if_empty()


@contextmanager
def _modes_kept(models: Collection[Any]) -> Iterator[None]:
    """Inside, models are in eval mode; then each of their modules is in the one in which it was."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
