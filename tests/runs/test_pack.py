"""Runs of one process that share what they can: each comes out as in a process of its own."""

from __future__ import annotations

import gc
import os
import random
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import finetune_lm
from crashing import difference, in_a_process
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.messages import say_once
from finetune_lm.models import kept_models, loading
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.kept_models import KeptModels
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.pack import Pack
from setups import DATA, arguments, setup

KL = {"dataset": str(DATA / "sentences.txt.gz"), "n_examples_per_batch": 3}
WORD = "flomped"


def with_kl(data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    losses = ["loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"]
    return {
        **data,
        "loss_classes": {"train": losses},
        "loss_classes_kwargs": {"train": {"KLBaselineLoss": {**KL, **kwargs}}},
    }


def drops_out(model: dict[str, Any]) -> None:
    model["config_kwargs"] |= {"attn_pdrop": 0.2, "resid_pdrop": 0.1}


def settings() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Runs of all kinds by name, in an order in which one could spoil the next."""
    short = {"epochs": 2, "max_test_samples": 4, "eval_before_training": False}
    found: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def add(name: str, kind: str, **changed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        found[name] = setup(kind, **{**short, **changed})
        return found[name]

    add("lm", "lm")
    model, data = add("lm-kl", "lm")
    found["lm-kl"] = model, with_kl(data)
    model, data = add("lm-kl-8", "lm", seed=8)
    found["lm-kl-8"] = model, with_kl(data)
    for seed in (3, 4):
        model, data = add(f"lm-word-{seed}", "lm", seed=seed)
        model["model_modifier_fns"] = ["model_modifiers.add_new_tokens"]
        model["model_modifier_fn_kwargs"] = {
            "add_new_tokens": {"added_tokens": [WORD], "init": "random"}
        }
        model["model_pre_train_step_callbacks"] = ["model_modifiers.UnfreezeWordTokensCallback"]
        model["model_pre_train_step_callbacks_kwargs"] = {
            "UnfreezeWordTokensCallback": {"words_to_unfreeze": [WORD]}
        }
        found[f"lm-word-{seed}"] = model, with_kl(data)
    for seed, r in ((3, 4), (4, 2)):
        model, data = add(f"lm-adapter-{seed}", "lm", seed=seed)
        model["model_modifier_fns"] = [
            "model_modifiers.add_new_tokens",
            "model_modifiers.add_adapter",
        ]
        model["model_modifier_fn_kwargs"] = {
            "add_new_tokens": {"added_tokens": [WORD], "init": "random"},
            "add_adapter": {"r": r, "target_modules": "all-linear", "merge": seed == 3},
        }
        found[f"lm-adapter-{seed}"] = model, with_kl(data)
    model, data = add("lm-misbehaves", "lm")
    model["model_pre_train_step_callbacks"] = ["studies.Misbehave"]
    add("lm-after", "lm", seed=9)
    model, data = add("lm-bf16", "lm")
    model["precision"] = "bf16"
    found["lm-bf16"] = model, with_kl(data)
    add("lm-plain", "lm", fast=False)
    model, data = add("lm-dropout", "lm")
    drops_out(model)
    found["lm-dropout"] = model, with_kl(data, dropout=False)
    add("lm-again", "lm")
    for seed in (1, 2):
        model, data = add(f"mlm-{seed}", "mlm", seed=seed)
        function = "data_preprocessing.mask_random_tokens"
        found[f"mlm-{seed}"] = model, with_kl(data, data_preprocessing_fn=function)
    for seed in (1, 2):
        model, data = add(f"seq2seq-{seed}", "seq2seq", seed=seed)
        function = "data_preprocessing.mask_random_spans"
        found[f"seq2seq-{seed}"] = (
            model,
            with_kl(
                data, data_preprocessing_fn=function, data_preprocessing_fn_strategy="per_batch"
            ),
        )
    return found


# Each of another kind than those before it. The others are what may spoil these.
ALONE = (
    *("lm", "lm-kl-8", "lm-word-4", "lm-adapter-4", "lm-after", "lm-bf16", "lm-plain"),
    *("lm-dropout", "mlm-2", "seq2seq-2"),
)


def one_alone(name: str, place: str) -> None:
    model, data = settings()[name]
    finetune_lm.run(*arguments(model, {**data, "output_dir": place}))


def all_together(place: str) -> None:
    from finetune_lm import OptimizationArguments
    from finetune_lm.experiment import conduct

    with Pack() as pack:
        for name, (model, data) in settings().items():
            directory = Path(place, name)
            directory.mkdir(parents=True)
            with pack.one_run(), RunLock(directory):
                model_args, data_args = arguments(model, {**data, "output_dir": str(directory)})
                conduct((model_args, data_args, OptimizationArguments()), pack=pack)


def test_each_run_comes_out_as_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert in_a_process(all_together, str(tmp_path / "together")) == 0
    for name in ALONE:
        alone = tmp_path / "alone" / name
        assert in_a_process(one_alone, name, str(alone)) == 0, name
        assert difference(alone, tmp_path / "together" / name) == [], name
    first, again = (tmp_path / "together" / name for name in ("lm", "lm-again"))
    assert difference(first, again) == []
    after = tmp_path / "together" / "lm-after"
    assert "metrics.csv.gz" in difference(first, after)


@pytest.fixture
def models():
    return KeptModels()


def loaded_by(models: KeptModels, args: ModelArguments, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return models.load(args, models.identify(args))


def test_a_model_is_read_once_and_each_run_has_a_copy(models, monkeypatch):
    read = []
    original = loading.load_untouched
    monkeypatch.setattr(
        kept_models, "load_untouched", lambda *args: read.append(1) or original(*args)
    )
    args = ModelArguments("tiny-lm")
    first = loaded_by(models, args)
    before = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    for parameter in first.model.parameters():
        parameter.data.zero_()
    first.model.config.vocab_size = 3
    first.tokenizer.add_tokens(["one", "two"])
    first.model.lm_head.register_forward_hook(lambda *_: None)
    second = loaded_by(models, args)
    assert len(read) == 1
    now = second.model.state_dict()
    assert all(torch.equal(tensor, now[name]) for name, tensor in before.items())
    assert second.model.config.vocab_size == 1700
    assert len(second.tokenizer) == 1700
    assert not second.model.lm_head._forward_hooks
    assert second.model.lm_head.weight is second.model.transformer.wte.weight
    assert second.origin == first.origin
    # Another model takes its place.
    assert loaded_by(models, ModelArguments("tiny-mlm")).task.name == "mlm"
    loaded_by(models, args)
    assert len(read) == 3
    loaded_by(models, ModelArguments("tiny-lm", config_kwargs={"n_head": 2}))
    assert len(read) == 4


def test_what_is_drawn_while_a_model_is_loaded_follows_from_the_seed(models):
    """Here the positions, of which the saved model has another number."""
    args = ModelArguments(
        "tiny-lm",
        config_kwargs={"n_positions": 64},
        model_kwargs={"ignore_mismatched_sizes": True},
    )

    def anew(seed: int) -> tuple[dict[str, Any], Any]:
        torch.manual_seed(seed)
        return loading.load_model(args).model.state_dict(), torch.rand(2)

    def kept(seed: int) -> tuple[dict[str, Any], Any]:
        return loaded_by(models, args, seed).model.state_dict(), torch.rand(2)

    for seed in (1, 1, 2, 1):
        (weights, drawn), (expected, expected_drawn) = kept(seed), anew(seed)
        assert torch.equal(drawn, expected_drawn)
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_local_model_is_read_again_when_it_has_changed(models, tmp_path):
    args = ModelArguments(str(tmp_path / "mine"))
    for value in (1.0, 2.0):
        model = loading.load_model(ModelArguments("tiny-lm"))
        model.model.transformer.ln_f.bias.data.fill_(value)
        model.model.save_pretrained(tmp_path / "mine")
        model.tokenizer.save_pretrained(tmp_path / "mine")
        assert float(loaded_by(models, args).model.transformer.ln_f.bias[0].detach()) == value


def test_a_model_that_cannot_be_copied_is_loaded_anew(models, monkeypatch):
    def fail(*_: Any) -> None:
        raise TypeError("cannot pickle this")

    monkeypatch.setattr(kept_models, "_copied_model", fail)
    args = ModelArguments("tiny-lm")
    one, other = loaded_by(models, args), loaded_by(models, args)
    assert one.model is not other.model
    assert torch.equal(one.model.lm_head.weight, other.model.lm_head.weight)


def test_the_baseline_is_shared_as_long_as_it_is_asked_for(models):
    args = ModelArguments("tiny-lm")
    first = origin_of(loaded_by(models, args).model).baseline()
    assert origin_of(loaded_by(models, args).model).baseline() is first
    loaded_by(models, args)
    loaded_by(models, args)
    assert origin_of(loaded_by(models, args).model).baseline() is not first


def test_a_model_that_is_kept_no_more_is_free():
    """Though nobody looks for garbage among what was there when the last modules came."""
    gc.unfreeze()
    kept: list[Any] = []
    with Pack() as pack:
        for name in ("tiny-lm", "tiny-mlm", "tiny-seq2seq", "tiny-lm"):
            pack._n_modules = 0  # as if the last run had imported something
            with pack.one_run():
                assert all(model() is None for model in kept[:-1]), name
                loaded_by(pack.models, ModelArguments(name))
                stock = pack.models._stock
                assert stock is not None
                assert stock.loaded is not None
                kept.append(weakref.ref(stock.loaded.model))
    assert gc.get_freeze_count() == 0


def test_what_a_run_sets_is_put_back(tmp_path, monkeypatch, capsys):
    """And no run draws a seed that follows from the one before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    before = dict(os.environ)
    seeds = []
    with Pack() as pack:
        for number in range(2):
            with pack.one_run():
                seeds.append(DataTrainingArguments(test_file="a.txt").seed)
                random.seed(3)
                np.random.seed(3)
                torch.manual_seed(3)
                say_once("told once")
                os.environ["SET_BY_A_RUN"] = "1"
                os.environ.pop("HF_HUB_OFFLINE", None)
                os.chdir("elsewhere")
                torch.set_default_dtype(torch.float64)
                torch.set_float32_matmul_precision("medium")
                torch.set_grad_enabled(False)
                torch.use_deterministic_algorithms(True)
                warnings.simplefilter("error")
            assert dict(os.environ) == before
            assert Path.cwd() == tmp_path
            assert torch.get_default_dtype() is torch.float32
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.is_grad_enabled()
            assert not torch.are_deterministic_algorithms_enabled()
            assert capsys.readouterr().err.count("told once") == 1, number
    assert seeds[0] != seeds[1]
