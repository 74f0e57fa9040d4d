"""All that changes while a model learns: taken for a checkpoint, and put back from one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from finetune_lm.data.fingerprints import data_fingerprint
from finetune_lm.errors import UserError, users_code
from finetune_lm.evaluation.splits import Split, TrainingSplits
from finetune_lm.models.sharding import split_state, whole_of
from finetune_lm.randomness import generator_states, restore_generators
from finetune_lm.ranks import world
from finetune_lm.training.best_state import BestState, put_weights, weights_of
from finetune_lm.training.checkpoints import BEGINNING, TRAINED, TRAINING, Checkpoints, Saved
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.optimizer_modes import set_mode
from finetune_lm.training.progress import Progress

if TYPE_CHECKING:
    from finetune_lm.training.step import Learner


@dataclass
class TrainingState:
    """All that changes while a model learns.

    Attributes:
        model: The model.
        stopping: Judges the validation losses.
        best: Keeps the best weights; None if they are not wanted.
        progress: Where the training is.
        recorders: Those who listen and have something to go on from, by name.
        parts: What else has a state, by name: the optimizer, losses, callbacks. Each has
            ``state_dict`` and ``load_state_dict``.
        origin: What tells whether a later process feeds the model the same.
        is_over: Whether nothing is left to be learned.
        at_end: What a checkpoint keeps of its end, once it has come to it.
    """

    model: Any
    stopping: EarlyStopping
    best: BestState | None
    progress: Progress
    recorders: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    is_over: bool = False
    at_end: Saved | None = None

    def capture(self) -> Saved:
        """What a checkpoint keeps. Weights and optimizer are not copied."""
        parts = {}
        for name, part in self.parts.items():
            with users_code(f"the state of {name}"):
                parts[name] = whole_of(part.state_dict())
        return Saved(
            TRAINING,
            str(self.progress),
            {**self._common(), "parts": parts},
            weights=whole_of(weights_of(self.model)),
            best=self.best.weights() if self.best is not None else None,
            best_epoch=self.stopping.best_epoch,
        )

    def capture_trained(self) -> Saved:
        """What a checkpoint keeps when the training is over and only testing is ahead."""
        return Saved(
            TRAINED,
            "the end of the training",
            self._common(),
            best=self.best.weights() if self.best is not None else None,
            best_epoch=self.stopping.best_epoch,
        )

    def save_end(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint of its end, where `training_on_record` has written none."""
        if self.at_end is not None and not checkpoints.are_kept:
            checkpoints.write(self.at_end)

    def capture_origin(self) -> Saved:
        """What a checkpoint keeps before the first step: all else follows from the arguments."""
        return Saved(BEGINNING, "the beginning", {"origin": self.origin})

    def facts(self) -> dict[str, Any]:
        """What is put on record of it."""
        progress, stopping = self.progress, self.stopping
        probes = progress.probes
        measured = {"passes": probes.n_passes, "seconds": round(probes.seconds, 3)}
        return {
            **({"probes": measured} if probes.has_begun else {}),
            "epochs": stopping.n_epochs,
            **stopping.facts(),
            "skipped_steps": progress.n_skipped,
            "unjudged_epochs": progress.n_unjudged,
        }

    def _common(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "progress": self.progress.state_dict(),
            "stopping": self.stopping.state_dict(),
            "recorders": {name: each.state_dict() for name, each in self.recorders.items()},
            "generators": generator_states(),
            "ranks": world().state_dict(),
        }

    def restore(self, saved: Saved) -> None:
        """Go back to where a checkpoint was made. A table is taken up when it is opened."""
        state = saved.state
        if saved.kind == BEGINNING:
            return
        self.is_over = saved.kind == TRAINED
        self.progress.load_state_dict(state["progress"])
        self.stopping.load_state_dict(state["stopping"])
        for name, recorder in self.recorders.items():
            if hasattr(recorder, "load_state_dict"):
                recorder.load_state_dict(state["recorders"][name])
        if saved.best is not None:
            assert self.best is not None
            self.best.load(saved.best)
        if saved.kind == TRAINING:
            # First, since it may move weights.
            set_mode(
                self.parts["optimizer"],
                self.parts["callbacks"],
                learning=self.progress.is_learning,
            )
        if saved.weights is not None:
            put_weights(self.model, saved.weights)
        if saved.kind == TRAINING:
            if self.parts.keys() != state["parts"].keys():
                raise UserError(
                    "a checkpoint must have the states of what this run has, but has those of "
                    f"{', '.join(state['parts'])}, and the run has {', '.join(self.parts)}."
                )
            for name, part in self.parts.items():
                kept = state["parts"][name]
                if name == "optimizer":
                    kept = split_state(kept, getattr(part, "optimizer", part))
                with users_code(f"the state of {name}"):
                    part.load_state_dict(kept)
        # Last, since making or loading something may draw random numbers.
        restore_generators(state["generators"])
        world().load_state_dict(state["ranks"])


def parts_with_state(learner: Learner, *splits: Split) -> dict[str, Any]:
    """What has a state beside the weights, by name.

    Losses and callbacks take part if they have ``state_dict`` and ``load_state_dict``.

    Args:
        learner: Its optimizer and callbacks are among them.
        *splits: Their losses are among them.
    """
    parts: dict[str, Any] = {
        "optimizer": learner.optimizer,
        "scaler": learner.accelerator.scaler,
        "schedule": learner.schedule,
        "callbacks": learner.callbacks,
    }
    for split in splits:
        if split.losses is not None:
            for name, loss in split.losses.by_name().items():
                parts[f"{split.name} loss {name}"] = loss
    return {
        name: part
        for name, part in parts.items()
        if callable(getattr(part, "state_dict", None))
        and callable(getattr(part, "load_state_dict", None))
    }


def fingerprints_of(splits: TrainingSplits) -> dict[str, Any]:
    """What tells whether a later process feeds the model the same."""
    return {name: data_fingerprint(split.dataset) for name, split in splits.by_name().items()}


def check_fingerprints(earlier: Mapping[str, Any], splits: TrainingSplits) -> None:
    """See that a process feeds the model what an earlier one did.

    Raises:
        UserError: If not.
    """
    for name, split in splits.by_name().items():
        if earlier[name] != data_fingerprint(split.dataset):
            raise UserError(
                f"{split.dataset.path} must give the tokens that it gave when the run began, but "
                f"gives others. Its tokenizer has changed, or its preprocessing does not follow "
                f"from the seed."
            )
