"""Files of minimal pairs and test suites in the shapes in which they are published.

BLiMP (Warstadt et al. 2020) and MultiBLiMP (Jumelet et al. 2025) have a pair in each line,
SyntaxGym (Gauthier et al. 2020) has items with conditions and regions in one JSON object. All
become sentences with metadata, as a user's own lines have it: ``item``, ``condition``,
``expected``, ``phenomenon`` and ``regions``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune_lm.data.detokenizing import joined
from finetune_lm.data.items import CONDITION, EXPECTED, ITEM, PHENOMENON
from finetune_lm.data.json_lines import check_text, read_object
from finetune_lm.data.lines import read_lines, read_objects
from finetune_lm.data.units import REGIONS
from finetune_lm.errors import UserError
from finetune_lm.formulas import ALL_REGIONS, Formula, parse_prediction

GOOD, BAD = "good", "bad"
"""The conditions of a pair of BLiMP or MultiBLiMP."""

_PAIR_KEYS = (("sentence_good", "sentence_bad"), ("sen", "wrong_sen"))
_PHENOMENON_KEYS = (PHENOMENON, "linguistics_term", "UID")
"""Where a line may say of which phenomenon it is, the first that it has."""

_ITEMS = "items"
_METRICS = ("sum", "mean")


Role = tuple[int, dict[str, Any]]
"""What a sentence is in one line, or one item of a suite: its number, from 0, and metadata."""


class Suite:
    """Sentences of pairs or of a test suite, each once, whatever number of pairs it is in.

    Args:
        at_most: Keep only the sentences of so many lines or items; None for all.

    Attributes:
        texts: The sentences.
        predictions: The formulas of a SyntaxGym suite.
        n_items: How many lines or items there were.
    """

    def __init__(self, at_most: int | None = None) -> None:
        self.texts: list[str] = []
        self.predictions: list[str] = []
        self.n_items = 0
        self._at_most = at_most
        self._roles: dict[str, list[Role]] = {}

    def add(self, text: str, what: dict[str, Any], number: int) -> None:
        """Add a sentence, or what it is in another pair.

        Args:
            text: The sentence.
            what: What it is there.
            number: In which line or item, from 0.
        """
        self.n_items = number + 1
        if self._at_most is not None and number >= self._at_most:
            return
        key = json.dumps([text, what.get(REGIONS)])
        if key not in self._roles:
            self._roles[key] = []
            self.texts.append(text)
        self._roles[key].append((number, what))

    def metadata(self, more: Sequence[Mapping[str, Any]] | None = None) -> list[dict[str, Any]]:
        """What each sentence is. What it is in each of several pairs is a list.

        Args:
            more: What else is said of each line or item.
        """
        return [
            _in_one([{**(more[number] if more else {}), **what} for number, what in roles])
            for roles in self._roles.values()
        ]


def suite_in(path: str, *, detokenize: bool, at_most: int | None = None) -> Suite | None:
    """What a file of pairs or a test suite says, if it is one by its shape; None if it is not.

    Args:
        path: A file of JSON.
        detokenize: Whether the regions of SyntaxGym are joined as one writes.
        at_most: Keep only so many lines or items.

    Raises:
        UserError: If it is one, and has a line or item that is otherwise.
    """
    lines = read_lines(path)
    first = next(lines, "")
    try:
        value = read_object(first, f"{path}, line 1")
    except UserError:
        # One object over many lines, or a mistake in the first of many objects.
        text = "\n".join([first, *lines])
        if first.strip() != "{" and not _is_suite(text):
            return None
        return read_suite(text, path, detokenize=detokenize, at_most=at_most)
    if _ITEMS in value and "text" not in value:
        text = "\n".join([first, *lines])
        return read_suite(text, path, detokenize=detokenize, at_most=at_most)
    keys = pair_keys(value)
    if keys is None:
        return None
    return read_pairs(read_objects(path), path, keys, at_most=at_most)


def _is_suite(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and _ITEMS in value


def pair_keys(first: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of the better and the worse sentence, if a file's first line has a pair."""
    if "text" in first:
        return None
    return next((keys for keys in _PAIR_KEYS if any(key in first for key in keys)), None)


def read_pairs(
    lines: Iterable[dict[str, Any]], path: str, keys: tuple[str, str], at_most: int | None = None
) -> Suite:
    """Read a file with a pair in each line.

    Args:
        lines: What each line says.
        path: Where they are from, for messages.
        keys: The keys of the better and the worse sentence.
        at_most: Keep only so many lines.

    Raises:
        UserError: Naming the first line that is otherwise.
    """
    suite = Suite(at_most)
    for number, line in enumerate(lines):
        where = f"{path}, line {number + 1}"
        if missing := [key for key in keys if key not in line]:
            raise UserError(
                f"{where}: must have {keys[0]!r} and {keys[1]!r}, as the file's first line is a "
                f"pair, but has no {missing[0]!r}."
            )
        others = {key: value for key, value in line.items() if key not in keys}
        phenomenon = next((line[key] for key in _PHENOMENON_KEYS if line.get(key)), None)
        for key, condition in zip(keys, (GOOD, BAD), strict=True):
            what = {**others, ITEM: number, CONDITION: condition, EXPECTED: condition == GOOD}
            if phenomenon is not None:
                what[PHENOMENON] = phenomenon
            suite.add(check_text(line[key], f"{where}: {key!r}"), what, number)
    return suite


