"""The help texts, made from the dataclasses."""

from __future__ import annotations

import shutil
import textwrap
import types
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.callable_help import callable_help
from finetune_lm.arguments.calls import NO_DEFAULT
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import (
    default_of,
    field_types,
    is_dictionary,
    is_required,
)
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.nearest import did_you_mean, nearest
from finetune_lm.arguments.optimization_arguments import OptimizationArguments
from finetune_lm.arguments.other_names import known_elsewhere
from finetune_lm.arguments.values import write_value
from finetune_lm.errors import UserError

USAGE = "usage: finetune-lm --model_name_or_path NAME --train_file FILE --validation_file FILE ..."

_INDENT = "      "

OPTIONS = types.MappingProxyType(
    {
        "config": "Take arguments from YAML files as well. Later files override earlier ones, and "
        "the command line overrides them all.",
        "resume": "Go on with the run in this output directory, which was stopped. Its arguments "
        "are in force again; the token has to be given again. Of others only epochs and patience "
        "can be larger, and those changed that make no difference to the results, such as "
        "checkpoint_every and on_nan.",
        "print_config": "Print all arguments as a config file, and do nothing else.",
        "preview": "Print what the model will be fed for the first examples of each file, so many "
        "as the number says, and do nothing else. Tokens stand above labels; masks and ignored "
        "positions are marked.",
        "help": "Show this help, or with names after it the help for these arguments, and for "
        "classes and functions, such as KLBaselineLoss, what they take.",
        "version": "Show the version.",
        "debug": "After a user's error show where in the code it was found.",
    }
)

_VALUES = (
    "Values. A number, True, False, None, {} or [] is what it looks like; quotes ('\"3\"') keep it "
    "a text. A value with a dot, such as torch.optim.SGD, is imported, unless the argument is "
    "declared as text, the value has a slash in it, or a file of that name exists. import: before "
    "a name imports one without a dot, callable: takes a Python builtin, json: takes anything that "
    "JSON can say. Several values make a list; a name without a value is True. A dot in a name "
    "sets one key of a dictionary, and the others keep their defaults; __delete_field__ removes a "
    "key."
)

_GROUPS: tuple[tuple[str, type[Arguments]], ...] = (
    ("Model", ModelArguments),
    ("Data and training", DataTrainingArguments),
    ("Hyperparameter search", OptimizationArguments),
)


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
        "Options",
        *(f"  --{name}\n{_wrap(text, _INDENT)}" for name, text in OPTIONS.items()),
    ]
    for title, cls in _GROUPS:
        blocks.append(f"{title} ({cls.__name__})")
        blocks += [_argument_help(each, (each.name,)) for each in fields(cls)]
    return "\n\n".join(blocks) + "\n"


def _help_at(path: tuple[str, ...]) -> str | None:
    if path[0] in OPTIONS and len(path) == 1:
        return f"  --{path[0]}\n{_wrap(OPTIONS[path[0]], _INDENT)}"
    for _, cls in _GROUPS:
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


def argument_names() -> list[str]:
    """Return every name that can be given: arguments, and keys of default dictionaries."""
    names = [each.name for _, cls in _GROUPS for each in fields(cls)] + list(OPTIONS)
    for _, cls in _GROUPS:
        for each in fields(cls):
            if is_dictionary(field_types(cls)[each.name]):
                names += _key_names(each.name, default_of(each))
                names += [f"{each.name}.{key}" for key in each.metadata.get("about_keys", ())]
    return names


def _key_names(name: str, value: dict[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        yield f"{name}.{key}"
        if isinstance(item, dict):
            yield from _key_names(f"{name}.{key}", item)


def suggestion(path: tuple[str, ...]) -> str:
    """Return what was probably meant by a name that does not exist, as part of a message.

    A name that another program has for an argument leads to ours. A name that is a key of some
    dictionary, such as `lr`, is found there.
    """
    names = argument_names()
    top_level = [name for name in names if "." not in name]
    wanted = ".".join(path)
    known = known_elsewhere(wanted)
    if known is not None:
        return f" {known}"
    inside = [name for name in names if name.endswith(f".{wanted}")]
    if inside:
        return f" Did you mean --{inside[0]}?"
    if path[0] in top_level:
        return did_you_mean(wanted, names, "--")
    close = nearest(path[0].replace("-", "_"), top_level)
    if close is not None:
        return f" Did you mean --{'.'.join((close, *path[1:]))}?"
    containing = [name for name in top_level if wanted in name]
    if containing and len(wanted) > 2:
        return f" Did you mean --{containing[0]}?"
    return did_you_mean(wanted, names, "--")
