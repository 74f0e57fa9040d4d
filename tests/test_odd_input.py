"""Input that looks odd and is good: the numbers are right, the words are, and the table reads back.

The oracle for numbers is the model's own loss, computed here without the program.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

from finetune_lm import load_metrics
from finetune_lm.cli import main
from finetune_lm.models.pretrained import model_path

# Names of files and conditions stand in figures, too.
pytestmark = pytest.mark.usefixtures("drawn_pages")

csv.field_size_limit(2**20)  # Python's own is less than the longest text here
FLAG = "\N{BLACK FLAG}"
# The bytes of a file, and the texts that are in it.
TEXT_FILES = {
    "a byte-order mark": ("\ufeffThe man drank.\nThe tea.\n", ["The man drank.", "The tea."]),
    "Windows line ends": ("The man drank.\r\nThe tea.\r\n", ["The man drank.", "The tea."]),
    "both": ("\ufeffThe man drank.\r\nThe tea.", ["The man drank.", "The tea."]),
    "a mark within files put together": (
        "\ufeffThe man drank.\n\ufeffThe tea.\n",
        ["The man drank.", "The tea."],
    ),
    "no line end at the end": ("The man drank.\nThe tea.", ["The man drank.", "The tea."]),
    "emoji": ("The 👩‍👩‍👧 drank 🫖🏴󠁧󠁢󠁳󠁣󠁴󠁿 tea 😀.\n", None),
    "right to left": ("האיש שתה תה.\nشرب الرجل الشاي.\nThe man said שלום today.\n", None),
    "combining characters": ("The cafe\u0301 o\u0308ffnet x\u0301\u0323.\nนี่ न्‍य.\n", None),
    "characters outside of the first plane": (f"𝔗𝔥𝔢 man 𐍈 {FLAG}.\n", None),
    "white space of all kinds": (" The  man\tdrank\u00a0the\u3000tea .  \n", None),
    "line ends of Unicode": ("The\u2028man\u0085drank\x0bthe\x0ctea.\n", None),
    "zero-width characters": ("The\u200bman dra\u00adnk\u2060 the\ufeff tea.\n", None),
    "quotes, commas and formulas": ('"The" man, "drank"\n=SUM(A1)\n,,,\n""\n', None),
    "words that tables take for nothing": ("NA NaN null\nTrue -1 1e5\n#x\n", None),
    "a start token in the text": ("<|endoftext|> The man drank.\n", None),
    "control characters": ("The\x01man\x1b[31m drank\x7f.\n", None),
    "one letter": ("a\n", None),
}


def texts_in(name):
    content, texts = TEXT_FILES[name]
    return texts if texts is not None else content.removesuffix("\n").split("\n")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def tiny_lm():
    place = model_path("tiny-lm")
    model = transformers.AutoModelForCausalLM.from_pretrained(place).eval()
    return model, transformers.AutoTokenizer.from_pretrained(place)


def run_test(model, file, load=load_metrics):
    """Test a model on a file; returns the table, every reader of which agrees on what it says."""
    argv = ["--model_name_or_path", model, "--test_file", file, "--output_dir", "out"]
    assert main(argv) == 0
    path = Path("out") / f"{model}-test_results.csv.gz"
    table = load(path)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as opened:
        header, *rows = list(csv.reader(opened, strict=True))
    assert header == list(table.columns)
    assert {len(row) for row in rows} == {len(header)}
    assert len(rows) == len(table)
    for name in ("original_text", "word", "token"):
        place = header.index(name)
        read = ["NA" if pd.isna(value) else value for value in table[name]]
        assert all(row[place] == value for row, value in zip(rows, read, strict=True))
    with_pandas = pd.read_csv(path)  # as a person would, without options
    assert list(with_pandas.columns) == header
    assert with_pandas["surprisal"].tolist() == pytest.approx(table["surprisal"].tolist())
    return table


def bits(model, ids):
    """What tokens behind a first one cost, by the model's own loss."""
    ids = torch.tensor([ids])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    return float(loss) * (ids.shape[1] - 1) / math.log(2)


