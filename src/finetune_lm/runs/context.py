"""What a run has, made once and handed on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from finetune_lm.constants import SKIP
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.ranks import World, world
from finetune_lm.recording.recorder import Recorder, Recorders
from finetune_lm.recording.run_so_far import RunSoFar
from finetune_lm.runs.interruption import Interruption

if TYPE_CHECKING:
    import accelerate
    import torch

    from finetune_lm.arguments import DataTrainingArguments
    from finetune_lm.models.loading import LoadedModel
    from finetune_lm.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Run:
    """What a run has. Who needs only a part of it is given the part.

    Attributes:
        args: The arguments for data and training.
        loaded: The model.
        accelerator: Says on which device and in which precision.
        callbacks: Act at the points of the run.
        interruption: Says after each step, or batch that is not learned from, whether to stop.
        checkpoints: Where the state of the training is saved, and found again.
        so_far: What callbacks see of it.
        recorders: Listen to the training.
        world: The processes that do the run together.
    """

    args: DataTrainingArguments
    loaded: LoadedModel
    accelerator: accelerate.Accelerator
    callbacks: Callbacks
    interruption: Interruption
    checkpoints: Checkpoints
    so_far: RunSoFar
    recorders: Recorders = field(default_factory=Recorders)
    world: World = field(default_factory=world)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.accelerator.device
        return device

    @cached_property
    def waits_for_numbers(self) -> bool:
        """Whether the numbers of each batch are to be known before it is learned from.

        If not, a GPU computes on meanwhile.
        """
        is_asked = self.args.on_nan == SKIP or self.so_far.is_asked_for
        return is_asked or self.device.type != "cuda"

    def with_recorders(self, *recorders: Recorder) -> Run:
        """The same with others who listen."""
        return replace(self, recorders=Recorders(*recorders))
