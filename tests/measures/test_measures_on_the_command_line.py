"""Measures as users give them: what comes into the tables, and what is said of mistakes."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers

from finetune_lm import load_metrics
from finetune_lm.cli import main
from setups import DATA

MINE = """
import torch


class Mine:
    columns = ("mine",)

    def __init__(self, model, tokenizer, factor=1.0):
        self.factor = factor

    def __call__(self, logits, targets):
        return {"mine": logits[:, 0] * self.factor}


class NoColumns(Mine):
    columns = None


class OneText(Mine):
    columns = "mine"


class Twice(Mine):
    columns = ("mine", "mine")


class Unmade(Mine):
    def __init__(self, model):
        pass


class Uncalled:
    columns = ("mine",)

    def __init__(self, model, tokenizer):
        pass


class Averaged(Mine):
    over_word = "mean"


class Whole(Mine):
    integers = ("yours",)


class Item(Mine):
    columns = ("surprisal",)


class Loss(Mine):
    columns = ("loss",)


class Nothing(Mine):
    def __call__(self, logits, targets):
        return None


class Wide(Mine):
    def __call__(self, logits, targets):
        return {"mine": logits}


class Listed(Mine):
    def __call__(self, logits, targets):
        return {"mine": [0.0]}


class Other(Mine):
    def __call__(self, logits, targets):
        return {"yours": logits[:, 0]}


class Imaginary(Mine):
    def __call__(self, logits, targets):
        return {"mine": logits[:, 0].to(torch.complex64)}


class Broken(Mine):
    integers = ("mine",)

    def __call__(self, logits, targets):
        return {"mine": torch.full((len(logits),), 0.5)}


class Raises(Mine):
    def __call__(self, logits, targets):
        raise KeyError("of the user's")
