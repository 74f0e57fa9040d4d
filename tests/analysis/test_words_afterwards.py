"""Tables of words made of tables of tokens are those that a run writes, to the byte."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

import finetune_lm
from finetune_lm import UserError, load_metrics
from finetune_lm.cli import main
from finetune_lm.recording import table_text
from finetune_lm.recording.table_text import TableText
from finetune_lm.recording.typed_rows import TypedRows
from finetune_lm.whole_files import sealed, unsealed
from helpers import write_lines
from setups import PROBES, arguments, setup

METADATA = [
    {"s": 'a "quote", and\nline', "n": "007", "b": True, "f": 0.1, "i": -3, "item": "x"},
    {"s": "NA", "n": "1e5", "b": None, "f": -0.0, "regions": [["subj", 0, 7]]},
    {"s": "TRUE", "n": None, "b": False, "f": 1e20, "i": 2**62, "mixed": [1, "a"]},
]
TEXTS = ["The man drank the tea.", "The old man sat so unbelievably.", "我们 drank; so?"]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def bytes_of_words(directory):
    return {path.name: path.read_bytes() for path in Path(directory).glob("*words.csv.gz")}


def made_again(directory, names):
    """The tables of words that a run has written, and those that the command makes."""
    written = bytes_of_words(directory)
    assert sorted(written) == sorted(names)
    for name in written:
        Path(directory, name).unlink()
    assert main(["words", str(directory)]) == 0
    return written, bytes_of_words(directory)


@pytest.mark.parametrize("kind", ["lm", "mlm", "seq2seq"])
def test_a_whole_run(kind, capsys, monkeypatch):
    model, data = setup(kind, epochs=2, output_dir="out", **PROBES)
    if kind == "mlm":
        data["data_preprocessing_fn"]["test"] = "data_preprocessing.expand_with_masks"
        data["data_preprocessing_fn_kwargs"] = {"test": {"within_word_l2r": True}}
    finetune_lm.run(*arguments(model, data))
    names = ["words.csv.gz", "probe_words.csv.gz", f"tiny-{kind}-test_words.csv.gz"]
    monkeypatch.setattr(table_text, "_BLOCK", 3_000)
    written, made = made_again("out", names)
    assert written == made
    for file, words in (("metrics", names[0]), (f"tiny-{kind}-test_results", names[2])):
        frame, table = (load_metrics(Path("out", each)) for each in (f"{file}.csv.gz", words))
        pll = None
        if "pll" in table:
            pll = dict(zip(table["dataset_type"], table["pll"], strict=True))
        again = finetune_lm.words(frame, pll=pll)
        pd.testing.assert_frame_equal(again, table, check_dtype=False)
        assert_sums_of_tokens(frame, table)
    told = [line for line in capsys.readouterr().err.splitlines() if "have no surprisal" in line]
    assert bool(told) == (kind == "mlm")
    if kind == "mlm":
        assert any(line.startswith("words.csv.gz: ") for line in told)
        n_missing = load_metrics(Path("out", names[0]))["surprisal"].isna().sum()
        assert any(f": {n_missing:,} of " in line for line in told)
        plls = [load_metrics(Path("out", name))["pll"].unique().tolist() for name in names]
        assert plls == [["mask_random_tokens"], ["mask_random_tokens"], ["within_word_l2r"]]


def assert_sums_of_tokens(tokens, words):
    """Group and sum with pandas: a word has its tokens' sum if they are all of it."""
    tokens = tokens[tokens["word"].notna() & tokens["is_target"]]
    keys = ["dataset_type", "epoch", "example_num", "word_num", "word"]
    grouped = tokens.groupby(keys, dropna=False)["surprisal"].agg(["sum", "size"])
    found = words.set_index(keys).join(grouped)
    whole = found[found["surprisal"].notna() & (found["n_tokens"] == found["size"])]
    assert len(whole) > 0.3 * len(words)
    assert (whole["surprisal"] - whole["sum"]).abs().max() < 1e-4


