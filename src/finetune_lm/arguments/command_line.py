"""The names that can be given on a command line, and the raw texts that each was given."""

from __future__ import annotations

import os
import re
import types
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import default_of, field_types, is_dictionary
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.nested import (
    HALF_PAIR,
)
from finetune_lm.arguments.optimization_arguments import OptimizationArguments
from finetune_lm.arguments.subcommands import SUBCOMMANDS
from finetune_lm.arguments.suggestions import did_you_mean, known_elsewhere, nearest
from finetune_lm.arguments.values import read_text
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError

GROUPS: tuple[type[Arguments], ...] = (ModelArguments, DataTrainingArguments, OptimizationArguments)

OPTIONS = types.MappingProxyType(
    {
        "config": "Take arguments from YAML files as well. Later files override earlier ones, and "
        "the command line overrides them all.",
        "resume": "Continue the stopped run in this output directory, with its own arguments; "
        "only the token has to be given again. You can raise epochs and patience, and "
        "change what does not affect the results, such as checkpoint_every and on_nan.",
        "print_config": "Print all arguments as a config file and exit.",
        "preview": "Print what the model will be fed for the first N examples of each file and "
        "exit. Tokens are printed above labels; masks and ignored positions are "
        "marked.",
        "help": "Show this help. With names after it, show the help for these arguments, or the "
        "parameters of classes and functions such as KLBaselineLoss.",
        "version": "Show the version.",
        "debug": "After a user's error, show where in the code it was found.",
    }
)
_WITH_VALUES = ("config", "preview", "resume")

_NAME = re.compile(r"--[A-Za-z]")
_DASHES = "-\u2010-\u2015\u2212\ufe58\ufe63\uff0d"
_DASHED = re.compile(rf"(?P<dashes>[{_DASHES}]+)(?P<rest>[A-Za-z].*)", re.DOTALL)


@dataclass(frozen=True)
class Given:
    """One name and the raw texts that followed it."""

    name: str
    texts: tuple[str, ...]

    @property
    def path(self) -> tuple[str, ...]:
        """The name split at its dots: one part for each level of dictionaries."""
        return tuple(self.name.split("."))

    @property
    def raw_value(self) -> Any:
        """The texts as one raw value: True without a text, a list of several."""
        if not self.texts:
            return True
        return self.texts[0] if len(self.texts) == 1 else list(self.texts)


def names_given(argv: Sequence[str], problems: list[str]) -> list[Given]:
    """Return the names on a command line with the texts that follow each.

    Args:
        argv: The command line without the program's own name.
        problems: Messages go here.
    """
    return split_command_line(with_hyphens(argv, problems), problems)


def _is_name(name: str) -> bool:
    return name in OPTIONS or any(name == each.name for group in GROUPS for each in fields(group))


def split_command_line(argv: Sequence[str], problems: list[str]) -> list[Given]:
    """Return the names on a command line with the texts that follow each.

    Only `--` and a letter begin a name, so -1 and -1e-3 are values.

    Args:
        argv: The command line without the program's own name.
        problems: Messages go here.

    Example:
        >>> split_command_line(["--params.lr.values", "1e-5", "1e-4", "--use_gpu"], [])
        [Given(name='params.lr.values', texts=('1e-5', '1e-4')), Given(name='use_gpu', texts=())]
    """
    given: list[Given] = []
    for token in argv:
        if token == "-h":
            given.append(Given("help", ()))
        elif _NAME.match(token):
            name, equals, text = token.removeprefix("--").partition("=")
            given.append(Given(name, (text,) if equals else ()))
        elif given:
            given[-1] = Given(given[-1].name, (*given[-1].texts, token))
        else:
            problems.append(
                f"{token!r} has no name before it; every value follows its name, as in "
                "--model_name_or_path gpt2." + did_you_mean(token, SUBCOMMANDS)
            )
    return given


