"""A model and what makes it learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments, ModelArguments
from finetune_lm.arguments.references import check_call, short_name
from finetune_lm.errors import UserError
from finetune_lm.models.loading import LoadedModel

if TYPE_CHECKING:
    import accelerate
    import torch

Callback = Callable[[int, int], object]


@dataclass(frozen=True)
class Learner:
    """A model and what makes it learn.

    Attributes:
        model: The model.
        optimizer: Updates its parameters.
        accelerator: Says on which device and in which precision.
        callbacks: Called with epoch and batch when gradients are there and before each update.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    accelerator: accelerate.Accelerator
    callbacks: Sequence[Callback] = ()


def make_learner(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    loaded: LoadedModel,
    accelerator: accelerate.Accelerator,
) -> Learner:
    """Make the optimizer and the callbacks that the arguments name.

    Raises:
        UserError: If one of them does not accept what is given for it.
    """
    optimizer = make_optimizer(data_args, loaded.model)
    model, optimizer = accelerator.prepare(loaded.model, optimizer)
    callbacks = []
    for cls in model_args.model_pre_train_step_callbacks:
        kwargs = model_args.model_pre_train_step_callbacks_kwargs.get(short_name(cls), {})
        check_call(cls, "model_pre_train_step_callbacks_kwargs", kwargs, "model, tokenizer")
        callbacks.append(cls(loaded.model, loaded.tokenizer, **kwargs))
    return Learner(model, optimizer, accelerator, callbacks)


def make_optimizer(args: DataTrainingArguments, model: Any) -> torch.optim.Optimizer:
    """The optimizer that the arguments name, over all parameters of the model.

    Raises:
        UserError: If it does not accept the arguments given for it.
    """
    import torch

    kwargs = args.optimizer_kwargs()
    try:
        optimizer = args.train_optimizer(params=model.parameters(), **kwargs)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
        raise UserError(
            f"train_optimizer {short_name(args.train_optimizer)} does not take what "
            f"train_optimizer_kwargs gives ({given}): {error}. "
            f"A default is taken away by __delete_field__."
        ) from None
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        raise UserError(
            f"train_optimizer must be an optimizer like torch.optim.AdamW, whose step needs only "
            f"gradients, but is {short_name(args.train_optimizer)}."
        )
    return optimizer