def test_metadata_regions_and_several_files(monkeypatch):
    write_lines(Path("a.txt.gz"), TEXTS, METADATA)
    write_lines(Path("b.txt.gz"), TEXTS[::-1], [{"late": "1"}, {"late": "2"}, {"b": True}])
    write_lines(Path("c.txt.gz"), TEXTS[:1])
    argv = ["--model_name_or_path", "tiny-lm", "--output_dir", "out", "--word_tables"]
    argv += ["--test_file", "c.txt.gz", "a.txt.gz", "b.txt.gz", "--max_length", "10"]
    assert main([*argv, "--measures", "measures.Rank", "measures.WordBoundary"]) == 0
    for block in (1, 700, 2**23):
        monkeypatch.setattr(table_text, "_BLOCK", block)
        written, made = made_again("out", ["tiny-lm-test_words.csv.gz"])
        assert written == made
    words = load_metrics("out/tiny-lm-test_words.csv.gz")
    of_a = words[words["dataset_name"] == "a"].set_index("example_num")
    assert of_a.loc[0, "s"].unique().tolist() == [METADATA[0]["s"]]
    assert of_a.loc[1, "region"].dropna().unique().tolist() == ["subj"]
    assert "regions" not in words
    cut = of_a.loc[1].iloc[-1]
    assert cut["word"] == "unbelievably."
    assert pd.isna(cut["surprisal"])
    header = list(words.columns)
    place = header.index("n_tokens") + 1
    assert header[place : place + 4] == ["surprisal", "surprisal_corrected", "region", "rank"]
    tokens = load_metrics("out/tiny-lm-test_results.csv.gz")
    keys = ["dataset_name", "example_num", "word_num"]
    corrected = tokens.groupby(keys, sort=False)["surprisal_corrected"].sum(skipna=False)
    missing = words["surprisal_corrected"].isna()
    assert (words["surprisal"].isna() <= missing).all()
    assert missing.sum() < 0.3 * len(words)
    difference = words["surprisal_corrected"] - corrected.reset_index(drop=True)
    assert difference[~missing].abs().max() < 1e-4
    assert len(corrected) == len(words)


def test_columns_of_measures_of_ones_own(monkeypatch):
    Path("my_halves.py").write_text(
        "import torch\n"
        "class Half:\n"
        "    columns = ('half', 'n')\n"
        "    integers = {'n'}\n"
        "    over_word = 'sum'\n"
        "    def __init__(self, model, tokenizer): pass\n"
        "    def __call__(self, logits, targets):\n"
        "        cost = torch.nn.functional.cross_entropy(logits, targets, reduction='none')\n"
        "        return {'half': cost / 2, 'n': torch.ones(len(targets))}\n"
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))
    write_lines(Path("a.txt.gz"), TEXTS)
    argv = ["--model_name_or_path", "tiny-lm", "--output_dir", "out", "--word_tables"]
    assert main([*argv, "--test_file", "a.txt.gz", "--measures", "my_halves.Half"]) == 0
    written, made = made_again("out", ["tiny-lm-test_words.csv.gz"])
    assert written == made
    words = load_metrics("out/tiny-lm-test_words.csv.gz")
    assert words["n"].tolist() == words["n_tokens"].tolist()
    assert (words["half"] * 2 / 0.6931472 - words["surprisal"]).abs().max() < 1e-3
    tokens = load_metrics("out/tiny-lm-test_results.csv.gz")
    assert "half" not in finetune_lm.words(tokens)
    frame = finetune_lm.words(tokens, over_word={"half": "first"})
    first = tokens[tokens["token_num_in_word"] == 0]["half"]
    assert frame["half"].tolist() == pytest.approx(first.tolist())


def test_a_run_that_was_killed_has_words_up_to_its_last_whole_epoch():
    model, data = setup("lm", epochs=2, output_dir="out", test_file=None, word_tables=False)
    finetune_lm.run(*arguments(model, data))
    assert not bytes_of_words("out")
    assert main(["words", "out"]) == 0
    whole = load_metrics("out/words.csv.gz")
    path = Path("out/metrics.csv.gz")
    path.write_bytes(path.read_bytes()[:-50])
    assert main(["words", "out"]) == 0
    rest = load_metrics("out/words.csv.gz")
    assert set(whole["epoch"]) - set(rest["epoch"]) == {1}
    pd.testing.assert_frame_equal(rest, whole[: len(rest)])


