"""Runs whose data have pairs: the tables that they leave, and what makes them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import finetune_lm
from finetune_lm.cli import main
from finetune_lm.data.files import read_files
from pair_files import PAIRS, lines

pytest_plugins = ["pair_files"]

ROOT = Path(__file__).parent.parent


def run_of(output: Path, *words: object, model: str = "tiny-lm") -> Path:
    said = ["--model_name_or_path", model, "--output_dir", output, "--seed", "1", *words]
    assert main([str(word) for word in said]) == 0
    return output


@pytest.fixture(scope="module")
def tested(pair_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test of tiny-lm on all of them."""
    return run_of(
        tmp_path_factory.mktemp("run") / "out",
        *("--test_file", pair_files / "blimp" / "*.jsonl", pair_files / "own.jsonl"),
        *("--contrasts.plausibility", "im-plausible - plausible"),
        *("--test_output_file_prefix", "t"),
    )


def test_what_a_test_leaves(tested: Path) -> None:
    tokens = finetune_lm.load_metrics(tested / "t-test_results.csv.gz")
    pairs = finetune_lm.load_metrics(tested / "t-test_pairs.csv.gz")
    summary = pd.read_csv(tested / "t-test_summary.csv")
    result = finetune_lm.RunResult(tested, test_results_path=tested / "t-test_results.csv.gz")
    assert result.test_pairs is not None
    assert result.test_summary is not None
    assert (len(result.test_pairs), len(result.test_summary)) == (len(pairs), len(summary))
    assert tokens["dataset_name"].unique().tolist() == ["agree [1]", "order", "own"]
    # A sentence that is in two pairs is scored once.
    blimp = tokens[tokens["dataset_name"] == "order"]
    assert blimp.groupby("example_num")["original_text"].first().tolist() == [
        "The man drank.",
        "The man drinked.",
        "The man drank drank.",
        "The women drank the water.",
        "The women the water drank.",
    ]
    cost = blimp.groupby("original_text")["surprisal"].agg(["sum", "mean", "size"])
    found = pairs[pairs["dataset_name"] == "order"].to_dict("records")
    for row, (good, bad) in zip(found, PAIRS, strict=True):
        better, worse = cost.loc[good], cost.loc[bad]
        assert row["surprisal_better"] == pytest.approx(better["sum"], abs=1e-5)
        assert row["difference"] == pytest.approx(worse["sum"] - better["sum"], abs=1e-5)
        per_token = worse["mean"] - better["mean"]
        assert row["difference_per_token"] == pytest.approx(per_token, abs=1e-5)
        assert (row["n_tokens_better"], row["n_tokens_worse"]) == (better["size"], worse["size"])
        assert row["correct"] == (row["difference"] > 0)
    assert [row["phenomenon"] for row in found] == ["term"] * 3
    assert [row["UID"] for row in found] == ["order"] * 3
    own = pairs[pairs["dataset_name"] == "own"]
    assert own["comparison"].tolist() == ["pair", "pair", "contrast", "contrast"]
    assert own["rating"].tolist() == [1.5, 2.5, 1.5, 2.5]
    assert own["difference"].tolist()[:2] == own["difference"].tolist()[2:]
    assert summary["dataset_name"].tolist() == ["agree [1]", "order", "own", "own"]
    assert summary["n_pairs"].tolist() == [3, 3, 2, 2]
    assert summary["start_token"].unique().tolist() == ["<|endoftext|>"]
    assert not summary["leading_space"].any()
    assert summary["mean_difference"][1] == pytest.approx(
        sum(row["difference"] for row in found) / 3
    )


def test_the_command_makes_them_again_to_the_byte(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tested / "t-test_pairs.csv.gz", tested / "t-test_summary.csv"]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert main(["pairs", str(tested)]) == 0
    assert capsys.readouterr().out.split() == [str(path) for path in paths]
    assert [path.read_bytes() for path in paths] == before
    assert main(["pairs", str(tested), "--contrasts.twice", "%im-plausible% + plausible"]) == 0
    names = pd.read_csv(paths[1])["comparison_name"].dropna().tolist()
    assert names == ["plausibility", "twice"]
    assert main(["pairs", str(tested)]) == 0
    assert [path.read_bytes() for path in paths] == before


