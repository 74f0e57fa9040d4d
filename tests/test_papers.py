"""The experiments in examples/papers run as they stand, smaller, and count what they say."""

from __future__ import annotations

import json
import math
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import finetune_lm
from finetune_lm.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
LARGEST_FIGURE = 100_000


class Paper:
    """A paper's directory, copied to where the paths in it lead as in the repository."""

    def __init__(self, name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = place / "examples" / "papers" / name
        shutil.copytree(EXAMPLES / "papers" / name, self.directory)
        (place / "data").symlink_to(EXAMPLES.parent / "data")
        (place / "examples" / "acquisition.py").symlink_to(EXAMPLES / "acquisition.py")
        assert (self.directory / "figure.png").stat().st_size < LARGEST_FIGURE
        (self.directory / "figure.png").unlink()
        monkeypatch.chdir(self.directory)
        monkeypatch.setattr(sys, "argv", ["data.py"])
        monkeypatch.setattr(sys, "path", [*sys.path])

    def data(self, *words: str) -> None:
        sys.argv[1:] = words
        runpy.run_path(str(self.directory / "data.py"), run_name="__main__")

    def grid(self, vary: dict[str, object], **base: object) -> None:
        """Do the runs of the grid file, with other values in it."""
        grid = yaml.safe_load(Path("grid.yaml").read_text("utf-8"))
        assert set(vary) <= set(grid["vary"])
        grid["vary"].update(vary)
        grid["base"].update(base)
        Path("grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False), "utf-8")
        assert main(["grid", "grid.yaml", "run"]) == 0

    def figure(self) -> dict[str, object]:
        """Draw the figure, and return what figure.py has."""
        module = runpy.run_path(str(self.directory / "figure.py"))
        module["main"]()
        assert Path("figure.png").stat().st_size > 5_000
        return module


@pytest.fixture
def paper(tmp_path, monkeypatch):
    return lambda name: Paper(name, tmp_path, monkeypatch)


def files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path("data").iterdir()}


def test_kim_and_smolensky(paper, capsys):
    it = paper("kim_smolensky_2021")
    it.data()
    # Nothing that is taught stands in a sentence that is asked about but the words of every frame.
    words = {}
    for part in ("taught_1", "asked"):
        lines = Path(f"data/noun_verb_{part}.jsonl").read_text("utf-8").splitlines()
        texts = [json.loads(line)["text"].lower() for line in lines]
        words[part] = {word.strip(".?") for text in texts for word in text.split()}
    assert words["taught_1"] & words["asked"] <= {"the", "has", "[mask]", "by", "been"}
    it.grid({"pair": "noun_verb", "exposure": 1, "seed": 1}, epochs=2)
    found = it.figure()["accuracies"]("grid.yaml")
    # The same from the labels alone, without candidates.
    tests = finetune_lm.load_grid("grid.yaml", "tests")
    key = ["category", "item"]
    costs = tests.pivot(index=key, columns="expected", values="surprisal")
    right = (costs[True] < costs[False]).groupby("category").mean()
    after = found[found["when"] == "after"].set_index("category")["right"]
    assert after.to_dict() == pytest.approx(right.to_dict())
    assert len(after) == 2
    assert "noun_verb" in capsys.readouterr().out
    # Both new words are met in both sentences' slots, and nothing but them is measured there.
    assert set(tests["token"]) == {"dax", "blick"}


def test_thrush(paper):
    it = paper("thrush_2020")
    it.data()
    it.grid({"taught": ["transitive"], "seed": "1..2"}, epochs=2, probe_every=2)
    module = it.figure()
    probes = finetune_lm.load_grid("grid.yaml", "probes")
    assert set(probes["token"]) == {"blicked"}  # the nouns' masks are not asked about
    bits = probes.set_index(["seed", "epoch", "frame"])["surprisal"].to_dict()
    is_better = []
    for seed in (1, 2):
        gain = {f: bits[seed, -1, f] - bits[seed, 1, f] for _, _, f in bits}
        is_better.append(gain["intransitive"] > (gain["to_object"] + gain["double_object"]) / 2)
    [row] = module["table"](module["gains"]("grid.yaml")).to_dict("records")
    assert (row["taught"], row["seeds"]) == ("transitive", 2)
    assert row["better_than_controls"] == pytest.approx(np.mean(is_better))
    assert 0 <= row["better_than_controls_low"] < row["better_than_controls_high"] <= 1
    # Draws differ from seed to seed.
    assert probes[probes["epoch"] == -1].groupby("frame")["surprisal"].std().min() > 0.01


def test_wilson(paper):
    it = paper("wilson_2023")
    it.data()
    it.grid({"seed": 1}, epochs=2, probe_every=2, **{"train_optimizer_kwargs.lr": 1e-3})
    found = it.figure()["odds"]("grid.yaml")
    probes = finetune_lm.load_grid("grid.yaml", "probes")
    passive = probes[(probes["sentence_type"] == "passive") & (probes["epoch"] == 1)]

    def cost(new, noun, slot):
        rows = passive[(passive["new"] == new) & (passive["region"] == slot)]
        return rows[f"surprisal_of_{noun}"].astype(float).mean()

    roles = json.loads(Path("data/roles.json").read_text("utf-8"))
    noun, role = next((n, r) for n, r in roles.items() if n not in ("plim", "zork"))
    other = {"subject": "object", "object": "subject"}[role]
    expected = {
        ("arguments", "plim"): cost("arguments", "zork", "subject")
        - cost("arguments", "plim", "subject"),
        ("arguments", "zork"): cost("arguments", "plim", "object")
        - cost("arguments", "zork", "object"),
        ("verb", noun): cost("verb", noun, other) - cost("verb", noun, role),
    }
    after = found[found["sentence_type"] == "passive"].set_index(["new", "noun"])["after"]
    for place, value in expected.items():
        assert after[place] == pytest.approx(value, abs=1e-4)
    assert len(after) == 2 + 12


def test_hawkins(paper):
    it = paper("hawkins_2020")
    it.data()
    smaller = {f"max_{kind}_samples": 16 for kind in ("train", "validation", "probe", "test")}
    it.grid({"weight": [0, 25], "seed": "1..2"}, epochs=1, **smaller)
    module = it.figure()
    rows = module["table"](module["changes"]("grid.yaml"))
    assert len(rows) == 3 * 2
    assert set(rows["seeds"]) == {2}
    change = rows.set_index(["sentences", "weight"])["change"]
    assert change["taught_construction", 0] < change["taught_construction", 25] < 0
    # Student's t with one degree of freedom: the half width is 12.706 standard errors.
    [two] = [
        part["change"].to_numpy(float)
        for place, part in module["changes"]("grid.yaml").groupby(["dataset_name", "weight"])
        if place == ("known_verbs", 25)
    ]
    row = rows[(rows["sentences"] == "known_verbs") & (rows["weight"] == 25)].iloc[0]
    half = 12.706 * abs(two[0] - two[1]) / 2
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=1e-3)


