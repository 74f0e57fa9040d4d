"""Runs with an adapter: the untouched model beside them, checkpoints, and studies."""

from __future__ import annotations

import gzip
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file

import finetune_lm
from crashing import difference
from finetune_lm import ModelArguments, UserError
from finetune_lm.grids import study_values
from finetune_lm.model_modifiers import add_new_tokens
from finetune_lm.models import loading
from finetune_lm.models.loading import load_model
from finetune_lm.models.saved_adapters import SavedAdapter
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from helpers import predicted
from setups import DATA, arguments, setup
from studies import study_args

WORD = "flomped"


def adapted(kind: str, output_dir: Path, **changed: Any) -> tuple[Any, Any]:
    """A run with a new word, an adapter, a KL term and a measure against the untouched model."""
    masking = {"mlm": "mask_random_tokens", "seq2seq": "mask_random_spans"}.get(kind)
    kl = {"dataset": str(DATA / "sentences.txt.gz"), "n_examples_per_batch": 3}
    if masking:
        kl["data_preprocessing_fn"] = f"data_preprocessing.{masking}"
    losses = ["loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"]
    model, data = setup(
        kind,
        **{"epochs": 2, "max_test_samples": 4, "eval_before_training": False},
        loss_classes={"train": losses},
        loss_classes_kwargs={"train": {"KLBaselineLoss": kl}},
        measures={"test": ["measures.BaselineKL"]},
        test_file=[str(DATA / "sentences.txt.gz")],
        train_optimizer_kwargs={"lr": 5e-3},
        output_dir=str(output_dir),
    )
    model["model_modifier_fns"] = ["model_modifiers.add_new_tokens", "model_modifiers.add_adapter"]
    model["model_modifier_fn_kwargs"] = {
        "add_new_tokens": {"added_tokens": [WORD]},
        "add_adapter": {"r": 2, "target_modules": "all-linear", **changed},
    }
    model["model_pre_train_step_callbacks"] = ["model_modifiers.UnfreezeWordTokensCallback"]
    words = {"words_to_unfreeze": [WORD, "water"]}
    model["model_pre_train_step_callbacks_kwargs"] = {"UnfreezeWordTokensCallback": words}
    return arguments(model, data)


@pytest.fixture
def loaded_models(monkeypatch):
    """The names of the models that are read from disk."""
    names: list[str] = []
    original = loading.load_untouched

    def load(args, *more, **keys):
        names.append(args.model_name_or_path)
        return original(args, *more, **keys)

    monkeypatch.setattr(loading, "load_untouched", load)
    return names


def tables(directory: Path) -> dict[str, bytes]:
    found = sorted(directory.glob("*.csv.gz"))
    return {path.name: gzip.decompress(path.read_bytes()) for path in found}


@pytest.mark.parametrize("kind", ["lm", "mlm", "seq2seq"])
def test_the_untouched_model_is_not_loaded_again_and_says_the_same(
    tmp_path, monkeypatch, loaded_models, kind
):
    """The oracle is a baseline that was loaded by itself, also for rows that are trained."""
    place = tmp_path / "shared"
    result = finetune_lm.run(*adapted(kind, place, merge=kind == "mlm"))
    assert loaded_models == [f"tiny-{kind}"]
    assert result.test_results["kl_from_baseline"].max() > 1e-4
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_twin", lambda *_: None)
        finetune_lm.run(*adapted(kind, tmp_path / "apart"))
    assert loaded_models == [f"tiny-{kind}"] * 3
    assert tables(place) == tables(tmp_path / "apart")
    # What was saved is what was tested, by our own loading; a merged one by anybody's.
    loaded = load_model(ModelArguments(str(place / "model")))
    assert WORD in " ".join(loaded.tokenizer.get_vocab()).replace("\N{WORD JOINER}", "")
    if kind == "lm":  # masks are drawn anew
        _, data = again_arguments(kind, tmp_path / "again")
        again = finetune_lm.run(*arguments({"model_name_or_path": str(place / "model")}, data))
        difference = again.test_results["surprisal"] - result.test_results["surprisal"]
        assert difference.abs().max() < 1e-4
    if kind == "mlm":
        model = loading.load_model(ModelArguments(f"tiny-{kind}")).model
        plain = type(model).from_pretrained(place / "model").eval()
        assert not torch.any((predicted(plain) - predicted(loaded.model)).abs() > 1e-6)
        assert SavedAdapter.find(str(place / "adapter")) is not None
        other = load_model(ModelArguments(str(place / "adapter"))).model
        assert (predicted(other) - predicted(plain)).abs().max() < 1e-4
        return
    # PEFT wants the embeddings to have room for the new word; all else it finds.
    base = load_model(ModelArguments(f"tiny-{kind}")).model
    base.resize_token_embeddings(len(loaded.tokenizer), mean_resizing=False)
    by_peft = peft.PeftModel.from_pretrained(base, place / "model").eval().base_model.model
    assert (predicted(by_peft) - predicted(loaded.model)).abs().max() < 1e-4


