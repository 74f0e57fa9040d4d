"""Which plots a study has, and what is said about those that it has not."""

from __future__ import annotations

import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import optuna
import pytest

from finetune_lm.study import plots as plots_module
from finetune_lm.study.plots import PLOTS, save_plots

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("drawn_pages"),
]
ALL = [plot.name for plot in PLOTS]


@pytest.fixture
def drawn(monkeypatch):
    """The plots that are drawn, in both ways."""
    names = {"matplotlib": [], "plotly": []}
    for kind, module in (
        ("matplotlib", optuna.visualization.matplotlib),
        ("plotly", optuna.visualization),
    ):
        for name in ALL:

            def draw(*args, kind=kind, name=name, function=None, **kwargs):
                names[kind].append(name)
                return function(*args, **kwargs)

            original = getattr(module, f"plot_{name}")
            monkeypatch.setattr(
                module,
                f"plot_{name}",
                lambda *a, draw=draw, original=original, **k: draw(*a, function=original, **k),
            )
    return names


def study(n_trials, end="complete", n_parameters=2):
    made = optuna.create_study(study_name="a <b>", sampler=optuna.samplers.RandomSampler(seed=1))

    def objective(trial):
        values = [trial.suggest_float(f"x{i}", 0, 1) for i in range(n_parameters)]
        trial.suggest_categorical("c", ["a"])
        trial.report(sum(values), 0)
        if end == "pruned":
            raise optuna.TrialPruned
        if end == "failed":
            raise ValueError
        return sum(values)

    made.optimize(objective, n_trials=n_trials, catch=(ValueError,))
    return made


def save(study, tmp_path):
    pdf, html = tmp_path / "optimization_plots.pdf", tmp_path / "optimization_plots.html"
    save_plots(study, pdf, html)
    n_pages = len(re.findall(rb"/Type /Page\b", pdf.read_bytes()))
    return n_pages, html.read_text(encoding="utf-8")


def test_a_page_for_each_plot_that_there_is_data_for(tmp_path, drawn, capsys):
    n_pages, html = save(study(4), tmp_path)
    assert drawn == {"matplotlib": ALL, "plotly": ALL}
    assert n_pages == len(ALL)
    assert capsys.readouterr().err == ""
    assert html.count('class="plotly-graph-div"') == len(ALL)


def test_the_html_needs_no_network_and_has_the_library_once(tmp_path):
    _, html = save(study(2), tmp_path)
    assert "<script src=" not in html
    assert "cdn.plot.ly" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert html.count("plotly.js v") == 1
    assert html.index("plotly.js v") < html.index("Plotly.newPlot(")
    assert "<h1>a &lt;b&gt;</h1>" in html


CASES = {
    "one parameter": (
        study(3, n_parameters=1),
        ["param_importances", "contour"],
        "this needs two parameters that differ among the trials",
    ),
    "one trial": (
        study(1),
        ["param_importances", "contour"],
        "this needs two trials that have been completed",
    ),
    "all pruned": (
        study(3, "pruned"),
        ["optimization_history", "slice", "parallel_coordinate", "rank", "edf"],
        "no trial has been completed",
    ),
    "all failed": (
        study(3, "failed"),
        ["optimization_history", "slice", "parallel_coordinate", "rank", "edf"],
        "no trial has been completed",
    ),
    "no trial": (study(0), ["timeline"], "there is no trial"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_said_with_the_reason(tmp_path, drawn, capsys, case):
    made, missing, reason = CASES[case]
    n_pages, _ = save(made, tmp_path)
    said = capsys.readouterr().err
    assert f"optimization_plots.pdf has no {', '.join(missing)}: {reason}.\n" in said
    told = [name for line in said.splitlines() for name in ALL if re.search(rf"\b{name}\b", line)]
    assert sorted([*told, *drawn["matplotlib"]]) == sorted(ALL)
    assert drawn["matplotlib"] == drawn["plotly"]
    assert n_pages == max(len(drawn["matplotlib"]), 1)
    assert "warning" not in said


def test_a_plot_that_fails_costs_a_warning(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(optuna.visualization.matplotlib, "plot_slice", fail)
    monkeypatch.setattr(optuna.visualization, "plot_edf", fail)
    n_pages, html = save(study(4), tmp_path)
    assert n_pages == len(ALL) - 1
    assert html.count('class="plotly-graph-div"') == len(ALL) - 1
    said = capsys.readouterr().err
    assert "optimization_plots.pdf: slice could not be plotted: RuntimeError('no')" in said
    assert "optimization_plots.html: edf could not be plotted: RuntimeError('no')" in said


def test_a_file_that_cannot_be_made_costs_a_warning(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(plots_module, "_save_pdf", fail)
    save_plots(study(2), tmp_path / "a.pdf", tmp_path / "a.html")
    assert "a.pdf could not be made: OSError('disk full')" in capsys.readouterr().err
    assert (tmp_path / "a.html").exists()


def test_plots_of_a_users_session_are_left_alone(tmp_path):
    mpl.use("Agg")
    figure = plt.figure()
    style = dict(mpl.rcParams)
    save(study(2), tmp_path)
    assert plt.get_fignums() == [figure.number]
    assert dict(mpl.rcParams) == style
    plt.close(figure)
