"""``finetune-lm report``: what it writes, what several runs come to, and what it refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import finetune_lm
from finetune_lm.analysis.trajectories import save_trajectories
from finetune_lm.cli import main
from report_runs import data, do, write_lines


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs that differ in their seeds, and one with another learning rate."""
    directory = tmp_path_factory.mktemp("runs")
    files = data(directory)
    return [
        do(directory / "one", **files),
        do(directory / "two", **files, seed=2, epochs=3),
        do(directory / "other", **files, train_optimizer_kwargs={"lr": 1e-4}),
    ]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def errors(capsys, *argv) -> list[str]:
    """What is said of a command that is refused, which leaves nothing behind."""
    before = contents(Path.cwd())
    assert main(["report", *map(str, argv)]) == 2
    assert contents(Path.cwd()) == before
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("finetune-lm: error: ") for line in said)
    return [line.removeprefix("finetune-lm: error: ") for line in said]


@pytest.mark.usefixtures("drawn_pages")
def test_a_page_with_figures_and_their_data(runs, capsys):
    assert main(["report", str(runs[0]), "--by", "condition"]) == 0
    assert capsys.readouterr().out == "report.html\n"
    assert len(Path("report.html").read_bytes()) < 6_000_000
    stems = {"loss", "surprisal", "before_after", "forgetting"}
    files = contents(Path("report_figures"))
    assert set(files) == {f"{s}.{kind}" for s in stems for kind in ("pdf", "csv")} | {
        "in_short.csv"
    }
    assert all(text.startswith(b"%PDF") for name, text in files.items() if name.endswith("pdf"))
    surprisal = pd.read_csv("report_figures/surprisal.csv")
    assert {"run", "setting", "seed", "condition", "mean", "ci_low", "ci_high"} <= set(surprisal)
    page = Path("report.html").read_text("utf-8")
    for part in ("In short", "Learned:", "Carried over:", "Forgotten:", "config.yaml of", "torch"):
        assert part in page


@pytest.mark.usefixtures("drawn_pages")
def test_the_same_twice_is_the_same_to_the_byte(runs):
    for name in ("a", "b"):
        assert main(["report", *map(str, runs[:2]), "--out", f"{name}/r.html"]) == 0
    assert contents(Path("a")) == contents(Path("b"))
    # And a second time in the same place.
    before = contents(Path("a"))
    assert main(["report", *map(str, runs[:2]), "--out", "a/r.html"]) == 0
    assert contents(Path("a")) == before


def test_seeds_are_one_setting_and_others_stand_beside_it(runs):
    assert main(["report", *map(str, runs), "--by", "place", "condition", "--out", "r.html"]) == 0
    table = pd.read_csv("r_figures/in_short.csv")
    assert table.groupby("setting")["n_runs"].max().to_dict() == {"lr 0.001": 2, "lr 0.0001": 1}
    fillers = table[(table["role"] == "forgotten") & (table["setting"] == "lr 0.001")].iloc[0]
    ends = pd.read_csv("r_figures/before_after.csv")
    of_fillers = ends[(ends["dataset_name"] == "fillers") & (ends["setting"] == "lr 0.001")]
    by_run = of_fillers.groupby("run")["change"].mean()
    assert len(by_run) == 2
    assert fillers["change"] == pytest.approx(by_run.mean())
    # Two values: t(1) = 12.706, and their standard error is half their distance.
    half = 12.7062 * abs(by_run.iloc[0] - by_run.iloc[1]) / 2
    assert fillers["ci_high"] - fillers["change"] == pytest.approx(half, rel=1e-4)
    page = Path("r.html").read_text("utf-8")
    assert "In what they differ" in page
    assert "train_optimizer_kwargs.lr" in page


def test_condition_is_what_sentences_are_told_apart_by_if_nothing_is_said(runs, tmp_path):
    assert main(["report", str(runs[0]), "--out", "r.html"]) == 0
    assert set(pd.read_csv("r_figures/surprisal.csv")["condition"].dropna()) == {
        "expected", "reversed", "known",
    }  # fmt: skip
    files = {key: data(tmp_path)[key] for key in ("train_file", "validation_file")}
    bare = do(tmp_path / "bare", **files, epochs=2)
    assert main(["report", str(bare), "--out", "bare.html"]) == 0
    assert "condition" not in pd.read_csv("bare_figures/in_short.csv").columns
    assert "sentences of a data set together." in Path("bare.html").read_text("utf-8")