def test_what_is_wrong_is_told(capsys):
    def said(*directories):
        assert main(["words", *map(str, directories)]) == 2
        return capsys.readouterr().err

    Path("empty").mkdir()
    told = said("empty", "nowhere")
    assert "empty has no run.json" in told
    assert "nowhere has no run.json" in told
    write_lines(Path("a.txt.gz"), TEXTS)
    argv = ["--model_name_or_path", "tiny-lm", "--output_dir", "out", "--test_file", "a.txt.gz"]
    assert main(argv) == 0
    capsys.readouterr()
    tokens = Path("out/tiny-lm-test_results.csv.gz")
    content = tokens.read_bytes()
    text = gzip.decompress(content).replace(b'"token_start"', b'"old"', 1)
    tokens.write_bytes(gzip.compress(text))
    assert "of this version but lacks token_start." in said("out")
    tokens.write_bytes(b"no table")
    assert "is not a gzipped table" in said("out")
    assert not bytes_of_words("out")
    tokens.write_bytes(content)
    assert main(["words", "out"]) == 0
    assert unsealed(Path("out/run.json"))["words"] == {"over_word": {}}
    for path in Path("out").glob("*.csv.gz"):
        path.unlink()
    capsys.readouterr()
    assert "needs tables of tokens but out has none." in said("out")


def test_a_run_that_writes_its_words_is_left_alone_until_it_is_finished(capsys):
    write_lines(Path("a.txt.gz"), TEXTS)
    argv = ["--model_name_or_path", "tiny-lm", "--output_dir", "out", "--test_file", "a.txt.gz"]
    assert main([*argv, "--word_tables"]) == 0
    path = Path("out/run.json")
    path.write_text(sealed({**unsealed(path), "state": "interrupted"}))
    assert main(["words", "out"]) == 2
    assert "is not finished, and writes its tables of words itself" in capsys.readouterr().err


def test_frames_of_many_sources():
    write_lines(Path("a.txt.gz"), TEXTS)
    argv = ["--model_name_or_path", "tiny-lm", "--output_dir", "out", "--test_file", "a.txt.gz"]
    assert main([*argv, "--word_tables"]) == 0
    tokens = load_metrics("out/tiny-lm-test_results.csv.gz")
    words = load_metrics("out/tiny-lm-test_words.csv.gz")
    with pytest.raises(UserError, match="lacks word, is_target"):
        finetune_lm.words(tokens.drop(columns=["word", "is_target"]))
    plain = pd.read_csv("out/tiny-lm-test_results.csv.gz", keep_default_na=False, na_values=["NA"])
    pd.testing.assert_frame_equal(finetune_lm.words(plain), words, check_dtype=False)
    fewer = tokens[~((tokens["example_num"] == 1) & (tokens["token_num_in_word"] == 1))]
    found = finetune_lm.words(fewer)
    assert found["surprisal"].isna().sum() > 0
    assert len(found) == len(words)
    bare = finetune_lm.words(tokens.drop(columns=["original_text", "seed"]))
    assert bare["surprisal"].tolist() == pytest.approx(words["surprisal"].tolist())
    assert finetune_lm.words(tokens[:0]).empty


def test_blocks_have_the_values_of_the_table():
    write_lines(Path("a.txt.gz"), TEXTS, METADATA)
    argv = ["--model_name_or_path", "tiny-lm", "--output_dir", "out", "--test_file", "a.txt.gz"]
    assert main(argv) == 0
    path = Path("out/tiny-lm-test_results.csv.gz")
    table = load_metrics(path)
    source = TableText(path, bounded=True)
    reader = TypedRows(source.columns)
    [(piece, text)] = source.parts()
    rows = reader.plain(text)
    assert piece == 0
    assert rows["f"].type == rows["s"].type
    rows = reader.as_written(rows)
    for name in ("s", "n", "b", "f", "mixed", "word", "token_start"):
        expected = [None if pd.isna(value) else value for value in table[name]]
        assert rows[name].to_pylist() == expected, name
