"""The help texts, made from the dataclasses, and from signatures and docstrings."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields
from typing import Any

from finetune_lm.arguments.calls import NO_DEFAULT, taken_by
from finetune_lm.arguments.command_line import GROUPS, OPTIONS, suggestion
from finetune_lm.arguments.declared import (
    default_of,
    field_types,
    is_dictionary,
    is_required,
)
from finetune_lm.arguments.hooks import RUN, is_callback
from finetune_lm.arguments.references import name_of, resolve_name, short_name
from finetune_lm.arguments.subcommands import SUBCOMMANDS
from finetune_lm.arguments.suggestions import dotted_name, known_elsewhere
from finetune_lm.arguments.values import write_value
from finetune_lm.errors import UserError

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

USAGE = "usage: finetune-lm --model_name_or_path NAME --train_file FILE --validation_file FILE ..."

_INDENT = "      "

_VALUES = (
    "Values. Numbers, True, False, None, {} and [] are read as such; quotes ('\"3\"') make them "
    "text. A value with a dot, such as torch.optim.SGD, is imported, unless the argument takes "
    "text, the value contains a slash, or a file of that name exists. The prefix import: imports a "
    "name without a dot, callable: names a Python builtin, json: takes any JSON. Several values "
    "make a list; a name without a value is True. A dotted name sets one key of a dictionary and "
    "leaves the others at their defaults; __delete_field__ removes a key."
)

_TITLES = ("Model", "Data and training", "Hyperparameter search")


def help_for(names: list[str]) -> str:
    """Return the help for some arguments, classes or functions, or the whole of it.

    Raises:
        UserError: If there is nothing of one of the names.
    """
    if not names:
        return _whole_help()
    blocks = []
    problems = []
    for name in names:
        path = tuple(name.split("."))
        block = _help_at(path)
        if block is None:
            problems.append(f"--{'.'.join(path)} is not an argument.{suggestion(path)}")
        else:
            blocks.append(block)
    if problems:
        raise UserError(*problems)
    return "\n\n".join(blocks) + "\n"


def _width() -> int:
    return max(40, min(shutil.get_terminal_size().columns, 100))


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        _width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _whole_help() -> str:
    blocks = [
        USAGE,
        _wrap("Fine-tune a language model, with every token's surprisal on record."),
        _wrap(_VALUES),
        *_subcommands_help(),
        "Options",
        *(f"  --{name}\n{_wrap(text, _INDENT)}" for name, text in OPTIONS.items()),
    ]
    for title, cls in zip(_TITLES, GROUPS, strict=True):
        blocks.append(f"{title} ({cls.__name__})")
        blocks += [_argument_help(each, (each.name,)) for each in fields(cls)]
    return "\n\n".join(blocks) + "\n"


def _subcommands_help() -> list[str]:
    if not SUBCOMMANDS:
        return []
    told = (f"  {name}\n{_wrap(each.summary, _INDENT)}" for name, each in SUBCOMMANDS.items())
    return ["Other commands (finetune-lm NAME --help shows what each takes)", *told]


def _help_at(path: tuple[str, ...]) -> str | None:
    if path[0] in OPTIONS and len(path) == 1:
        return f"  --{path[0]}\n{_wrap(OPTIONS[path[0]], _INDENT)}"
    for cls in GROUPS:
        for each in fields(cls):
            if each.name != path[0]:
                continue
            if len(path) > 1 and not is_dictionary(field_types(cls)[each.name]):
                return None
            keys = each.metadata.get("keys")
            if len(path) > 1 and keys and path[1] not in keys:
                break  # loss_classes.KLBaselineLoss, perhaps
            return _argument_help(each, path)
    name = ".".join(path)
    return None if known_elsewhere(name) else _callable_block(name)


def _callable_block(name: str) -> str | None:
    """Return the help for a class or function, of which users' own are imported.

    Raises:
        UserError: If a dotted name leads to nothing, and no argument is called like it.
    """
    try:
        found = callable_help(name)
    except UserError as error:
        if suggestion(tuple(name.split("."))) and "Did you mean" not in str(error):
            return None
        raise
    if found is None:
        return None
    blocks = [f"  {found.name}\n{_wrap(found.summary, _INDENT)}".rstrip()]
    for argument, default, text in found.arguments:
        shown = "none, it must be given" if default is NO_DEFAULT else _inline(default)
        lines = [f"  {argument}", f"{_INDENT}default: {shown}"]
        blocks.append("\n".join([*lines, *([_wrap(text, _INDENT)] if text else [])]))
    if not found.arguments:
        blocks.append(f"{_INDENT}It takes no arguments of its own.")
    return "\n\n".join(blocks)


def _argument_help(each: Field[Any], path: tuple[str, ...]) -> str:
    """Return name, default and help text of an argument or of one key of a dictionary."""
    first, *others = _default_lines(each, path)
    lines = [f"  --{'.'.join(path)}", f"{_INDENT}default: {first}"]
    lines += [f"{_INDENT}         {line}" for line in others]
    about_keys: dict[str, str] = each.metadata.get("about_keys", {})
    if len(path) > 1 and path[1] in about_keys:
        return "\n".join([*lines, _wrap(about_keys[path[1]], _INDENT)])
    lines.append(_wrap(each.metadata["help"], _INDENT))
    return "\n".join([*lines, *(_about_key(*item) for item in about_keys.items())])


def _about_key(key: str, text: str) -> str:
    filled = _wrap(f"{key}: {text}", f"{_INDENT}    ")
    return filled.replace(f"{_INDENT}    ", f"{_INDENT}  ", 1)


def _default_lines(each: Field[Any], path: tuple[str, ...]) -> list[str]:
    if is_required(each):
        return ["none, it must be given"]
    if "default_text" in each.metadata:
        return [each.metadata["default_text"]]
    default = default_of(each)
    for key in path[1:]:
        if not isinstance(default, dict) or key not in default:
            return ["none"]
        default = default[key]
    return list(_shown(write_value(default, is_text=True)))


def _shown(value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or not value:
        yield _inline(value)
        return
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{key}:"
            yield from (f"  {line}" for line in _shown(item))
        else:
            yield f"{key}: {_inline(item)}"


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_inline, value)) if value else "[]"
    return str(value)


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
    given = (*_GIVEN, RUN) if is_callback(function) else _GIVEN
    own = {} if takes is None else takes.own(given)
    about = _about_arguments(function)
    prefix = _prefix(dotted, function)
    arguments = [
        (f"{prefix}{key}", _as_given(parameter.default), about.get(key, ""))
        for key, parameter in own.items()
    ]
    others = [p.name for p in takes.parameters.values() if p.kind is p.VAR_KEYWORD] if takes else []
    arguments += [
        (f"{prefix}*", "none", f"Any other name: {about[each]}") for each in others if each in about
    ]
    return CallableHelp(
        dotted,
        " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split()),
        arguments,
    )


def _as_given(default: Any) -> Any:
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