def again_arguments(kind: str, output_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    tests = [str(DATA / "sentences.txt.gz")]
    model, data = setup(kind, output_dir=str(output_dir), test_file=tests, max_test_samples=4)
    for name in ("train_file", "validation_file", "loss_classes"):
        del data[name]
    return model, data


def test_a_run_that_is_stopped_goes_on_from_small_checkpoints(tmp_path, monkeypatch):
    whole = finetune_lm.run(*adapted("lm", tmp_path / "whole")).output_dir
    parts, calls = tmp_path / "parts", []
    original = Forward.__call__

    def forward(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Forward, "__call__", forward)
        with pytest.raises(Interrupted):
            finetune_lm.run(*adapted("lm", parts))
    newest = sorted((parts / "checkpoints").glob("[0-9]*"))[-1]
    kept = load_file(newest / "model.safetensors")
    # The embeddings have a new row, so they are not those of the model that was named any more.
    moving = {name for name in kept if "lora_" not in name}
    assert moving == {"transformer.wte.weight"}
    assert len(kept) > 10
    assert load_file(newest / "best.safetensors").keys() == kept.keys()
    finetune_lm.resume(parts)
    assert difference(whole, parts) == []


def test_a_study_searches_for_a_rank(tmp_path, loaded_models):
    """The run of the best trial, in which everything is made anew, comes to what the trial did."""
    model, data = adapted("lm", tmp_path / "study")
    data = replace(data, test_file=None, measures={}, word_tables=False)
    where = "model_modifier_fn_kwargs.add_adapter"

    def searched(values: Any, **more: Any) -> Any:
        params = {"model_modifier_fn_kwargs": {"add_adapter": {"r": values}}}
        return study_args(2, params=params, keep_best_trial=True, **more)

    result = finetune_lm.run(model, data, searched({"values": [1, 3], "type": "categorical"}))
    assert sorted(result.trials[f"{where}.r"]) == [1, 3]
    assert set(loaded_models) == {"tiny-lm"}
    best = json.loads((tmp_path / "study" / "best_trial" / "run.json").read_text())
    assert best["best_validation_loss"] == result.best_loss == result.trials["value"].min()
    config = yaml.safe_load((tmp_path / "study" / "best_trial" / "config.yaml").read_text())
    r = result.best_params[f"{where}.r"]
    assert config["model_modifier_fn_kwargs"]["add_adapter"]["r"] == r
    assert result.best_model_args.model_modifier_fn_kwargs["add_adapter"]["r"] == r
    entries = study_values.best_values(str(tmp_path / "study")).entries
    assert (("model_modifier_fn_kwargs", "add_adapter", "r"), r) in entries

    def told(values: Any, name: str = "r") -> str:
        params = {"model_modifier_fn_kwargs": {"add_adapter": {name: {"values": values}}}}
        with pytest.raises(UserError) as caught:
            finetune_lm.run(model, data, study_args(2, params=params))
        return str(caught.value)

    assert "r must be at least 1 but got 0." in told([0, 4])
    assert "ranks is no argument of PEFT's LoraConfig" in told([1, 4], "ranks")
    words = {"add_new_tokens": {"added_tokens": WORD}}
    model = replace(model, model_modifier_fns=[add_new_tokens], model_modifier_fn_kwargs=words)
    assert "but model_modifier_fns holds add_new_tokens." in told([1, 4])
