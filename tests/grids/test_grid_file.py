from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_lm.errors import UserError
from finetune_lm.grids.grid_file import read_grid
from finetune_lm.grids.grid_runs import GridRun, runs_of


def grid(directory: Path, text: str) -> list[GridRun]:
    (directory / "grid.yaml").write_text(f"output_dir: out\n{text}", "utf-8")
    return runs_of(read_grid(str(directory / "grid.yaml")))


def entries(run: GridRun) -> dict[str, Any]:
    """What is left when each source is put over those before it."""
    return {".".join(path): raw for source in run.sources() for path, raw in source.entries}


WHOLE = """
base: {epochs: 3, train_optimizer_kwargs.lr: 1e-3}
vary:
  model: {small: SMALL, big: {model_name_or_path: big-lm, train_optimizer_kwargs.lr: 1e-5}}
  verb: [flomped, blorked]
  class: [dr, wr]
  seed: [1..2, 7]
set: {train_file: "data/{verb}_{class}.txt.gz", test_file: ["{model}.txt", "{}.txt"]}
exclude: [{model: big, class: wr}, {verb: blorked, seed: [2, 7]}]
"""


def test_what_a_grid_stands_for(tmp_path: Path) -> None:
    small = tmp_path / "small.yaml"
    small.write_text("model_name_or_path: small-lm\nepochs: 5\n", "utf-8")
    runs = grid(tmp_path, WHOLE.replace("SMALL", str(small)))
    # 2 x 2 x 2 x 3 = 24; big with wr are 6, blorked with 2 or 7 are 8, both are 2.
    assert len(runs) == 24 - 6 - 8 + 2
    by_name = {run.name: run for run in runs}
    assert len(by_name) == len(runs)
    one = by_name["model=small_verb=flomped_class=wr_seed=7"]
    assert one.directory == Path("out/model=small_verb=flomped_class=wr_seed=7")
    assert one.values == {"model": "small", "verb": "flomped", "class": "wr", "seed": "7"}
    assert entries(one) == {
        "epochs": "5",
        "train_optimizer_kwargs.lr": "1e-3",
        "model_name_or_path": "small-lm",
        "seed": "7",
        "train_file": "data/flomped_wr.txt.gz",
        "test_file": ["small.txt", "{}.txt"],
    }
    other = entries(by_name["model=big_verb=blorked_class=dr_seed=1"])
    assert other["train_optimizer_kwargs.lr"] == "1e-5"
    assert other["model_name_or_path"] == "big-lm"


def test_what_is_over_what(tmp_path: Path) -> None:
    [run, _] = grid(
        tmp_path,
        """
base: {epochs: 1, seed: 1, patience: 1, delta: 1}
vary:
  kind: {a: {epochs: 2, seed: 2, patience: 2}}
  seed: [3, 33]
set: {patience: 4}
""",
    )
    assert entries(run) == {"epochs": "2", "seed": "3", "patience": "4", "delta": "1"}
    model, data, _ = run.arguments([(("model_name_or_path",), "m"), (("test_file",), "t.txt")])
    assert (data.epochs, data.seed, data.patience, data.delta) == (2, 3, 4, 1.0)
    assert data.output_dir == "out/kind=a_seed=3"
    assert model.model_name_or_path == "m"


def test_an_axis_of_an_argument_inside_a_dictionary_and_one_of_lists(tmp_path: Path) -> None:
    runs = grid(
        tmp_path,
        """
base: {model_name_or_path: m}
vary:
  train_optimizer_kwargs.lr: [1e-4, 2e-4]
  test_file: [[a.txt, b.txt], c.txt]
  eval_before_training: [true, False]
""",
    )
    assert runs[0].name == "lr=1e-4_test_file=a.txt+b.txt_eval_before_training=True"
    _, data, _ = runs[0].arguments()
    assert data.train_optimizer_kwargs["lr"] == 1e-4
    assert (data.test_file, data.eval_before_training) == (["a.txt", "b.txt"], True)
    _, data, _ = runs[-1].arguments()
    assert (data.test_file, data.eval_before_training) == (["c.txt"], False)


