"""Which model is fine-tuned, and what is done to it before and during training."""

# ruff: noqa: RUF009 - option() makes a field() with its help text

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.calls import kwargs_problems
from finetune_lm.arguments.checking import choice_problem
from finetune_lm.arguments.declared import Affects, option
from finetune_lm.arguments.given_functions import modifier_problems
from finetune_lm.arguments.hooks import (
    HOOKS,
    PRE_TRAIN_STEP,
    CallbackEntry,
    CallbackRow,
    alternates_modes,
    callback_problems,
)
from finetune_lm.arguments.references import short_name
from finetune_lm.constants import (
    BUILTIN_MODELS,
    LM,
    LM_MLM,
    MODES,
    PRECISIONS,
    SELECT_MODES,
    TASK_NAMES,
)


def _letters(name: str) -> str:
    return re.sub(r"[-_ .]", "", name.lower())


@dataclass(repr=False)
class ModelArguments(Arguments):
    """The model, its tokenizer, and what changes them.

    Example:
        >>> args = ModelArguments(model_name_or_path="gpt2", use_gpu=True)
        >>> args.tokenizer_name
        'gpt2'
    """

    model_name_or_path: str = field(
        metadata={
            "help": "The model to fine-tune: a name on the Hugging Face Hub, or a directory that "
            "holds a saved model. A pattern of directories such as 'checkpoints/*' is a series, "
            "each of which is tested.",
            "affects": Affects.INPUTS,
        }
    )
    config_name: str | None = option(
        None,
        "A configuration from another place than the model's.",
        affects=Affects.INPUTS,
        default_text="model_name_or_path",
    )
    cache_dir: str | None = option(
        None,
        "Where downloaded models are kept.",
        affects=Affects.NOTHING,
        default_text="Hugging Face's own cache directory",
    )
    tokenizer_name: str | None = option(
        None,
        "A tokenizer from another place than the model's.",
        affects=Affects.INPUTS,
        default_text="model_name_or_path",
    )
    use_fast_tokenizer: bool = option(
        True,
        "Prefer the tokenizer written in Rust, which also knows the character offsets of every "
        "token.",
        affects=Affects.INPUTS,
    )
    model_revision: str | list[str] = option(
        "main",
        "Branch, tag or commit of the model on the Hub. It is always text, even 1234. Several, or "
        "a pattern such as 'step*', are a series of checkpoints, each of which is tested.",
        affects=Affects.INPUTS,
    )
    drop_cache: bool = option(
        False,
        "Delete each revision of a series from the Hub's cache after it has been tested.",
        affects=Affects.NOTHING,
    )
    token: bool | str | None = field(
        default=False,
        repr=False,
        metadata={
            "help": "Hugging Face access token for private and gated models: the token, or a "
            "file that holds it; True uses the one of `hf auth login`. It is never "
            "written anywhere.",
            "affects": Affects.NOTHING,
        },
    )
    trust_remote_code: bool = option(
        False,
        "Run Python code that comes with the model, the tokenizer or the configuration. It can do "
        "on this machine whatever you can: read it first.",
        affects=Affects.INPUTS,
    )
    use_gpu: bool = option(False, "Run on the GPU.", affects=Affects.RECORD)
    precision: str = option(
        "fp32",
        "Precision of the computation; weights stay in float32, and so does the computation of "
        "surprisals. bf16: most of the model in bfloat16. fp16: in float16, with loss scaling "
        "(CUDA only). tf32: matrix products in TF32 (CUDA only).",
        affects=Affects.LEARNING,
    )
    gradient_checkpointing: bool = option(
        False,
        "Recompute activations in the backward pass instead of keeping them: less memory, more "
        "time, the same numbers.",
        affects=Affects.LEARNING,
    )
    fsdp: bool = option(
        False,
        "Split weights, gradients and optimizer states among the processes of a launch (FSDP2), "
        "for a model that is too large for one device. fast then has no effect.",
        affects=Affects.LEARNING,
    )
    compile: bool = option(
        False,
        "Compile the model with torch.compile. fast then has no effect.",
        affects=Affects.LEARNING,
    )
    compile_kwargs: dict[str, Any] = option(
        {},
        "Keyword arguments for torch.compile. Example: --compile_kwargs.mode reduce-overhead",
        affects=Affects.LEARNING,
    )
    model_task: str | None = option(
        None,
        "What the model does: lm predicts the next token, mlm fills masks, mntp fills masks by the "
        "output before each (GPT-BERT's masked mode), seq2seq turns one text into another; "
        "lm+mlm is both modes of a GPT-BERT in one run. Needed only if the kind of the model "
        "cannot be found out, or if it has two modes.",
        affects=Affects.INPUTS,
        default_text="found from the model",
    )
    train_mode: str | None = option(
        None,
        "With --model_task lm+mlm, the mode in which the model is trained, lm or mlm. It is "
        "validated, probed and tested in both. model_modifiers.AlternateModes trains in both.",
        affects=Affects.LEARNING,
        default_text="lm",
    )
    select_mode: str | None = option(
        None,
        "With --model_task lm+mlm, the mode whose validation chooses the best epoch and counts "
        "for patience: lm, mlm, or lm+mlm for the mean of both.",
        affects=Affects.LEARNING,
        default_text="train_mode, or lm+mlm with AlternateModes",
    )
    model_modifier_fns: list[Callable[..., Any]] = option(
        [],
        "Functions that change the model once, before training, in the order given. Each is "
        "called with model, tokenizer and its kwargs. Examples: model_modifiers.add_new_tokens, "
        "my_module.my_function",
        affects=Affects.INPUTS,
    )
    model_modifier_fn_kwargs: dict[str, dict[str, Any]] = option(
        {},
        "Keyword arguments for the modifier functions, under each function's name. Example: "
        "--model_modifier_fn_kwargs.add_new_tokens.added_tokens blick dax",
        affects=Affects.INPUTS,
    )
    model_pre_train_step_callbacks: list[Callable[..., Any]] = option(
        [],
        "Classes whose instances are called at each step, after the backward pass and before the "
        "optimizer's step. Each is made with model, tokenizer and its kwargs, and called with "
        "epoch and batch. They come before those of model_callbacks.pre_train_step. Example: "
        "model_modifiers.UnfreezeWordTokensCallback",
        affects=Affects.LEARNING,
    )
    model_pre_train_step_callbacks_kwargs: dict[str, dict[str, Any]] = option(
        {},
        "Keyword arguments for these callbacks, under each class's name. Example: "
        "--model_pre_train_step_callbacks_kwargs.UnfreezeWordTokensCallback.words_to_unfreeze dax",
        affects=Affects.LEARNING,
    )
    model_callbacks: dict[str, list[Callable[..., Any]]] = option(
        {},
        "Classes whose instances are called at points of a run, made and called in the same way. "
        "If there is no epoch or batch, they get None. Example: --model_callbacks.end_epoch "
        "my_module.MyCallback. The points, in the order of a run:",
        affects=Affects.LEARNING,
        keys=tuple(HOOKS),
        about_keys={name: hook.when for name, hook in HOOKS.items()},
    )
    model_callbacks_kwargs: dict[str, dict[str, dict[str, Any]]] = option(
        {},
        "Keyword arguments for model_callbacks, under the point and each class's name. Example: "
        "--model_callbacks_kwargs.end_epoch.MyCallback.words blick dax",
        affects=Affects.LEARNING,
        keys=tuple(HOOKS),
    )
    model_kwargs: dict[str, Any] = option(
        {}, "Further keyword arguments for the model's from_pretrained.", affects=Affects.INPUTS
    )
    tokenizer_kwargs: dict[str, Any] = option(
        {}, "Further keyword arguments for the tokenizer's from_pretrained.", affects=Affects.INPUTS
    )
    config_kwargs: dict[str, Any] = option(
        {},
        "Further keyword arguments for the configuration's from_pretrained, such as "
        "--config_kwargs.hidden_dropout_prob 0",
        affects=Affects.INPUTS,
    )

    def _finish(self) -> None:
        """Let configuration and tokenizer come from the model unless they are named."""
        if self.config_name is None:
            self.config_name = self.model_name_or_path
        if self.tokenizer_name is None:
            self.tokenizer_name = self.model_name_or_path
        if isinstance(self.model_revision, list) and len(self.model_revision) == 1:
            [self.model_revision] = self.model_revision

    def _range_problems(self) -> list[str]:
        problems: list[str] = []
        if not self.model_name_or_path.strip():
            problems.append("model_name_or_path cannot be empty.")
        problems += self._builtin_problems()
        problems += [
            f"{name} cannot have a NUL character in it."
            for name in ("model_name_or_path", "config_name", "tokenizer_name")
            if "\0" in (getattr(self, name) or "")
        ]
        if self.model_task is not None:
            problems += choice_problem("model_task", self.model_task, TASK_NAMES)
        problems += self._mode_problems()
        problems += choice_problem("precision", self.precision, PRECISIONS)
        if self.fsdp and self.compile:
            problems.append("fsdp cannot be given with compile. Leave out one of them.")
        if self.compile_kwargs and not self.compile:
            problems += [
                f"compile_kwargs.{key} has no use without --compile." for key in self.compile_kwargs
            ]
        return problems + kwargs_problems(
            "model_modifier_fn_kwargs",
            self.model_modifier_fn_kwargs,
            "model_modifier_fns",
            self.model_modifier_fns,
        )

    @property
    def has_two_modes(self) -> bool:
        """Whether the run is of both modes of a model."""
        return self.model_task == LM_MLM

    @property
    def first_mode(self) -> str | None:
        """The mode in which training begins; None for a model of one mode."""
        return (self.train_mode or LM) if self.has_two_modes else None

    def training_modes(self) -> tuple[str | None, ...]:
        """The modes in which a model is trained; None for a model of one mode.

        Both, where a callback says that it alternates them.
        """
        if not self.has_two_modes:
            return (None,)
        alternates = any(alternates_modes(each.cls) for each in self.callbacks())
        return MODES if alternates else (self.first_mode,)

    def selecting_modes(self) -> tuple[str | None, ...]:
        """The modes whose validation chooses the best epoch; None for a model of one mode."""
        if self.select_mode is None:
            return self.training_modes()
        return MODES if self.select_mode == LM_MLM else (self.select_mode,)

    def _mode_problems(self) -> list[str]:
        given = {"train_mode": MODES, "select_mode": SELECT_MODES}
        values = {name: getattr(self, name) for name in given}
        if not self.has_two_modes:
            names = [name for name, value in values.items() if value is not None]
            names += [short_name(e.cls) for e in self.callbacks() if alternates_modes(e.cls)]
            return [f"{name} has no use without --model_task {LM_MLM}." for name in names]
        return [
            problem
            for name, choices in given.items()
            if values[name] is not None
            for problem in choice_problem(name, values[name], choices)
        ]

    def _object_problems(self) -> list[str]:
        return [
            *modifier_problems(self.model_modifier_fns, self.model_modifier_fn_kwargs),
            *callback_problems(self._callback_rows()),
        ]

    def _builtin_problems(self) -> list[str]:
        """A built-in model whose name is spelt in another way: nothing on the Hub is called so."""
        by_letters = {_letters(name): name for name in BUILTIN_MODELS}
        return [
            f"{argument} must be the name of a model or a directory but there is no {name}. Did "
            f"you mean {by_letters[_letters(name)]}?"
            for argument in ("model_name_or_path", "config_name", "tokenizer_name")
            if (name := getattr(self, argument) or "") not in BUILTIN_MODELS
            and _letters(name) in by_letters
            and (argument == "model_name_or_path" or name != self.model_name_or_path)
            and len(name) < 80
            and not Path(name).exists()
        ]

    def callbacks(self) -> list[CallbackEntry]:
        """Return all callback classes with their kwargs, those of one point in their order."""
        return [entry for row in self._callback_rows() for entry in row.entries()]

    def _callback_rows(self) -> list[CallbackRow]:
        """`model_pre_train_step_callbacks` and the rows of `model_callbacks`."""
        first = CallbackRow(
            PRE_TRAIN_STEP,
            "model_pre_train_step_callbacks",
            self.model_pre_train_step_callbacks,
            "model_pre_train_step_callbacks_kwargs",
            self.model_pre_train_step_callbacks_kwargs,
        )
        return [first] + [
            CallbackRow(
                hook,
                f"model_callbacks.{hook}",
                self.model_callbacks.get(hook, []),
                f"model_callbacks_kwargs.{hook}",
                self.model_callbacks_kwargs.get(hook, {}),
            )
            for hook in HOOKS
        ]
