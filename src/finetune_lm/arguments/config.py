"""The arguments of a run, written out: as a config file that repeats it, and for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any

from finetune_lm.arguments.base import Arguments
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.declared import (
    annotation_at,
    default_of,
    field_types,
    is_dictionary,
    is_text,
)
from finetune_lm.arguments.merging import with_deletions
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.optimization_arguments import OptimizationArguments
from finetune_lm.arguments.redaction import is_secret, without_secrets
from finetune_lm.arguments.values import write_value


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
        for field in _shown_fields(arguments):
            value = values[field.name]
            if is_dictionary(types[field.name]):
                value = with_deletions(default_of(field), value)
            written[field.name] = _write(value, types[field.name])
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
            field.name: write_value(without_secrets(values[field.name]), is_text=True)
            for field in _shown_fields(arguments)
        }
        blocks.append("\n".join([type(arguments).__name__, *_lines(shown, "  ")]))
    return "\n\n".join(blocks) + "\n"


def _shown_fields(arguments: Arguments) -> list[Field[Any]]:
    return [field for field in fields(arguments) if not is_secret(field.name)]


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
