"""How a run learns: how long, by which optimizer and schedule, from which losses."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.declared import MAY_BE_RAISED, Affects, option
from finetune_lm.arguments.optimizer_settings import PARAMS
from finetune_lm.arguments.references import default_object
from finetune_lm.constants import BY_LOSS, LOSS_DATASET_TYPES


@dataclass(repr=False)
class LearningArguments(Arguments):
    """The epochs, the optimizer, its schedule, and the losses."""

    epochs: int = option(
        250,
        "Maximum number of passes through the training data.",
        affects=Affects.LEARNING,
        on_resume=MAY_BE_RAISED,
    )
    min_epochs: int = option(
        0, "Minimum number of epochs before early stopping.", affects=Affects.LEARNING
    )
    patience: int | None = option(
        None,
        "Stop after N epochs without an improvement.",
        affects=Affects.LEARNING,
        on_resume=MAY_BE_RAISED,
        default_text="no early stopping",
    )
    delta: float = option(
        0.0,
        "Minimum change that counts as an improvement.",
        affects=Affects.LEARNING,
    )
    select_by: str = option(
        BY_LOSS,
        "The number from the validation data that chooses the best epoch and counts for "
        "patience. loss: the validation loss, lower is better. pair_accuracy: the share of pairs "
        "whose expected sentence is likelier; pair_difference: by how many bits on average; "
        "higher is better.",
        affects=Affects.LEARNING,
    )
    train_optimizer: Callable[..., Any] = field(
        default_factory=lambda: default_object("torch.optim.AdamW"),
        metadata={
            "help": "The optimizer's class, called with params and its kwargs.",
            "affects": Affects.LEARNING,
        },
    )
    train_optimizer_kwargs: dict[str, Any] = option(
        {"lr": 2e-6, "weight_decay": 0},
        "Keyword arguments for the optimizer. Those not given keep their defaults; "
        "__delete_field__ removes a default. Example: --train_optimizer_kwargs.lr 1e-4",
        affects=Affects.LEARNING,
    )
    train_optimizer_groups: dict[str, Annotated[dict[str, Any], {PARAMS: list[str]}]] = option(
        {},
        "Parameter groups with settings of their own, each under a name that you choose. params: "
        "names of the model's parameters (* matches any text); the rest overrides "
        "train_optimizer_kwargs. A group with optimizer, a class, gets an optimizer of its own "
        "with only its own kwargs. Example: --train_optimizer_groups.no_decay.params '*.bias' "
        "--train_optimizer_groups.no_decay.weight_decay 0",
        affects=Affects.LEARNING,
    )
    gradient_accumulation_steps: int = option(
        1,
        "Update the weights once every N batches, with the gradient of one batch of all their "
        "examples.",
        affects=Affects.LEARNING,
    )
    max_grad_norm: float | None = option(
        None,
        "Clip gradients to this norm.",
        affects=Affects.LEARNING,
        default_text="no clipping",
    )
    lr_scheduler: str | Callable[..., Any] | None = option(
        None,
        "How the learning rate changes from step to step: a name from transformers (linear, "
        "cosine, constant_with_warmup, reduce_lr_on_plateau and others), or a class called with "
        "the optimizer and its kwargs, such as torch.optim.lr_scheduler.StepLR.",
        affects=Affects.LEARNING,
        default_text="a constant learning rate",
    )
    lr_scheduler_kwargs: dict[str, Any] = option(
        {},
        "Keyword arguments for the schedule. num_training_steps, total_steps and T_max are the "
        "run's length in steps unless given; num_warmup_steps is 0, or warmup_ratio times that. "
        "Example: --lr_scheduler_kwargs.warmup_ratio 0.1",
        affects=Affects.LEARNING,
    )
    loss_classes: dict[str, list[Callable[..., Any]]] = option(
        {key: [default_object("loss_classes.OutputsDefaultLoss")] for key in LOSS_DATASET_TYPES},
        "The losses to compute. Each class is made with model, tokenizer and its kwargs, and "
        "called with outputs and labels. Example: --loss_classes.train "
        "loss_classes.OutputsDefaultLoss my_module.MyLoss",
        affects=Affects.LEARNING,
        keys=LOSS_DATASET_TYPES,
    )
    loss_reduction_fns: dict[str, Callable[..., Any]] = option(
        {key: default_object("torch.sum") for key in LOSS_DATASET_TYPES},
        "The function that combines several losses into one. Its parameters without defaults "
        "decide how it is called: one parameter for a tensor of all losses, or one for each "
        "loss, or *losses.",
        affects=Affects.LEARNING,
        keys=LOSS_DATASET_TYPES,
    )
    loss_classes_kwargs: dict[str, dict[str, dict[str, Any]]] = option(
        {key: {} for key in LOSS_DATASET_TYPES},
        "Keyword arguments for the losses, under each class's name. Example: "
        "--loss_classes_kwargs.train.MyLoss.scaleby 2.5",
        affects=Affects.LEARNING,
        keys=LOSS_DATASET_TYPES,
        fill=True,
    )
