"""Runs of both modes of a model that is causal and masked in one: ``--model_task lm+mlm``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file

import finetune_lm
from families import TEXTS, bert_tokenizer
from finetune_lm import measures
from finetune_lm.analysis.item_values import Conditions
from finetune_lm.analysis.report_frames import Results, losses_frame, surprisal_frame
from finetune_lm.analysis.run_files import RunFiles
from finetune_lm.analysis.run_groups import grouped
from finetune_lm.analysis.run_trajectories import RunTrajectories
from finetune_lm.cli import main
from finetune_lm.data_preprocessing import expand_with_masks, for_tasks, mask_random_tokens
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from finetune_lm.model_modifiers import UnfreezeWordTokensCallback, add_adapter, add_new_tokens
from helpers import write_lines
from two_modes_model import CODE, save_two_modes
from two_modes_runs import ALL, BOTH, LM, MNTP, TASK_OF, assert_same, do, in_mode, training

pytest_plugins = ["two_modes_runs"]
pytestmark = pytest.mark.usefixtures("texts_here")

WORDS = "{}/x-test_words.csv.gz"


def saved_once(tmp_path_factory, name: str, code: str) -> Path:
    """A model with other code, saved once for all tests of a process."""
    directory = tmp_path_factory.getbasetemp() / name
    return directory if directory.exists() else save_two_modes(directory, code, n_steps=30)


@pytest.mark.parametrize("fast", [True, False])
def test_both_modes_by_brute_force_and_as_runs_of_each_alone(place, fast):
    shared = {
        "test_file": ["test.txt.gz", "check.txt.gz"],
        "data_preprocessing_fn": {"test": expand_with_masks},
        "data_preprocessing_fn_kwargs": {"test": {"within_word_l2r": True}},
        "measures": [measures.WordBoundary, measures.Rank],
        "word_tables": True,
        "fast": fast,
    }
    both = do(place, BOTH, "both", **shared)
    rows, words = both.test_results, finetune_lm.load_metrics(WORDS.format("both"))
    assert list(rows.columns[:4]) == ["model_name", "task", "mode", "n_params"]
    assert list(words.columns[:4]) == ["model_name", "task", "mode", "n_params"]
    of_files = rows[["dataset_name", "mode"]].drop_duplicates().to_numpy().tolist()
    assert of_files == [["test", "lm"], ["test", "mlm"], ["check", "lm"], ["check", "mlm"]]
    for mode, task in TASK_OF.items():
        if task == LM:
            alone = do(
                place,
                LM,
                "lm",
                **{**shared, "data_preprocessing_fn": {}, "data_preprocessing_fn_kwargs": {}},
            )
        else:
            alone = do(place, MNTP, "mntp", **shared)
        assert set(in_mode(rows, mode)["task"]) == {task}
        assert_same(in_mode(rows, mode), alone.test_results)
        assert_same(in_mode(words, mode), finetune_lm.load_metrics(WORDS.format(task)))
    masked = rows["mode"] == "mlm"
    assert rows.loc[masked, "surprisal_corrected"].isna().all()
    assert rows.loc[~masked, "rank"].notna().all()
    assert set(words.loc[words["mode"] == "mlm", "pll"]) == {"within_word_l2r"}
    # The words afterwards, from the tables alone.
    assert main(["words", "both"]) == 0
    again = finetune_lm.load_metrics(WORDS.format("both"))
    pd.testing.assert_frame_equal(again, words)
    # Independent of our loading: plain calls of both classes.
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    autos = transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM
    for auto, mode in zip(autos, TASK_OF, strict=True):
        model = auto.from_pretrained(place, trust_remote_code=True).eval()
        expected = []
        for text in TEXTS[1:4]:
            ids = torch.tensor(tokenizer(text)["input_ids"])
            words_of = tokenizer(text).word_ids()
            for at in range(1, len(ids) - 1):
                given = ids.clone()
                if mode == "mlm":
                    hidden = [k for k in range(at, len(ids)) if words_of[k] == words_of[at]]
                    given[hidden] = tokenizer.mask_token_id
                with torch.no_grad():
                    logits = model(given[None]).logits[0, at - 1].double()
                expected.append(-float(logits.log_softmax(-1)[ids[at]]) / math.log(2))
        here = in_mode(rows, mode)
        here = here[(here["dataset_name"] == "test") & here["is_target"]]
        if mode == "lm":
            assert here["surprisal"].tolist() == pytest.approx(expected, abs=1e-4)
        else:
            # Words next to punctuation are several of BERT's and one of the text's.
            apart = here["word"].str.isalnum()
            assert apart.sum() > 10
            found, wanted = here["surprisal"][apart], pd.Series(expected, here.index)[apart]
            assert found.tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


DROPOUT = CODE.replace(
    "self.classifier(torch.tanh(states))",
    "self.classifier(F.dropout(torch.tanh(states), 0.3, self.training))",
)


@for_tasks("lm", "mlm")
def noisy(inputs, tokenizer):
    """Masks one token of each text at random; the labels are the text."""
    ids, labels = inputs["input_ids"].clone(), inputs["input_ids"].clone()
    ids[torch.arange(len(ids)), torch.randint(1, 5, (len(ids),))] = tokenizer.mask_token_id
    return {**inputs, "input_ids": ids, "labels": labels}


@pytest.mark.parametrize(
    ("mode", "function", "strategy"),
    [
        ("lm", mask_random_tokens, "per_batch"),
        ("lm", noisy, "once"),
        ("mlm", mask_random_tokens, "once"),
        ("mlm", noisy, "per_batch"),
    ],
)
def test_a_run_that_learns_in_one_mode_is_the_run_of_that_mode(
    tmp_path_factory, mode, function, strategy
):
    """With the other one measured besides, whatever is drawn for it: the model has dropout."""
    place = saved_once(tmp_path_factory, "dropout", DROPOUT)
    data = training(
        test_file=["test.txt.gz", "check.txt.gz"],
        probe_file=["check.txt.gz", "test.txt.gz"],
        data_preprocessing_fn=dict.fromkeys(ALL, function),
        data_preprocessing_fn_strategy=dict.fromkeys(ALL, strategy),
        epochs=2,
    )
    both = do(place, BOTH, "both", {"train_mode": mode}, **data)
    other = next(each for each in TASK_OF if each != mode)
    if mode == "lm":
        if function is not noisy:
            data = {**data, "data_preprocessing_fn": {}}
        data["loss_classes_kwargs"] = {
            "train": {"KLBaselineLoss": {"dataset": "test.txt.gz", "scaleby": 0.1}}
        }
    alone = do(place, TASK_OF[mode], "alone", **data)
    for name in ("metrics", "probe_results", "test_results"):
        assert_same(in_mode(getattr(both, name), mode), getattr(alone, name))
    # Nor does one draw the same for each epoch.
    if strategy == "per_batch":
        rows = both.metrics[both.metrics["dataset_type"] == "validation"]
        of_mlm = rows[rows["mode"] == "mlm"].groupby("epoch")["input_text"]
        assert len({tuple(texts.unique()) for _, texts in of_mlm}) > 1
    assert both.best_loss == alone.best_loss
    assert both.best_epoch == alone.best_epoch
    found, wanted = (load_file(f"{each}/model/model.safetensors") for each in ("both", "alone"))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(weight, wanted[name]) for name, weight in found.items())
    metrics = both.metrics
    of_other = metrics[metrics["mode"] == other]
    assert set(of_other["dataset_type"]) == {"validation"}
    assert of_other.groupby("epoch")["surprisal"].mean().nunique() == 3
    # The other mode of what was learned.
    tested = do(
        Path("both/model"),
        TASK_OF[other],
        "tested",
        **{
            "test_file": ["test.txt.gz"],
            "data_preprocessing_fn": {"test": expand_with_masks} if other == "mlm" else {},
        },
    ).test_results
    # Where the same was asked. Masks in both may be others.
    inputs = ["input_text", "word_num", "token_num_in_word", "token_id"]
    of_tests = in_mode(both.test_results, other).merge(tested, on=inputs)
    found, expected = of_tests["surprisal_x"].tolist(), of_tests["surprisal_y"].tolist()
    assert found == pytest.approx(expected, abs=1e-5)
    assert found or function is noisy or other == "mlm"


def test_the_causal_mode_reads_the_labels_of_texts_with_masks(place, capsys):
    """And words and regions are of them in both modes."""
    Path("masked").mkdir()
    texts = dict(zip(("teach", "check", "test"), (TEXTS[:2], TEXTS[4:5], TEXTS[1:4]), strict=True))
    for name, whole in texts.items():
        # The second word, which may be several tokens, and the third.
        parts = [text.split(" ", 3) for text in whole]
        regions = [{"regions": [["verb", 0, len(" ".join(p[:3]))]]} for p in parts]
        lines = [{"text": masked_at(text, (1, 2)), "labels": text} for text in whole]
        write_lines(Path(f"masked/{name}.json.gz"), lines, regions)
        write_lines(Path(f"{name}.txt.gz"), whole, regions)

    def data(directory: str, suffix: str) -> dict[str, Any]:
        files = {name: f"{directory}{name}.{suffix}.gz" for name in texts}
        return {
            "train_file": files["teach"],
            "validation_file": files["check"],
            "test_file": [files["test"]],
            "epochs": 2,
            "eval_before_training": True,
            "train_optimizer_kwargs": {"lr": 1e-2},
            "loss_classes": {"train": [OutputsDefaultLoss, KLBaselineLoss]},
            "loss_classes_kwargs": {"train": {"KLBaselineLoss": {"dataset": files["test"]}}},
        }

    masked = data("masked/", "json")
    both = do(place, BOTH, "both", **masked)
    told = capsys.readouterr().err
    assert "hold the mask token" not in told
    # Training data are read in the mode that learns.
    assert "check: every token counts in the loss in the mlm mode" in told
    assert "teach: every token counts" not in told
    alone = do(place, LM, "alone", **data("", "txt"))
    for name in ("metrics", "test_results"):
        assert_same(in_mode(getattr(both, name), "lm"), getattr(alone, name))
    rows = in_mode(both.test_results, "mlm")
    assert rows["original_text"].str.contains("[MASK]", regex=False).all()
    assert set(rows["word_num"]) == {1, 2}
    assert set(rows["region"]) == {"verb"}
    only_tested = {"test_file": masked["test_file"], "data_preprocessing_fn": {}}
    tested = do(place, MNTP, "mntp", **only_tested).test_results
    both = do(place, BOTH, "tested", **only_tested).test_results
    assert_same(in_mode(both, "mlm"), tested)
    # A run of the causal mode alone has no use for labels.
    capsys.readouterr()
    do(place, LM, "lm", **only_tested)
    told = "warning: 3 of the 3 texts of {} hold the mask token [MASK], which {} reads{} like any "
    told += "other token. {}"
    path = masked["test_file"][0]
    whole = "'labels' have no use here: give whole texts as 'text'."
    assert told.format(path, place, "", whole) in capsys.readouterr().err.splitlines()
    write_lines(Path("masks.txt.gz"), [masked_at(text, (1,)) for text in TEXTS[:3]])
    do(place, BOTH, "masks", test_file=["masks.txt.gz"])
    whole = "Give whole texts as 'labels' beside those with masks."
    line = told.format("masks.txt.gz", place, " in the lm mode", whole)
    assert capsys.readouterr().err.count(line) == 1
    kl = {"KLBaselineLoss": {"dataset": str(Path("masks.txt.gz").rename("kl.txt.gz"))}}
    masked["loss_classes_kwargs"] = {"train": kl}
    do(place, BOTH, "kl", **masked)
    assert capsys.readouterr().err.count("kl.txt.gz hold the mask token") == 1


def masked_at(text: str, words: tuple[int, ...]) -> str:
    """A text with as many masks in place of some of its words as they have tokens."""
    tokenizer = bert_tokenizer()
    return " ".join(
        "".join(["[MASK]"] * len(tokenizer.tokenize(word))) if i in words else word
        for i, word in enumerate(text.split(" "))
    )


def test_words_adapters_pairs_and_figures(place):
    """Both modes get new words and an adapter, one of each; pairs are compared within a mode."""
    texts = ["The man broke the blick.", "The blick broke the man."] * 2
    write_lines(Path("pairs.txt.gz"), texts)
    conditions = [{"condition": "good", "expected": True}, {"condition": "bad", "expected": False}]
    metadata = [{"item": i // 2, **conditions[i % 2]} for i in range(4)]
    write_lines(Path("pairs_metadata.json.gz"), metadata)
    functions = [add_new_tokens, add_adapter]
    model = {
        "model_modifier_fns": functions,
        "model_modifier_fn_kwargs": {
            "add_new_tokens": {"added_tokens": ["blick"], "init": "random"},
            "add_adapter": {"r": 2, "target_modules": "all-linear"},
        },
        "model_pre_train_step_callbacks": [UnfreezeWordTokensCallback],
        "model_pre_train_step_callbacks_kwargs": {
            "UnfreezeWordTokensCallback": {"words_to_unfreeze": ["blick"]}
        },
    }
    data = training(test_file=["pairs.txt.gz"], probe_file=["pairs.txt.gz"], epochs=2)
    del data["loss_classes_kwargs"]["train"]["KLBaselineLoss"]["data_preprocessing_fn"]
    data["data_preprocessing_fn"] = {"validation": mask_random_tokens}
    do(place, BOTH, "both", model, **data)
    do(place, LM, "alone", model, **{**data, "data_preprocessing_fn": {}})
    for name in ("probe_pairs.csv.gz", "x-test_pairs.csv.gz", "x-test_summary.csv"):
        found, alone = (pd.read_csv(f"{each}/{name}") for each in ("both", "alone"))
        assert_same(in_mode(found, "lm"), alone)
        assert len(in_mode(found, "mlm")) == len(alone)
    tests = finetune_lm.load_metrics("both/x-test_results.csv.gz")
    masked = tests[tests["mode"] == "mlm"]
    costs = masked[masked["is_target"]].groupby("example_num")["surprisal"].sum()
    found = pd.read_csv("both/x-test_pairs.csv.gz")
    found = found[found["mode"] == "mlm"]
    assert found["difference"].tolist() == pytest.approx(
        [costs[1] - costs[0], costs[3] - costs[2]], abs=1e-4
    )
    # What a report draws.
    files, conditions = RunFiles.read(Path("both")), Conditions([])
    results = Results([RunTrajectories(files, conditions)], grouped([files]), conditions)
    losses, surprisal = losses_frame(results), surprisal_frame(results)
    assert set(losses["loss"]) == {
        f"{name} ({mode})"
        for mode in TASK_OF
        for name in ("loss", "OutputsDefaultLoss", "KLBaselineLoss")
    } - {"KLBaselineLoss (mlm)"}
    assert set(surprisal["dataset_name"]) == {
        *("teach (lm)", "check (lm)", "check (mlm)", "pairs (lm)", "pairs (mlm)"),
    }
    saved = load_file("both/model/adapter_model.safetensors")
    other = load_file("alone/model/adapter_model.safetensors")
    assert all(torch.equal(weight, other[name]) for name, weight in saved.items())
