"""A command line -> the three dataclasses, with everything that is wrong with it told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from finetune_lm.arguments import moved_files
from finetune_lm.arguments.base import Arguments, prepare
from finetune_lm.arguments.command_line import (
    GROUPS,
    OPTIONS,
    check_words,
    names_given,
    read_config_names,
    read_flags,
    read_preview,
    read_resume,
    suggestion,
)
from finetune_lm.arguments.config_files import ConfigFile, read_config_file
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import default_of, field_types, is_dictionary, is_required
from finetune_lm.arguments.help import help_for
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.nested import DELETE_FIELD, merge, nest, with_deletions
from finetune_lm.arguments.optimization_arguments import OptimizationArguments
from finetune_lm.arguments.references import Reference, possible_reference, resolve_name
from finetune_lm.arguments.values import UNREADABLE, is_readable, read_as_declared, readable_part
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.full_collections import without_full_collections

A = TypeVar("A", bound=Arguments)
_MOST_SUGGESTIONS = 50


@dataclass(frozen=True)
class ParsedArguments:
    """What a command line asks for.

    Attributes:
        model: The model's arguments. None where only help or the version is asked for.
        data: The arguments for data and training, likewise.
        optimization: The arguments for a study, likewise.
        print_config: Whether to print the arguments as a config file and do nothing else.
        preview: How many examples of each file to show as the model will be fed them, instead of
            a run. None for a run.
        resume: The output directory of the run to go on with. None for a new run.
        debug: Whether to show where in the code a user's error was found.
        help: The help text, where it is asked for.
        version: Whether the version is asked for.
    """

    model: ModelArguments | None = None
    data: DataTrainingArguments | None = None
    optimization: OptimizationArguments | None = None
    print_config: bool = False
    preview: int | None = None
    resume: str | None = None
    debug: bool = False
    help: str | None = None
    version: bool = False


class _UnresolvedModel(ModelArguments):
    """Model arguments whose classes and functions are only named."""

    resolves_at_once = False


class _UnresolvedData(DataTrainingArguments):
    """Arguments for data and training whose classes and functions are only named."""

    resolves_at_once = False


@dataclass
class _Layer:
    """The values of one source: a config file or the command line."""

    imports: bool
    values: dict[str, Any] = field(default_factory=dict)
    place: Callable[[tuple[str, ...]], str] | None = None

    def locate(self, path: tuple[str, ...], message: str) -> str:
        """Return a message with the place where the path was given, if that is a file."""
        return message if self.place is None else f"{self.place(path)}: {message}"


@without_full_collections()
def parse_arguments(argv: Sequence[str]) -> ParsedArguments:
    """Read a command line and the config files that it names.

    Args:
        argv: The command line without the program's own name.

    Raises:
        UserError: With a message for each thing that is wrong.

    Example:
        >>> parsed = parse_arguments(["--model_name_or_path", "gpt2", "--test_file", "test.txt.gz"])
        >>> parsed.data.test_file
        ['test.txt.gz']
    """
    check_words(argv)
    problems: list[str] = []
    given = names_given(argv, problems)
    options = [each for each in given if each.name in OPTIONS]
    asked_for_help = [each for each in options if each.name == "help"]
    if asked_for_help:
        return ParsedArguments(help=help_for([t for each in asked_for_help for t in each.texts]))
    flags = read_flags(options, problems)
    resume = read_resume(given, problems)
    preview = read_preview(given, problems)
    if flags.get("version"):
        return ParsedArguments(version=True)

    # What is only printed needs no object, and may come from somebody who is not trusted.
    imports = not flags.get("print_config")
    configs = [] if resume is None else [str(Path(resume, CONFIG_YAML))]
    configs += read_config_names(given, problems)
    layers = [
        *(layer for name in configs for layer in _read_config(name, problems, imports)),
        _read_layer(
            _Layer(imports),
            [(each.path, each.raw_value) for each in given if each.name not in OPTIONS],
            problems,
        ),
    ]
    model, data, optimization = _of_layers(layers, problems, imports)
    if resume and (names := moved_files.of_losses(problems, [each.values for each in layers])):
        problems.append(moved_files.say_where(resume, names))
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return ParsedArguments(
        model=model,
        data=data,
        optimization=optimization,
        print_config=not imports,
        preview=preview,
        resume=resume,
        debug=flags.get("debug", False),
    )


def arguments_of(
    sources: Sequence[ConfigFile],
) -> tuple[ModelArguments, DataTrainingArguments, OptimizationArguments]:
    """Return what several sources of raw values say together, each over those before it.

    Args:
        sources: Config files, or what is read elsewhere and means the same.

    Raises:
        UserError: With a message for each thing that is wrong.
    """
    problems: list[str] = []
    layers = [
        _read_layer(_Layer(True, place=source.place), source.entries, problems)
        for source in sources
    ]
    model, data, optimization = _of_layers(layers, problems, imports=True)
    if problems or model is None or data is None or optimization is None:
        raise UserError(*dict.fromkeys(problems))
    return model, data, optimization


def _of_layers(
    layers: Sequence[_Layer], problems: list[str], imports: bool
) -> tuple[ModelArguments | None, DataTrainingArguments | None, OptimizationArguments | None]:
    """Return the three instances, as far as they can be made."""
    model = _build(ModelArguments if imports else _UnresolvedModel, layers, problems)
    data = _build(DataTrainingArguments if imports else _UnresolvedData, layers, problems)
    optimization = _build(OptimizationArguments, layers, problems)
    if imports and optimization is not None and optimization.do_optimize:
        try:
            optimization.resolve()
        except UserError as error:
            problems += error.problems
    return model, data, optimization


def _read_config(name: str, problems: list[str], imports: bool) -> list[_Layer]:
    try:
        file = read_config_file(name)
    except UserError as error:
        problems += error.problems
        return []
    return [_read_layer(_Layer(imports, place=file.place), file.entries, problems)]


def _read_layer(
    layer: _Layer, entries: list[tuple[tuple[str, ...], Any]], problems: list[str]
) -> _Layer:
    """Fill a layer with the values of the arguments that exist."""
    owners = {each.name: group for group in GROUPS for each in fields(group)}
    known: list[tuple[tuple[str, ...], Any]] = []
    n_unknown = 0
    for path, raw in entries:
        if path[0] in owners or not all(path):
            known.append((path, raw))
        elif path[0] in OPTIONS:
            message = f"{'.'.join(path)} can be given only on the command line, and without a dot."
            problems.append(layer.locate(path, message))
        else:
            n_unknown += 1
            # Of a file that is no config file at all, nothing near will be found, and slowly.
            close = suggestion(path) if n_unknown <= _MOST_SUGGESTIONS else ""
            message = f"--{'.'.join(path)[:80]} is not an argument.{close}"
            problems.append(layer.locate(path, message))
    nesting_problems: list[str] = []
    raw_values = nest(known, nesting_problems)
    problems += [layer.locate((), message) for message in nesting_problems]
    for name, raw in raw_values.items():
        group = owners[name]
        layer.values[name] = read_as_declared(
            raw,
            field_types(group)[name],
            (name,),
            # Classes for a study are imported only where there is a study.
            _import_name(group, layer.imports),
            lambda path, message: problems.append(layer.locate(path, message)),
        )
    return layer


def _import_name(group: type[Arguments], imports: bool) -> Callable[[str], Any]:
    """What is done with a dotted name."""
    if not imports:
        return possible_reference
    return resolve_name if group.resolves_at_once else Reference


def _build(cls: type[A], layers: Sequence[_Layer], problems: list[str]) -> A | None:
    """Return an instance whose values are the layers over the defaults."""
    values: dict[str, Any] = {}
    reported: set[str] = set()
    for each in fields(cls):
        found: list[str] = []
        givers = [layer for layer in layers if each.name in layer.values]
        if givers:
            value = _merge_layers(cls, each, givers, found)
            if value is not UNREADABLE:
                _, more = prepare(cls, each, value)
                found += [givers[-1].locate((each.name,), message) for message in more]
            unreadable = not all(is_readable(layer.values[each.name]) for layer in givers)
            if unreadable or found:
                reported.add(each.name)
            else:
                values[each.name] = value
        elif is_required(each):
            found.append(f"{each.name} must be given.")
        problems += found
        if is_required(each) and each.name not in values:
            # Stands in, so that the other arguments can be checked and told about as well.
            values[each.name] = "missing"
    try:
        instance = cls(**values)
    except UserError as error:
        problems += error.problems
        return None
    problems += [
        problem
        for problem in instance.problems()
        # What follows from a value that was reported already would only distract.
        if not any(re.search(rf"\b{name}\b", problem) for name in reported)
    ]
    return instance


def _merge_layers(cls: type[Arguments], each: Any, givers: list[_Layer], found: list[str]) -> Any:
    """Return what the layers together put over the default of one argument."""
    if not is_dictionary(field_types(cls)[each.name]):
        value = givers[-1].values[each.name]
        return value if is_readable(value) else UNREADABLE
    default = default_of(each)
    effective = default
    for layer in givers:
        # What could not be read has been told; the keys beside it may be wrong too.
        value = readable_part(layer.values[each.name])
        if value is UNREADABLE:
            return UNREADABLE
        if value is DELETE_FIELD:
            effective = {}
        elif isinstance(value, dict):
            wrong: list[str] = []
            effective = merge(effective, value, each.name, wrong)
            found += [layer.locate((each.name,), message) for message in wrong]
        else:
            return value
    return with_deletions(default, effective)
