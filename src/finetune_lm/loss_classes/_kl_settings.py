"""What a KL term is given, checked, one entry for each of its data sets."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from finetune_lm.arguments.given_functions import function_problems
from finetune_lm.arguments.suggestions import choices, did_you_mean
from finetune_lm.constants import ONCE, PREPROCESSING_STRATEGIES
from finetune_lm.data.examples import JSON_SUFFIXES, TEXT_SUFFIXES
from finetune_lm.data_preprocessing import identity
from finetune_lm.errors import UserError

REDUCTIONS = ("none", "mean", "batchmean", "sum")
DEFAULT_CACHE_MB = 1024


@dataclass(frozen=True)
class KLSource:
    """One data set of a KL term.

    Attributes:
        path: A data file, a directory of a saved data set, or the name of one on the Hub.
        split_name: Which split, of what has several.
        max_samples: Use only so many examples, from the start; None for all.
        scaleby: What the divergence is multiplied by.
        n_examples: How many examples are drawn for a batch; None for all.
    """

    path: str
    split_name: str
    max_samples: int | None
    scaleby: float
    n_examples: int | None

    @property
    def is_data_file(self) -> bool:
        """Whether it is a file of a text a line, as those that a model is trained on."""
        return self.path.endswith((*TEXT_SUFFIXES, *JSON_SUFFIXES)) and not Path(self.path).is_dir()


@dataclass(frozen=True)
class KLSettings:
    """All settings of a KL term; `KLBaselineLoss` says what each does.

    Raises:
        UserError: With a message for each that will not do.
    """

    dataset: str | Sequence[str]
    batch_size: int = 32
    scaleby: float | Sequence[float] = 2.5
    n_examples_per_batch: int | Sequence[int | None] | None = 20
    model_kwargs: Mapping[str, Any] | None = None
    tokenizer_kwargs: Mapping[str, Any] | None = None
    size_average: bool | None = None
    reduce: bool | None = None
    reduction: str = "none"
    split_name: str | Sequence[str] = "train"
    max_samples_per_dataset: int | Sequence[int | None] | None = None
    max_sample_length: int | None = None
    preprocessing_num_workers: int | None = None
    overwrite_cache: bool = False
    data_preprocessing_fn: Callable[..., Any] = identity
    data_preprocessing_fn_kwargs: Mapping[str, Any] | None = None
    data_preprocessing_fn_strategy: str = ONCE
    return_all: bool = False
    dropout: bool = True
    cache_mb: float = DEFAULT_CACHE_MB

    def __post_init__(self) -> None:
        """See that every value will do."""
        if problems := [*self._dataset_problems(), *self._value_problems()]:
            raise UserError(*problems)

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Self:
        """The settings that keyword arguments give.

        Raises:
            UserError: If one does not exist or will not do.
        """
        known = list(cls.__dataclass_fields__)
        problems = [
            f"{name} is not an argument of KLBaselineLoss, which takes "
            f"{', '.join(known)}.{did_you_mean(name, known)}"
            for name in kwargs
            if name not in known
        ]
        if "dataset" not in kwargs:
            problems.append(
                "dataset must be given: the sentences on which the model is held to its baseline."
            )
        if problems:
            raise UserError(*problems)
        return cls(**kwargs)

    @property
    def sources(self) -> list[KLSource]:
        """The data sets, each with its own settings."""
        paths = _listed(self.dataset)
        return [
            KLSource(path, split, n_max, float(scaleby), n)
            for path, split, n_max, scaleby, n in zip(
                paths,
                self._each("split_name", len(paths)),
                self._each("max_samples_per_dataset", len(paths)),
                self._each("scaleby", len(paths)),
                self._each("n_examples_per_batch", len(paths)),
                strict=True,
            )
        ]

    @property
    def reduction_used(self) -> str:
        """``reduction``, unless torch's older ``size_average`` and ``reduce`` say otherwise."""
        if self.size_average is None and self.reduce is None:
            return self.reduction
        if self.reduce is False:
            return "none"
        return "sum" if self.size_average is False else "mean"

    def _each(self, name: str, n: int) -> list[Any]:
        values = _listed(getattr(self, name))
        return values * n if len(values) == 1 else values

    def _dataset_problems(self) -> list[str]:
        paths = _listed(self.dataset)
        if not paths or not all(isinstance(path, str) and path.strip() for path in paths):
            return [f"dataset must be one or more files or names but got {self.dataset!r}."]
        problems = [
            f"{name} must have one value, or one for each dataset ({len(paths)}), but has {n}."
            for name in ("scaleby", "n_examples_per_batch", "split_name", "max_samples_per_dataset")
            if (n := len(_listed(getattr(self, name)))) not in (1, len(paths))
        ]
        # A name on the Hub has at most one slash and no suffix of a data file.
        problems += [
            f"there is no file {path}."
            for path in paths
            if not Path(path).exists()
            and (
                path.endswith((*TEXT_SUFFIXES, *JSON_SUFFIXES))
                or path.startswith((".", "/", "~"))
                or path.count("/") > 1
            )
        ]
        return problems

    def _value_problems(self) -> list[str]:
        problems: list[str] = []

        def require(name: str, is_right: Callable[[Any], bool], what: str) -> None:
            problems.extend(
                f"{name} must be {what} but got {value!r}."
                for value in _listed(getattr(self, name))
                if not is_right(value)
            )

        require("batch_size", _is_count, "an integer of at least 1")
        require("scaleby", _is_weight, "a number of at least 0")
        for name in ("n_examples_per_batch", "max_samples_per_dataset"):
            require(name, _is_count_or_none, "an integer of at least 1, or None for all")
        for name in ("max_sample_length", "preprocessing_num_workers"):
            require(name, _is_count_or_none, "an integer of at least 1, or None")
        require("split_name", lambda value: isinstance(value, str), "text")
        require("cache_mb", _is_weight, "a number of at least 0")
        for name in ("return_all", "dropout", "overwrite_cache"):
            require(name, lambda value: isinstance(value, bool), "True or False")
        for name in ("size_average", "reduce"):
            require(name, lambda value: value is None or isinstance(value, bool), "True or False")
        require("reduction", lambda value: value in REDUCTIONS, choices(REDUCTIONS))
        require(
            "data_preprocessing_fn_strategy",
            lambda value: value in PREPROCESSING_STRATEGIES,
            choices(PREPROCESSING_STRATEGIES),
        )
        for name in ("model_kwargs", "tokenizer_kwargs", "data_preprocessing_fn_kwargs"):
            require(name, lambda value: value is None or isinstance(value, Mapping), "a dictionary")
        require("data_preprocessing_fn", callable, "a function")
        return problems or function_problems(
            "data_preprocessing_fn",
            "data_preprocessing_fn_kwargs",
            self.data_preprocessing_fn,
            self.data_preprocessing_fn_kwargs or {},
        )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _is_count(value: Any) -> bool:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and int(value) >= 1


def _is_count_or_none(value: Any) -> bool:
    return value is None or _is_count(value)


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and 0 <= float(value) < float("inf")