def test_runs_of_one_model_come_one_after_another(tmp_path: Path) -> None:
    """Whatever stands first; otherwise the order is that of the file."""
    runs = grid(
        tmp_path,
        """
vary:
  seed: 1..3
  size: [s, l]
  words: {none: {}, new: {model_modifier_fns: [model_modifiers.add_new_tokens]}}
set: {model_name_or_path: "gpt-{size}"}
""",
    )
    found = [(run.values["size"], run.values["seed"], run.values["words"]) for run in runs]
    expected = [(z, s, w) for z in ("s", "l") for s in ("1", "2", "3") for w in ("none", "new")]
    assert found == expected


def test_names_of_directories_are_safe_and_never_the_same(tmp_path: Path) -> None:
    runs = grid(
        tmp_path,
        f"""
vary:
  model_name_or_path: [EleutherAI/pythia-70m, EleutherAI-pythia-70m, "../x y", {"long" * 60}]
  verb: [Dax, dax, naïve, "a_seed=1", "a"]
  seed: [1, 2]
set: {{train_file: "{{verb}}"}}
""",
    )
    names = [run.name for run in runs]
    assert len(runs) == 40
    assert len({name.casefold() for name in names}) == 40
    assert all(len(name.encode()) <= 180 for name in names)
    assert all(not set(name) & set("/\\ :*?\"<>|'\n") for name in names)
    assert "model_name_or_path=..-x-y_verb=naïve_seed=1" in names
    # More values leave the names of others as they are.
    more = grid(tmp_path, "vary: {verb: [naïve, a, b], seed: [1, 2]}\nset: {train_file: '{verb}'}")
    fewer = grid(tmp_path, "vary: {verb: [naïve, a], seed: [1]}\nset: {train_file: '{verb}'}")
    assert {run.name for run in fewer} <= {run.name for run in more}


def test_what_is_wrong_with_a_file_is_told_together(tmp_path: Path) -> None:
    wrong = """
vari: {}
base: [1]
vary:
  verb: [a, a]
  lr: [1e-4]
  9x: [1]
  seed: 5..1
  output_dir: [x]
  model: {a: missing.yaml, b: 3}
  epochs: []
set: {train_file: "{verbs}.txt", output_dir: y}
exclude: [{verb: b}, {verbs: a}, 7]
from_study: []
"""
    with pytest.raises(UserError) as caught:
        grid(tmp_path, wrong)
    told = "\n".join(caught.value.problems)
    for part in (
        "line 3: vari is not a key of a grid file",
        "Did you mean vary?",
        "line 4: base must be the name of a file or `argument: value` lines.",
        "line 6: verb has a more than once.",
        "line 7: lr must be an argument, or stand in braces somewhere in set ({lr}). Did you mean "
        "--train_optimizer_kwargs.lr?",
        "'9x' must be a name",
        "line 9: the range 5..1 must go upwards.",
        "output_dir cannot vary",
        "missing.yaml: the config file cannot be read",
        "3: the config file cannot be read",
        "line 12: epochs must have at least one value.",
        "{verbs} must name something that varies (verb, lr, output_dir, model).",
        "set cannot have an output_dir of its own.",
        "exclude names verb b, which no run has.",
        "exclude names verbs, which does not vary. Did you mean verb?",
        "exclude must be a list of mappings",
        "from_study must be the directory of a study.",
    ):
        assert part in told, part
    assert "seed must have" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("vary: {seed: 1..2}\nexclude: {seed: 1..2}", "exclude leaves no run."),
        ("vary: {seed: 1..2000, epochs: 1..2000}", "more than 1000000 runs but has 4000000"),
        ("vary: {seed: 1..20000000}", "has more than 100000 values"),
        ("vary: {seed: [[[1]]]}", "a value must be a text, a number or a list of these"),
        ("vary: 3", "vary must say in what the runs differ"),
    ],
)
def test_what_cannot_be_a_grid(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=r"grid\.yaml") as caught:
        grid(tmp_path, text)
    assert told in str(caught.value)


def test_a_grid_needs_a_directory(tmp_path: Path) -> None:
    (tmp_path / "g.yaml").write_text("vary: {seed: [1]}", "utf-8")
    with pytest.raises(UserError, match="output_dir must be given"):
        read_grid(str(tmp_path / "g.yaml"))
