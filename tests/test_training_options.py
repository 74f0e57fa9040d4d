"""Whole runs with accumulation, schedules, another precision, checkpointing and compiling."""

from __future__ import annotations

import itertools
import json
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers

import finetune_lm
from crashing import difference
from finetune_lm.cli import main
from finetune_lm.errors import UserError
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.scoring.forward import Forward
from helpers import assert_same_numbers
from setups import DATA, arguments, setup

SHORT = {"epochs": 2, "eval_before_training": False, "max_test_samples": 6}
# Five batches of two, two of which make a step, and one is left.
STEPS = {
    "max_train_samples": 10,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 0.5,
    "lr_scheduler": "linear",
    "lr_scheduler_kwargs": {"num_warmup_steps": 2},
}
N_FORWARD = 2 * (5 + 2)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(output_dir, kind="lm", model_changes=None, **changed):
    model, data = setup(kind, **{**SHORT, **changed, "output_dir": output_dir})
    return finetune_lm.run(*arguments({**model, **(model_changes or {})}, data))


@pytest.fixture
def signal_at(monkeypatch):
    """Sends this process a signal in one of its next forward passes."""
    import os

    original, plan = Forward.__call__, {"left": 0}

    def forward(*args, **kwargs):
        plan["left"] -= 1
        if plan["left"] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(Forward, "__call__", forward)
    return lambda number: plan.update(left=number)


# Where a signal comes, and where the run is then left: never in the middle of what makes a step.
STOPS = {
    1: "epoch 0, train batch 2",
    2: "epoch 0, train batch 2",
    5: "epoch 0, train batch 5",
    7: "epoch 0, validation batch 2",
    10: "epoch 1, train batch 4",
}


@pytest.mark.parametrize(
    ("schedule", "kwargs", "stops"),
    [
        ("linear", STEPS["lr_scheduler_kwargs"], STOPS),
        ("reduce_lr_on_plateau", {"patience": 0}, [7, 10]),
    ],
)
def test_stopped_anywhere_and_gone_on_with(signal_at, schedule, kwargs, stops):
    steps = {**STEPS, "lr_scheduler": schedule, "lr_scheduler_kwargs": kwargs}
    whole = run("whole", **steps).output_dir
    for number in stops:
        signal_at(number)
        with pytest.raises(Interrupted):
            run(f"parts{number}", **steps)
        manifests = Path(f"parts{number}/checkpoints").glob("*/manifest.json")
        assert STOPS[number] in {json.loads(each.read_text())["position"] for each in manifests}
        finetune_lm.resume(f"parts{number}")
        assert difference(whole, Path(f"parts{number}")) == []


@pytest.mark.parametrize("kind", ["mlm", "seq2seq"])
def test_other_kinds_stopped_and_gone_on_with(signal_at, kind):
    whole = run("whole", kind, **STEPS).output_dir
    signal_at(8)
    with pytest.raises(Interrupted):
        run("parts", kind, **STEPS)
    finetune_lm.resume("parts")
    assert difference(whole, Path("parts")) == []


def test_accumulation_is_a_larger_batch_in_a_run():
    """The validation after an epoch of one step, from one batch or from three."""
    options = {
        "epochs": 1,
        "loss_classes": {},
        "max_train_samples": 12,
        "train_optimizer_kwargs": {"lr": 1e-2, "eps": 1e-3},
        "test_file": None,
    }
    no_dropout = {"config_kwargs": dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0)}
    tables = [
        run(
            f"of{size}",
            model_changes=no_dropout,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=12 // size,
            **options,
        ).metrics
        for size in (12, 4)
    ]
    rows = [table[table["dataset_type"] == "validation"] for table in tables]
    pd.testing.assert_series_equal(
        *(row["surprisal"].reset_index(drop=True) for row in rows), rtol=0, atol=1e-4
    )


def test_the_table_has_the_learning_rate_of_each_step():
    # 3 + 3 steps of 2, 2 and 1 batches; two warm up.
    table = run("out", test_file=None, loss_classes={}, **STEPS).metrics
    training = table[table["dataset_type"] == "train"]
    found = training.groupby(["epoch", "batch_number"])["lr"].agg(["min", "max"])
    assert (found["min"] == found["max"]).all()
    lr = 1e-3
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=lr)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 2, 6)
    expected = []
    for n_batches in (2, 2, 1, 2, 2, 1):
        expected += [optimizer.param_groups[0]["lr"]] * n_batches
        optimizer.step()
        schedule.step()
    assert found["min"].tolist() == expected
    assert table[table["dataset_type"] == "validation"]["lr"].isna().all()
    columns = list(table.columns)
    assert columns.index("lr") == columns.index("seed") - 1


