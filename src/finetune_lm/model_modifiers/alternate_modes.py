"""Train a model that is causal and masked in one in both of its modes, in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from finetune_lm.constants import MODES
from finetune_lm.errors import UserError
from finetune_lm.model_modifiers.model_callback import ModelCallback

if TYPE_CHECKING:
    from finetune_lm.recording.run_so_far import RunSoFar


class AlternateModes(ModelCallback):
    """Change the mode of the training after some batches, or after some epochs.

    Named at ``pre_train_batch`` it counts batches, over epochs; at ``begin_epoch`` it counts
    epochs. It needs ``--model_task lm+mlm``.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        run: What the run has come to.
        every: After how many batches or epochs the mode changes. A mapping gives each mode its own
            number, as GPT-BERT learned from more masked than causal batches.
        start: The mode in which it begins; by default ``train_mode``.

    Example:
        >>> # finetune-lm ... --model_task lm+mlm
        >>> #     --model_callbacks.pre_train_batch model_modifiers.AlternateModes
        >>> #     --model_callbacks_kwargs.pre_train_batch.AlternateModes.every.mlm 15
    """

    hook_points = ("begin_epoch", "pre_train_batch")
    draws_random_numbers = False
    alternates_modes: ClassVar[bool] = True
    """That says to a run that the model learns in both modes."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        run: RunSoFar,
        every: int | Mapping[str, int] = 1,
        start: str | None = None,
    ) -> None:
        super().__init__(model, tokenizer)
        if run.mode is None:
            raise UserError("AlternateModes needs a model in two modes: --model_task lm+mlm.")
        self._run = run
        first = start or run.mode
        given = every if isinstance(every, Mapping) else dict.fromkeys(MODES, every)
        # The turns of one round, one mode after the other.
        order = sorted(MODES, key=lambda mode: mode != first)
        self._round = [mode for mode in order for _ in range(given.get(mode, 1))]
        self._n_calls = 0

    @staticmethod
    def check(every: Any = 1, start: Any = None) -> None:
        """See that the numbers and the mode will do.

        Raises:
            UserError: If not.
        """
        if start is not None and start not in MODES:
            raise UserError(f"start must be {' or '.join(MODES)} but got {start!r}.")
        given = every if isinstance(every, Mapping) else {"": every}
        if isinstance(every, Mapping) and (unknown := [k for k in every if k not in MODES]):
            raise UserError(f"every must have a number for lm or mlm but has {unknown[0]!r}.")
        for mode, number in given.items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 1:
                name = f"every.{mode}" if mode else "every"
                raise UserError(f"{name} must be a whole number of at least 1 but got {number!r}.")

    def __call__(self, epoch: int | None, batch: int | None) -> None:
        """Set the mode of the next batch or epoch."""
        self._run.mode = self._round[self._n_calls % len(self._round)]
        self._n_calls += 1

    def state_dict(self) -> dict[str, Any]:
        """How often it was called."""
        return {"n_calls": self._n_calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._n_calls = state["n_calls"]