def test_misra_and_kim(paper):
    it = paper("misra_kim_2026")
    it.data("--instances", "1")
    once = files()
    it.data("--instances", "1", "--seed", "2")
    assert files() != once
    it.data("--instances", "1")
    assert files() == once
    assert Path("data/double_object_definite_long_1.txt").read_text("utf-8").count("\n") == 1
    forms = {"recipient": ["definite"], "theme": ["long"], "instance": 1, "seed": 1}
    it.grid(forms, epochs=3, max_test_samples=20, max_probe_samples=20)
    module = it.figure()
    # Items are whole: with the sum of all tokens of both of their sentences a contrast comes out.
    moved = module["contrast"]("grid.yaml")
    run = ["dative", "instance", "condition"]
    sums = {
        kind: finetune_lm.load_grid("grid.yaml", kind).groupby(run)["surprisal"].sum() / 10
        for kind in ("probes", "tests")
    }
    for row in moved.to_dict("records"):
        before, after = (
            bits[row["dative"], row["instance"]]["prepositional"]
            - bits[row["dative"], row["instance"]]["double_object"]
            for bits in (sums["probes"], sums["tests"])
        )
        assert row["difference"] == pytest.approx(after - before, abs=1e-3)
    for record in Path("outputs").glob("*/run.json"):
        assert "best_pair_difference" in json.loads(record.read_text("utf-8"))
    # One sentence, and nothing but the verb's embedding learned from it.
    metrics = finetune_lm.load_grid("grid.yaml", "metrics")
    taught = metrics[metrics["dataset_type"] == "train"]
    assert taught.groupby("run")["original_text"].nunique().eq(1).all()


def test_chang_and_bergen(paper):
    it = paper("chang_bergen_2022")
    it.data("--sentences", "64")
    smaller = ["--per_device_train_batch_size", "8", "--max_validation_samples", "8"]
    assert main(["--config", "training.yaml", *smaller]) == 0
    assert {path.name for path in Path("checkpoints").iterdir()} == {
        f"step{n}" for n in (0, 1, 2, 4, 8)
    }
    assert main(["--config", "series.yaml", "--per_device_test_batch_size", "64"]) == 0
    module = it.figure()
    bits = module["curves"]("outputs/series/series-test_results.csv.gz")
    assert bits.index.tolist() == [0, 1, 2, 4, 8]
    # Before it has learned anything, a noun costs about what any of the 1,700 tokens does.
    assert bits.loc[0].mean() == pytest.approx(math.log2(1700), abs=0.5)
    assert len(bits.columns) == 32
    assert len(module["turning_points"](bits)) == 32
