"""Several processes make a run together: it comes out as that of one process does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from commands import run_command
from forked_programs import ForkedPrograms
from launched import ENVIRONMENT, run_launched
from same_tables import assert_same_tables
from setups import DATA

DROPOUT = {
    "lm": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "mlm": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "seq2seq": ("dropout_rate",),
}
# The T5 makes more of what arithmetic leaves: of one process's fast and plain way, too.
LR = {"lm": 1e-4, "mlm": 1e-4, "seq2seq": 2e-5}
KL = "loss_classes_kwargs.{}.KLBaselineLoss."


def option(name, *values):
    return (f"--{name}", *map(str, values))


def arguments(kind, n, *more):
    """A run of 20 or 22 updates in which everything takes part, in batches of 6 that n share.

    Batches are one example too small for all to have one at the end of an epoch.
    """
    words = [*option("model_name_or_path", f"tiny-{kind}"), *option("seed", 1)]
    files = {"train": "active", "validation": "passive", "test": "test", "probe": "test"}
    # Only one kind accumulates, for twice as many batches.
    steps, epochs, n_train = (2, 4, 49) if kind == "lm" else (1, 2, 61)
    sizes = {"train": n_train, "validation": 19, "test": 37, "probe": 9}
    for part, name in files.items():
        words += option(f"{part}_file", DATA / f"flomped_{name}.txt.gz")
        words += option(f"max_{part}_samples", sizes[part])
        words += option(f"per_device_{part}_batch_size", 6 // n)
    for name in DROPOUT[kind]:
        words += option(f"config_kwargs.{name}", 0.0)
    # Where gradients are nearly 0 AdamW would make updates of what arithmetic leaves of them.
    words += option("train_optimizer_kwargs.eps", 1e-5)
    words += option("epochs", epochs) + option("train_optimizer_kwargs.lr", LR[kind])
    words += option("gradient_accumulation_steps", steps) + option("max_grad_norm", 1.0)
    words += option("lr_scheduler", "torch.optim.lr_scheduler.OneCycleLR")
    words += option("lr_scheduler_kwargs.max_lr", 3 * LR[kind])
    words += option("eval_before_training", True) + option("word_tables", True)
    words += option("probe_every_steps", 10)
    words += option("measures", *(f"measures.{m}" for m in ("WordBoundary", "BaselineKL", "Rank")))
    for part in ("train", "validation"):
        losses = ("OutputsDefaultLoss", "KLBaselineLoss")
        words += option(f"loss_classes.{part}", *(f"loss_classes.{name}" for name in losses))
        words += option(KL.format(part) + "dataset", DATA / "fillers.txt.gz")
        # Sometimes there are too few for all ranks to have one.
        words += option(KL.format(part) + "n_examples_per_batch", 5 if part == "train" else 1)
        words += option(KL.format(part) + "batch_size", 2)
        words += option(KL.format(part) + "max_samples_per_dataset", 30)
    if kind == "mlm":  # nothing of the user's own, so that each makes a part of an update
        callback, group = "PartiallyFrozenModelCallback", "train_optimizer_groups.biases"
        words += option("model_pre_train_step_callbacks", f"model_modifiers.{callback}")
        frozen = f"model_pre_train_step_callbacks_kwargs.{callback}.frozen_params"
        words += option(frozen, "*.word_embeddings.weight[300:900]", "*.LayerNorm.weight")
        words += option(f"{group}.params", "*.bias") + option(f"{group}.lr", 1e-3)
        words += option(f"{group}.optimizer", "torch.optim.SGD")
        words += option("lr_scheduler_kwargs.cycle_momentum", False)
    else:
        words += option("model_pre_train_step_callbacks", "stateful.FreezeAndDamp")
        words += option("model_callbacks.end_epoch", "stateful.SplitAlike")
    function = {"mlm": "mask_random_tokens", "seq2seq": "mask_random_spans"}.get(kind)
    if function is not None:
        for part in files:
            words += option(f"data_preprocessing_fn.{part}", f"data_preprocessing.{function}")
            words += option(f"data_preprocessing_fn_strategy.{part}", "per_batch")
    return [*words, *map(str, more)]


def one_process(*argv, cwd):
    ended = run_command(*argv, cwd=cwd, environment=ENVIRONMENT)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("kind", "n"), [("lm", 3), ("mlm", 2), ("seq2seq", 2)])
def test_several_make_the_rows_of_one(tmp_path, kind, n):
    ranks = run_launched(
        *arguments(kind, n, "--output_dir", "several"), n=n, cwd=tmp_path, environment=ENVIRONMENT
    )
    assert [each.returncode for each in ranks] == [0] * n, "".join(each.stderr for each in ranks)
    assert "Results are in several" in ranks[0].stderr
    assert [each.stdout + each.stderr for each in ranks[1:]] == [""] * (n - 1)
    one_process(*arguments(kind, 1, "--output_dir", "one"), cwd=tmp_path)
    tables = assert_same_tables(tmp_path / "one", tmp_path / "several")
    assert {"metrics.csv.gz", "words.csv.gz", "probe_words.csv.gz"} < set(tables)
    metrics = pd.read_csv(tmp_path / "one" / "metrics.csv.gz")
    assert metrics["KLBaselineLoss"].max() > 1e-4  # something was learned
    # The same with a model that is split among two.
    split = ended(tmp_path, *arguments(kind, 2, "--fsdp", "--output_dir", "split"))
    assert [each.returncode for each in split] == [0, 0], "".join(each.stderr for each in split)
    assert_same_tables(tmp_path / "one", tmp_path / "split")
    expected, found = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "split")
    )
    assert {name: weight.shape for name, weight in expected.items()} == {
        name: weight.shape for name, weight in found.items()
    }
    loaded = transformers.AutoModel.from_pretrained(tmp_path / "split" / "model")
    assert "FSDP" not in str(loaded.config.architectures)


def with_adapter(n, *more):
    """A run in which an adapter learns, and rows of PEFT's and that of a new word beside it."""
    words = [*option("model_name_or_path", "tiny-lm"), *option("seed", 1), *option("epochs", 2)]
    for part, name in {"train": "active", "validation": "passive"}.items():
        words += option(f"{part}_file", DATA / f"flomped_{name}.txt.gz")
        words += option(f"max_{part}_samples", 9) + option(f"per_device_{part}_batch_size", 4 // n)
    for name in DROPOUT["lm"]:
        words += option(f"config_kwargs.{name}", 0.0)
    words += option("train_optimizer_kwargs.eps", 1e-5) + option("train_optimizer_kwargs.lr", 1e-3)
    losses = ("OutputsDefaultLoss", "KLBaselineLoss")
    words += option("loss_classes.train", *(f"loss_classes.{name}" for name in losses))
    words += option(KL.format("train") + "dataset", DATA / "fillers.txt.gz")
    modifiers, callback = ("add_new_tokens", "add_adapter"), "UnfreezeWordTokensCallback"
    words += option("model_modifier_fns", *(f"model_modifiers.{name}" for name in modifiers))
    words += option("model_modifier_fn_kwargs.add_new_tokens.added_tokens", "flomped")
    of_adapter = {"target_modules": ["all-linear"], "r": [2], "merge": [True]}
    of_adapter |= {"trainable_token_indices": ["tea", "water"]}
    for name, values in of_adapter.items():
        words += option(f"model_modifier_fn_kwargs.add_adapter.{name}", *values)
    words += option("model_pre_train_step_callbacks", f"model_modifiers.{callback}")
    kwargs = f"model_pre_train_step_callbacks_kwargs.{callback}"
    return [*words, *option(f"{kwargs}.words_to_unfreeze", "flomped"), *more]


def test_an_adapter_learns_beside_parts_of_a_model_and_is_saved_whole(tmp_path):
    split = ended(tmp_path, *with_adapter(2, "--fsdp", "--output_dir", "split"))
    assert [each.returncode for each in split] == [0, 0], "".join(each.stderr for each in split)
    one_process(*with_adapter(1, "--output_dir", "one"), cwd=tmp_path)
    assert_same_tables(tmp_path / "one", tmp_path / "split")
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        expected, found = (load_file(tmp_path / place / name) for place in ("one", "split"))
        assert expected.keys() == found.keys()
        for key, weight in expected.items():
            torch.testing.assert_close(found[key], weight, rtol=0, atol=1e-4)


def test_a_test_is_shared_out_and_comes_out_the_same(tmp_path):
    def test_only(name, n):
        sizes = option("per_device_test_batch_size", 6 // n)
        file = option("test_file", DATA / "flomped_test.txt.gz", DATA / "fillers.txt.gz")
        more = option("measures", "measures.Entropy", "measures.WordBoundary")
        model = option("model_name_or_path", "tiny-lm") + option("output_dir", name)
        return [*model, *sizes, *file, *more, *option("max_test_samples", 500), *option("seed", 1)]

    ranks = run_launched(*test_only("several", 3), n=3, cwd=tmp_path, environment=ENVIRONMENT)
    assert [each.returncode for each in ranks] == [0] * 3, "".join(each.stderr for each in ranks)
    one_process(*test_only("one", 1), cwd=tmp_path)
    tables = assert_same_tables(tmp_path / "one", tmp_path / "several")
    assert tables == ["tiny-lm-test_results.csv.gz"]


def small(*more, with_dropout=True, size=2):
    """A masked language model that is trained for three epochs of four batches, on two ranks."""
    words = [*option("model_name_or_path", "tiny-mlm"), *option("seed", 2), *option("epochs", 3)]
    for part, name in {"train": "active", "validation": "passive"}.items():
        words += option(f"{part}_file", DATA / f"flomped_{name}.txt.gz")
        words += option(f"max_{part}_samples", 15) + option(f"per_device_{part}_batch_size", size)
        words += option(f"data_preprocessing_fn.{part}", "data_preprocessing.mask_random_tokens")
        words += option(f"data_preprocessing_fn_strategy.{part}", "per_batch")
    for name in DROPOUT["mlm"] if with_dropout else ():
        words += option(f"config_kwargs.{name}", 0.1)
    return [*words, *map(str, more)]


def ended(tmp_path, *argv):
    return run_launched(*argv, cwd=tmp_path, environment=ENVIRONMENT)


def ends(rank, how, name="Ends"):
    kwargs = f"model_callbacks_kwargs.post_train_batch.{name}."
    return [
        *option("model_callbacks.post_train_batch", f"endings.{name}"),
        *option(f"{kwargs}rank", rank),
        *option(f"{kwargs}how", how),
        *option("output_dir", "broken"),
    ]


@pytest.mark.parametrize(
    ("rank", "how", "said"),
    [
        (1, "raise", "finetune-lm: error: rank 1: ValueError: there is a mistake"),
        (0, "raise", "ValueError: there is a mistake"),
        (1, "SIGKILL", "finetune-lm: error: rank 1: the process"),
        (0, "SIGKILL", "finetune-lm: error: rank 0: the process"),
        (0, "full", "cannot be written to: File too large"),
    ],
)
def test_an_end_of_one_is_the_end_of_all(tmp_path, rank, how, said):
    # As one of the package's own, which does not keep ranks from dividing updates.
    name = "Ends" if how == "raise" else "OwnEnds"
    ranks = ended(tmp_path, *small(*ends(rank, how, name)))
    other = ranks[1 - rank]
    # Who is there to say so says so; the first, unless it is gone.
    speaker = other if how == "SIGKILL" else ranks[0]
    assert said in speaker.stderr
    assert other.returncode in (1, 2)
    assert ranks[rank].returncode == (-9 if how == "SIGKILL" else other.returncode)
    if how == "raise":
        assert "Traceback" in ranks[rank].stderr
        assert ranks[1].stderr == "" or rank == 1
    if how != "full" and not (rank == 0 and how == "SIGKILL"):
        record = json.loads((tmp_path / "broken" / "run.json").read_text())
        assert record["state"] == "failed"
        assert "there is a mistake" in record["error"] or "is gone" in record["error"]
    # What was measured before is there.
    assert set(pd.read_csv(tmp_path / "broken" / "metrics.csv.gz")["epoch"]) >= {0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a run of `small` that two processes made, with dropout."""
    place = tmp_path_factory.mktemp("small")
    ranks = ended(place, *small("--output_dir", "whole"))
    assert [each.returncode for each in ranks] == [0, 0], ranks[0].stderr
    return place / "whole"


def test_a_signal_to_any_stops_all_and_the_run_is_resumed_by_as_many(whole, tmp_path):
    """With dropout, whose random numbers are those of each."""
    stopped = ended(tmp_path, *small(*ends(1, "SIGTERM", "OwnEnds")))
    assert [each.returncode for each in stopped] == [143, 143], stopped
    assert "\ntorchrun --nproc-per-node 2 -m finetune_lm --resume broken\n" in stopped[0].stderr
    assert stopped[1].stderr == ""
    alone = run_command("--resume", "broken", cwd=tmp_path, environment=ENVIRONMENT)
    assert alone.returncode == 2
    assert (
        "must be resumed by as many processes as it had, which is 2, but there is 1" in alone.stderr
    )
    # It is done a second time, where nothing is to end any more.
    resumed = ended(tmp_path, "--resume", "broken")
    assert [each.returncode for each in resumed] == [0, 0], resumed
    # What makes no run the first does alone.
    asked = ended(tmp_path, "report", whole, "--out", "asked.html")
    assert [each.returncode for each in asked] == [0, 0], asked
    assert (asked[0].stdout != "", asked[1].stdout) == (True, "")
    for name in ("metrics.csv.gz", "model/model.safetensors"):
        assert (tmp_path / "broken" / name).read_bytes() == (whole / name).read_bytes(), name


def test_ranks_do_the_runs_of_a_grid_together(whole, tmp_path):
    """One goes wrong on one of them, alone and with its part of two models, and others go on."""
    words = small()
    base = {words[i].removeprefix("--"): words[i + 1] for i in range(0, len(words), 2)}
    broken = {
        "model_callbacks.post_train_batch": "endings.OwnEnds",
        "model_callbacks_kwargs.post_train_batch.OwnEnds.rank": 1,
        "model_callbacks_kwargs.post_train_batch.OwnEnds.how": "raise",
    }
    for name in ("step1", "step2"):
        shutil.copytree(whole / "model", tmp_path / "models" / name)
    test_only = {name: None for name in base if name.startswith(("train_f", "validation_f"))}
    series = {
        **test_only,
        "model_name_or_path": "models/step*",
        "tokenizer_name": str(whole / "tokenizer"),
        "test_file": str(DATA / "fillers.txt.gz"),
        "max_test_samples": 5,
        "data_preprocessing_fn.test": "data_preprocessing.expand_with_masks",
    }
    held = {
        "loss_classes.train": ["loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"],
        f"{KL.format('train')}dataset": str(DATA / "fillers.txt.gz"),
        "measures": "measures.BaselineKL",
    }
    split = {**broken, **held, "fsdp": True}
    kinds = {"split": split, "broken": broken, "whole": None, "series": series}
    grid = {"output_dir": "grid", "base": base, "vary": {"kind": kinds}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    ranks = ended(tmp_path, "grid", "grid.yaml", "run")
    assert [each.returncode for each in ranks] == [1, 1], ranks
    assert ranks[1].stderr == ""
    assert "4 runs: 2 finished, 2 failed" in ranks[0].stderr, ranks[0].stderr
    for kind in ("split", "broken"):
        said = json.loads((tmp_path / "grid" / f"kind={kind}" / "grid_run.json").read_text())
        assert said["failed"] == "rank 1: ValueError: there is a mistake"
        log = (tmp_path / "grid" / f"kind={kind}" / "log.txt").read_text()
        assert "endings.py" in log.partition("rank 1:\nTraceback")[2]
    for name in ("metrics.csv.gz", "model/model.safetensors"):
        found = (tmp_path / "grid" / "kind=whole" / name).read_bytes()
        assert found == (whole / name).read_bytes(), name
    [table] = (tmp_path / "grid" / "kind=series").glob("*-test_results.csv.gz")
    rows = pd.read_csv(table)
    assert list(rows["revision"].unique()) == ["step1", "step2"]
    one, other = (
        rows[rows["revision"] == each]["surprisal"].tolist() for each in ("step1", "step2")
    )
    assert one == other
    assert len(one) > 20
    # Of all else that a grid can do the first does it alone, and none of them starts others.
    jobs = ended(tmp_path, "grid", "grid.yaml", "run", "--jobs", "2")
    assert [each.returncode for each in jobs] == [2, 2]
    assert "--jobs must be 1 where torchrun" in jobs[0].stderr
    assert jobs[1].stderr == ""


def test_what_is_wrong_is_said_once_before_anything_is_written(tmp_path):
    wrong = [
        *option("loss_reduction_fns.train", "torch.mean"),
        *option("loss_classes.train", "stateful.Unsaid"),
        *("--fsdp", "--train_optimizer", "torch.optim.Adafactor", "--measures"),
        *("measures.Candidates", "--measures_kwargs.Candidates.chained", "True"),
        *("--model_modifier_fns", "model_modifiers.add_adapter"),
        *("--model_modifier_fn_kwargs.add_adapter.peft_type", "osf"),
        *("--measures_kwargs.Candidates.words", "tea", "--output_dir", "none"),
    ]
    ranks = ended(tmp_path, *small(*wrong))
    assert [each.returncode for each in ranks] == [2, 2]
    assert ranks[1].stderr == ""
    assert ranks[0].stderr.count("error: ") == 4
    assert "loss_reduction_fns.train must be torch.sum" in ranks[0].stderr
    assert "Unsaid must say by reduce_over_ranks" in ranks[0].stderr
    assert not (tmp_path / "none").exists()
    with_parts = "fsdp cannot be given with add_adapter (OSF), measure Candidates (chained): each"
    assert with_parts in ranks[0].stderr
    assert "Adafactor does not work on parts of them" in ranks[0].stderr
    shown = ended(tmp_path, *small("--preview", "2"))
    assert [each.returncode for each in shown] == [0, 0], shown[0].stderr
    assert "flomped_active.txt.gz (mask_random_tokens" in shown[0].stdout
    assert (shown[1].stdout, shown[1].stderr) == ("", "")
    [mistake, silent] = ended(tmp_path, "--no_such_argument", "3")
    assert (mistake.returncode, silent.returncode) == (2, 2)
    assert "no_such_argument" in mistake.stderr
    assert silent.stderr == ""


def test_ranks_do_the_trials_of_a_study_together_and_the_first_asks(tmp_path):
    """Trials go wrong, are pruned and finish as those of one process."""

    def search(name, n):
        words = small("--output_dir", name, with_dropout=False, size=4 // n)
        words += ["--do_optimize", *option("params.lr.values", 1e-6, 1e30, 1e-3, 1e-2)]
        words += option("params.lr.type", "categorical")
        words += option("study_kwargs.sampler", "optuna.samplers.RandomSampler")
        words += option("study_kwargs.pruner", "optuna.pruners.ThresholdPruner")
        words += option("study_kwargs.pruner_kwargs.upper", 2.64)
        return [*words, *option("optimize_kwargs.n_trials", 5)]

    ranks = ended(tmp_path, *search("several", 2))
    assert [each.returncode for each in ranks] == [0, 0], "".join(each.stderr for each in ranks)
    assert ranks[1].stderr == ""
    one_process(*search("one", 1), cwd=tmp_path)
    one, several = (
        pd.read_csv(tmp_path / d / "optimization_results.csv.gz") for d in ("one", "several")
    )
    assert set(one["state"]) == {"COMPLETE", "PRUNED", "FAIL"}
    same = ["number", "state", "pruned", "lr", "n_epochs", "best_epoch", "seed"]
    pd.testing.assert_frame_equal(one[same], several[same])
    pd.testing.assert_series_equal(one["value"], several["value"], atol=1e-4)
    assert_same_tables(tmp_path / "one" / "best_trial", tmp_path / "several" / "best_trial")


def launched_by(tmp_path, *launcher, argv):
    """What a real launcher comes to, whose processes need not import anything."""
    with ForkedPrograms() as programs:
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "finetune_lm", *argv],
            cwd=tmp_path,
            env={**os.environ, **ENVIRONMENT, "PYTHON_EXEC": programs.as_python(tmp_path / "py")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("Results are in out") == 1
    return json.loads((tmp_path / "out" / "run.json").read_text())


def test_torchrun(tmp_path):
    """Which seed nobody has chosen is the same for both."""
    words = [
        *option("model_name_or_path", "tiny-lm"),
        *option("test_file", DATA / "fillers.txt.gz"),
    ]
    words += [*option("max_test_samples", 4), *option("output_dir", "out")]
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert launched_by(tmp_path, *torchrun, argv=words)["processes"] == 2
    assert "  processes: 2\n" in (tmp_path / "out" / "config.txt").read_text()
    assert len(pd.read_csv(tmp_path / "out" / "tiny-lm-test_results.csv.gz")) > 20


def test_accelerate_launch(tmp_path):
    """As docs/several_devices.md has it, on a port that is free; where there is no GPU, too."""
    accelerate = ("accelerate.commands.accelerate_cli", "launch", "--main_process_port", "0")
    argv = small("--output_dir", "out", with_dropout=False)
    record = launched_by(tmp_path, *accelerate, "--multi_gpu", "--num_processes", "2", argv=argv)
    assert record["processes"] == 2
    one_process(*small("--output_dir", "one", with_dropout=False, size=4), cwd=tmp_path)
    assert "metrics.csv.gz" in assert_same_tables(tmp_path / "one", tmp_path / "out")
