"""Tokenize the lines of a data file, once, and keep the result between runs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.data.files import Examples
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.errors import UserError

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
        ``cut_start``, ``label_n_cut``.
    """
    import datasets

    columns = {"text": examples.texts}
    if labels is not None:
        columns["label_text"] = labels
    raw = datasets.Dataset.from_dict(columns)
    fingerprint = _fingerprint(columns, encoder)
    cache_file = _cache_file(fingerprint) if encoder.tokenizer.is_fast else None
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        return raw.map(
            _EncodeRows(encoder),
            batched=True,
            remove_columns=raw.column_names,
            num_proc=min(num_workers, len(examples)) if num_workers and num_workers > 1 else None,
            keep_in_memory=cache_file is None,
            cache_file_name=cache_file,
            load_from_cache_file=not overwrite_cache,
            new_fingerprint=fingerprint,
        )
    finally:
        if shown:
            datasets.enable_progress_bars()


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
        "format": 2,
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


def _cache_file(fingerprint: str) -> str | None:
    """Where tokenized data is kept between runs; None where nothing can be written."""
    import datasets

    directory = Path(datasets.config.HF_DATASETS_CACHE) / "finetune_lm"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(directory / f"{fingerprint}.arrow")


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
