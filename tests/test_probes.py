"""Probes: measured again and again while a model learns, which nothing else notices."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import finetune_lm
from crashing import difference
from finetune_lm import UserError
from finetune_lm.model_modifiers import ModelCallback
from setups import DATA, PROBES, arguments, setup
from training.test_optimizer_modes import ScheduleFreeSGD

TEST, PASSIVE = PROBES["probe_file"]
KL = {
    "loss_classes": {"train": ["stateful.NoisyLoss", "loss_classes.KLBaselineLoss"]},
    "loss_classes_kwargs": {
        "train": {
            "KLBaselineLoss": {
                "dataset": str(DATA / "fillers.txt.gz"),
                "n_examples_per_batch": 3,
                "max_samples_per_dataset": 20,
            }
        }
    },
}


class Moody(ModelCallback):
    """Lets one dropout rest, and draws random numbers, as a user's callback may."""

    def __call__(self, epoch, batch):
        [*_, dropout] = [m for m in self.model.modules() if isinstance(m, torch.nn.Dropout)]
        dropout.eval()
        torch.rand(7)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(kind, **changed):
    """A run of a kind of model in which everything random takes part, masks of probes too."""
    given = {"epochs": 2, "max_test_samples": 4, "save_tmp_test_files": False, **changed}
    model, data = setup(kind, **given)
    if kind == "lm":
        model["config_kwargs"] = {"resid_pdrop": 0.1}
    return model, data


def do(model, data, output_dir, **more):
    return finetune_lm.run(*arguments(model, {**data, "output_dir": output_dir, **more}))


def members(path):
    """The text of each gzip member of a file."""
    data, found = Path(path).read_bytes(), []
    while data:
        decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
        found.append(decompressor.decompress(data).decode())
        data = decompressor.unused_data
    return found