def test_frames_give_the_same(tested: Path) -> None:
    tokens = finetune_lm.load_metrics(tested / "t-test_results.csv.gz")
    found = finetune_lm.pairs(
        tokens,
        contrasts={"plausibility": "im-plausible - plausible"},
        start_token="<|endoftext|>",
    )
    pairs = finetune_lm.load_metrics(tested / "t-test_pairs.csv.gz")
    found_and_read = found.pairs, pairs
    assert found.pairs.columns.tolist() == pairs.columns.tolist()
    for name in pairs.columns:
        one, other = (table[name].astype(object).fillna("NA").tolist() for table in found_and_read)
        assert one == other, name
    summary = pd.read_csv(tested / "t-test_summary.csv")
    assert found.summary.columns.tolist() == summary.columns.tolist()
    for name in ("accuracy", "ci_low", "se", "mean_difference_per_token", "n_with_unknown"):
        assert found.summary[name].tolist() == pytest.approx(summary[name].tolist(), nan_ok=True)


def test_what_the_command_cannot_do(
    tested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        ([tmp_path / "no"], "must be the output directory of a run"),
        ([tmp_path], "has no config.yaml"),
        ([tested, "--contrasts.x"], "must be followed by a formula"),
        (
            [tested, "--contrasts.x", "a -"],
            "contrasts.x: a cost, a number or a bracket must follow",
        ),
        ([tested, "--contrasts.x", "this - that"], "no data set has all conditions"),
        ([tested, "--contrasts.x", "a", "--contrasts.x", "b"], "is given twice"),
        ([tested, "--pair_regio", "x"], "Did you mean --pair_region"),
        ([], "RUN_DIR"),
    ):
        assert main(["pairs", *map(str, words)]) == 2, words
        assert said in capsys.readouterr().err, words


def test_a_leading_space_is_in_the_summary_and_changes_what_sentences_cost(
    tested: Path, pair_files: Path, tmp_path: Path
) -> None:
    output = run_of(
        tmp_path / "out",
        *("--test_file", pair_files / "blimp" / "order.jsonl", "--pair_space", "leading"),
        *("--test_output_file_prefix", "t", "--bos_policy", "none"),
    )
    summary = pd.read_csv(output / "t-test_summary.csv", keep_default_na=False)
    assert summary["leading_space"].tolist() == [True]
    assert summary["start_token"].tolist() == ["none"]
    tokens = finetune_lm.load_metrics(output / "t-test_results.csv.gz")
    assert tokens["original_text"].str.startswith(" The").all()
    assert tokens.groupby("example_num")["surprisal"].first().isna().sum() == 0


def uniform_model(directory: Path) -> Path:
    """A model to which all tokens are equally likely."""
    import transformers

    builtin = Path(finetune_lm.__file__).parent / "models" / "builtin" / "tiny-lm"
    model = transformers.AutoModelForCausalLM.from_pretrained(builtin)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln" not in name:
                parameter.zero_()
    model.save_pretrained(directory)
    transformers.AutoTokenizer.from_pretrained(builtin).save_pretrained(directory)
    return directory


def test_a_uniform_model_is_right_half_of_the_time_and_always_tied(tmp_path: Path) -> None:
    pairs = [
        ("The man saw the glass.", "The glass saw the man."),
        ("A man saw a glass.", "A glass saw a man."),
    ]
    path = lines(
        tmp_path / "data" / "x.jsonl", *[{"sen": good, "wrong_sen": bad} for good, bad in pairs]
    )
    output = run_of(
        tmp_path / "out",
        *("--test_file", path, "--test_output_file_prefix", "t", "--model_task", "lm"),
        model=str(uniform_model(tmp_path / "model")),
    )
    [row] = pd.read_csv(output / "t-test_summary.csv").to_dict("records")
    assert (row["n_pairs"], row["accuracy"], row["ties"]) == (2, 0.5, 2)
    assert (row["accuracy_per_token"], row["ties_per_token"]) == (0.5, 2)
    assert row["mean_difference"] == 0


