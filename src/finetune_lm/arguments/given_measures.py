"""The measures that users name: what each is made with, its columns, whether they will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.calls import (
    keyword_problems,
    kwargs_problems,
    taken_by,
    value_problems,
)
from finetune_lm.arguments.references import numbered_names, short_name
from finetune_lm.arguments.suggestions import did_you_mean
from finetune_lm.errors import UserError, users_code

if TYPE_CHECKING:
    from finetune_lm.arguments.data_training_arguments import DataTrainingArguments

_GIVEN = ("model", "tokenizer")
_WAYS_OVER_WORD = ("sum", "first", None)


@dataclass(frozen=True)
class GivenMeasure:
    """A measure of one kind of data.

    Attributes:
        cls: Its class.
        name: What it is called: with a number behind it if it is one of several of its class.
        kwargs: What it is made with besides the model and the tokenizer.
    """

    cls: Callable[..., Any]
    name: str
    kwargs: dict[str, Any]

    def columns(self) -> tuple[str, ...]:
        """Its columns, as its class tells without a model.

        It does so by ``columns``, or by ``columns_of``, which is given its keyword arguments.

        Raises:
            UserError: If it does not.
        """
        tell = getattr(self.cls, "columns_of", None)
        with users_code(f"measure {self.name}"):
            columns: Any = tell(**self.kwargs) if tell else getattr(self.cls, "columns", None)
        is_list = isinstance(columns, list | tuple) and bool(columns)
        if not is_list or not all(isinstance(name, str) and name for name in columns):
            raise UserError(
                f"measure {self.name} must name its columns, as in columns = ('my_measure',), but "
                f"has {columns!r}."
            )
        if len(set(columns)) < len(columns):
            raise UserError(f"measure {self.name} must not name a column twice: {columns!r}.")
        return tuple(columns)

    def regions(self) -> frozenset[str]:
        """The regions that it is restricted to; none where it is for all of a text.

        Its class tells by ``regions_of``, which is given its keyword arguments.
        """
        tell = getattr(self.cls, "regions_of", None)
        with users_code(f"measure {self.name}"):
            return frozenset(tell(**self.kwargs)) if tell else frozenset()

    @property
    def over_word(self) -> str | None:
        """What a table of words takes of it: ``sum``, ``first`` or nothing."""
        found: str | None = getattr(self.cls, "over_word", None)
        return found

    def integers(self) -> frozenset[str]:
        """Those of its columns that are whole numbers."""
        return frozenset(getattr(self.cls, "integers", ()))


def given_measures(args: DataTrainingArguments, dataset_type: str) -> list[GivenMeasure]:
    """Return the measures of one kind of data, in order.

    Where a class is there twice, `Candidates_2` has what is for its second measure alone, over what
    `Candidates` has for both.
    """
    classes = args.measures.get(dataset_type, [])
    return [
        GivenMeasure(
            cls,
            numbered,
            {
                key: value
                for name in dict.fromkeys([short_name(cls), numbered])
                for key, value in args.measures_kwargs.get(name, {}).items()
            },
        )
        for cls, numbered in zip(classes, numbered_names(classes), strict=True)
    ]


def measure_columns(given: Iterable[GivenMeasure]) -> dict[str, GivenMeasure]:
    """Return the measure of each column, in order.

    Raises:
        UserError: If two have a column of one name.
    """
    columns: dict[str, GivenMeasure] = {}
    for measure in given:
        for name in measure.columns():
            if name in columns:
                raise UserError(
                    f"measures: {columns[name].name} and {measure.name} both have a column {name}. "
                    f"Leave one out."
                )
            columns[name] = measure
    return columns


def columns_of_measures(
    args: DataTrainingArguments, dataset_types: Iterable[str]
) -> dict[str, GivenMeasure]:
    """Return the measure of each column of a table about several kinds of data, in order."""
    return {
        name: measure
        for dataset_type in dataset_types
        for name, measure in measure_columns(given_measures(args, dataset_type)).items()
    }


def measure_problems(args: DataTrainingArguments) -> list[str]:
    """Return what is wrong with measures, and with what they are given."""
    # As many of each class as one kind of data has of it.
    counts: Counter[Callable[..., Any]] = Counter()
    for group in args.measures.values():
        counts |= Counter(group)
    classes = list(counts.elements())
    problems = kwargs_problems("measures_kwargs", args.measures_kwargs, "measures", classes)
    for dataset_type in args.measures:
        given = given_measures(args, dataset_type)
        found = [problem for measure in given for problem in _problems(measure)]
        if not found:
            try:
                measure_columns(given)
            except UserError as error:
                found = list(error.problems)
        problems += found
    return list(dict.fromkeys(problems))


def _problems(measure: GivenMeasure) -> list[str]:
    place = f"measures_kwargs.{measure.name}"
    takes = taken_by(measure.cls)
    if takes is not None:
        if not takes.takes_any and not {*_GIVEN} <= takes.parameters.keys():
            return [
                f"measure {measure.name} must be made with {' and '.join(_GIVEN)} but takes "
                f"{takes}."
            ]
        found = keyword_problems(place, measure.name, takes, measure.kwargs, reserved=_GIVEN)
        if found:
            return found
    if found := value_problems(place, measure.cls, measure.kwargs, measure.name):
        return found
    if measure.over_word not in _WAYS_OVER_WORD:
        return [
            f"measure {measure.name}: over_word must be 'sum', 'first' or None but is "
            f"{measure.over_word!r}."
        ]
    if isinstance(measure.cls, type) and not any(
        "__call__" in vars(c) for c in measure.cls.__mro__
    ):
        return [f"measure {measure.name} must have a method __call__(self, logits, targets)."]
    try:
        columns = measure.columns()
    except UserError as error:
        return list(error.problems)
    if unknown := sorted(measure.integers() - {*columns}):
        return [
            f"measure {measure.name}: integers must be among its columns {', '.join(columns)} but "
            f"there is {unknown[0]!r}."
        ]
    return []


def check_regions(args: DataTrainingArguments, regions: Mapping[str, Collection[str]]) -> None:
    """See that measures are restricted to regions that some of their data have.

    Args:
        args: The arguments.
        regions: The names of the regions of each kind of data that there is.

    Raises:
        UserError: If there is no such region.
    """
    wanted: dict[str, list[str]] = {}
    for dataset_type in regions:
        for measure in given_measures(args, dataset_type):
            for name in sorted(measure.regions()):
                wanted.setdefault(name, []).append(dataset_type)
    for name, kinds in wanted.items():
        there = sorted({region for kind in kinds for region in regions[kind]})
        if name not in there:
            known = f"has {', '.join(there)}" if there else "has no regions"
            raise UserError(
                f"measures: there is no region {name!r} in what is measured ({', '.join(kinds)}), "
                f"which {known}.{did_you_mean(name, there)}"
            )