def with_hyphens(argv: Sequence[str], problems: list[str]) -> list[str]:
    """Return a command line in which names that begin with other dashes begin with `--`.

    Text programs make a dash of two hyphens, and so does a page that a command is copied from.
    What follows one dash is a name only if there is such a name; otherwise it is a value.

    Args:
        argv: The command line without the program's own name.
        problems: A message for each goes here.
    """
    mended = []
    for word in argv:
        found = _DASHED.fullmatch(word)
        if found is None or found["dashes"] == "--":
            mended.append(word)
            continue
        dashes, rest = found.groups()
        name = rest.partition("=")[0]
        others = [dash for dash in dashes if dash != "-"]
        if not (_is_name(name.partition(".")[0]) or (others and len(dashes) > 1)):
            mended.append(word)
            continue
        if others:
            begins = f"{_dash_name(others[0])} (U+{ord(others[0]):04X})"
        else:
            begins = "one hyphen" if len(dashes) == 1 else f"{len(dashes)} hyphens"
        problems.append(
            f"{dashes}{name[:80]} must begin with two hyphens but begins with {begins}: "
            f"--{name[:80]}."
        )
        mended.append(f"--{rest}")
    return mended


def _dash_name(dash: str) -> str:
    name = unicodedata.name(dash).lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def check_words(argv: Sequence[str]) -> None:
    """See that all words of a command line are text.

    Raises:
        UserError: If the shell gave bytes that are none, which Python marks with half characters.
    """
    problems = [
        f"word {number} of the command must be UTF-8 but is {ascii(word)[:80]}."
        for number, word in enumerate(argv, start=1)
        if HALF_PAIR.search(word)
    ]
    if problems:
        raise UserError(*problems)


def read_flags(given: list[Given], problems: list[str]) -> dict[str, bool]:
    """Return the options that are on or off, of those that are given."""
    flags: dict[str, bool] = {}
    for option in given:
        if option.name not in OPTIONS or option.name in _WITH_VALUES:
            continue
        if option.name in flags:
            problems.append(f"{option.name} is given more than once.")
        if option.texts in ((), ("True",), ("False",)):
            flags[option.name] = option.texts != ("False",)
        else:
            problems.append(f"{option.name} takes no value.")
    return flags


def read_preview(given: list[Given], problems: list[str]) -> int | None:
    """Return how many examples to show, or None for a run."""
    options = [each for each in given if each.name == "preview"]
    if len(options) > 1:
        problems.append("preview is given more than once.")
    for option in options:
        if re.fullmatch(r"0*[1-9][0-9]{0,8}", " ".join(option.texts)):
            return int(option.texts[0])
        shown = " ".join(option.texts)[:80] or "nothing"
        problems.append(f"preview must be a number of examples, at least 1, but got {shown}.")
    return None


def read_config_names(given: list[Given], problems: list[str]) -> list[str]:
    """Return the names of the config files, in order."""
    names: list[str] = []
    for option in (each for each in given if each.name == "config"):
        if not option.texts:
            problems.append("config must be followed by the name of a file.")
        for text in option.texts:
            name = read_text(text, allows_none=False, allows_bool=False, is_list=False)
            names.append(str(name))
    return names


def read_resume(given: list[Given], problems: list[str]) -> str | None:
    """Return the output directory of the run to resume."""
    options = [each for each in given if each.name == "resume"]
    if not options:
        return None
    useless = [name for name in ("config", "output_dir") if any(g.name == name for g in given)]
    problems += [f"{name} has no use with resume: a run keeps its own." for name in useless]
    if len(options) > 1:
        problems.append("resume is given more than once.")
    texts = options[0].texts
    if len(texts) != 1:
        shown = " ".join(texts) or "nothing"
        problems.append(f"resume must be one output directory but got {shown}.")
        return None
    directory = str(read_text(texts[0], allows_none=False, allows_bool=False, is_list=False))
    # Not Path.is_file, which fails on what is too long for a path.
    if not os.path.isfile(Path(directory, CONFIG_YAML)):  # noqa: PTH113
        is_directory = os.path.isdir(directory)  # noqa: PTH112
        # Without it nothing else can be told apart from mistakes that follow from this one.
        raise UserError(
            f"resume must name the output directory of a run but {directory} "
            f"{f'has no {CONFIG_YAML}' if is_directory else 'is not there'}."
        )
    return directory


def argument_names() -> list[str]:
    """Return every name that can be given: arguments, and keys of default dictionaries."""
    names = [each.name for cls in GROUPS for each in fields(cls)] + list(OPTIONS)
    for cls in GROUPS:
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
