"""The best values of a study, as arguments of a grid's runs."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from finetune_lm.arguments.config_files import ConfigFile, read_config_file
from finetune_lm.arguments.parser import arguments_of
from finetune_lm.arguments.values import write_value
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.errors import UserError
from finetune_lm.runs.directory import RUN_JSON
from finetune_lm.whole_files import unsealed

MAXIMIZE = "maximize"


def best_values(directory: str) -> ConfigFile:
    """The values of the best trial of a study.

    Args:
        directory: The study's output directory.

    Raises:
        UserError: If there is no study that is over and has a best trial.
    """
    stem, _, ending = RUN_JSON.partition(".")
    records = sorted(Path(directory).glob(f"{stem}*.{ending}"))
    stamps = tuple((str(path), path.stat().st_mtime_ns) for path in records)
    return _best_values(directory, stamps)


@lru_cache(maxsize=256)
def _best_values(directory: str, stamps: tuple[tuple[str, int], ...]) -> ConfigFile:
    must = "from_study must name the output directory of a finished study"
    records: list[dict[str, Any]] = []
    for path, _ in stamps:
        with suppress(OSError, ValueError):
            records.append(unsealed(Path(path)))
    records = [each for each in records if isinstance(each.get("study"), dict)]
    if not records:
        raise UserError(f"{must}, but {directory} has none.")
    ended = [each for each in records if each.get("state") == "finished"]
    if not ended:
        raise UserError(f"{must}, but that in {directory} is not.")
    ended = [each for each in ended if each.get("best_params") is not None]
    if not ended:
        raise UserError(f"{must}, but that in {directory} has no best trial.")
    # Each process has put down what was the best when it ended.
    sign = -1.0 if ended[0]["study"].get("direction") == MAXIMIZE else 1.0
    best = min(ended, key=lambda each: sign * float(each["best_validation_loss"]))
    return _as_arguments(Path(directory), best["best_params"])


def _as_arguments(directory: Path, found: dict[str, Any]) -> ConfigFile:
    """Values by the names of a study's parameters, as arguments."""
    from finetune_lm.study.parameters import (
        MODIFIER_KWARGS,
        value_at,
        with_model_values,
        with_values,
    )
    from finetune_lm.study.search_space import search_space

    config = directory / CONFIG_YAML
    model_args, data_args, optimization = arguments_of([read_config_file(str(config))])
    parameters = search_space(optimization.params, data_args, model_args)
    values = {p.place: p.value_of(found[p.name]) for p in parameters if p.name in found}
    best = with_values(data_args, values)
    best_model = with_model_values(model_args, values)
    entries = {}
    for place in values:
        # An item of a list is given with the whole list.
        path = tuple(takewhile(lambda part: isinstance(part, str), place))
        args = best_model if place[0] == MODIFIER_KWARGS else best
        entries[tuple(map(str, path))] = write_value(value_at(args, path))
    return ConfigFile(str(config), list(entries.items()))