def test_a_learning_rate_that_follows_the_validation_loss():
    falls = {"lr_scheduler": "reduce_lr_on_plateau"}
    falls["lr_scheduler_kwargs"] = {"patience": 0, "threshold": 1e9, "threshold_mode": "abs"}
    table = run("out", test_file=None, loss_classes={}, **{**SHORT, "epochs": 3}, **falls).metrics
    training = table[table["dataset_type"] == "train"]
    found = training.groupby("epoch")["lr"].agg(["min", "max"])
    assert found["min"].tolist() == found["max"].tolist() == pytest.approx([1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize("own", [{}, {"optimizer": torch.optim.SGD}])
def test_the_learning_rate_is_that_of_the_parameters_in_no_group(own):
    groups = {"norms": {"params": ["*.ln_*"], "lr": 0.5, **own}}
    table = run(
        "out",
        test_file=None,
        loss_classes={},
        **{**SHORT, "epochs": 1},
        train_optimizer_groups=groups,
    ).metrics
    assert set(table[table["dataset_type"] == "train"]["lr"]) == {1e-3}


def nan_in_the_second_batch(model, tokenizer):
    """A loss that is no number there."""
    calls = itertools.count(1)
    return lambda outputs, labels: outputs.loss * (float("nan") if next(calls) == 2 else 1.0)


def test_a_batch_that_leads_to_no_step_has_no_learning_rate():
    losses = {"train": [nan_in_the_second_batch]}
    table = run("out", test_file=None, **{**SHORT, "epochs": 1}, on_nan="skip", loss_classes=losses)
    training = table.metrics[table.metrics["dataset_type"] == "train"]
    found = training.groupby("batch_number")["lr"].first()
    assert found.isna().tolist() == [False, True, False]
    assert found[0] == found[2] == 1e-3


DROPOUT = {
    "lm": {"resid_pdrop": 0.1, "attn_pdrop": 0.1},
    "mlm": {"hidden_dropout_prob": 0.1},
    "seq2seq": {"dropout_rate": 0.1},
}


@pytest.mark.parametrize("kind", DROPOUT)
@pytest.mark.parametrize(
    "options",
    [{"gradient_checkpointing": True}, {"compile": True, "compile_kwargs": {"backend": "eager"}}],
    ids=["checkpointing", "compile"],
)
def test_the_same_numbers(kind, options, capsys):
    torch._dynamo.reset()
    changed = {"loss_classes": {}, "fast": False, "test_file": None}
    # With its usual eps AdamW makes whole steps of gradients that are nothing but rounding.
    changed["train_optimizer_kwargs"] = {"lr": 1e-3, "eps": 1e-3}
    config = {"config_kwargs": DROPOUT[kind]}
    usual = run("usual", kind, config, **changed)
    # A model that is compiled is called as usual even where nobody says so.
    changed["fast"] = "compile" in options
    capsys.readouterr()
    other = run("other", kind, {**config, **options}, **changed)
    pd.testing.assert_frame_equal(usual.metrics, other.metrics, rtol=0, atol=1e-3)
    assert (usual.metrics["surprisal"] - other.metrics["surprisal"]).abs().mean() < 1e-4
    said = capsys.readouterr().err
    assert "use_cache" not in said
    told = said.count("fast: the model is called as usual, since it is compiled.")
    assert told == ("compile" in options)


@pytest.mark.parametrize("kind", DROPOUT)
def test_checkpointing_goes_with_the_fast_way(kind):
    """Without dropout, of which the fast way draws other numbers."""
    config = {"config_kwargs": dict.fromkeys(DROPOUT[kind], 0), "gradient_checkpointing": True}
    options = {"loss_classes": {}, "test_file": None, "train_optimizer_kwargs": {"lr": 1e-6}}
    fast, plain = (run(f"fast{fast}", kind, config, fast=fast, **options) for fast in (True, False))
    assert_same_numbers(plain.metrics, fast.metrics)


def test_checkpointing_computes_layers_again(monkeypatch):
    from transformers.models.gpt2.modeling_gpt2 import GPT2MLP

    calls = []
    forward = GPT2MLP.forward
    monkeypatch.setattr(GPT2MLP, "forward", lambda *a: calls.append(1) or forward(*a))
    counts = []
    for checkpointing in (False, True):
        calls.clear()
        run(
            f"with{checkpointing}",
            model_changes={"gradient_checkpointing": checkpointing},
            fast=False,
            test_file=None,
        )
        counts.append(len(calls))
    assert counts[1] > counts[0]


@pytest.mark.parametrize("kind", ["lm", "mlm", "seq2seq"])
@pytest.mark.parametrize("fast", [True, False])
def test_bf16_differs_a_little_in_training_and_tests(kind, fast):
    # Small steps without dropout, so that what differs is the precision alone.
    config = {"config_kwargs": dict.fromkeys(DROPOUT[kind], 0)}
    options = {"fast": fast, "loss_classes": {}, "train_optimizer_kwargs": {"lr": 1e-6}}
    exact, rough = (run(p, kind, {**config, "precision": p}, **options) for p in ("fp32", "bf16"))
    for one, other in ((exact.metrics, rough.metrics), (exact.test_results, rough.test_results)):
        rows = slice(None)
        if "sequence_type" in one:
            rows = one["sequence_type"] == "label_sequence"
        apart = (one["surprisal"] - other["surprisal"])[rows].abs()
        assert 1e-4 < apart.max() < 0.5
        assert apart.mean() < 0.05
    from safetensors.torch import load_file

    weights = load_file(rough.output_dir / "model" / "model.safetensors")
    assert {each.dtype for each in weights.values()} == {torch.float32}


def test_a_run_that_only_tests_computes_in_the_precision_too():
    tests = []
    for precision in ("fp32", "bf16"):
        model, data = setup("lm", **SHORT, output_dir=precision)
        data.update(train_file=None, validation_file=None, loss_classes={})
        model.update(precision=precision, model_pre_train_step_callbacks=[])
        tests.append(finetune_lm.run(*arguments(model, data)).test_results["surprisal"])
    assert 1e-4 < (tests[0] - tests[1]).abs().max() < 0.5


def test_bf16_with_a_kl_term():
    kl = {"KLBaselineLoss": {"dataset": str(DATA / "fillers.txt.gz"), "n_examples_per_batch": 4}}
    for kind in ("lm", "mlm"):
        model, data = setup(kind, **SHORT, output_dir=f"kl-{kind}", max_train_samples=4)
        data["eval_before_training"] = True
        from finetune_lm.loss_classes import KLBaselineLoss

        data["loss_classes"] = {"train": [KLBaselineLoss], "validation": [KLBaselineLoss]}
        data["loss_classes_kwargs"] = {"train": kl, "validation": kl}
        data["test_file"] = None
        result = finetune_lm.run(*arguments({**model, "precision": "bf16"}, data))
        table = result.metrics
        # At equal weights it would be 0: what is left is what bfloat16 costs.
        assert 0 < table[table["epoch"] == -1]["loss"].max() < 0.01


BASE = [
    *("--model_name_or_path", "tiny-lm", "--epochs", "1", "--output_dir", "out"),
    *("--train_file", str(DATA / "flomped_active.txt.gz"), "--max_train_samples", "4"),
    *("--validation_file", str(DATA / "flomped_passive.txt.gz"), "--max_validation_samples", "2"),
]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--gradient_accumulation_steps", "0"], "gradient_accumulation_steps must be at least 1"),
        (["--gradient_accumulation_steps", "1.5"], "gradient_accumulation_steps must be an int"),
        (["--max_grad_norm", "0"], "max_grad_norm must be above 0 but got 0."),
        (["--max_grad_norm", "-1"], "max_grad_norm must be above 0 but got -1."),
        (["--max_grad_norm", "nan"], "max_grad_norm must be above 0 but got nan."),
        (["--max_grad_norm", "x"], "max_grad_norm must be a number or None but got 'x'"),
        (["--train_optimizer_kwargs.lr", "x"], "lr must be a number but got 'x' (text)."),
        (["--lr_scheduler", "cosin"], "Did you mean cosine?"),
        (["--lr_scheduler", "3"], "lr_scheduler must be text"),
        (["--lr_scheduler", "torch.optim.lr_scheduler.StepL"], "cannot be imported"),
        (["--lr_scheduler", "torch.optim.lr_scheduler.StepLR"], "step_size must be given"),
        (["--lr_scheduler_kwargs.gamma", "1"], "has no use without lr_scheduler"),
        (["--precision", "bf61"], "precision must be fp32, tf32, bf16 or fp16 but got 'bf61'"),
        (["--precision", "fp16"], "precision fp16 needs a CUDA GPU but --use_gpu is not given."),
        (["--precision", "tf32"], "use fp32, or bf16 where less exact numbers will do."),
        (["--compile_kwargs.backend", "eager"], "compile_kwargs.backend has no use without"),
        (["--compile", "--compile_kwargs.backend", "nope"], "Invalid backend: 'nope'"),
        (["--compile", "--compile_kwargs.nope", "1"], "unexpected keyword argument 'nope'"),
        (["--gradient_checkpointing", "maybe"], "gradient_checkpointing must be True or False"),
    ],
)
def test_bad_values_are_told_and_nothing_is_written(argv, said, capsys):
    assert main([*BASE, *argv]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_model_that_cannot_be_compiled_is_told(monkeypatch, capsys):
    """It is compiled when it is first called, and its backward pass later still."""
    torch._dynamo.reset()

    def small_things_only(graph, inputs):
        if len(graph.graph.nodes) > 10:
            raise ValueError("too many nodes.\nmore")
        return graph

    options = {"compile": True, "compile_kwargs": {"backend": small_things_only}}
    with pytest.raises(
        UserError, match=r"the model cannot be compiled in this way: .*too many nodes\."
    ):
        run("o", model_changes=options)
    said = [line for line in capsys.readouterr().err.splitlines() if "seen_in" not in line]
    assert len(said) == 1


def test_a_missing_compiler_is_told(monkeypatch, capsys):
    def no_compiler(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found.\nmore")

    monkeypatch.setattr(torch, "compile", no_compiler)
    assert main([*BASE, "--compile"]) == 2
    assert "No working C++ compiler found. On a CPU it needs" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_model_without_checkpointing(monkeypatch, capsys):
    from transformers import GPT2LMHeadModel

    monkeypatch.setattr(GPT2LMHeadModel, "supports_gradient_checkpointing", False)
    assert main([*BASE, "--gradient_checkpointing"]) == 2
    assert "gradient_checkpointing does not work with this model" in capsys.readouterr().err


def test_names_and_classes_without_quotes():
    for argv in (["cosine"], ["torch.optim.lr_scheduler.ExponentialLR"]):
        more = ["--lr_scheduler_kwargs.gamma", "0.9"] if "." in argv[0] else []
        output_dir = f"out-{argv[0]}"
        base = [output_dir if each == "out" else each for each in BASE]
        assert main([*base, "--lr_scheduler", *argv, *more]) == 0
        # The same again from what it has written.
        config = f"{output_dir}/config.yaml"
        assert f"lr_scheduler: {argv[0]}\n" in Path(config).read_text()
        assert main(["--config", config, "--output_dir", f"{output_dir}-again"]) == 0
        tables = [
            pd.read_csv(f"{each}/metrics.csv.gz") for each in (output_dir, f"{output_dir}-again")
        ]
        pd.testing.assert_frame_equal(*tables)


def test_in_a_study():
    argv = [
        *(
            "--do_optimize",
            "--optimize_kwargs.n_trials",
            "2",
            "--study_kwargs.sampler",
            "optuna.samplers.RandomSampler",
        ),
        *("--params.lr_scheduler.values", "linear", "constant"),
        *("--params.max_grad_norm.values", "0.1", "1.0"),
        *("--params.gradient_accumulation_steps.values", "1", "2"),
        *("--lr_scheduler", "linear", "--params.lr", "__delete_field__", "--seed", "3"),
    ]
    assert main([*BASE, *argv]) == 0


def test_precision_is_not_searched_for(capsys):
    argv = ["--do_optimize", "--params.precision.values", "fp32", "bf16"]
    assert main([*BASE, *argv]) == 2
    assert "precision" in capsys.readouterr().err
