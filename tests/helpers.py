"""Short ways to what many tests need."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset, DatasetOptions
from finetune_lm.data.examples import Examples
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.ragged_arrays import Ragged
from finetune_lm.data.tokenization import Encoding, TextEncoder
from finetune_lm.data.words import TokenPlaces, align, word_spans
from finetune_lm.evaluation.losses import LossEntry, Losses
from finetune_lm.models.tasks import TASKS, sample_inputs
from finetune_lm.models.vocabulary import Vocabulary
from finetune_lm.recording.columns import MetadataColumns
from finetune_lm.recording.recorder import Measured
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.scored_tokens import ScoredTokens
from finetune_lm.recording.token_rows import TokenRows
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer

ACTIVE = [
    "The man has always broken the glass.",
    "The women drank.",
    "A naïve café-owner  said so?",
]


def places_of(encoding: Encoding) -> TokenPlaces:
    """Where the tokens of one text are."""
    starts, ends = Ragged.of([encoding.char_start]), Ragged.of([encoding.char_end])
    return TokenPlaces(starts, ends, np.array([encoding.cut_start]))


def words_of_encoding(text: str, encoding: Encoding) -> list[int]:
    """The word of each token of one text."""
    return align([text], places_of(encoding), [word_spans(text)]).word_num.tolist()


def examples(texts=ACTIVE, labels=None, metadata=None) -> Examples:
    texts = list(texts)
    return Examples("data", "data.txt.gz", texts, labels, metadata or [{} for _ in texts])


def dataset(family: Any, lines: Examples | None = None, **kwargs: Any) -> Dataset:
    """A data set for a family of `families.py`; keyword arguments go where they belong."""
    task = TASKS[family.task]
    for_encoder = {key: kwargs.pop(key) for key in ("append_eos", "bos_policy") if key in kwargs}
    preprocessing = Preprocessing(
        **{key: kwargs.pop(key) for key in ("function", "strategy") if key in kwargs},
        kwargs=kwargs.pop("kwargs", {}),
    )
    max_length = kwargs.pop("max_length", 64)
    encoder = TextEncoder(family.tokenizer, max_length, add_start=task.starts_texts, **for_encoder)
    options = DatasetOptions(**kwargs)
    return Dataset(lines or examples(), encoder, task, preprocessing, options)


def row_maker(family: Any, data: Dataset, losses=()) -> TokenRows:
    columns = RunColumns(
        family.name,
        TASKS[family.task],
        "0.1M",
        7,
        Vocabulary(family.tokenizer),
        MetadataColumns([data.metadata], ["metadata.json"], losses),
        losses,
    )
    return TokenRows(data, "test", columns)


def rows_of(make: TokenRows, batch: Batch, score: Any, **at: Any) -> Any:
    """The rows of a batch, whose epoch, number and losses may be given."""
    losses, number = at.pop("losses", None), at.pop("number", 0)
    epoch = at.pop("epoch", None)
    assert not at
    tokens = ScoredTokens.of(batch, make.run.task, score)
    return make.of_batches([Measured(None, batch, epoch, number, tokens, losses)]).table


def score(family: Any, data: Dataset, batch_size: int = 32, order=None):
    """All rows of a data set as a data frame, and the model's own loss of each batch.

    The rows are those of the plain way; the fast way has to come to the same.
    """
    import pandas as pd

    make = row_maker(family, data)
    plain, fast = (
        Forward(
            Scorer(family.model, data.task, fast=True), data, batch_size, needs=Needs(needs_logits)
        )
        for needs_logits in (True, False)
    )
    cpu = torch.device("cpu")
    frames, losses = [], []
    with torch.no_grad():
        for number, batch in enumerate(data.batches(batch_size, order)):
            each = []
            for forward in (plain, fast):
                outputs = forward(batch, cpu, alone=order is not None)
                rows = rows_of(make, batch, outputs.score, number=number)
                each.append((rows.to_pandas(), float(outputs.for_losses.loss)))
            (frame, loss), (fast_frame, fast_loss) = each
            assert_same_numbers(frame, fast_frame)
            assert math.isclose(loss, fast_loss, rel_tol=1e-5, abs_tol=1e-6) or math.isnan(loss)
            losses.append(loss)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True), losses


def assert_same_numbers(plain: Any, fast: Any, within: float = 1e-4) -> None:
    """See that two tables differ by so few bits only, and in the likeliest tokens by ties."""
    import pandas as pd

    costs = ["surprisal", "predicted_token_surprisal"]
    likeliest = ["predicted_token", "predicted_token_id"]
    pd.testing.assert_frame_equal(plain[costs], fast[costs], rtol=0, atol=within)
    same = (plain["predicted_token_id"] == fast["predicted_token_id"]) | (
        plain["predicted_token_id"].isna() & fast["predicted_token_id"].isna()
    )
    assert same.empty or same.mean() > 0.99
    rest = plain.columns.difference([*costs, *likeliest])
    if "sequence_type" in plain:  # what a model would generate follows from its likeliest tokens
        is_label = plain["sequence_type"] == "label_sequence"
        plain, fast = plain[is_label], fast[is_label]
    pd.testing.assert_frame_equal(plain[rest], fast[rest])


def save_family(family: Any, directory: Any) -> str:
    """A family's model and tokenizer in a directory, as a user would have them."""
    family.model.save_pretrained(directory)
    family.tokenizer.save_pretrained(directory)
    return str(directory)


def save_without_dropout(family: Any, directory: Any) -> str:
    """The same without dropout, so that runs can be redone."""
    config = family.model.config
    for key, value in config.to_dict().items():
        if "drop" in key and isinstance(value, float):
            setattr(config, key, 0.0)
    return save_family(family, directory)


def write_lines(path: Any, lines: Any, metadata: Any = None) -> str:
    """A gzipped data file of texts or objects, with its metadata."""
    import gzip
    import json

    def write(file: Any, rows: Any) -> None:
        text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
        file.write_bytes(gzip.compress(text.encode(), mtime=0))

    write(path, lines)
    if metadata is not None:
        stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
        write(path.with_name(f"{stem}_metadata.json.gz"), metadata)
    return str(path)


class WithoutOffsets:
    """A tokenizer that does not say where a token comes from."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, *args, return_offsets_mapping=False, **kwargs):
        assert not return_offsets_mapping
        return self._tokenizer(*args, **kwargs)


def assert_same_gradient(found, expected):
    """As far as float32 goes: relative to the whole tensor, or 0, which are sums that cancel out.

    In float32 the gradients of the attention of some models are 1e-5 away from those in float64.
    """
    assert (found - expected).norm() <= 1e-5 * expected.norm() + 1e-6


def assert_same_logits(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Two ways to the same logits, in matrix products of other shapes.

    Their last digits follow from the processor and from where in memory a matrix begins.
    """
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=5e-5)


def predicted(model: Any, seed: int = 3) -> Any:
    """Log-probabilities of some random tokens, from a plain call: (2, 9, vocabulary)."""
    ids = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(**sample_inputs(model, ids)).logits.log_softmax(-1)


def losses(*classes, reduce=torch.sum, **kwargs):
    """Losses of a training, of which each class is given the keyword arguments of its name."""
    entries = [LossEntry(cls, kwargs.get(cls.__name__, {})) for cls in classes]
    return Losses(entries, reduce, model=None, tokenizer=None)
