"""Words and regions that data give, from the file to the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from families import TOKENIZERS, family
from finetune_lm import load_metrics
from finetune_lm.cli import main
from finetune_lm.data.label_words import LabelWords
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data.units import read_units
from finetune_lm.data_preprocessing import expand_with_masks
from helpers import dataset, examples, places_of, score, write_lines
from texts_of_classes import ALL, all_known

CHINESE = "我们明天去图书馆看书。"
WORDS = ["我们", "明天", "去", "图书馆", "看", "书", "。"]
KNOWN = "中文中 文中a文"
KNOWN_WORDS = ["中文", "中", "文中", "a", "文"]


def rows_with(name, texts, metadata, **kwargs):
    fam = family(name)
    if fam.task == "mlm":
        kwargs.setdefault("function", expand_with_masks)
    rows, _ = score(fam, dataset(fam, examples(texts, metadata=metadata), **kwargs))
    if "sequence_type" in rows:
        rows = rows[rows["sequence_type"] == "label_sequence"]
    return rows[rows["word"].notna()]


# CLVP drops what it does not know, whole characters of words.
EVERY = [case for case in ALL if case[1] != "ClvpTokenizer"]


@pytest.mark.parametrize(("make", "name"), EVERY, ids=[name for _, name in EVERY])
def test_given_words_of_a_text_without_spaces(make, name):
    """For every tokenizer: a word is what its tokens cover, or a token reaches over its limit."""
    for text, words in ((CHINESE, WORDS), (KNOWN, KNOWN_WORDS)):
        n_whole = assert_words_are_given_ones(make(name), text, words)
        assert n_whole or not all_known(make(name), text)


def assert_words_are_given_ones(tokenizer, text, words):
    """Returns of how many words that is all that there is to see."""
    [encoding] = TextEncoder(tokenizer, 512)([text])
    fitted = read_units({"words": words}, "x, line 1").fitted(text)
    found = LabelWords.of_texts([text], places_of(encoding), [fitted]).of_tokens
    assert set(found.words[found.word_num >= 0]) <= set(words)
    n_whole = 0
    for number, word in enumerate(words):
        mine = np.flatnonzero(found.word_num == number)
        if not len(mine):
            continue  # all of it is in a token of the next word
        begin, end = fitted.words[number]
        assert (found.words[mine] == word).all()
        assert found.start[mine[0]] <= begin
        assert found.begins_word[mine[0]] == (found.start[mine[0]] == begin)
        assert found.straddles[mine].tolist() == [not found.begins_word[mine[0]]] + [False] * (
            len(mine) - 1
        )
        n_whole += (found.start[mine[0]], found.end[mine[-1]]) == (begin, end)
        assert text[begin : found.end[mine[-1]]] == word[: found.end[mine[-1]] - begin]
    assert found.end.max() == len(text)
    return n_whole


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_chinese_words_of_each_kind_of_model(name):
    rows = rows_with(name, [CHINESE], [{"words": WORDS}])
    assert list(rows["straddles"]) == [
        start < CHINESE.index(word)
        for start, word in zip(rows["token_start"], rows["word"], strict=True)
    ]
    assert rows["word_num"].is_monotonic_increasing
    assert [WORDS[int(n)] for n in rows["word_num"]] == rows["word"].tolist()
    assert "region" not in rows
    assert "words" not in rows


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_regions_of_each_kind_of_model(name):
    """Only some lines have regions; where there are none they are missing."""
    text = "The old man sat."
    metadata = [{"regions": [["subj", 4, 11], ["verb", 12, 15]], "k": 1}, {"k": 2}]
    rows = rows_with(name, [text, "So what?"], metadata)
    assert "regions" not in rows
    of_first, of_second = (rows[rows["example_num"] == i] for i in (0, 1))
    assert of_second["region"].isna().all()
    assert not of_second["straddles"].any()
    for row in of_first.itertuples():
        start, end = int(row.token_start), max(int(row.token_end), int(row.token_start) + 1)
        parts = ["subj" if 4 <= c < 11 else "verb" if 12 <= c < 15 else None for c in range(16)]
        mine = [c for c in range(start, end) if text[c : c + 1].strip()]
        inside = [parts[c] for c in mine if parts[c]]
        assert (None if pd.isna(row.region) else row.region) == (inside[-1] if inside else None)
        assert row.straddles == (len({parts[c] for c in mine}) > 1)
    assert set(of_first["region"].dropna()) == {"subj", "verb"}


def test_without_any_there_are_no_such_columns():
    rows = rows_with("gpt2", ["So what?"], [{"words": None, "regions": []}])
    assert not {"region", "straddles", "words", "regions"} & set(rows)


def test_labels_that_were_made_are_in_no_region():
    from finetune_lm.data_preprocessing import mask_words

    rows = rows_with(
        "t5",
        ["The old man sat.", "The tea is cold."],
        [{"regions": [["subj", 0, 11]]}, {"words": ["The", "tea is", "cold", "."]}],
        function=mask_words,
        kwargs={"words_to_mask": ["man"]},
    )
    made = rows[rows["example_num"] == 0]
    assert made[["region", "straddles"]].isna().all(axis=None)


def test_from_files_to_tables(tmp_path, monkeypatch):
    """Training, validation and test data; units in the lines and in the metadata."""
    monkeypatch.chdir(tmp_path)
    lines = [
        {"text": "我们去。", "words": ["我们", "去", "。"]},
        {"prefix": "The te", "target": "a sat."},
    ]
    write_lines(tmp_path / "train.json.gz", lines)
    write_lines(tmp_path / "val.txt.gz", ["The tea is cold."], [{"regions": [["is", 8, 10]]}])
    write_lines(tmp_path / "test.txt.gz", ["我们去。"], [{"words": ["我", "们去", "。"], "k": "x"}])
    files = [
        f"--{kind}_file={name}"
        for kind, name in [
            ("train", "train.json.gz"),
            ("validation", "val.txt.gz"),
            ("test", "test.txt.gz"),
        ]
    ]
    argv = [
        "--model_name_or_path",
        "tiny-lm",
        "--output_dir",
        "out",
        "--epochs",
        "1",
        "--seed",
        "1",
    ]
    assert main([*argv, *files]) == 0
    rows = load_metrics("out")
    train, validation = (rows[rows["dataset_type"] == kind] for kind in ("train", "validation"))
    chinese, target = (train[train["example_num"] == i] for i in (0, 1))
    assert chinese["word"].drop_duplicates().tolist() == ["我们", "去", "。"]
    assert chinese["region"].isna().all()
    assert target["region"].dropna().unique().tolist() == ["target"]
    in_target = target["token_end"] > len("The te")
    assert (target["region"].notna() == in_target).all()
    assert (target["straddles"] == (in_target & (target["token_start"] < len("The te")))).all()
    of_is = validation[validation["region"].notna()]
    assert of_is["word"].tolist() == ["is"] * len(of_is)
    assert of_is["region"].unique().tolist() == ["is"]
    test = load_metrics("out/tiny-lm-test_results.csv.gz")
    assert test["word"].drop_duplicates().tolist() == ["我", "们去", "。"]
    assert "region" not in test
    assert test["k"].unique().tolist() == ["x"]
    header = list(test.columns)
    assert header[header.index("is_unknown") + 1 : header.index("surprisal")] == ["straddles"]
    header = list(rows.columns)
    between = header[header.index("is_unknown") + 1 : header.index("surprisal")]
    assert between == ["region", "straddles"]


def test_a_key_called_region_is_as_good_as_any_where_there_are_no_regions(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    argv = ["--model_name_or_path", "tiny-lm", "--output_dir", "out", "--test_file", "x.txt.gz"]
    write_lines(tmp_path / "x.txt.gz", ["So."], [{"region": "north"}])
    assert main(argv) == 0
    assert load_metrics("out/tiny-lm-test_results.csv.gz")["region"].unique().tolist() == ["north"]
    write_lines(tmp_path / "y.txt.gz", ["So."], [{"region": "north", "regions": [["a", 0, 1]]}])
    assert main([*argv[:2], "--test_file", "y.txt.gz"]) == 2
    assert "must not have the key 'region'" in capsys.readouterr().err


def test_regions_may_fit_only_the_text_that_the_model_does_not_take_words_from(
    tmp_path, monkeypatch, capsys
):
    """Which text words are of depends on the model, so that shows when it is there."""
    monkeypatch.chdir(tmp_path)
    line = {"text": "The old man sat.", "labels": "tea", "regions": [["man", 8, 11]]}
    write_lines(tmp_path / "x.json.gz", [line])
    argv = ["--output_dir", "out", "--test_file", "x.json.gz", "--model_name_or_path"]
    assert main([*argv, "tiny-seq2seq"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "finetune-lm: error: x.json.gz, line 1: region 'man' must lie in the text, which has 3 "
        "characters, but is from 8 to 11."
    )
    assert not (tmp_path / "out").exists()
    assert main([*argv, "tiny-lm"]) == 0
