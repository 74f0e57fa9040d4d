"""What losses are given, checked before anything is loaded."""

from __future__ import annotations

from typing import Any

from finetune_lm.arguments import DataTrainingArguments
from finetune_lm.errors import UserError


class ChecksItsOutputs:
    """A loss with a method that has the name of the early check, and is none: it needs a loss."""

    def __init__(self, model: Any, tokenizer: Any, scaleby: float = 1.0) -> None: ...

    def __call__(self, outputs: Any, labels: Any) -> Any: ...

    def check(self, outputs: Any) -> bool:
        return outputs is not None


class ChecksItsArguments(ChecksItsOutputs):
    @staticmethod
    def check(scaleby: float = 1.0) -> None:  # type: ignore[override]
        if scaleby < 0:
            raise UserError(f"scaleby cannot be negative but got {scaleby}.")


def problems_of(classes: list[Any], kwargs: dict[str, Any]) -> list[str]:
    args = DataTrainingArguments(
        train_file="train.txt.gz",
        validation_file="validation.txt.gz",
        loss_classes={"train": classes},
        loss_classes_kwargs={"train": kwargs},
    )
    return args.problems()


def test_a_method_called_check_is_no_early_check() -> None:
    assert problems_of([ChecksItsOutputs], {"ChecksItsOutputs": {"scaleby": -1.0}}) == []


def test_each_of_two_losses_of_a_class_is_checked_with_its_own() -> None:
    assert problems_of([ChecksItsArguments] * 2, {"ChecksItsArguments_2": {"scaleby": -1.0}}) == [
        "loss_classes_kwargs.train.ChecksItsArguments_2: scaleby cannot be negative but got -1.0."
    ]


def test_a_comma_is_told_before_a_loss_looks_at_the_value() -> None:
    assert problems_of([ChecksItsArguments], {"ChecksItsArguments": {"scaleby": "0,5"}}) == [
        "loss_classes_kwargs.train.ChecksItsArguments.scaleby must be a number but got '0,5' "
        "(text; the decimal sign is a point: 0.5)."
    ]