def check_example(rows, text, model, tokenizer, n_kept=127):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    kept = ids[:n_kept]
    if kept[:1] == [tokenizer.bos_token_id]:  # the text has its start token already
        kept = kept[1:]
    assert rows["token_id"].tolist() == kept
    assert rows["surprisal"].sum() == pytest.approx(
        bits(model, [tokenizer.bos_token_id, *kept]), abs=1e-3
    )
    assert all(same == text for same in rows["original_text"])
    words = text.split()
    numbers = rows["word_num"].tolist()
    assert numbers == sorted(numbers)
    expected = [words[number] for number in numbers]
    assert all(a == b for a, b in zip(rows["word"], expected, strict=True))
    return words, numbers


@pytest.mark.parametrize("name", TEXT_FILES)
@pytest.mark.parametrize("ending", [".txt", ".txt.gz"])
def test_texts(name, ending, tiny_lm):
    model, tokenizer = tiny_lm
    data = TEXT_FILES[name][0].encode()
    Path(f"x{ending}").write_bytes(gzip.compress(data) if ending == ".txt.gz" else data)
    table = run_test("tiny-lm", f"x{ending}")
    texts = texts_in(name)
    assert table["example_num"].max() == len(texts) - 1
    for number, text in enumerate(texts):
        rows = table[table["example_num"] == number]
        words, numbers = check_example(rows, text, model, tokenizer)
        # Every word has its tokens: a tokenizer of bytes loses nothing.
        starts_with_token = text.startswith("<|endoftext|>")
        assert set(numbers) == set(range(int(starts_with_token), len(words)))
        # And these are its letters: put together they are the word.
        for word_num, of_word in rows.groupby("word_num"):
            spelled = tokenizer.decode(of_word["token_id"].tolist())
            assert spelled.split() == [words[word_num]] or "\ufffd" in spelled


def test_gzip_files_put_together(tiny_lm):
    model, tokenizer = tiny_lm
    parts = ["\ufeffThe man drank.\n", "\ufeffThe tea.\n", "The wo", "men drank.\n"]
    Path("x.txt.gz").write_bytes(b"".join(gzip.compress(part.encode()) for part in parts))
    table = run_test("tiny-lm", "x.txt.gz")
    for number, text in enumerate(["The man drank.", "The tea.", "The women drank."]):
        check_example(table[table["example_num"] == number], text, model, tokenizer)


@pytest.mark.parametrize(
    "text",
    [
        "The man has always broken the glass. " * 5_400,
        "x" * 200_000,
        "👩‍👩‍👧 שלום café " * 14_000,
        '"," ' * 50_000,
    ],
    ids=["sentences", "one word", "emoji", "quotes"],
)
def test_a_line_of_200_000_characters(text, tiny_lm, capsys):
    """It is cut to what the model takes, and the warning counts what is lost."""
    model, tokenizer = tiny_lm
    assert len(text) > 190_000
    Path("x.txt").write_text(f"The man drank.\n{text}\n")
    table = run_test("tiny-lm", "x.txt", pd.read_csv)
    check_example(table[table["example_num"] == 0], "The man drank.", model, tokenizer)
    check_example(table[table["example_num"] == 1], text, model, tokenizer)
    n_tokens = len(tokenizer(text)["input_ids"])
    assert (
        f"warning: x: 1 of 2 texts are too long for the model or max_length, and {n_tokens - 127} "
        "of their tokens were cut off. They have no rows in the tables.\n"
    ) in capsys.readouterr().err


def test_texts_of_json_with_what_no_line_can_hold(tiny_lm):
    model, tokenizer = tiny_lm
    texts = ["The man\ndrank.", "The\r\nman\r drank.", 'a "b", c', "naïve 😀"]
    lines = [
        json.dumps({"text": text}, ensure_ascii=number % 2) for number, text in enumerate(texts)
    ]
    Path("x.json").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    table = run_test("tiny-lm", "x.json")
    for number, text in enumerate(texts):
        check_example(table[table["example_num"] == number], text, model, tokenizer)


