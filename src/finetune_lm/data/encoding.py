"""Tokenize the lines of a data file, once, and keep the result between runs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.data.examples import Examples
from finetune_lm.data.ragged_arrays import Ragged
from finetune_lm.data.reading_examples import MOST_KEPT_LINES
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.errors import UserError
from finetune_lm.whole_files import checksum, sealed, unsealed, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

# How many texts are tokenized at a time.
_CHUNK = 1_000


class _EncodeRows:
    """Encodes rows of texts; a class, so that worker processes can be sent it."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder

    def __call__(self, rows: dict[str, list[str]]) -> dict[str, list[Any]]:
        texts = self.encoder(rows["text"])
        sources = (
            self.encoder(rows["label_text"], as_target=True) if "label_text" in rows else texts
        )
        columns: dict[str, list[Any]] = {
            "input_ids": [encoding.input_ids for encoding in texts],
            "attention_mask": [[1] * len(encoding.input_ids) for encoding in texts],
            "char_start": [encoding.char_start for encoding in sources],
            "char_end": [encoding.char_end for encoding in sources],
            "cut_start": [encoding.cut_start for encoding in sources],
            "n_cut": [encoding.n_cut for encoding in texts],
            "label_n_cut": [encoding.n_cut for encoding in sources],
        }
        if sources is not texts:
            columns["labels"] = [encoding.input_ids for encoding in sources]
        return columns


def encode(
    examples: Examples,
    labels: list[str] | None,
    encoder: TextEncoder,
    num_workers: int | None,
    overwrite_cache: bool,
) -> pa.Table:
    """Tokenize a data file, or take up what an earlier run has made of the same lines.

    Args:
        examples: The lines.
        labels: The texts of the labels, if the file gives some that are to be used.
        encoder: Turns texts into token ids.
        num_workers: How many processes tokenize; None for this one.
        overwrite_cache: Whether to tokenize anew what is in the cache.

    Returns:
        A table with the columns ``input_ids``, ``attention_mask``, ``n_cut``, ``labels`` (if
        given), and of the labels' texts (the inputs', without labels) ``char_start``,
        ``char_end``, ``cut_start``, ``label_n_cut``.
    """
    columns = {"text": examples.texts}
    if labels is not None:
        columns["label_text"] = labels
    fingerprint = _fingerprint(columns, encoder)
    cache_file = _cache_file(fingerprint) if encoder.tokenizer.is_fast else None
    if cache_file is not None and not overwrite_cache:
        cached = _kept.get(fingerprint) or _read_cache(cache_file)
        if cached is not None:
            return _keep(fingerprint, cached)
    if num_workers and num_workers > 1:
        encoded = _encoded_by_several(columns, encoder, min(num_workers, len(examples)))
    else:
        encoded = _encoded(columns, encoder)
    if cache_file is not None:
        # Where it cannot be kept, the next run tokenizes again.
        with suppress(OSError):
            _write_cache(cache_file, encoded)
        _keep(fingerprint, encoded)
    return encoded


def _encoded(columns: dict[str, list[str]], encoder: TextEncoder) -> pa.Table:
    """Tokenize here and now."""
    import pyarrow as pa

    types = {
        "input_ids": pa.list_(pa.int32()),
        "attention_mask": pa.list_(pa.int8()),
        "labels": pa.list_(pa.int64()),
        "char_start": pa.list_(pa.int64()),
        "char_end": pa.list_(pa.int64()),
    }
    encode_rows = _EncodeRows(encoder)
    chunks = []
    for begin in range(0, len(columns["text"]), _CHUNK):
        rows = {name: texts[begin : begin + _CHUNK] for name, texts in columns.items()}
        chunks.append(
            pa.table(
                {
                    name: pa.array(values, types.get(name, pa.int64()))
                    for name, values in encode_rows(rows).items()
                }
            )
        )
    return pa.concat_tables(chunks)


def _encoded_by_several(
    columns: dict[str, list[str]], encoder: TextEncoder, n_processes: int
) -> pa.Table:
    """Tokenize in several processes."""
    import datasets

    raw = datasets.Dataset.from_dict(columns)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        encoded = raw.map(
            _EncodeRows(encoder),
            batched=True,
            batch_size=_CHUNK,
            remove_columns=raw.column_names,
            num_proc=n_processes,
            keep_in_memory=True,
        )
    finally:
        if shown:
            datasets.enable_progress_bars()
    return encoded.data.table


