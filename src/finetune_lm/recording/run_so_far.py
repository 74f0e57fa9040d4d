"""What a run has come to so far, for callbacks that ask for ``run``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from finetune_lm.errors import UserError
from finetune_lm.recording.recorder import Measured, Recorder, named_in_mode

if TYPE_CHECKING:
    import pandas as pd

    from finetune_lm.arguments import DataTrainingArguments
    from finetune_lm.models.loading import LoadedModel


class RunSoFar(Recorder):
    """What a run has come to so far: what a callback gets whose constructor has a ``run``.

    Args:
        loaded: The model.
        args: The arguments for data and training.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        args: The arguments for data and training; in a study those of the trial.
        means: The mean of each loss when the training and the validation data were last gone
            through, by ``train`` and ``validation`` and then by column. Empty before that. Of a
            model in two modes, by ``train_lm``, ``validation_mlm`` and so on.
        is_asked_for: Whether a callback looks at it, so that it is kept at all.
        latest: What came of the batch that was just measured; None before a batch is measured, and
            outside of one.

    Example:
        >>> class Losses(ModelCallback):  # doctest: +SKIP
        ...     def __init__(self, model, tokenizer, run):
        ...         super().__init__(model, tokenizer)
        ...         self.run = run
        ...     def __call__(self, epoch, batch):
        ...         print(self.run.step, self.run.losses)
    """

    def __init__(self, loaded: LoadedModel, args: DataTrainingArguments) -> None:
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.args = args
        self.means: dict[str, dict[str, float]] = {}
        self._modes = {each.mode: each.learns for each in loaded.modes}
        self._mode = loaded.mode
        self.is_asked_for = False
        self.latest: Measured | None = None
        self._n_updates: Callable[[], int] = int

    @property
    def mode(self) -> str | None:
        """The mode in which the model learns from the next batch, ``lm`` or ``mlm``; may be set.

        At ``pre_train_batch`` that is the batch of which callbacks are told. None of a model that
        has one mode.
        """
        return self._mode

    @mode.setter
    def mode(self, mode: str | None) -> None:
        if self._modes.get(mode):
            self._mode = mode
            return
        if mode in self._modes:
            raise UserError(
                f"a callback has set the mode of the training to {mode}, but no callback class "
                f"says that modes alternate: alternates_modes = True in its body."
            )
        wanted = " or ".join(map(str, self._modes))
        raise UserError(
            f"a callback has set the mode of the training to {mode!r}, but it must be {wanted}"
            f"{'' if self._modes.keys() != {None} else ' without --model_task lm+mlm'}."
        )

    @property
    def step(self) -> int:
        """How many updates of the weights were made; at ``post_train_step`` with the one made."""
        return self._n_updates()

    @property
    def losses(self) -> dict[str, float] | None:
        """The losses of the batch that was just measured, by column.

        None where there is no such batch, or nothing in it is to be predicted.
        """
        latest = self.latest
        return None if latest is None or latest.losses is None else dict(latest.losses)

    @property
    def lr(self) -> float | None:
        """The learning rate of the update that this batch leads to; None if it leads to none."""
        return None if self.latest is None else self.latest.lr

    @property
    def rows(self) -> pd.DataFrame | None:
        """The rows of this batch, as they are in the table. They are made when they are asked for.

        None where there is no such batch, and in a study, whose trials have no tables.
        """
        if self.latest is None or (maker := self.latest.split.rows) is None:
            return None
        table: pd.DataFrame = self.latest.rows.select(maker.run.names()).to_pandas()
        return table

    def count_updates(self, n_updates: Callable[[], int]) -> None:
        """Let the steps be counted by this function from now on."""
        self._n_updates = n_updates

    def batch(self, measured: Measured) -> None:
        """A batch was measured."""
        if self.is_asked_for:
            self.latest = measured

    def pass_over(
        self, dataset_type: str, epoch: int, means: Mapping[str, float], mode: str | None = None
    ) -> None:
        """Data were gone through."""
        self.latest = None
        self.means[named_in_mode(dataset_type, mode)] = dict(means)

    def state_dict(self) -> dict[str, Any]:
        """What does not come again when a run is gone on with."""
        return {"means": self.means, "mode": self._mode}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.means = {name: dict(means) for name, means in state["means"].items()}
        self._mode = state["mode"]