def test_masks_among_odd_characters():
    place = model_path("tiny-mlm")
    model = transformers.AutoModelForMaskedLM.from_pretrained(place).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    # Unknown characters are one token each here, so texts and labels stay as long as each other.
    lines = [
        {"text": "The [MASK] 😀 has slept.", "labels": "The man 😀 has slept."},
        {"text": "\ufeffשלום [MASK] e\u0301 [MASK].", "labels": "\ufeffשלום man e\u0301 slept."},
        {"text": "[MASK]\u00a0man\tdrank", "labels": "the\u00a0man\tdrank"},
    ]
    Path("x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = run_test("tiny-mlm", "x.jsonl")
    for number, line in enumerate(lines):
        rows = table[table["example_num"] == number]
        ids = torch.tensor([tokenizer(line["text"])["input_ids"]])
        labels = torch.tensor([tokenizer(line["labels"])["input_ids"]])
        is_mask = ids == tokenizer.mask_token_id
        labels[~is_mask] = -100
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=labels).loss)
        assert len(rows) == int(is_mask.sum()) == line["text"].count("[MASK]")
        assert rows["surprisal"].sum() == pytest.approx(loss * len(rows) / math.log(2), abs=1e-3)
        words = line["text"].split()
        expected = [
            (place, word)
            for place, (masked, word) in enumerate(zip(words, line["labels"].split(), strict=True))
            if "[MASK]" in masked
        ]
        assert list(zip(rows["word_num"], rows["word"], strict=True)) == expected


def test_sequences_of_odd_characters():
    place = model_path("tiny-seq2seq")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(place).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    lines = [
        {"text": "The <extra_id_0> 😀 slept.", "labels": "<extra_id_0> man שלום <extra_id_1>"},
        {"text": "e\u0301 \u200b 👩‍👩‍👧", "labels": "x\u0301 \u3000 man"},
    ]
    Path("x.json.gz").write_bytes(
        gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode())
    )
    table = run_test("tiny-seq2seq", "x.json.gz")
    for number, line in enumerate(lines):
        of_example = table[table["example_num"] == number]
        rows = of_example[of_example["sequence_type"] == "label_sequence"]
        ids = torch.tensor([tokenizer(line["text"])["input_ids"]])
        labels = torch.tensor([tokenizer(line["labels"])["input_ids"]])
        with torch.no_grad():
            loss = float(model(input_ids=ids, labels=labels).loss)
        assert rows["token_id"].tolist() == labels[0].tolist()
        assert rows["surprisal"].sum() == pytest.approx(loss * len(rows) / math.log(2), abs=1e-3)
        words = line["labels"].split()
        named = rows.dropna(subset=["word_num"])
        assert [words[word] for word in named["word_num"]] == named["word"].tolist()


METADATA = {
    "a list": ([1, "é"], '[1, "é"]'),
    "an object": ({"b": {"c": None}}, '{"b": {"c": null}}'),
    "null": (None, None),
    "an integer beyond 64 bits": (2**70, str(2**70)),
    "a negative one": (-(2**63) - 1, str(-(2**63) - 1)),
    "a float": (0.1, 0.1),
    "a small one": (5e-324, 5e-324),
    "a truth value": (True, True),
    "emoji and quotes": ('😀 "a", b\nc', '😀 "a", b\nc'),
    "NA": ("NA", "NA"),
    "empty": ("", ""),
    "right to left": ("שלום", "שלום"),
    'comma, and "quotes" in the key': (7, 7),
    "ключ 😀": ("x", "x"),
    "Loss": (1, 1),
}


def test_metadata_of_every_kind():
    Path("x.txt").write_text("The man drank.\nThe tea.\n")
    values = {name: value for name, (value, _) in METADATA.items()}
    Path("x_metadata.json").write_text(json.dumps(values) + "\n{}\n")
    table = run_test("tiny-lm", "x.txt")
    first, second = table.iloc[0], table.iloc[-1]
    for name, (_, expected) in METADATA.items():
        if expected is None:
            assert pd.isna(first[name])
        else:
            assert first[name] == expected, name
            # An independent reader of the file, which knows nothing of types.
            with gzip.open("out/tiny-lm-test_results.csv.gz", "rt", newline="") as opened:
                read = next(csv.DictReader(io.StringIO(opened.read(), newline=""), strict=True))
            assert read[name] == ("TRUE" if expected is True else str(expected))
        assert pd.isna(second[name])
