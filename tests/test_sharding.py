"""A model that is split among processes (FSDP2) learns what one process would teach it."""

from __future__ import annotations

import signal
import time

import pytest
import torch
import transformers
from safetensors.torch import load_file

from commands import run_command
from crashing import difference
from finetune_lm.cli import main
from launched import launch, run_launched
from setups import DATA
from test_ranks import assert_same_tables

DROPOUT = {
    "lm": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "mlm": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "seq2seq": ("dropout_rate",),
}
FILES = {
    "lm": ("flomped_active.txt.gz", "flomped_passive.txt.gz", "flomped_test.txt.gz"),
    **{
        kind: [f"flomped_{kind}_{part}.json.gz" for part in ("train", "validation", "test")]
        for kind in ("mlm", "seq2seq")
    },
}
KL = "--loss_classes_kwargs.train.KLBaselineLoss"
NEW_WORD = "--model_modifier_fn_kwargs.add_new_tokens"
EVERYTHING = [
    *("--loss_classes.train", "loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"),
    *(f"{KL}.dataset", f"{DATA}/sentences.txt.gz", f"{KL}.n_examples_per_batch", "5"),
    *(f"{KL}.batch_size", "1", "--max_grad_norm", "1", "--gradient_accumulation_steps", "2"),
    *("--model_modifier_fns", "model_modifiers.add_new_tokens"),
    *(f"{NEW_WORD}.added_tokens", "flomped", f"{NEW_WORD}.init", "random"),
    *("--model_pre_train_step_callbacks", "model_modifiers.PartiallyFrozenModelCallback"),
    "--model_pre_train_step_callbacks_kwargs.PartiallyFrozenModelCallback.frozen_params",
    *("transformer.wte.weight[1:1600]", "transformer.h.0.*", "transformer.wpe.weight"),
    *("--train_optimizer_kwargs.weight_decay", "0.1"),
]


def arguments(kind, n, *more, epochs=3):
    """A run whose last batches have nothing for one of two processes."""
    parts = ("train", "validation", "test")
    files = zip(parts, FILES[kind], (33, 17, 21), strict=True)
    return [
        *("--model_name_or_path", f"tiny-{kind}", "--seed", "1", "--epochs", str(epochs)),
        *(
            word
            for part, file, most in files
            for word in (f"--{part}_file", f"{DATA}/{file}", f"--max_{part}_samples", str(most))
        ),
        *(word for part in parts for word in (f"--per_device_{part}_batch_size", str(8 // n))),
        *("--train_optimizer_kwargs.lr", "1e-4" if kind == "seq2seq" else "1e-3"),
        *(word for name in DROPOUT[kind] for word in (f"--config_kwargs.{name}", "0.0")),
        *more,
    ]


@pytest.mark.parametrize(
    ("kind", "more"),
    [("lm", EVERYTHING), ("mlm", ["--gradient_checkpointing"]), ("seq2seq", [])],
)
def test_it_learns_what_one_process_would(tmp_path, kind, more):
    ranks = run_launched(
        *arguments(kind, 2, *more, "--fsdp", "--output_dir", "split"), cwd=tmp_path
    )
    assert [each.returncode for each in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
    one = run_command(*arguments(kind, 1, *more, "--output_dir", "one"), cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    tables = ("metrics", f"tiny-{kind}-test_results")
    assert_same_tables(tmp_path / "one", tmp_path / "split", tables)
    expected, found = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "split")
    )
    assert expected.keys() == found.keys()
    if more is EVERYTHING:  # what is frozen is so to the bit
        rows = slice(1, 1600)
        wte = "transformer.wte.weight"
        assert torch.equal(expected[wte][rows], found[wte][rows])
        assert not torch.equal(expected[wte][:1], load_untouched()[wte][:1])
        assert torch.equal(found[wte][rows], load_untouched()[wte][rows])
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "split" / "model")
    assert "FSDP" not in str(loaded.config.architectures)


def until(holds):
    while not holds():
        time.sleep(0.02)


def load_untouched():
    from finetune_lm import ModelArguments
    from finetune_lm.models.loading import load_model

    return load_model(ModelArguments("tiny-lm")).model.state_dict()


def test_it_is_resumed_to_the_byte(tmp_path):
    more = ("--fsdp", "--checkpoint_every", "1", "--save_best_model_state_to_disk")
    ranks = run_launched(*arguments("lm", 2, *more, "--output_dir", "whole"), cwd=tmp_path)
    assert [each.returncode for each in ranks] == [0, 0], ranks[0].stderr
    ranks = launch(*arguments("lm", 2, *more, "--output_dir", "parts"), cwd=tmp_path)
    until(lambda: (tmp_path / "parts" / "checkpoints" / "000001").exists())
    ranks[1].send_signal(signal.SIGTERM)
    assert [each.wait() for each in ranks] == [143, 143], ranks[0].communicate()
    ranks = run_launched("--resume", "parts", cwd=tmp_path)
    assert [each.returncode for each in ranks] == [0, 0], ranks[0].stderr
    assert difference(tmp_path / "whole", tmp_path / "parts") == []


def test_a_process_that_is_killed_ends_the_other(tmp_path):
    ranks = launch(*arguments("lm", 2, "--fsdp", "--output_dir", "out", epochs=500), cwd=tmp_path)
    until(lambda: (tmp_path / "out" / "metrics.csv.gz").exists())
    ranks[1].kill()
    assert ranks[0].wait() != 0
    assert "is gone. It was killed" in ranks[0].communicate()[1]


def test_what_does_not_go_with_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments("lm", 1, "--fsdp", "--compile", "--output_dir", "out")) == 2
    assert "fsdp cannot be given with compile" in capsys.readouterr().err
    assert main(arguments("lm", 1, "--fsdp", "--output_dir", "out", epochs=1)) == 0
    assert "fsdp does nothing here, since there is only one process" in capsys.readouterr().err