def test_masked_models_are_compared_by_pseudo_log_likelihood(
    pair_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--test_file", pair_files / "blimp" / "order.jsonl", "--test_output_file_prefix", "t"]
    plain = run_of(tmp_path / "a", *words, model="tiny-mlm")
    assert "pseudo-log-likelihood" in capsys.readouterr().err
    said = run_of(
        tmp_path / "b",
        *words,
        *("--data_preprocessing_fn.test", "data_preprocessing.expand_with_masks"),
        *("--data_preprocessing_fn_kwargs.test.within_word_l2r", "True"),
        model="tiny-mlm",
    )
    found = [finetune_lm.load_metrics(each / "t-test_pairs.csv.gz") for each in (plain, said)]
    assert found[0]["difference"].notna().all()
    for column in ("difference", "difference_per_token"):
        assert found[0][column].tolist() == pytest.approx(found[1][column].tolist(), abs=1e-4)
    tokens = finetune_lm.load_metrics(plain / "t-test_results.csv.gz")
    total = tokens[tokens["is_target"]].groupby("original_text")["surprisal"].sum()
    good, bad = PAIRS[0]
    assert found[0]["difference"][0] == pytest.approx(total[bad] - total[good], abs=1e-5)


def test_seq2seq_models_are_compared_by_their_labels(
    pair_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--test_output_file_prefix", "t"]
    output = run_of(
        tmp_path / "a", *("--test_file", pair_files / "own.jsonl"), *words, model="tiny-seq2seq"
    )
    assert "each text is both input and label" not in capsys.readouterr().err
    tokens = finetune_lm.load_metrics(output / "t-test_results.csv.gz")
    labels = tokens[(tokens["sequence_type"] == "label_sequence") & tokens["is_target"]]
    total = labels.groupby("example_num")["surprisal"].sum()
    pairs = finetune_lm.load_metrics(output / "t-test_pairs.csv.gz")
    expected = [total[1] - total[0], total[3] - total[2]]
    assert pairs["difference"].tolist() == pytest.approx(expected, abs=1e-5)
    run_of(
        tmp_path / "b",
        *("--test_file", pair_files / "blimp" / "order.jsonl"),
        *words,
        model="tiny-seq2seq",
    )
    assert "each text is both input and label" in capsys.readouterr().err


def test_plain_data_leave_no_tables_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("The man drank.\n")
    output = run_of(tmp_path / "out", "--test_file", path)
    assert not list(output.glob("*pairs*"))
    assert not list(output.glob("*summary*"))
    result = finetune_lm.RunResult(output, test_results_path=output / "tiny-lm-test_results.csv.gz")
    assert result.test_pairs is None
    assert result.test_summary is None
    assert main(["pairs", str(output)]) == 2


def test_patterns(pair_files: Path, tmp_path: Path) -> None:
    def names(**files: Any) -> list[str]:
        args = finetune_lm.DataTrainingArguments(**files)
        return [examples.name for group in read_files(args).values() for examples in group]

    blimp = pair_files / "blimp"
    assert names(test_file=f"{blimp}/*.jsonl") == ["agree [1]", "order"]
    # Something that is really called so is meant itself; metadata are never meant.
    assert names(test_file=f"{blimp}/agree [1].jsonl") == ["agree [1]"]
    assert names(test_file=f"{pair_files}/*.jsonl") == ["own"]
    assert names(test_file=[f"{pair_files}/**/o*.jsonl"]) == ["order", "own"]
    for pattern, said in (
        (f"{blimp}/*.txt", "there is no file"),
        ([f"{blimp}/*.jsonl", f"{blimp}/order.jsonl"], "given 2 times"),
    ):
        with pytest.raises(finetune_lm.UserError, match=said):
            names(test_file=pattern)


def test_several_validation_files_are_one_data_set(pair_files: Path) -> None:
    args = finetune_lm.DataTrainingArguments(
        train_file=str(pair_files / "own.jsonl"), validation_file=f"{pair_files}/blimp/*.jsonl"
    )
    [examples] = read_files(args)["validation"]
    assert len(examples) == 10
    assert examples.has_pairs
    assert examples.metadata[0]["item"] == ["agree [1]:0", "agree [1]:1"]
    assert examples.metadata[-1]["item"] == "order:2"


def test_mistakes_are_told_before_a_model_is_loaded(
    pair_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        (("--contrasts.x", "a - b"), "contrasts.x: a data set must have all conditions and region"),
        (("--contrasts.x", "(verb;%plausible%)"), "regions: none."),
        (("--pair_region", "verb"), "pair_region must be a region of the data but is 'verb'"),
        (("--contrasts.x", "a -"), "contrasts.x: a cost, a number or a bracket must follow"),
        (("--contrasts.x", "a < b"), "contrasts.x: a contrast must be a number"),
        (("--pair_space", "trailing"), "pair_space must be leading or none"),
    ):
        command = ["--model_name_or_path", "no/such-model", "--output_dir", tmp_path / "out"]
        command += ["--test_file", pair_files / "own.jsonl", *words]
        assert main([str(word) for word in command]) == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_suite_from_file_to_summary(tmp_path: Path) -> None:
    path = ROOT / "data" / "pairs" / "number_of.json"
    output = run_of(tmp_path / "out", "--test_file", path, "--test_output_file_prefix", "t")
    tokens = finetune_lm.load_metrics(output / "t-test_results.csv.gz")
    verb = tokens[tokens["region"] == "3"].groupby(["item", "condition"])["surprisal"].sum()
    expected = [
        (verb[i, "match_sing"] < verb[i, "mismatch_sing"])
        & (verb[i, "match_plural"] < verb[i, "mismatch_plural"])
        for i in range(1, 7)
    ]
    expected += [
        verb[i, "mismatch_sing"] - verb[i, "match_sing"]
        > verb[i, "mismatch_plural"] - verb[i, "match_plural"]
        for i in range(1, 7)
    ]
    pairs = finetune_lm.load_metrics(output / "t-test_pairs.csv.gz")
    assert pairs["correct"].tolist() == [float(each) for each in expected]
    assert pairs["comparison"].unique().tolist() == ["prediction"]
    summary = pd.read_csv(output / "t-test_summary.csv")
    assert summary["phenomenon"].tolist() == ["number_of"] * 2
    assert summary["n_pairs"].tolist() == [6, 6]
    assert summary["accuracy"].tolist() == pytest.approx(
        [sum(expected[:6]) / 6, sum(expected[6:]) / 6]
    )


def test_targets_are_what_pairs_are_scored_over(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "data" / "x.jsonl",
        {"prefix": "The man drank", "target": " the water."},
        {"prefix": "The man drank", "target": " the house."},
    )
    lines(
        tmp_path / "data" / "x_metadata.jsonl",
        {"item": 0, "condition": "a", "expected": True},
        {"item": 0, "condition": "b", "expected": False},
    )
    output = run_of(tmp_path / "out", "--test_file", path, "--test_output_file_prefix", "t")
    tokens = finetune_lm.load_metrics(output / "t-test_results.csv.gz")
    cost = tokens[tokens["region"] == "target"].groupby("example_num")["surprisal"].sum()
    [row] = finetune_lm.load_metrics(output / "t-test_pairs.csv.gz").to_dict("records")
    assert row["region"] == "target"
    assert row["surprisal_better"] == pytest.approx(cost[0], abs=1e-5)
    assert row["difference"] == pytest.approx(cost[1] - cost[0], abs=1e-5)
