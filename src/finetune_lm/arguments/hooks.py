"""The points of a run at which callbacks are called: the one table of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Hook(NamedTuple):
    """A point of a run.

    Attributes:
        when: When callbacks are called there, in a sentence.
        has_epoch: Whether they are told an epoch; else it is None.
        has_batch: Whether they are told a batch; else it is None.
        is_of_testing: Whether it is a point of the evaluation of test sets, which a run without
            training has as well.
    """

    when: str
    has_epoch: bool = True
    has_batch: bool = False
    is_of_testing: bool = False


PRE_TRAIN_STEP = "pre_train_step"
"""The point of `model_pre_train_step_callbacks`."""

HOOKS: Mapping[str, Hook] = MappingProxyType(
    {
        "pre_training": Hook(
            "Once, before anything is learned or measured, also before eval_before_training.",
            has_epoch=False,
        ),
        "begin_epoch": Hook("Before the first training batch of an epoch."),
        "pre_train_batch": Hook("Before the model is fed a training batch.", has_batch=True),
        PRE_TRAIN_STEP: Hook(
            "When the gradients are there and before the optimizer uses them: once for several "
            "batches with gradient_accumulation_steps.",
            has_batch=True,
        ),
        "post_train_step": Hook(
            "Right after the optimizer's step; the gradients it used are still there.",
            has_batch=True,
        ),
        "post_train_batch": Hook(
            "When the rows of a training batch are recorded, also of one without anything to "
            "predict, which has no step.",
            has_batch=True,
        ),
        "pre_validation": Hook(
            "Before the validation data is gone through; in epoch -1 for eval_before_training."
        ),
        "pre_validation_batch": Hook("Before the model is fed a validation batch.", has_batch=True),
        "post_validation_batch": Hook(
            "When the rows of a validation batch are recorded.", has_batch=True
        ),
        "end_epoch": Hook(
            "After the training and the validation of an epoch, when its model is kept if it is "
            "the best so far."
        ),
        "post_training": Hook(
            "Once, after the last epoch and before the model gets its best weights back; not in a "
            "run that was interrupted.",
            has_epoch=False,
        ),
        "pre_test": Hook(
            "Once, before the first test set. The model has its best weights, and the epoch is "
            "theirs; None if nothing was trained.",
            is_of_testing=True,
        ),
        "pre_test_dataset": Hook("Before each test set.", is_of_testing=True),
        "pre_test_batch": Hook(
            "Before the model is fed a test batch.", has_batch=True, is_of_testing=True
        ),
        "post_test_batch": Hook(
            "When the rows of a test batch are recorded.", has_batch=True, is_of_testing=True
        ),
        "post_test_dataset": Hook("After each test set.", is_of_testing=True),
    }
)
"""All points by name, in the order in which a run comes to them."""
