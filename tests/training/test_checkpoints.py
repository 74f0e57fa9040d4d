"""Checkpoints are whole or not there, few, and hold nothing that runs."""

from __future__ import annotations

import json
import os
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from finetune_lm.errors import UserError
from finetune_lm.training import checkpoints as module
from finetune_lm.training.checkpoints import TRAINED, TRAINING, Checkpoints, Saved, unkept


def saved(number=0, best_epoch=None, best=None, **kwargs):
    return Saved(
        TRAINING,
        f"epoch {number}",
        {"number": number},
        weights={"a": torch.full((3,), float(number)), "b": torch.arange(4)},
        best=best,
        best_epoch=best_epoch,
        **kwargs,
    )


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_what_is_kept_comes_back(tmp_path):
    weights = {
        "float": torch.randn(2, 3),
        "half": torch.randn(4).bfloat16(),
        "long": torch.arange(5),
        "scalar": torch.tensor(2.5),
        "transposed": torch.randn(3, 4).T,
        "empty": torch.empty(0, 3),
    }
    storage = torch.arange(6.0)
    weights |= {"view 1": storage[:3], "view 2": storage[3:], "same": storage[:3]}
    state = {"x": [1, None, {"t": torch.tensor([1.5])}], 3: (True, "é", float("inf"))}
    Checkpoints(tmp_path / "c").write(Saved(TRAINED, "here", state, weights, weights, 7))
    back = Checkpoints(tmp_path / "c").newest()
    assert (back.kind, back.position, back.best_epoch) == (TRAINED, "here", 7)
    assert back.state["x"][2]["t"].tolist() == [1.5]
    assert back.state[3] == (True, "é", float("inf"))
    for kept in (back.weights, back.best):
        assert kept.keys() == weights.keys()
        for name, tensor in weights.items():
            assert kept[name].dtype == tensor.dtype
            assert torch.equal(kept[name], tensor)


