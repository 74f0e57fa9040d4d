"""Which sentences belong together: items, their conditions, and which one is expected.

Metadata say it: ``item`` or ``pair``, ``condition``, ``expected`` (true for the sentence that is
expected to be likelier), and perhaps ``phenomenon``. A sentence that is in several items has lists
of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune_lm.data.units import REGIONS
from finetune_lm.errors import UserError

ITEM, PAIR, CONDITION, EXPECTED = "item", "pair", "condition", "expected"
PHENOMENON = "phenomenon"


@dataclass(frozen=True)
class Member:
    """What a sentence is in one item.

    Attributes:
        example: The sentence's number in its data set.
        condition: Its condition, as text.
        expected: Whether it is expected to be likelier than the others; None where that is not
            said.
        metadata: All that is said of it.
    """

    example: int
    condition: str
    expected: bool | None
    metadata: Mapping[str, Any]


@dataclass
class Item:
    """Sentences that are compared.

    Attributes:
        phenomenon: Of which phenomenon they are; None where that is not said.
        name: What the item is called.
        members: The sentences.
    """

    phenomenon: str | None
    name: Any
    members: list[Member] = field(default_factory=list)

    @property
    def expected(self) -> Member | None:
        """The sentence that is expected to be likelier, if exactly one is."""
        found = [member for member in self.members if member.expected]
        return found[0] if len(found) == 1 else None

    @property
    def others(self) -> list[Member]:
        """The sentences that are expected to be less likely."""
        return [member for member in self.members if member.expected is False]


def items_of(
    metadata: Sequence[Mapping[str, Any]], key: tuple[str, ...] = (PAIR, ITEM)
) -> list[Item]:
    """Put sentences together to items, in the order in which they are met.

    Args:
        metadata: Of each sentence. Those without an item or a condition are in none.
        key: Where the item's name stands, the first of them that there is.
    """
    items: dict[tuple[str, str], Item] = {}
    for example, values in enumerate(metadata):
        for role in roles_of(values, key):
            name = next((role[each] for each in key if role.get(each) is not None), None)
            condition = role.get(CONDITION)
            if name is None or condition is None:
                continue
            phenomenon = role.get(PHENOMENON)
            phenomenon = None if phenomenon is None else as_text(phenomenon)
            item = items.setdefault((phenomenon or "", as_text(name)), Item(phenomenon, name))
            expected = role.get(EXPECTED)
            is_said = isinstance(expected, bool)
            member = Member(example, as_text(condition), expected if is_said else None, role)
            item.members.append(member)
    return list(items.values())


def roles_of(
    values: Mapping[str, Any], key: tuple[str, ...] = (PAIR, ITEM)
) -> Iterator[Mapping[str, Any]]:
    """What a sentence is in each of the items that it is in."""
    names = next((values[each] for each in key if values.get(each) is not None), None)
    if not isinstance(names, list):
        yield values
        return
    for i in range(len(names)):
        yield {
            name: value[i] if _is_parallel(name, value, len(names)) else value
            for name, value in values.items()
        }


def _is_parallel(name: str, value: Any, n: int) -> bool:
    return isinstance(value, list) and len(value) == n and name != REGIONS


def as_text(value: Any) -> str:
    """A value of the metadata as text, the same for a number and its digits."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def has_pairs(metadata: Sequence[Mapping[str, Any]]) -> bool:
    """Whether metadata say which sentences are expected to be likelier than which."""
    return any(
        CONDITION in values and (ITEM in values or PAIR in values) and _says_truth(values)
        for values in metadata
    )


def _says_truth(values: Mapping[str, Any]) -> bool:
    expected = values.get(EXPECTED)
    return isinstance(expected, bool) or (
        isinstance(expected, list) and any(isinstance(each, bool) for each in expected)
    )


def conditions_in(metadata: Sequence[Mapping[str, Any]]) -> set[str]:
    """The conditions of all sentences that are in an item."""
    return {member.condition for item in items_of(metadata) for member in item.members}


def regions_in(metadata: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of all regions of the sentences."""
    return {region[0] for values in metadata for region in values.get(REGIONS) or ()}


def check_items(metadata: Sequence[Mapping[str, Any]], path: str) -> None:
    """See that each item has one sentence that is expected, and others that are not.

    Args:
        metadata: Of each sentence, in the order of the lines.
        path: Where it is from, for messages.

    Raises:
        UserError: Naming the line or the item.
    """
    for number, values in enumerate(metadata, start=1):
        where = f"{path}, line {number}"
        for key in (CONDITION, EXPECTED):
            if values.get(key) is None:
                raise UserError(
                    f"{where}: must have {key!r}, as other lines of the file do, since the file "
                    f"has pairs. Put lines that are in no pair into another file."
                )
        if values.get(PAIR) is None and values.get(ITEM) is None:
            raise UserError(f"{where}: must have {PAIR!r} or {ITEM!r}, since the file has pairs.")
        for role in roles_of(values):
            expected = role[EXPECTED]
            if not isinstance(expected, bool):
                raise UserError(
                    f"{where}: {EXPECTED!r} must be true or false but is {json.dumps(expected)}."
                )
    for item in items_of(metadata):
        lines = ", ".join(str(member.example + 1) for member in item.members)
        of = f" of {item.phenomenon}" if item.phenomenon else ""
        where = f"{path}, item {as_text(item.name)}{of} (lines {lines})"
        n_expected = sum(member.expected is True for member in item.members)
        if n_expected != 1:
            raise UserError(
                f"{where}: one sentence must be expected to be likelier than the others but "
                f"{n_expected} are."
            )
        if not item.others:
            raise UserError(f"{where}: must have two sentences or more but has one.")
        conditions = [member.condition for member in item.members]
        if len(set(conditions)) < len(conditions):
            raise UserError(f"{where}: each sentence must have a condition of its own.")


def with_leading_space(texts: Sequence[str]) -> list[str]:
    """Texts with a space before each that does not begin with white space."""
    return [text if text[:1].isspace() else f" {text}" for text in texts]


def moved_by(values: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Metadata of a text before which n characters were put: its regions begin later."""
    moved = dict(values)
    if n and values.get(REGIONS) is not None:
        moved[REGIONS] = [[name, begin + n, end + n] for name, begin, end in values[REGIONS]]
    return moved