def read_suite(
    text: str, path: str, *, detokenize: bool = False, at_most: int | None = None
) -> Suite:
    """Read a SyntaxGym suite.

    Args:
        text: What the file says.
        path: Where it is, for messages.
        detokenize: Whether regions are joined as one writes (no space before a comma) instead of by
            one space each.
        at_most: Keep only so many items.

    Raises:
        UserError: If it is none, naming the item.
    """
    value = read_object(text, path)
    meta, region_meta = value.get("meta", {}), value.get("region_meta", {})
    items = value.get(_ITEMS)
    if not isinstance(items, list) or not items:
        raise UserError(
            f"{path}: a file that is one JSON object must be a SyntaxGym suite with 'items', but "
            f"has {', '.join(map(repr, value)) or 'no keys'}. Other files have an object a line."
        )
    if not isinstance(meta, dict) or not isinstance(region_meta, dict):
        raise UserError(f"{path}: 'meta' and 'region_meta' must be JSON objects.")
    metric = meta.get("metric", "sum")
    if metric not in _METRICS:
        raise UserError(
            f"{path}: the metric of a suite must be {' or '.join(_METRICS)} (both are given) but "
            f"is {metric!r}."
        )
    formulas = list(_predictions(value.get("predictions", []), path))
    name = meta.get("name")
    of_all = {PHENOMENON: name} if isinstance(name, str) and name.strip() else {}
    suite = Suite(at_most)
    seen: set[Any] = set()
    conditions: dict[str, set[str]] = {}
    for place, item in enumerate(items):
        number = item.get("item_number", place + 1) if isinstance(item, dict) else None
        where = f"{path}, item {number}"
        if isinstance(number, bool) or not isinstance(number, int | str):
            raise UserError(f"{path}, item {place + 1} of the list: must have an 'item_number'.")
        if number in seen:
            raise UserError(f"{where}: an item_number must occur once.")
        seen.add(number)
        found = list(_sentences(item, where, detokenize=detokenize))
        for sentence in found:
            conditions.setdefault(sentence.condition, set()).update(sentence.region_names)
            what = {ITEM: number, CONDITION: sentence.condition, **of_all}
            suite.add(sentence.text, {**what, REGIONS: sentence.regions}, place)
        _check_costs(formulas, {sentence.condition for sentence in found}, where)
    everywhere = set().union(*conditions.values(), map(str, region_meta), {ALL_REGIONS})
    for formula in formulas:
        for cost in formula.costs:
            if cost.region not in everywhere:
                raise UserError(
                    f"{path}: no item has the region {cost.region} that is in {formula.text!r}."
                )
    suite.predictions = [formula.text for formula in formulas]
    return suite


def _predictions(given: Any, path: str) -> Iterator[Formula]:
    if not isinstance(given, list):
        raise UserError(f"{path}: 'predictions' must be a list.")
    for number, prediction in enumerate(given, start=1):
        where = f"{path}, prediction {number}"
        kind = prediction.get("type", "formula") if isinstance(prediction, dict) else None
        formula = prediction.get("formula") if isinstance(prediction, dict) else None
        if kind != "formula" or not isinstance(formula, str):
            raise UserError(f"{where}: must be an object with 'type' \"formula\" and a 'formula'.")
        yield parse_prediction(formula, where)


class _Sentence(NamedTuple):
    """A condition of an item of a suite."""

    condition: str
    text: str
    regions: list[list[Any]]
    region_names: list[str]


def _sentences(item: dict[str, Any], where: str, *, detokenize: bool) -> Iterator[_Sentence]:
    """The sentences of an item."""
    conditions = item.get("conditions")
    if not isinstance(conditions, list) or not conditions:
        raise UserError(f"{where}: must have a list of 'conditions'.")
    seen: set[str] = set()
    for condition in conditions:
        name = condition.get("condition_name") if isinstance(condition, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where}: each condition must have a 'condition_name'.")
        if name in seen:
            raise UserError(f"{where}: the condition {name!r} must occur once.")
        seen.add(name)
        here = f"{where}, condition {name!r}"
        parts = _parts(condition.get("regions"), here)
        text, spans = joined(parts, detokenize=detokenize)
        check_text(text, f"{here}: the sentence")
        yield _Sentence(name, text, spans, [region for region, _ in parts])


def _parts(regions: Any, where: str) -> list[tuple[str, str]]:
    """Name and content of each region of a sentence."""
    if not isinstance(regions, list) or not regions:
        raise UserError(f"{where}: must have a list of 'regions'.")
    parts: dict[str, str] = {}
    for region in regions:
        number = region.get("region_number") if isinstance(region, dict) else None
        content = region.get("content") if isinstance(region, dict) else None
        if isinstance(number, bool) or not isinstance(number, int | str):
            raise UserError(f"{where}: each region must have a 'region_number'.")
        if not isinstance(content, str):
            raise UserError(f"{where}, region {number}: 'content' must be text.")
        if str(number) in parts:
            raise UserError(f"{where}: region {number} must occur once.")
        parts[str(number)] = content
    return list(parts.items())


def _check_costs(formulas: Sequence[Formula], conditions: set[str], where: str) -> None:
    for formula in formulas:
        for cost in formula.costs:
            if cost.region is None:
                raise UserError(
                    f"{where}: a prediction must say (region;%condition%), with * for all regions, "
                    f"but {formula.text!r} has {cost.condition!r} alone."
                )
            if cost.condition not in conditions:
                raise UserError(
                    f"{where}: must have the condition {cost.condition!r}, which is in "
                    f"{formula.text!r}, but has {', '.join(sorted(conditions))}."
                )


def _in_one(roles: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a sentence is in one or several pairs, as one dictionary."""
    if len(roles) == 1:
        return roles[0]
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for role in roles for key in role):
        values = [role.get(key) for role in roles]
        is_same = all(value == values[0] for value in values) and not isinstance(values[0], list)
        found[key] = values[0] if key == REGIONS or (is_same and key != ITEM) else values
    return found
