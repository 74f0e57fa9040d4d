"""Tokenize the lines of a data file, once, and keep the result between runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.data.files import MOST_KEPT_LINES, Examples
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.errors import UserError
from finetune_lm.whole_files import checksum, sealed, unsealed, write_whole

if TYPE_CHECKING:
    import datasets


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
) -> datasets.Dataset:
    """Tokenize a data file, or take up what an earlier run has made of the same lines.

    Args:
        examples: The lines.
        labels: The texts of the labels, if the file gives some that are to be used.
        encoder: Turns texts into token ids.
        num_workers: How many processes tokenize; None for this one.
        overwrite_cache: Whether to tokenize anew what is in the cache.

    Returns:
        A data set with the columns ``input_ids``, ``attention_mask``, ``n_cut``, ``labels`` (if
        given), and of the labels' texts (the inputs', without labels) ``char_start``,
        ``char_end``, ``cut_start``, ``label_n_cut``.
    """
    import datasets

    columns = {"text": examples.texts}
    if labels is not None:
        columns["label_text"] = labels
    fingerprint = _fingerprint(columns, encoder)
    cache_file = _cache_file(fingerprint) if encoder.tokenizer.is_fast else None
    if cache_file is not None and not overwrite_cache:
        cached = _kept.get(fingerprint) or _read_cache(cache_file)
        if cached is not None:
            return _keep(fingerprint, cached)
    raw = datasets.Dataset.from_dict(columns)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        encoded = raw.map(
            _EncodeRows(encoder),
            batched=True,
            remove_columns=raw.column_names,
            num_proc=min(num_workers, len(examples)) if num_workers and num_workers > 1 else None,
            keep_in_memory=True,
            new_fingerprint=fingerprint,
        )
    finally:
        if shown:
            datasets.enable_progress_bars()
    if cache_file is not None:
        # Where it cannot be kept, the next run tokenizes again.
        with suppress(OSError):
            _write_cache(cache_file, encoded)
        _keep(fingerprint, encoded)
    return encoded


_kept: dict[str, datasets.Dataset] = {}
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


def _keep(fingerprint: str, encoded: datasets.Dataset) -> datasets.Dataset:
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
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "finetune_lm" / f"{fingerprint}.arrow"


def _checksum_file(cache_file: Path) -> Path:
    return cache_file.with_suffix(".json")


def _read_cache(cache_file: Path) -> datasets.Dataset | None:
    """What an earlier run has kept; None if that is not there or not as it was written."""
    import datasets

    try:
        if unsealed(_checksum_file(cache_file)) != checksum(cache_file):
            return None
        return datasets.Dataset.from_file(str(cache_file))
    except (OSError, ValueError):
        return None


def _write_cache(cache_file: Path, encoded: datasets.Dataset) -> None:
    """Keep tokenized data, and a checksum beside it.

    Raises:
        OSError: If that is not possible.
    """
    import pyarrow as pa

    cache_file.parent.mkdir(parents=True, exist_ok=True)
    table = encoded.data.table
    with write_whole(cache_file, shared=True) as aside:
        with pa.OSFile(str(aside), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        written = checksum(aside)
    with write_whole(_checksum_file(cache_file), shared=True) as aside:
        aside.write_text(sealed(written), "utf-8")


def check_parallel(examples: Examples, dataset: datasets.Dataset) -> None:
    """See that every text has as many tokens as its labels.

    Raises:
        UserError: Naming the first line of which that is not so.
    """
    whole = {
        side: [len(ids) + n for ids, n in zip(dataset[side], dataset[n_cut], strict=True)]
        for side, n_cut in (("input_ids", "n_cut"), ("labels", "label_n_cut"))
    }
    for number, (n, n_labels) in enumerate(zip(*whole.values(), strict=True), start=1):
        if n != n_labels:
            raise UserError(
                f"{examples.path}, line {number}: a masked language model needs a label for each "
                f"token, but 'text' has {n} tokens and 'labels' has {n_labels}."
            )