"""
TEST = ["--model_name_or_path", "tiny-lm", "--test_file", "x.txt", "--output_dir", "out"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("mine_measures.py").write_text(MINE, "utf-8")
    Path("x.txt").write_text("The man has always broken the glass.\nThe women drank.\n", "utf-8")
    return tmp_path


def go(capsys, *argv):
    shutil.rmtree("out", ignore_errors=True)
    status = main([*TEST, *argv])
    said = capsys.readouterr().err.splitlines()
    return status, [line for line in said if line.startswith("finetune-lm: error: ")]


WORDS = ["--measures", "measures.Candidates", "--measures_kwargs.Candidates.words"]
TOLD_BEFORE = {
    ("--measures", "mine_measures.NoColumns"): "must name its columns",
    ("--measures", "mine_measures.OneText"): "must name its columns",
    ("--measures", "mine_measures.Twice"): "must not name a column twice",
    ("--measures", "mine_measures.Unmade"): "must be made with model and tokenizer",
    ("--measures", "mine_measures.Uncalled"): "must have a method __call__",
    ("--measures", "mine_measures.Averaged"): "over_word must be 'sum', 'first' or None",
    ("--measures", "mine_measures.Whole"): "integers must be among its columns mine",
    ("--measures", "mine_measures.Item"): "there is one called surprisal",
    ("--measures", "mine_measures.Loss"): "there is one called loss",
    ("--measures", "measures.Rnk"): "Did you mean measures.Rank?",
    ("--measures", "Rank"): "measures must be a list, each item a class",
    ("--measures",): "measures must be a list, each item a class",
    ("--measures.tst", "measures.Rank"): "Did you mean measures.test?",
    ("--measures", "measures.Rank", "measures.Rank"): "both have a column rank",
    ("--measures", "mine_measures.Mine", "--measures_kwargs.Mine.fctr", "2"): "Mine.factor?",
    ("--measures", "measures.Rank", "--measures_kwargs.Rnk.k", "2"): "holds Rank. Did you mean",
    ("--measures", "measures.Candidates"): "words or sets must be given",
    (*WORDS, "3"): "must be a list of words but got 3",
    (*WORDS, "glass", "--measures_kwargs.Candidates.chained", "yes"): "must be True or False",
    (*WORDS, "glass", "--measures_kwargs.Candidates.at", "object"): "there is no region 'object'",
    (*WORDS, "glass", "--measures_kwargs.Candidates.sets.glass", "man"): "must have another name",
    (*WORDS, "glass", "unbelievable", "a b"): "'unbelievable' is 7 tokens",
}
TOLD_WHEN_IT_IS_TRIED_OUT = {
    "Nothing": "returned NoneType",
    "Wide": "of shape (2,), but returned {'mine': '(2, 1700)'}",
    "Listed": "returned {'mine': 'list'}",
    "Other": "returned {'yours': '(2,)'}",
    "Imaginary": "returned {'mine': 'torch.complex64 (2,)'}",
}


def test_mistakes_are_told_before_anything_is_written(here, capsys):
    for argv, told in TOLD_BEFORE.items():
        status, said = go(capsys, *argv)
        assert (status, len(said)) == (2, 1), (argv, said)
        assert told in said[0], argv
        assert not Path("out").exists(), argv


def test_a_measure_is_tried_out_before_anything_is_trained_or_written(here, capsys):
    """Also one for the test, which comes last."""
    train = ["--train_file", "x.txt", "--validation_file", "x.txt", "--epochs", "1"]
    for name, told in TOLD_WHEN_IT_IS_TRIED_OUT.items():
        status, said = go(capsys, *train, "--measures.test", f"mine_measures.{name}")
        assert (status, len(said)) == (2, 1), (name, said)
        assert told in said[0], name
        assert not Path("out").exists(), name
    assert main([*TEST, *train, "--measures.test", "mine_measures.Raises"]) == 1
    assert "measure Raises" in capsys.readouterr().err
    assert not Path("out").exists()


def test_numbers_that_are_not_whole_are_told(here, capsys):
    status, said = go(capsys, "--measures", "mine_measures.Broken")
    assert (status, len(said)) == (2, 1)
    assert "must return whole numbers but returned 0.5" in said[0]


def test_a_metadata_key_of_the_name_of_a_column_of_a_measure(here, capsys):
    Path("x_metadata.json").write_text('{"mine": 1}\n{"mine": 2}\n', "utf-8")
    status, [said] = go(capsys, "--measures", "mine_measures.Mine")
    assert status == 2
    assert "must not have the key 'mine'" in said
    assert not Path("out").exists()


def test_help(capsys):
    assert main(["--help", "measures"]) == 0
    assert "--measures.test" in capsys.readouterr().out


def test_one_kind_of_data_or_all(here, capsys):
    argv = ["--measures.test", "measures.Entropy", "mine_measures.Mine"]
    assert go(capsys, *argv, "--measures_kwargs.Mine.factor", "2") == (0, [])
    [table] = Path("out").glob("*.csv.gz")
    rows = load_metrics(table)
    place = list(rows.columns).index("predicted_token_surprisal")
    assert list(rows.columns)[place + 1 : place + 4] == ["token_entropy", "mine", "seed"]
    assert go(capsys, *argv) == (0, [])
    np.testing.assert_allclose(rows["mine"], 2 * load_metrics(table)["mine"], rtol=1e-5)


def test_values_at_a_region_only(here, capsys):
    Path("x.jsonl").write_text(
        "".join(
            json.dumps({"text": text, "regions": [["object", text.index("the "), len(text) - 1]]})
            + "\n"
            for text in ("The man has broken the glass.", "Women drank the tea.")
        ),
        "utf-8",
    )
    argv = [*WORDS, "glass", "--measures_kwargs.Candidates.at", "object", "--test_file", "x.jsonl"]
    shutil.rmtree("out", ignore_errors=True)
    base = [arg for arg in TEST if arg not in ("--test_file", "x.txt")]
    assert main([*base, *argv]) == 0
    [table] = Path("out").glob("*.csv.gz")
    rows = load_metrics(table)
    in_region = rows["region"] == "object"
    assert in_region.sum() >= 4
    assert rows["surprisal_of_glass"].notna().equals(in_region.fillna(False).astype(bool))
    capsys.readouterr()
    shutil.rmtree("out")
    argv[argv.index("object")] = "objct"
    assert main([*base, *argv]) == 2
    assert "which has object. Did you mean object?" in capsys.readouterr().err


def test_a_measure_that_a_kind_of_model_cannot_have(here, capsys):
    masked = ["--data_preprocessing_fn.test", "data_preprocessing.mask_random_tokens"]
    argv = [*WORDS, "unbelievable", "--measures_kwargs.Candidates.chained", *masked]
    assert main([*TEST[:1], "tiny-mlm", *TEST[2:], *argv]) == 2
    assert "chained is for causal models" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_word_that_a_modifier_adds_is_a_candidate(here, capsys):
    adds = ["--model_modifier_fns", "model_modifiers.add_new_tokens"]
    adds += ["--model_modifier_fn_kwargs.add_new_tokens.added_tokens", "unbelievable"]
    assert go(capsys, *WORDS, "unbelievable", *adds) == (0, [])


def test_what_a_tokenizer_shows_is_told_before_a_model_is_loaded(here, capsys, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)
    masked = ["--data_preprocessing_fn.test", "data_preprocessing.mask_random_tokens"]
    chained = ["--measures_kwargs.Candidates.chained", "True"]
    for argv, told in (
        ((*WORDS, "glass", "unbelievable"), "measure Candidates: each word must be one token"),
        (("--model_name_or_path", "tiny-mlm", *WORDS, "unbelievable", *masked, *chained), "causal"),
    ):
        base = TEST[2:] if "--model_name_or_path" in argv else TEST
        assert main([*base, *argv]) == 2, argv
        said = capsys.readouterr().err
        assert told in said, argv
        assert len(said.splitlines()) == 1, said


KINDS = {
    "lm": [],
    "mlm": [
        *("--data_preprocessing_fn.train", "data_preprocessing.mask_random_tokens"),
        *("--data_preprocessing_fn.validation", "data_preprocessing.mask_random_tokens"),
        *("--data_preprocessing_fn.probe", "data_preprocessing.mask_random_tokens"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_measures_for_each_kind_of_data_and_its_config(kind, here, capsys):
    """All tables have the columns of their kinds of data, and the config repeats the run."""
    argv = [
        *("--model_name_or_path", f"tiny-{kind}", "--seed", "1", "--epochs", "1"),
        *("--train_file", str(DATA / "flomped_active.txt.gz")),
        *("--validation_file", str(DATA / "flomped_passive.txt.gz")),
        *("--probe_file", str(DATA / "flomped_test.txt.gz"), "--max_probe_samples", "3"),
        *("--max_train_samples", "4", "--max_validation_samples", "4", "--output_dir", "out"),
        *("--measures.train", "measures.Entropy"),
        *("--measures.validation", "measures.WordBoundary", "measures.Rank"),
        *("--measures.probe", "measures.BaselineKL", "measures.Candidates"),
        *("--measures_kwargs.Candidates.words", "glass", "man"),
        *KINDS[kind],
    ]
    assert main(argv) == 0
    rows = load_metrics("out")
    names = ["token_entropy", "surprisal_corrected", "rank"]
    place = list(rows.columns).index("predicted_token_surprisal")
    assert list(rows.columns)[place + 1 : place + 4] == names
    in_training = rows["dataset_type"] == "train"
    assert rows["token_entropy"].notna().equals(in_training)
    assert rows["rank"].notna().equals(~in_training)
    assert str(rows["rank"].dtype) == "Int64"
    assert rows["surprisal_corrected"].notna().any() == (kind == "lm")
    probes = load_metrics("out/probe_results.csv.gz")
    words = ["kl_from_baseline", "surprisal_of_glass", "surprisal_of_man"]
    place = list(probes.columns).index("predicted_token_surprisal")
    assert list(probes.columns)[place + 1 : place + 5] == ["baseline_surprisal", *words]
    before = probes["epoch"] == -1
    np.testing.assert_allclose(probes["kl_from_baseline"][before], 0.0, atol=2e-6)
    assert (probes["kl_from_baseline"][~before] > 0).any()
    capsys.readouterr()
    assert main([*argv, "--print_config"]) == 0
    Path("printed.yaml").write_text(capsys.readouterr().out, "utf-8")
    for number, config in enumerate(["out/config.yaml", "printed.yaml"]):
        assert main(["--config", config, "--output_dir", f"again{number}"]) == 0
    for again, name in itertools.product(("again0", "again1"), ("metrics", "probe_results")):
        name = f"{name}.csv.gz"
        assert (Path(again) / name).read_bytes() == (Path("out") / name).read_bytes()