_kept: dict[str, pa.Table] = {}
"""Tokenized data of the last runs of this process, by fingerprint, as far as it keeps any."""
_is_keeping: ContextVar[bool] = ContextVar("is_keeping", default=False)


@contextmanager
def keeping_encoded() -> Iterator[None]:
    """Inside, tokenized data is kept in memory from run to run."""
    token = _is_keeping.set(True)
    try:
        yield
    finally:
        _is_keeping.reset(token)
        _kept.clear()


def _keep(fingerprint: str, encoded: pa.Table) -> pa.Table:
    """Keep tokenized data if that is wanted; those that were asked for last stay longest."""
    if _is_keeping.get():
        _kept.pop(fingerprint, None)
        _kept[fingerprint] = encoded
        while len(_kept) > 1 and sum(map(len, _kept.values())) > MOST_KEPT_LINES:
            del _kept[next(iter(_kept))]
    return encoded


def _fingerprint(columns: dict[str, list[str]], encoder: TextEncoder) -> str:
    """A name for the result of tokenizing: everything that it depends on, hashed.

    Of a tokenizer without a description of all that it does (one written in Python) that is not
    possible, so the results of such are not kept.
    """
    import tokenizers
    import transformers

    tokenizer = encoder.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = {
        "format": 3,
        "versions": [transformers.__version__, tokenizers.__version__],
        "tokenizer": backend.to_str() if backend is not None else tokenizer.get_vocab(),
        "class": type(tokenizer).__qualname__,
        "options": tokenizer.init_kwargs,
        "special": {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        "settings": {key: value for key, value in vars(encoder).items() if key != "tokenizer"},
        "columns": columns,
    }
    text = json.dumps(state, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _cache_file(fingerprint: str) -> Path:
    """Where tokenized data is kept between runs."""
    from huggingface_hub.constants import HF_HOME

    # Where `datasets` keeps what it makes, by its own rule: to import it takes half a second.
    directory = os.environ.get("HF_DATASETS_CACHE") or Path(HF_HOME) / "datasets"
    return Path(directory) / "finetune_lm" / f"{fingerprint}.arrow"


def _checksum_file(cache_file: Path) -> Path:
    return cache_file.with_suffix(".json")


def _read_cache(cache_file: Path) -> pa.Table | None:
    """What an earlier run has kept; None if that is not there or not as it was written."""
    import pyarrow as pa

    try:
        if unsealed(_checksum_file(cache_file)) != checksum(cache_file):
            return None
        with pa.memory_map(str(cache_file)) as file, pa.ipc.open_stream(file) as stream:
            return stream.read_all()
    except (OSError, ValueError):
        return None


def _write_cache(cache_file: Path, encoded: pa.Table) -> None:
    """Keep tokenized data, and a checksum beside it.

    Raises:
        OSError: If that is not possible.
    """
    import pyarrow as pa

    cache_file.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(cache_file, shared=True) as aside:
        with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_stream(file, encoded.schema) as stream:
            stream.write_table(encoded)
        written = checksum(aside)
    with write_whole(_checksum_file(cache_file), shared=True) as aside:
        aside.write_text(sealed(written), "utf-8")


def check_parallel(examples: Examples, encoded: pa.Table, mode: str | None = None) -> None:
    """See that every text has as many tokens as its labels.

    Args:
        examples: The lines.
        encoded: Their tokens.
        mode: The mode of the model that needs it so, if it has two, for the message.

    Raises:
        UserError: Naming the first line of which that is not so.
    """
    whole = [
        (Ragged.of_column(encoded[side]).lengths + encoded[n_cut].to_numpy()).tolist()
        for side, n_cut in (("input_ids", "n_cut"), ("labels", "label_n_cut"))
    ]
    for number, (n, n_labels) in enumerate(zip(*whole, strict=True), start=1):
        if n != n_labels:
            of_mode = "" if mode is None else f" (the {mode} mode)"
            raise UserError(
                f"{examples.path}, line {number}: a masked language model{of_mode} needs a label "
                f"for each token, but 'text' has {n} tokens and 'labels' has {n_labels}."
            )
