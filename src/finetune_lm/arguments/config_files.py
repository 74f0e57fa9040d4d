"""Config files: YAML -> the same raw values as a command line gives; and arguments -> YAML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import (
    annotation_at,
    default_of,
    field_types,
    is_dictionary,
    is_text,
)
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.nested import DEEPEST, HALF_PAIR, with_deletions
from finetune_lm.arguments.optimization_arguments import OptimizationArguments
from finetune_lm.arguments.redaction import is_secret, without_secrets
from finetune_lm.arguments.values import write_value
from finetune_lm.errors import UserError

if TYPE_CHECKING:
    import yaml

LARGEST = 2**20
"""Of a config file, in bytes."""

MOST_VALUES = 100_000
"""In a config file. A few lines of YAML can stand for any number of values, by naming others."""

_STANDARD_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset({"str", "int", "float", "bool", "null", "timestamp", "value"})
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "TRUE"), True),
    **dict.fromkeys(("false", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}


@dataclass
class ConfigFile:
    """What a config file says.

    Attributes:
        source: The file's name.
        entries: Path and raw value of each name at the top level. Raw texts are still to be read
            by the value rules.
        lines: Line of each path in the file, from 1.
        n_values: How many values it has, at all depths.
    """

    source: str
    entries: list[tuple[tuple[str, ...], Any]] = field(default_factory=list)
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    n_values: int = 0

    def place(self, path: tuple[str, ...]) -> str:
        """Return the file and the line of a path, or of the nearest dictionary around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.source}, line {self.lines[path]}" if path else self.source


def read_config_file(name: str) -> ConfigFile:
    """Read a config file.

    Numbers stay texts at this stage, because an argument declared as text takes them as they
    stand. Of the words that YAML 1.1 takes for truth values only true and false are, so that
    `no` and `on` can be texts.

    Raises:
        UserError: If there is no such file, or if it is not a plain YAML dictionary.
    """
    import yaml

    try:
        with Path(name).open("rb") as opened:
            # A device never ends.
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UserError(f"{name}: a config file cannot be larger than {LARGEST // 2**20} MB.")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{name}: the config file cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{name}, line {line}: this is not UTF-8 text.") from None
    except ValueError as error:  # a null character in the name
        raise UserError(f"{name!r}: the config file cannot be read: {error}.") from None
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserError(
            f"{name}, line {line}: the character {chr(error.character)!r} is not allowed in YAML."
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise UserError(f"{name}, line {line}: not valid YAML: {error.problem}.") from None
    except RecursionError:
        raise UserError(f"{name}: the YAML is nested too deeply.") from None
    except (ValueError, OverflowError) as error:  # an escape for a character that does not exist
        raise UserError(f"{name}: not valid YAML: {error}.") from None
    file = ConfigFile(name)
    if root is None:  # nothing but comments
        return file
    if not isinstance(root, yaml.MappingNode):
        raise UserError(
            f"{name}, line {_line(root)}: a config file holds `name: value` lines, not a "
            f"{'list' if isinstance(root, yaml.SequenceNode) else 'single value'}."
        )
    for key, node in _items(root, (), file):
        path = tuple(key.split("."))
        file.lines[path] = _line(node)
        file.entries.append((path, _convert(node, path, file, (root,))))
    if any(HALF_PAIR.search(part) for path, _ in file.entries for part in path):
        raise UserError(f"{name}: a name has half a character in it, which UTF-8 cannot hold.")
    return file


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _items(
    node: yaml.MappingNode, path: tuple[str, ...], file: ConfigFile
) -> Iterator[tuple[str, yaml.Node]]:
    """Yield the keys of a dictionary, as texts whatever they look like, with their values."""
    import yaml

    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = _line(key_node)
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == f"{_STANDARD_TAG}merge":
            raise UserError(f"{file.source}, line {line}: a name has to be a plain word.")
        key = str(key_node.value)
        if key in seen:
            dotted = ".".join((*path, key))
            raise UserError(
                f"{file.source}, line {line}: {dotted} is given more than once, first in line "
                f"{seen[key]}."
            )
        seen[key] = line
        yield key, value_node


def _convert(
    node: yaml.Node, path: tuple[str, ...], file: ConfigFile, around: tuple[yaml.Node, ...]
) -> Any:
    import yaml

    if any(node is outer for outer in around):
        raise UserError(f"{file.source}, line {_line(node)}: this value contains itself.")
    if len(around) > DEEPEST:
        raise UserError(f"{file.source}, line {_line(node)}: the YAML is nested too deeply.")
    file.n_values += 1
    if file.n_values > MOST_VALUES:
        raise UserError(
            f"{file.source}, line {_line(node)}: a config file cannot have more than "
            f"{MOST_VALUES} values, counting each alias."
        )
    kind = str(node.tag).removeprefix(_STANDARD_TAG)
    around = (*around, node)
    if isinstance(node, yaml.MappingNode) and kind == "map":
        converted = {}
        for key, value in _items(node, path, file):
            file.lines[(*path, key)] = _line(value)
            converted[key] = _convert(value, (*path, key), file, around)
        return converted
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_convert(item, path, file, around) for item in node.value]
    if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
        is_plain = node.style is None
        return _CONSTANTS.get(node.value, node.value) if is_plain else node.value
    tag = str(node.tag).replace(_STANDARD_TAG, "!!")
    raise UserError(
        f"{file.source}, line {_line(node)}: the tag {tag} is not allowed; a config file holds "
        "only plain values. Write a class or function by its name, such as torch.optim.SGD."
    )