def test_fillers_may_be_named(runs):
    assert main(["report", str(runs[0]), "--fillers", "verbs", "--out", "r.html"]) == 0
    table = pd.read_csv("r_figures/in_short.csv")
    assert set(table.loc[table["role"] == "forgotten", "dataset_name"]) == {"verbs"}


def test_a_test_of_a_model(tmp_path, capsys):
    probes = data(tmp_path)["probe_file"]
    tested = do(tmp_path / "tested", test_file=probes)
    assert main(["report", str(tested), "--out", "r.html"]) == 0
    assert set(contents(Path("r_figures"))) == {"test.csv", "test.pdf"}


def test_a_run_that_was_killed_is_shown_as_far_as_it_came(runs, tmp_path):
    killed = tmp_path / "killed"
    shutil.copytree(runs[0], killed)
    for name in ("metrics.csv.gz", "probe_results.csv.gz"):
        whole = (killed / name).read_bytes()
        (killed / name).write_bytes(whole[: len(whole) * 2 // 3])
    assert main(["report", str(killed), "--out", "r.html"]) == 0
    epochs = pd.read_csv("r_figures/loss.csv")["epoch"]
    assert epochs.max() == 0 or epochs.max() == 1


@pytest.mark.parametrize("kind", ["mlm", "seq2seq"])
def test_other_kinds_of_model(kind, tmp_path):
    verb = Path(__file__).parents[2] / "data" / "nonce_verb"
    given = {
        name: str(verb / f"flomped_{kind}_{data}.json.gz")
        for name, data in (
            ("train_file", "train"),
            ("validation_file", "validation"),
            ("probe_file", "test"),
        )
    }
    most = {f"max_{name}_samples": 8 for name in ("train", "validation", "probe")}
    run = do(tmp_path / "run", f"tiny-{kind}", **given, **most, epochs=2)
    assert main(["report", str(run), "--by", "arg_order", "--out", "r.html"]) == 0
    found = pd.read_csv("r_figures/surprisal.csv")
    probes = finetune_lm.load_probes(run)
    probes = probes[probes["is_target"] & (probes["step"] == 0)]
    if kind == "seq2seq":
        probes = probes[probes["sequence_type"] == "label_sequence"]
    of_sentences = probes.groupby(["arg_order", "example_num"])
    bits = of_sentences["surprisal"].sum() / of_sentences["word_num"].nunique()
    expected = bits.groupby("arg_order").mean()
    before = found[(found["dataset_type"] == "probe") & (found["epoch"] == -1)]
    before = before.groupby("arg_order").apply(
        lambda x: np.average(x["mean"], weights=x["n_items"])
    )
    np.testing.assert_allclose(before, expected.astype(float))


def test_a_series_is_reported_checkpoint_by_checkpoint(runs, capsys):
    Path("series/revisions/step0").mkdir(parents=True)
    (said,) = errors(capsys, "series")
    assert said.endswith("of a series of checkpoints: name the directories in series/revisions.")


def test_regions_cost_what_their_words_cost(tmp_path):
    text = "The teacher will flomp tea."
    regions = [["subject", 0, 11], ["object", 23, 26]]
    lines = write_lines(tmp_path / "r.txt.gz", [text] * 2, [{"regions": regions}] * 2)
    run = do(tmp_path / "run", test_file=lines)
    assert main(["report", str(run), "--by", "region", "--out", "r.html"]) == 0
    found = pd.read_csv("r_figures/test.csv", keep_default_na=False).set_index("region")["mean"]
    tokens = finetune_lm.load_metrics(next(run.glob("*-test_results.csv.gz")))
    tokens = tokens[tokens["example_num"] == 0]
    for name, n_words in (("subject", 2), ("object", 1)):
        bits = tokens.loc[tokens["region"] == name, "surprisal"].sum()
        assert found[name] == pytest.approx(bits / n_words)


def test_what_is_no_run(runs, tmp_path, capsys):
    must = "RUN_DIR must be the output directory of a run, but"
    Path("empty").mkdir()
    Path("file").touch()
    assert errors(capsys, "gone", "empty", "file", runs[0], runs[0]) == [
        f"{must} gone is not there.",
        f"{must} empty has no run.json.",
        f"{must} file is no directory.",
        f"RUN_DIR {runs[0]} is given twice.",
    ]
    (said,) = errors(capsys, runs[0].parent)
    assert said.startswith(
        f"{must} {runs[0].parent} has no run.json. There are runs in it, such as "
    )
    shutil.copytree(runs[0], "damaged")
    Path("damaged/run.json").write_text("{}")
    (said,) = errors(capsys, "damaged")
    assert said.startswith("the record of damaged cannot be read: is damaged")


def test_what_there_is_nothing_to_show_of(runs, capsys):
    shutil.copytree(runs[0], "none")
    for name in ("metrics.csv.gz", "probe_results.csv.gz"):
        Path("none", name).unlink()
    said = "there is nothing to show: none has no table of tokens with a whole pass in it."
    assert errors(capsys, "none") == [said]
    # Killed in its first pass.
    Path("none/metrics.csv.gz").write_bytes((runs[0] / "metrics.csv.gz").read_bytes()[:50])
    assert errors(capsys, "none") == [said]
    # Beside others it is left out.
    assert main(["report", "none", str(runs[0])]) == 0
    assert capsys.readouterr().err == f"warning: {said} It is left out.\n"


def test_conditions_and_fillers_that_are_not_there(runs, capsys):
    assert errors(capsys, runs[0], "--by", "conditon", "plaice") == [
        "--by must name a column of the tables of tokens, but there is none called conditon. Did "
        "you mean condition?",
        "--by must name a column of the tables of tokens, but there is none called plaice. Did you "
        "mean place?",
    ]
    (said,) = errors(capsys, runs[0], "--by", "xyz")
    assert said.endswith("none called xyz. The metadata have condition, place.")
    (said,) = errors(capsys, runs[0], "--fillers", "filler")
    assert said.endswith("there are none called filler. Did you mean fillers?")


def test_runs_with_other_columns(runs, tmp_path, capsys):
    given = {
        **data(tmp_path),
        "probe_file": write_lines(tmp_path / "p.txt.gz", ["So it is."], [{"condition": "a"}]),
    }
    other = do(tmp_path / "other", **given, epochs=1)
    capsys.readouterr()
    (said,) = errors(capsys, runs[0], other, "--by", "place")
    assert said == (
        f"--by must name columns that all runs have, but there is no place in {other}. All of them "
        f"have condition."
    )
    assert main(["report", str(runs[0]), str(other)]) == 0


def test_more_conditions_than_can_be_told_apart(runs, capsys):
    (said,) = errors(capsys, runs[0], "--by", "original_text")
    assert "at most 21 values" in said
    (said,) = errors(capsys, runs[0], "--by", "original_text", "token", "condition")
    assert said.startswith(
        "--by must ask for at most 60 panels in a figure but original_text token"
    )


def test_where_nothing_can_be_written(runs, capsys):
    Path("directory.html").mkdir()
    (said,) = errors(capsys, runs[0], "--out", "directory.html")
    assert said.startswith("--out must be a file but directory.html is a directory")
    Path("file").touch()
    (said,) = errors(capsys, runs[0], "--out", "file/report.html")
    assert said.startswith("--out: file/report.html cannot be written: ")
    if os.getuid():
        Path("locked").mkdir(mode=0o500)
        (said,) = errors(capsys, runs[0], "--out", "locked/report.html")
        assert said == "--out: locked/report.html cannot be written: Permission denied."


def n_pages(path: Path) -> int:
    return path.read_bytes().count(b"/Type /Page\n") + path.read_bytes().count(b"/Type /Page ")


def test_a_run_with_probes_leaves_trajectories(runs, tmp_path):
    path = runs[0] / "trajectories.pdf"
    assert path.read_bytes().startswith(b"%PDF")
    # Made again they are the same.
    assert save_trajectories(runs[0], tmp_path / "again.pdf")
    assert (tmp_path / "again.pdf").read_bytes() == path.read_bytes()


def test_a_run_without_probes_or_pairs_leaves_none(tmp_path):
    files = {key: data(tmp_path)[key] for key in ("train_file", "validation_file")}
    assert not (do(tmp_path / "bare", **files, epochs=1) / "trajectories.pdf").exists()


@pytest.mark.usefixtures("drawn_pages")
def test_many_conditions_are_one_line_in_trajectories(tmp_path):
    given = data(tmp_path)
    texts = [f"The {number} teas." for number in range(30)]
    many = [{"condition": f"c{number}"} for number in range(30)]
    given["probe_file"] = write_lines(tmp_path / "many.txt.gz", texts, many)
    assert (do(tmp_path / "run", **given, epochs=1) / "trajectories.pdf").exists()


def test_trajectories_that_cannot_be_drawn_cost_a_warning(tmp_path, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr("finetune_lm.analysis.figure_pdf.save_pdf", broken)
    run = do(tmp_path / "run", **data(tmp_path), epochs=1)
    said = "warning: the trajectories could not be plotted: RuntimeError('no ink')"
    assert said in capsys.readouterr().err
    assert (run / "probe_results.csv.gz").exists()
