"""What a class or function that users may name takes, from its signature and its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_lm.arguments.calls import NO_DEFAULT, taken_by
from finetune_lm.arguments.dotted_names import dotted_name
from finetune_lm.arguments.references import name_of, resolve_name, short_name
from finetune_lm.arguments.values import write_value

# What a run gives it, whatever it is.
_GIVEN = ("inputs", "last_epoch", "model", "optimizer", "params", "tokenizer")
_PLACES = (
    ("loss_classes.", "--loss_classes_kwargs.train.{name}."),
    ("data_preprocessing.", "--data_preprocessing_fn_kwargs.train."),
    ("torch.optim.lr_scheduler.", "--lr_scheduler_kwargs."),
    ("torch.optim.", "--train_optimizer_kwargs."),
    ("optuna.samplers.", "--study_kwargs.sampler_kwargs."),
    ("optuna.pruners.", "--study_kwargs.pruner_kwargs."),
)
_SECTION = re.compile(r"(Args|Arguments|Parameters|Attributes|Returns|Raises|Examples?|Note)s?:")
_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)(?: *\([^)]*\))? *:(?: +|$)(?P<text>.*)")


@dataclass(frozen=True)
class CallableHelp:
    """What there is to say of a class or function.

    Attributes:
        name: Its dotted name.
        summary: The first paragraph of its docstring.
        arguments: For each argument of its own: how it is given on the command line, its default
            as the command line has it (`NO_DEFAULT` if it must be given), and what it is for.
    """

    name: str
    summary: str
    arguments: list[tuple[str, Any, str]]


def callable_help(name: str) -> CallableHelp | None:
    """Return what a class or function takes besides what a run gives it; None if there is none.

    Args:
        name: Its dotted name, or of one that is documented the last part.

    Raises:
        UserError: If a dotted name leads to nothing.
    """
    dotted = name if "." in name else dotted_name(name)
    # torch has functions by the hundred, of names that mean other things as well.
    if dotted is None or re.fullmatch(r"torch\.\w+", dotted):
        return None
    function = resolve_name(dotted)
    if not callable(function):
        return None
    dotted = name_of(function) or dotted
    takes = taken_by(function)
    own = {} if takes is None else takes.own(_GIVEN)
    about = _about_arguments(function)
    prefix = _prefix(dotted, function)
    return CallableHelp(
        dotted,
        " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split()),
        [
            (
                f"{prefix}{key}",
                _shown(parameter.default),
                about.get(key, ""),
            )
            for key, parameter in own.items()
        ],
    )


def _shown(default: Any) -> Any:
    if default is NO_DEFAULT:
        return default
    return write_value(list(default) if isinstance(default, tuple) else default, is_text=True)


def _prefix(dotted: str, function: Callable[..., Any]) -> str:
    """Return what stands on the command line before the name of an argument."""
    name = short_name(function)
    if dotted.startswith("model_modifiers."):
        is_callback = isinstance(function, type)
        return (
            f"--model_{'callbacks_kwargs.POINT' if is_callback else 'modifier_fn_kwargs'}.{name}."
        )
    return next((p.format(name=name) for start, p in _PLACES if dotted.startswith(start)), "")


def _about_arguments(function: Callable[..., Any]) -> dict[str, str]:
    """Return what a docstring says of each argument, by the rules of Google's style guide."""
    docs = [inspect.getdoc(function)]
    if isinstance(function, type):
        docs.append(inspect.getdoc(inspect.getattr_static(function, "__init__")))
    about: dict[str, list[str]] = {}
    for doc in docs:
        inside, margin, current = False, 0, ""
        for line in (doc or "").splitlines():
            indent = len(line) - len(line.lstrip())
            if line.strip() and indent == 0:
                found = _SECTION.fullmatch(line.strip())
                inside, margin = found is not None and found[1] in ("Args", "Arguments"), 0
            elif inside and line.strip():
                margin = margin or indent
                entry = _ENTRY.fullmatch(line.strip()) if indent == margin else None
                if entry:
                    current = entry["name"]
                    about.setdefault(current, []).append(entry["text"])
                elif current:
                    about[current].append(line.strip())
    return {name: " ".join(lines).replace("``", "").strip() for name, lines in about.items()}