def test_none_yet(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.newest() is None
    checkpoints.remove()
    assert not (tmp_path / "c").exists()


def test_the_newest_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for number in range(4):
        checkpoints.write(saved(number))
        assert names(tmp_path) == [f"{n:06d}" for n in range(max(number - 1, 0), number + 1)]
        assert checkpoints.newest().state["number"] == number
    checkpoints.remove()
    assert not tmp_path.exists()


def test_numbers_go_on_in_another_process(tmp_path):
    Checkpoints(tmp_path).write(saved(0))
    again = Checkpoints(tmp_path)
    again.newest()
    again.write(saved(1))
    assert names(tmp_path) == ["000000", "000001"]


def test_a_damaged_one_is_removed_when_the_next_is_written(tmp_path):
    first = Checkpoints(tmp_path)
    for number in range(2):
        first.write(saved(number))
    (tmp_path / "000001" / "state.pt").write_bytes(b"")
    second = Checkpoints(tmp_path)
    assert second.newest().state["number"] == 0
    second.write(saved(2))
    assert names(tmp_path) == ["000000", "000002"]


def test_best_weights_are_written_once(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        module,
        "_save_tensors",
        lambda tensors, path, original=module._save_tensors: (
            written.append(path.name),
            original(tensors, path),
        ),
    )
    checkpoints = Checkpoints(tmp_path)
    best = saved(0).weights  # as after an epoch that was the best
    checkpoints.write(saved(0, 0, best))
    checkpoints.write(saved(1, 0, best))
    checkpoints.write(saved(2, 0, best))
    assert written == ["model.safetensors"] * 3
    better = {name: tensor + 1 for name, tensor in best.items()}
    checkpoints.write(saved(3, 1, better))
    assert written[3:] == ["model.safetensors", "best.safetensors"]
    back = Checkpoints(tmp_path).newest()
    assert torch.equal(back.best["a"], better["a"])
    assert torch.equal(back.weights["a"], torch.full((3,), 3.0))


def test_what_somebody_has_removed_is_written_again(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    best = saved(7).weights
    checkpoints.write(saved(0, 0, best))
    (tmp_path / "c").rename(tmp_path / "elsewhere")
    checkpoints.write(saved(1, 0, best))
    assert torch.equal(Checkpoints(tmp_path / "c").newest().best["a"], best["a"])


def test_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    checkpoints = Checkpoints(tmp_path)
    for number in range(3):
        checkpoints.write(saved(number, 0, saved(0).weights))
    assert torch.equal(Checkpoints(tmp_path).newest().best["a"], torch.zeros(3))


@pytest.mark.parametrize("failing", ["_save_state", "_save_tensors", "_finish", "_link"])
def test_one_that_cannot_be_written_leaves_those_before(tmp_path, monkeypatch, failing):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(saved(0, 0, saved(0).weights))
    content = {p: p.read_bytes() for p in tmp_path.rglob("*.*")}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, failing, full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.write(saved(1, 0, saved(0).weights))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.*")} == content
    monkeypatch.undo()
    assert checkpoints.write(saved(1))
    assert Checkpoints(tmp_path).newest().state["number"] == 1


def test_safetensors_own_error_about_a_full_disk(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_):
        raise SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        Checkpoints(tmp_path).write(saved(0))
    assert caught.value.errno == 28
    assert names(tmp_path) == []


def test_torch_says_why_it_could_not_write():
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("there is no /dev/full")
    from pathlib import Path

    with pytest.raises(OSError, match="No space left on device"):
        module._save_state({"x": torch.zeros(100_000)}, Path("/dev/full"))


@pytest.mark.parametrize(
    ("every", "due"), [(0, []), (1, [1, 2, 3, 4, 5, 6]), (2, [2, 4, 6]), (5, [5]), (7, [])]
)
def test_when_one_is_due(tmp_path, every, due):
    checkpoints = Checkpoints(tmp_path, every)
    assert [n for n in range(1, 7) if checkpoints.is_due(n)] == due
    assert checkpoints.are_kept == (every != 0)


def test_by_default_they_take_a_fiftieth_of_the_time(tmp_path, monkeypatch):
    """Epochs of 1 s and checkpoints of 0.5 s on a clock of our own: one every 25 s."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        Checkpoints,
        "_write_files",
        lambda self, aside, _, original=Checkpoints._write_files: (
            now.__setitem__(0, now[0] + 0.5),
            original(self, aside, _),
        )[1],
    )
    checkpoints = Checkpoints(tmp_path)
    written = []
    for epoch in range(1, 101):
        now[0] += 1
        if checkpoints.is_due(epoch):
            checkpoints.write(saved(epoch))
            written.append(epoch)
    assert written == [1, 26, 51, 76]


def test_after_each_something_may_be_done(tmp_path):
    calls = []
    checkpoints = Checkpoints(tmp_path, on_write=lambda: calls.append(names(tmp_path)))
    checkpoints.write(saved(0))
    assert calls == [["000000"]]


KEPT = [
    *(None, True, 0, -1, 2**70, 1.5, float("-inf"), 1j, "", "é\n", b"\x00\xff"),
    *([], (), {}, set(), {1, 2}, [[], ()], (1, (2, (3,))), OrderedDict(a=1), torch.Size([2, 3])),
    *(torch.float32, torch.device("cpu"), {1: {"x": None}, (1, 2): "key"}),
]


@pytest.mark.parametrize("value", KEPT, ids=repr)
def test_types_that_a_state_may_be_made_of(tmp_path, value):
    state = {"number": 0, "value": value}
    assert unkept(state) is None
    Checkpoints(tmp_path).write(Saved(TRAINING, "", state))
    back = Checkpoints(tmp_path).newest().state["value"]
    assert back == value
    assert type(back) is type(value)


class Own:
    pass


UNKEPT = {
    "an object": (Own(), "parts.loss.x is of the type Own"),
    "in a list": ([1, [Own()]], "parts.loss.x is of the type Own"),
    "deeper": ({"y": {"z": Own()}}, "parts.loss.x.y.z is of the type Own"),
    "as a key": ({np.int64(3): 1}, "parts.loss.x is of the type int64"),
    "a function": (len, "is of the type builtin_function_or_method"),
    "an array": (np.zeros(2), "is of the type ndarray"),
    "a number of numpy's": (np.float64(1.0), "is of the type float64"),
    "a defaultdict": (defaultdict(list), "is of the type defaultdict"),
    "no bytes": (b"", "is of the type bytes"),
}


@pytest.mark.parametrize("case", UNKEPT)
def test_what_cannot_be_kept_costs_the_checkpoints_and_not_the_run(tmp_path, capsys, case):
    value, message = UNKEPT[case]
    checkpoints = Checkpoints(tmp_path / "c", 1)
    assert not checkpoints.write(Saved(TRAINING, "", {"parts": {"loss": {"x": value}}}))
    said = capsys.readouterr().err
    assert "warning: no checkpoints can be kept, so this run cannot be resumed: " in said
    assert message in said
    assert not checkpoints.is_due(1)
    assert not (tmp_path / "c").exists()


def test_a_manifest_is_for_people_too(tmp_path):
    Checkpoints(tmp_path).write(saved(3))
    manifest = json.loads((tmp_path / "000000" / "manifest.json").read_text())
    assert manifest["position"] == "epoch 3"
    assert set(manifest["files"]) == {"state.pt", "model.safetensors"}


def test_all_damaged(tmp_path):
    Checkpoints(tmp_path).write(saved(0))
    (tmp_path / "000000" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"all in .* are damaged"):
        Checkpoints(tmp_path).newest()
