"""Freeze parameters, and entries of parameters, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from finetune_lm.errors import UserError
from finetune_lm.model_modifiers._freezing import FreezingCallback
from finetune_lm.model_modifiers._parameters import checked_patterns, find_all


class PartiallyFrozenModelCallback(FreezingCallback):
    """Train only a part of a model: the rest stays as it is, to the last bit.

    Names are those of ``model.named_parameters()``. ``*`` in a name stands for any text, dots
    included, and ``?`` for one character. An index behind a name means some entries of it, as in
    numpy: ``name[5]``, ``name[-1]``, ``name[0:100]``, ``name[3,:]``, ``name[:,2]``,
    ``name[...,0]``; ``name[(1,5,9)]`` means the rows 1, 5 and 9. A parameter that is tied to others
    answers to all of its names. Patterns may overlap.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        frozen_params: What to freeze, one name or several. Everything else is trained.
        unfrozen_params: What to train, instead. Everything else is frozen.

    Raises:
        UserError: If neither or both are given, a name matches no parameter, an index is out of
            range or means nothing, or nothing is left to train.

    Example:
        >>> callback = PartiallyFrozenModelCallback(
        ...     model, tokenizer, frozen_params=["transformer.wte.weight[0:100]", "*.bias"]
        ... )  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        frozen_params: str | Sequence[str] | None = None,
        unfrozen_params: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(model, tokenizer)
        self.check(frozen_params, unfrozen_params)
        if frozen_params is not None:
            patterns = checked_patterns(frozen_params, "frozen_params")
            self.freeze(find_all(model, patterns, "frozen_params"))
        else:
            patterns = checked_patterns(unfrozen_params, "unfrozen_params")
            self.freeze_all_but(find_all(model, patterns, "unfrozen_params"))

    @staticmethod
    def check(frozen_params: Any = None, unfrozen_params: Any = None) -> None:
        """See that one of the two is given, and that its names can be read.

        Raises:
            UserError: If not.
        """
        given = {
            name: value
            for name, value in (
                ("frozen_params", frozen_params),
                ("unfrozen_params", unfrozen_params),
            )
            if value is not None
        }
        if len(given) != 1:
            raise UserError(
                "either frozen_params or unfrozen_params must be given but got "
                f"{'both' if given else 'neither'}."
            )
        for name, value in given.items():
            checked_patterns(value, name)
