"""The columns of the tables, their order, and the metadata among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa

from finetune_lm.arguments.references import numbered_names
from finetune_lm.data.examples import Examples
from finetune_lm.data.units import REGIONS, UNIT_KEYS
from finetune_lm.errors import UserError

RUN_COLUMNS = ("model_name", "task", "n_params")
MODE = "mode"
DATASET_COLUMNS = ("dataset_name", "dataset_type", "epoch", "batch_number")
EXAMPLE_COLUMNS = ("example_num", "item", "original_text", "input_text", "input_label")
SEEN_IN = "seen_in"
TOKEN_COLUMNS = (
    "word_num",
    "word",
    "token_num_in_word",
    "token",
    "token_id",
    "token_start",
    "token_end",
    "token_is_start_of_word",
    "token_is_word",
    "is_target",
    "is_unknown",
    "surprisal",
    "predicted_token",
    "predicted_token_id",
    "predicted_token_surprisal",
)
STEP = "step"
REGION = "region"
STRADDLES = "straddles"
BASELINE_SURPRISAL = "baseline_surprisal"
SEQUENCE_TYPE = "sequence_type"
LABEL_SEQUENCE = "label_sequence"
GENERATED_SEQUENCE = "generated_sequence"
LOSS = "loss"
LR = "lr"
SEED = "seed"
ITEM = "item"

STRING_COLUMNS = frozenset(
    {
        *RUN_COLUMNS,
        "dataset_name",
        "dataset_type",
        "original_text",
        "input_text",
        "input_label",
        SEEN_IN,
        SEQUENCE_TYPE,
        REGION,
        "word",
        "token",
        "predicted_token",
    }
)
BOOL_COLUMNS = frozenset(
    {"token_is_start_of_word", "token_is_word", "is_target", "is_unknown", STRADDLES}
)
INTEGER_COLUMNS = frozenset(
    {
        "epoch",
        STEP,
        "tokens_seen",
        "batch_number",
        "example_num",
        "word_num",
        "token_num_in_word",
        "token_id",
        "token_start",
        "token_end",
        "predicted_token_id",
        SEED,
    }
)


def table_columns(
    *,
    losses: Sequence[str],
    metadata: Sequence[str],
    measures: Sequence[str] = (),
    units: Sequence[str] = (),
    besides: Collection[str] = (),
) -> list[str]:
    """All columns of a table, in order.

    Args:
        losses: The names of the loss columns, which a table of training and validation has, beside
            the learning rate; a table of test results has none, and tells what was seen before.
        metadata: The names of the metadata columns.
        measures: The names of the columns of measures.
        units: The columns about regions and words that the data give.
        besides: ``sequence_type`` where there are rows for labels and for what the model would say,
            ``step`` in the table of probes, which tells after how many updates rows were measured,
            ``baseline_surprisal`` where there is a pass before the training, ``mode`` where a model
            is measured in two modes.
    """
    behind_task = RUN_COLUMNS.index("task") + 1
    mode = [MODE] if MODE in besides else []
    run = [*RUN_COLUMNS[:behind_task], *mode, *RUN_COLUMNS[behind_task:]]
    sequence_type = [SEQUENCE_TYPE] if SEQUENCE_TYPE in besides else []
    place = EXAMPLE_COLUMNS.index("original_text")
    seen_in = [] if losses else [SEEN_IN]
    example = [*EXAMPLE_COLUMNS[:place], *seen_in, *EXAMPLE_COLUMNS[place:], *sequence_type]
    learning = [*losses, LR] if losses else []
    behind_epoch = DATASET_COLUMNS.index("epoch") + 1
    step = [STEP] if STEP in besides else []
    dataset = [*DATASET_COLUMNS[:behind_epoch], *step, *DATASET_COLUMNS[behind_epoch:]]
    behind = TOKEN_COLUMNS.index("is_unknown") + 1
    token = [*TOKEN_COLUMNS[:behind], *units, *TOKEN_COLUMNS[behind:]]
    before = [BASELINE_SURPRISAL] if BASELINE_SURPRISAL in besides else []
    fixed = [*run, *dataset, *example, *token, *before, *measures, *learning, SEED]
    return [*fixed, *metadata]


def has_modes(columns: Sequence[str]) -> bool:
    """Whether a table has rows of both modes of a model, in which a column says of which.

    Of another table metadata may have a column of that name, which stands behind all others.

    Args:
        columns: The columns of a table of tokens, in order.
    """
    names = [name for name in columns if name in (MODE, "dataset_name")]
    return names == [MODE, "dataset_name"]


def _fixed_columns(losses: Sequence[str]) -> set[str]:
    """What columns are called, in whatever table."""
    besides = SEQUENCE_TYPE, STEP, BASELINE_SURPRISAL
    tables = [table_columns(losses=names, metadata=[], besides=besides) for names in (losses, [])]
    return {name for table in tables for name in table}


def all_loss_columns(classes: Mapping[str, Sequence[Callable[..., Any]]]) -> list[str]:
    """``loss``, and the column of each loss of the training and validation data.

    Raises:
        UserError: If a class has the name of another column.
    """
    parts = dict.fromkeys(name for group in classes.values() for name in numbered_names(group))
    taken = {LOSS, LR, *_fixed_columns([])}
    if clashes := taken & parts.keys():
        raise UserError(
            f"a loss class must not have the name of a column of the results, but one is called "
            f"{clashes.pop()}. Rename it."
        )
    return [LOSS, *parts]


def check_measure_columns(measures: Iterable[str], losses: Iterable[str] = ()) -> None:
    """See that no measure has a column of the name of another one.

    Raises:
        UserError: If one has.
    """
    taken = {*_fixed_columns([LOSS]), REGION, STRADDLES, *losses}
    if clashes := [name for name in measures if name in taken]:
        raise UserError(
            f"measures must not have columns that the results have already, but there is one "
            f"called {clashes[0]}. Rename it."
        )


class MetadataColumns:
    """The metadata of one or several data sets as columns of one type each.

    A column is boolean, integer or floating-point if all its values are; everything else is text,
    lists and objects as JSON. What an example lacks, and null, is missing. Words and regions are
    about the text and have no columns of their own.

    Args:
        datasets: The metadata of each data set, one dictionary an example.
        paths: Where each came from, for messages.
        others: The names of more columns, which metadata cannot have either: of losses and of
            measures.

    Raises:
        UserError: If a key other than ``item`` is the name of another column.

    Attributes:
        unit_names: The columns that rows have for them: ``region`` where there are regions, and
            ``straddles`` where there are regions or words.
    """

    def __init__(
        self,
        datasets: Sequence[Sequence[dict[str, Any]]],
        paths: Sequence[str],
        others: Sequence[str] = (),
    ) -> None:
        self.unit_names = _unit_names(datasets)
        taken = {*_fixed_columns([LOSS]), *others, *self.unit_names} - {ITEM}
        values: dict[str, list[Any]] = {}
        problems = []
        for path, examples in zip(paths, datasets, strict=True):
            for key in dict.fromkeys(key for example in examples for key in example):
                if key in taken:
                    problems.append(
                        f"{path}: metadata must not have the key {key!r}, which is the name of a "
                        f"column of the results. Rename it."
                    )
                if key in UNIT_KEYS:
                    continue
                values.setdefault(key, []).extend(example.get(key) for example in examples)
        if problems:
            raise UserError(*problems)
        self._types = {key: _common_type(column) for key, column in values.items()}
        self._types.setdefault(ITEM, pa.int64())
        if any(not any(ITEM in e for e in examples) for examples in datasets) and (
            self._types[ITEM] == pa.bool_()
        ):
            self._types[ITEM] = pa.string()

    @classmethod
    def of_files(cls, files: Sequence[Examples], others: Sequence[str] = ()) -> Self:
        """The metadata columns of a table about these files."""
        paths = [file.metadata_path or file.path for file in files]
        return cls([file.metadata for file in files], paths, others)

    @property
    def names(self) -> list[str]:
        """The columns behind ``seed``, in the order in which they were met."""
        return [key for key in self._types if key != ITEM]

    def array(self, name: str, values: Iterable[Any]) -> pa.Array:
        """Values of one column in its type."""
        kind = self._types[name]
        if kind == pa.string():
            return pa.array([_text(value) for value in values], kind)
        return pa.array(list(values), kind)


def _unit_names(datasets: Sequence[Sequence[dict[str, Any]]]) -> Sequence[str]:
    given = {key for examples in datasets for e in examples for key in UNIT_KEYS if e.get(key)}
    if REGIONS in given:
        return REGION, STRADDLES
    return (STRADDLES,) if given else ()


def _common_type(values: Iterable[Any]) -> pa.DataType:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool) for value in present):
        return pa.bool_()
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in present)
    if present and numeric:
        if all(isinstance(value, int) for value in present):
            small = all(-(2**63) <= value < 2**63 for value in present)
            return pa.int64() if small else pa.string()
        if all(isinstance(value, float) or abs(value) <= 2**53 for value in present):
            return pa.float64()
    return pa.string()


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # No reader of CSV files takes a NUL, and lone surrogates are not UTF-8.
    return text.replace("\0", "\\x00").encode("utf-8", "replace").decode("utf-8")
