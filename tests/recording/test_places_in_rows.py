"""Where a row's token is in the text that its word is of, and whether the vocabulary has it."""

from __future__ import annotations

import pandas as pd
import pytest

from families import TOKENIZERS, family
from finetune_lm.data_preprocessing import expand_with_masks, mask_random_spans
from helpers import dataset, examples, score

TEXTS = ["The man has always broken the glass.", "A 😀 drank:  so?"]
LABELS = ["the old man has", "so 😀 it"]


def assert_rows_are_where_they_say(rows, texts, tokenizer):
    for text, row in zip(texts, rows.itertuples(), strict=True):
        if pd.isna(row.word):
            assert pd.isna(row.token_start)
            assert pd.isna(row.token_end)
            continue
        start, end = int(row.token_start), int(row.token_end)
        covered = text[start:end]
        assert covered == covered.strip()
        assert covered in row.word
        token = row.token.strip().removeprefix("##")
        if token.isascii() and token.isalnum() and not row.is_unknown:
            assert covered.lower() == token.lower()
        assert row.is_unknown == (row.token_id == tokenizer.unk_token_id)


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_each_row_says_where_its_token_is(name):
    """Of a masked model's labels, and of a seq2seq model's, in the text of the labels."""
    fam = family(name)
    lines = examples(TEXTS, LABELS) if fam.task == "seq2seq" else examples(TEXTS)
    kwargs = {"append_eos": True} if fam.task == "lm" else {}
    if fam.task == "mlm":
        kwargs = {"function": expand_with_masks}
    rows, _ = score(fam, dataset(fam, lines, **kwargs))
    if "sequence_type" in rows:
        generated = rows[rows["sequence_type"] == "generated_sequence"]
        assert generated[["token_start", "token_end"]].isna().all(axis=None)
        assert generated["is_unknown"].notna().all()
        rows = rows[rows["sequence_type"] == "label_sequence"]
        texts = rows["input_label"].tolist()
    else:
        texts = rows["original_text"].tolist()
    assert rows["word"].notna().sum() > 8
    assert_rows_are_where_they_say(rows, texts, fam.tokenizer)
    has_unknown = fam.tokenizer.unk_token_id in fam.tokenizer("😀")["input_ids"]
    assert rows["is_unknown"].any() == (has_unknown and name != "qwen")


def test_labels_that_a_function_has_made_have_no_place_in_a_text():
    fam = family("t5")
    rows, _ = score(fam, dataset(fam, examples(TEXTS), function=mask_random_spans))
    assert rows["word"].notna().any()
    assert rows[["token_start", "token_end"]].isna().all(axis=None)


def test_a_word_that_is_cut_ends_where_its_last_token_does():
    fam = family("gpt2")
    rows, _ = score(fam, dataset(fam, examples(["the unbelievable"]), max_length=4))
    last = rows.iloc[-1]
    assert last["word"] == "unbelievable"
    assert last["token_end"] < len("the unbelievable")
    assert not rows.iloc[1:]["token_is_word"].any()
