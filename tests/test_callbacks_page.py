"""docs/callbacks.md: its table is whole, and its examples do what they say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import transformers

from finetune_lm import load_metrics, model_modifiers
from finetune_lm.arguments.hooks import HOOKS
from finetune_lm.cli import main
from finetune_lm.model_modifiers._parameters import ParameterPattern
from finetune_lm.models.pretrained import model_path
from finetune_lm.study.results import load_results

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def weights(directory):
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    return dict(model.named_parameters())


@pytest.fixture
def original():
    return weights(model_path("tiny-lm"))


def run(tmp_path, monkeypatch, example, *more):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / "my_callbacks.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    words = shlex.split(blocks("sh")[example].replace("\\\n", " "))
    assert words.pop(0) == "finetune-lm"
    assert main([*words, "--max_train_samples", "32", "--max_validation_samples", "8", *more]) == 0


def test_the_table_of_points():
    rows = re.findall(r"^\| `(\w+)` \| (x?) ?\| (x?) ?\| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (name, "x" * hook.has_epoch, "x" * hook.has_batch, hook.when)
        for name, hook in HOOKS.items()
    ]


def test_the_callback_of_ones_own(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, 0)
    header, *lines = Path("moves.csv").read_text().splitlines()
    assert header == "epoch,distance"
    assert [line.split(",")[0] for line in lines] == ["0", "1", "2"]
    distances = [float(line.split(",")[1]) for line in lines]
    assert 0 < distances[0] < distances[2]


def test_the_callback_that_sees_the_run(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, 1, "--per_device_train_batch_size", "16")
    header, *lines = Path("steps.csv").read_text().splitlines()
    assert header == "step,lr,loss"
    assert [line.split(",")[:2] for line in lines] == [[str(n), "0.001"] for n in range(1, 7)]
    train = load_metrics("outputs/steps").query("dataset_type == 'train'")
    losses = train.groupby(["epoch", "batch_number"])["loss"].first()
    assert [line.split(",")[2] for line in lines] == [f"{loss:.4f}" for loss in losses]


def test_the_callback_that_sees_a_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("finetune_lm.study.search.save_plots", lambda *_: None)
    study = ["--do_optimize", "--params.lr.values", "1e-4", "1e-2", "--optimize_kwargs.n_trials"]
    run(tmp_path, monkeypatch, 1, *study, "1")
    _, *lines = Path("steps.csv").read_text().splitlines()
    [trial] = load_results("outputs/steps/optimization_results.csv.gz").to_dict("records")
    assert [line.split(",")[:2] for line in lines] == [
        [str(n), str(trial["lr"])] for n in (1, 2, 3)
    ]


def test_the_words(tmp_path, monkeypatch, original):
    run(tmp_path, monkeypatch, 2)
    trained = weights("outputs/words/model")
    tokenizer = transformers.AutoTokenizer.from_pretrained("outputs/words/tokenizer")
    for name, parameter in trained.items():
        rows = (parameter != original[name]).reshape(len(parameter), -1).any(dim=1)
        changed = tokenizer.convert_ids_to_tokens(rows.nonzero().flatten().tolist())
        assert sorted(changed) == (["Ġjuice", "Ġtea"] if name == "transformer.wte.weight" else [])


def test_the_parts(tmp_path, monkeypatch, original):
    run(tmp_path, monkeypatch, 3)
    trained = weights("outputs/parts/model")
    for name, parameter in trained.items():
        changed = parameter != original[name]
        if name == "transformer.wte.weight":
            assert not changed[:100].any()
            assert changed[100:].any()
        else:
            is_frozen = name.startswith("transformer.h.0.") or name.endswith(".bias")
            assert bool(changed.any()) != is_frozen, name


def test_every_pattern_of_the_page_is_one():
    table = PAGE.split("| pattern | means |")[1].split("\n\n")[0]
    patterns = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    texts = [text for cell in patterns for text in re.findall(r"`([^`]+)`", cell)]
    assert len(texts) == 12
    model = torch.nn.Module()
    model.register_parameter("name", torch.nn.Parameter(torch.zeros(100, 5)))
    counts = {}
    for text in texts:
        pattern = ParameterPattern.parse(text)
        if pattern.name == "name":
            [(parameter, mask)] = pattern.find(model).items()
            counts[text] = int(mask.expand(parameter.shape).sum())
    assert counts == {
        "name[5]": 5, "name[-1]": 5, "name[0:100]": 500, "name[::2]": 250, "name[(1,5,9)]": 15,
        "name[3,:]": 5, "name[:,2]": 100, "name[0:4,(1,2)]": 8, "name[...,0]": 100,
    }  # fmt: skip


def test_every_class_is_on_the_page():
    callbacks = [name for name in model_modifiers.__all__ if name.endswith("Callback")]
    assert len(callbacks) >= 4
    assert all(f"`{name}`" in PAGE for name in callbacks)