def config_dict(
    model: ModelArguments, data: DataTrainingArguments, optimization: OptimizationArguments
) -> dict[str, Any]:
    """Return all arguments in plain types, as a config file holds them.

    The values are those that are used. Default keys that were deleted have `__delete_field__`.
    Access tokens are left out. What comes from the model's name by default is None, so that it
    still does when the file is used with another model.
    """
    written: dict[str, Any] = {}
    for arguments in (model, data, optimization):
        types = field_types(type(arguments))
        values = arguments.effective()
        for each in _shown_fields(arguments):
            value = values[each.name]
            if is_dictionary(types[each.name]):
                value = with_deletions(default_of(each), value)
            written[each.name] = _write(value, types[each.name])
    for name in ("config_name", "tokenizer_name"):
        if written[name] == written["model_name_or_path"]:
            written[name] = None
    return written


def config_yaml(
    model: ModelArguments, data: DataTrainingArguments, optimization: OptimizationArguments
) -> str:
    """Return all arguments as a config file."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a value that occurs twice twice, so that people can read and change each."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_str(self, data: str) -> yaml.ScalarNode:
            # Characters that YAML takes for the end of a line stay themselves only when escaped.
            style = (
                '"' if any(character in data for character in "\x85\u2028\u2029\ufeff") else None
            )
            return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, Dumper.represent_str)
    return yaml.dump(
        config_dict(model, data, optimization),
        Dumper=Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=100,
    )


def config_text(
    model: ModelArguments, data: DataTrainingArguments, optimization: OptimizationArguments
) -> str:
    """Return all arguments for people to read: a line for each value, by dataclass."""
    blocks = []
    for arguments in (model, data, optimization):
        values = arguments.effective()
        shown = {
            each.name: write_value(without_secrets(values[each.name]), is_text=True)
            for each in _shown_fields(arguments)
        }
        blocks.append("\n".join([type(arguments).__name__, *_lines(shown, "  ")]))
    return "\n\n".join(blocks) + "\n"


def _shown_fields(arguments: Arguments) -> list[Field[Any]]:
    return [each for each in fields(arguments) if not is_secret(each.name)]


def _write(value: Any, annotation: Any) -> Any:
    """Return a value as its text, by what is declared about it at each depth."""
    if isinstance(value, dict):
        return {
            str(key): _write(item, annotation_at(annotation, key))
            for key, item in without_secrets(value).items()
        }
    return without_secrets(write_value(value, is_text=is_text(annotation)))


def _lines(values: dict[str, Any], indent: str) -> Iterator[str]:
    width = max((len(name) for name, value in values.items() if not _is_nested(value)), default=0)
    for name, value in values.items():
        if _is_nested(value):
            yield f"{indent}{name}:"
            yield from _lines(value, f"{indent}  ")
        else:
            yield f"{indent}{f'{name}:':<{width + 1}} {_one_line(value)}"


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict) and bool(value)


def _one_line(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_one_line, value))}]"
    text = str(value)
    return text if text.isprintable() and text.strip() == text != "" else repr(text)