MEASURES = [f"measures.{name}" for name in ("WordBoundary", "Entropy", "Rank", "BaselineKL")]
CASES = {
    "lm, within epochs": ("lm", {"probe_every_steps": 1}, {"gradient_accumulation_steps": 2}),
    "lm, after epochs": ("lm", {}, {**KL, "lr_scheduler": "linear"}),
    "lm, two sets of weights": (
        "lm",
        {"probe_every_steps": 2},
        {
            "train_optimizer": ScheduleFreeSGD,
            "train_optimizer_kwargs": {"lr": 0.5, "weight_decay": 0.0},
        },
    ),
    "lm, measures": ("lm", {"measures": {"probe": MEASURES}}, {}),
    "mlm": ("mlm", {"probe_every_steps": 2, "measures": {"probe": MEASURES[1:]}}, {}),
    "seq2seq": ("seq2seq", {"probe_every_steps": 2}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_nothing_else_changes(case):
    """Not a byte of what is learned, validated and tested, whatever is drawn at random."""
    kind, when, changed = CASES[case]
    model, data = of(kind, **changed)
    if kind == "lm":
        model["model_callbacks"] = {"begin_epoch": [Moody], "pre_train_batch": [Moody]}
    without = do(model, data, "without").output_dir
    result = do(model, data, "with", **PROBES, **when)
    left = ["checkpoints", "config.txt", "config.yaml", "run.json", "probe_results.csv.gz"]
    left += ["probe_words.csv.gz", "trajectories.pdf"]
    different = [name for name in difference(without, result.output_dir) if name not in left]
    assert different == []
    assert result.probe_results is not None
    if kind != "lm":
        assert_masks_are_the_same_in_each_pass(result.probe_results)


def test_masks_that_are_drawn_once_take_nothing_from_the_others():
    model, data = of("mlm")
    data["data_preprocessing_fn_strategy"] = {}
    do(model, data, "without")
    do(model, data, "with", **PROBES)
    for name in ("metrics.csv.gz", "tiny-mlm-test_results.csv.gz"):
        assert Path("with", name).read_bytes() == Path("without", name).read_bytes()


def test_new_words_of_which_alone_is_learned():
    model, data = of("lm", validation_file=PASSIVE, max_validation_samples=2)
    model |= {
        "model_modifier_fns": ["model_modifiers.add_new_tokens"],
        "model_modifier_fn_kwargs": {"add_new_tokens": {"added_tokens": ["flomped"]}},
        "model_pre_train_step_callbacks": ["model_modifiers.UnfreezeWordTokensCallback"],
        "model_pre_train_step_callbacks_kwargs": {
            "UnfreezeWordTokensCallback": {"words_to_unfreeze": ["flomped"]}
        },
    }
    do(model, data, "without")
    result = do(model, data, "with", **PROBES, probe_every_steps=2)
    for name in ("metrics.csv.gz", "model/model.safetensors"):
        assert Path("with", name).read_bytes() == Path("without", name).read_bytes()
    probes = result.probe_results
    costs = probes[probes["word"] == "flomped"].groupby("step")["surprisal"].mean()
    assert costs.index.tolist() == [0, 2, 4, 6]
    assert costs.is_monotonic_decreasing  # it is what is learned


COSTS = ["surprisal", "predicted_token", "predicted_token_surprisal"]
SAME = ["example_num", "word_num", "word", "token", "token_id", "original_text", "seen_in", *COSTS]


@pytest.mark.parametrize("kind", ["lm", "mlm", "seq2seq"])
def test_rows_are_those_of_a_test_at_that_time(kind):
    """Before the training of the untouched model, after its best epoch of the one that is kept."""
    function = {"lm": "identity", "mlm": "expand_with_masks", "seq2seq": "expand_with_masks"}[kind]
    functions = dict.fromkeys(["test", "probe"], f"data_preprocessing.{function}")
    once = {"data_preprocessing_fn": functions, "data_preprocessing_fn_strategy": {}}
    model, data = setup(kind, epochs=2, **PROBES, test_file=PROBES["probe_file"])
    data |= {"max_test_samples": 5, "per_device_test_batch_size": 2, **once}
    if kind == "mlm":  # what is validated needs masks
        data["data_preprocessing_fn"] |= dict.fromkeys(
            ["train", "validation"], "data_preprocessing.mask_random_tokens"
        )
    trained = do(model, data, "trained")
    nothing = {"train_file": None, "validation_file": None, "probe_file": None}
    untouched = do({**model, "model_pre_train_step_callbacks": []}, {**data, **nothing}, "tested")
    probes = trained.probe_results
    assert probes["dataset_type"].unique().tolist() == ["probe"]
    columns = list(trained.test_results.columns)
    columns.insert(columns.index("epoch") + 1, "step")
    columns.insert(columns.index("predicted_token_surprisal") + 1, "baseline_surprisal")
    assert probes.columns.tolist() == columns
    for epoch, tested in ((-1, untouched), (trained.best_epoch, trained)):
        there = probes[probes["epoch"] == epoch].reset_index(drop=True)
        test = tested.test_results
        names = [*SAME, "dataset_name", "batch_number"]
        if epoch < 0:
            names.remove("seen_in")
        pd.testing.assert_frame_equal(there[names], test[names], rtol=0, atol=1e-5)
    assert probes["seen_in"].notna().any()  # the validation file is among them


def test_when_they_are_measured():
    """Three batches an epoch, of which two make an update and the last another: 2 updates."""
    model, data = of("lm", test_file=None, epochs=3, gradient_accumulation_steps=2)
    data |= {"eval_before_training": False, "checkpoint_every": 0}

    def passes(**when):
        directory = f"out{json.dumps(when)}"
        found = do(model, data, directory, **PROBES, **when).probe_results
        at = found[["epoch", "step"]].drop_duplicates()
        assert len(members(f"{directory}/probe_results.csv.gz")) == len(at)
        record = json.loads(Path(directory, "run.json").read_text())
        assert record["probes"]["passes"] == len(at)
        assert record["probe_rows"] == len(found)
        assert record["data"]["probe"] == {TEST: 5, PASSIVE: 5}
        return list(at.itertuples(index=False, name=None))

    assert passes() == [(-1, 0), (0, 2), (1, 4), (2, 6)]
    assert passes(probe_every=2) == [(-1, 0), (1, 4)]
    assert passes(probe_every_steps=1) == [(-1, 0), *((n // 2, n + 1) for n in range(6))]
    assert passes(probe_every_steps=4) == [(-1, 0), (1, 4)]
    assert passes(probe_every_steps=100) == [(-1, 0)]


def test_a_skipped_step_is_no_update():
    model, data = of("lm", test_file=None, epochs=1, on_nan="skip")
    data["loss_classes"] = {"train": [NotAlways]}
    found = do(model, data, "out", **PROBES, probe_every_steps=1).probe_results
    assert found["step"].unique().tolist() == [0, 1, 2]


class NotAlways:
    """The model's loss, but of the second batch no number."""

    def __init__(self, model, tokenizer):
        self.n_calls = 0

    def __call__(self, outputs, labels):
        self.n_calls += 1
        return outputs.loss * (float("nan") if self.n_calls == 2 else 1.0)


def assert_masks_are_the_same_in_each_pass(found):
    texts = found.groupby("step")["input_text"].unique().map(list).tolist()
    assert len(texts) > 2
    assert all(each == texts[0] for each in texts)
    # Each line of a file has masks of its own.
    shown = found[found["step"] == 0].drop_duplicates(["dataset_name", "example_num"])
    assert (shown["input_text"] != shown["original_text"]).all()


def test_one_who_reads_them(tmp_path):
    model, data = of("lm", test_file=None, epochs=1)
    directory = do(model, data, "out", **PROBES).output_dir
    frame = finetune_lm.load_probes(directory)
    pd.testing.assert_frame_equal(
        frame, finetune_lm.load_probes(str(directory / "probe_results.csv.gz"))
    )
    assert str(frame["step"].dtype) == "Int64"
    assert frame["sentence_type"].notna().any()  # metadata of the first file
    with pytest.raises(UserError, match=r"there is no table .*probe_results"):
        finetune_lm.load_probes(tmp_path)
    # What a run that was killed leaves is read as far as it is whole.
    path = directory / "probe_results.csv.gz"
    path.write_bytes(path.read_bytes()[:-3])
    assert finetune_lm.load_probes(directory)["step"].unique().tolist() == [0]


def test_a_run_that_has_measured_probes_is_not_written_over():
    model, data = of("lm", test_file=None, epochs=1)
    Path("out").mkdir()
    Path("out", "probe_results.csv.gz").write_bytes(gzip.compress(b"epoch\n"))
    with pytest.raises(UserError, match=r"has probe_results.csv.gz"):
        do(model, data, "out")


class Spoil(ModelCallback):
    """Makes the weights no numbers."""

    def __call__(self, epoch, batch):
        with torch.no_grad():
            next(self.model.parameters()).fill_(float("nan"))


def test_a_surprisal_that_is_no_number_stops_the_run_or_stays():
    model, data = of("lm", test_file=None, epochs=1, eval_before_training=False)
    data |= {"per_device_validation_batch_size": 8}  # one batch, after which all is spoiled
    model["model_callbacks"] = {"post_validation_batch": [Spoil]}
    with pytest.raises(UserError, match=r"surprisals must be finite.*flomped_test.txt.gz is nan"):
        do(model, data, "stopped", **PROBES)
    record = json.loads(Path("stopped/run.json").read_text())
    assert (record["state"], record["probes"]["passes"]) == ("failed", 1)
    found = do(model, data, "skipped", **PROBES, on_nan="skip").probe_results
    is_number = np.isfinite(found["surprisal"].astype(float))
    assert is_number.groupby(found["step"]).any().tolist() == [True, False]


def test_a_study_measures_them_in_the_run_of_the_best_trial_only(monkeypatch):
    import optuna

    from finetune_lm import OptimizationArguments
    from finetune_lm.evaluation import probes

    model, data = of("lm", test_file=None, epochs=1, output_dir="study", checkpoint_every=0)
    passes = []
    original = probes.ProbeProgress.end
    monkeypatch.setattr(
        probes.ProbeProgress, "end", lambda self, at: (passes.append(at), original(self, at))
    )
    search = OptimizationArguments(
        do_optimize=True,
        params={"lr": {"values": [1e-4, 1e-3]}},
        study_kwargs={"sampler": optuna.samplers.RandomSampler},
        keep_best_trial=True,
    )
    finetune_lm.run(*arguments(model, {**data, **PROBES}), search)
    assert len(passes) == 2
    best = Path("study", "best_trial")
    assert finetune_lm.load_probes(best)["step"].unique().tolist() == [0, 3]
    record = json.loads((best / "run.json").read_text())
    trials = pd.read_csv("study/optimization_results.csv.gz")
    values = trials.select_dtypes("number").min()
    assert np.isclose(values["value"], record["best_validation_loss"], rtol=0, atol=1e-6)


def test_within_an_epoch_they_are_of_the_weights_that_are_judged():
    """The last update of an epoch leaves what the probes after the epoch are about."""
    sets = CASES["lm, two sets of weights"][2]
    model, data = of("lm", test_file=None, **sets)
    do(model, data, "epochs", **PROBES)
    do(model, data, "steps", **PROBES, probe_every_steps=3)
    tables = [Path(name, "probe_results.csv.gz").read_bytes() for name in ("epochs", "steps")]
    assert tables[0] == tables[1]


def test_a_function_for_other_kinds_of_model_is_told_before_anything_is_written():
    model, data = of("lm", test_file=None)
    data["data_preprocessing_fn"] = {"probe": "data_preprocessing.mask_random_tokens"}
    with pytest.raises(UserError, match=r"data_preprocessing_fn.probe: mask_random_tokens is for"):
        do(model, data, "out", **PROBES)
    assert not Path("out").exists()
