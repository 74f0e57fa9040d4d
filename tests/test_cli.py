from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from finetune_lm.cli import main
from finetune_lm.errors import UserError

BASE = ["--model_name_or_path", "gpt2", "--test_file", "test.txt.gz"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Takes the place of the experiment and remembers what it was to run."""
    seen: list[tuple[Any, ...]] = []
    experiment = types.ModuleType("finetune_lm.experiment")

    def run(*arguments: Any) -> types.SimpleNamespace:
        seen.append(arguments)
        return types.SimpleNamespace(output_dir=Path("outputs"))

    experiment.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "finetune_lm.experiment", experiment)
    import finetune_lm

    monkeypatch.setattr(finetune_lm, "experiment", experiment, raising=False)
    return seen


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from finetune_lm.arguments.subcommands import SUBCOMMANDS
from finetune_lm.cli import main
assert main(["--help"]) == 0
heavy = {"torch", "transformers", "optuna", "datasets", "numpy", "pandas", "yaml"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert all(main([name, "--help"]) == 0 for name in SUBCOMMANDS)
heavy = {"torch", "transformers", "optuna", "datasets"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert "--train_optimizer_kwargs" in result.stdout


def test_a_usual_run_does_not_import_optuna() -> None:
    code = f"""
import sys
from finetune_lm.arguments import config_yaml, parse_arguments
parsed = parse_arguments({BASE!r})
text = config_yaml(parsed.model, parsed.data, parsed.optimization)
open("run.yaml", "w").write(text)
parse_arguments(["--config", "run.yaml"])
assert not {{"optuna", "transformers"}} & set(sys.modules)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_python_dash_m_is_the_command() -> None:
    command = [sys.executable, "-m", "finetune_lm", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.startswith("finetune-lm ")


def test_help_shows_every_argument(capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import fields

    from finetune_lm.arguments import (
        DataTrainingArguments,
        ModelArguments,
        OptimizationArguments,
    )

    assert main(["-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for cls in (ModelArguments, DataTrainingArguments, OptimizationArguments):
        assert any(cls.__name__ in line for line in lines)
        for field in fields(cls):
            assert f"  --{field.name}" in lines
            assert field.metadata["help"]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("epochs", ["  --epochs", "      default: 250"]),
        (
            "train_optimizer_kwargs",
            [
                "  --train_optimizer_kwargs",
                "      default: lr: 2e-06",
                "               weight_decay: 0",
            ],
        ),
        ("train_optimizer_kwargs.lr", ["  --train_optimizer_kwargs.lr", "      default: 2e-06"]),
        ("loss_classes.train", ["  --loss_classes.train"]),
        ("loss_classes_kwargs.train.KL.x", ["  --loss_classes_kwargs.train.KL.x"]),
        ("params.lr.values", ["      default: 2e-06 2e-05"]),
        ("config", ["  --config"]),
    ],
)
def test_help_for_one_name(
    name: str, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in expected:
        assert line in lines
    assert len(lines) < 12


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("epoch", "--epoch is not an argument. Did you mean --epochs?"),
        ("lr", "--lr is not an argument. Did you mean --train_optimizer_kwargs.lr?"),
        (
            "loss_classes.tran",
            "--loss_classes.tran is not an argument. Did you mean --loss_classes.train?",
        ),
    ],
)
def test_help_for_an_unknown_name(
    name: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--help", name]) == 2
    assert capsys.readouterr().err == f"finetune-lm: error: {problem}\n"


def test_nothing_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: finetune-lm ")
    assert len(captured.err.splitlines()) == 2


def test_mistakes_take_a_line_each(
    capsys: pytest.CaptureFixture[str], runs: list[tuple[Any, ...]]
) -> None:
    assert main([*BASE, "--epochs", "x", "--patience", "-1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "finetune-lm: error: epochs must be an integer but got 'x' (text).\n"
        "finetune-lm: error: patience cannot be negative but got -1.\n"
    )
    assert runs == []


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "--epochs", "x", "--debug"]) == 2
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert captured.err.endswith(
        "finetune-lm: error: epochs must be an integer but got 'x' (text).\n"
    )


def test_the_experiment_gets_the_arguments(
    capsys: pytest.CaptureFixture[str], runs: list[tuple[Any, ...]]
) -> None:
    assert main([*BASE, "--epochs", "3"]) == 0
    assert "outputs" in capsys.readouterr().err
    ((model, data, optimization),) = runs
    assert model.model_name_or_path == "gpt2"
    assert data.epochs == 3
    assert optimization.do_optimize is False


@pytest.fixture
def stopped_run(empty_directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    argv = [*BASE, "--epochs", "3", "--seed", "5", "--token", "hf_secret"]
    assert main([*argv, "--print_config"]) == 0
    (empty_directory / "out").mkdir()
    (empty_directory / "out" / "config.yaml").write_text(capsys.readouterr().out)
    return "out"


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Takes the place of what resumes a run and remembers what it was to resume."""
    seen: list[tuple[Any, ...]] = []
    resuming = types.ModuleType("finetune_lm.resuming")

    def resume(*arguments: Any) -> types.SimpleNamespace:
        seen.append(arguments)
        return types.SimpleNamespace(output_dir=Path("out"))

    resuming.resume = resume  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "finetune_lm.resuming", resuming)
    import finetune_lm

    monkeypatch.setattr(finetune_lm, "resuming", resuming, raising=False)
    return seen


def test_a_run_is_resumed_with_its_own_arguments(
    stopped_run: str, resumed: list[tuple[Any, ...]], runs: list[tuple[Any, ...]]
) -> None:
    argv = ["--resume", stopped_run, "--epochs", "7", "--on_nan", "skip", "--token", "hf_other"]
    assert main(argv) == 0
    ((directory, model, data, optimization),) = resumed
    assert runs == []
    assert directory == "out"
    assert (model.model_name_or_path, model.token) == ("gpt2", "hf_other")
    assert (data.seed, data.epochs, data.on_nan, data.output_dir) == (5, 7, "skip", None)
    assert optimization.do_optimize is False


@pytest.mark.parametrize(
    ("argv", "problems"),
    [
        (
            ["--resume", "nowhere"],
            ["resume must name the output directory of a run but nowhere is not there."],
        ),
        (
            ["--resume", "empty"],
            ["resume must name the output directory of a run but empty has no config.yaml."],
        ),
        (["--resume"], ["resume must be one output directory but got nothing."]),
        (["--resume", "out", "b"], ["resume must be one output directory but got out b."]),
        (
            ["--resume", "out", "--resume", "out"],
            ["resume is given more than once."],
        ),
        (
            ["--resume", "out", "--output_dir", "b", "--config", "out/config.yaml"],
            [
                "config has no use with resume: a run keeps its own.",
                "output_dir has no use with resume: a run keeps its own.",
            ],
        ),
        (
            ["--resume", "out", "--epoch", "7"],
            ["--epoch is not an argument. Did you mean --epochs?"],
        ),
    ],
)
def test_mistakes_with_resume(
    stopped_run: str,
    resumed: list[tuple[Any, ...]],
    empty_directory: Path,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    problems: list[str],
) -> None:
    (empty_directory / "empty").mkdir()
    assert main(argv) == 2
    shown = capsys.readouterr().err.splitlines()
    for problem in problems:
        assert f"finetune-lm: error: {problem}" in shown
    assert resumed == []


@pytest.mark.parametrize(
    ("program", "token", "expected"),
    [
        ("/usr/bin/finetune-lm", [], "finetune-lm --resume 'my runs/1'"),
        ("/x/finetune_lm/__main__.py", [], "python -m finetune_lm --resume 'my runs/1'"),
        (
            "/usr/bin/finetune-lm",
            ["--token", "hf_secret"],
            "finetune-lm --resume 'my runs/1' --token ...",
        ),
    ],
)
def test_the_command_that_goes_on_is_told(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: list[tuple[Any, ...]],
    program: str,
    token: list[str],
    expected: str,
) -> None:
    from finetune_lm.runs.interruption import Interrupted

    def stop(*_: Any) -> None:
        interrupted = Interrupted(15)
        interrupted.output_dir = Path("my runs/1")
        raise interrupted

    monkeypatch.setattr(sys.modules["finetune_lm.experiment"], "run", stop)
    monkeypatch.setattr(sys, "argv", [program])
    assert main([*BASE, *token]) == 143
    shown = capsys.readouterr().err
    assert shown.splitlines() == [
        "finetune-lm: interrupted by SIGTERM. What was measured is kept. To resume:",
        expected,
    ]


def test_ctrl_c_outside_of_a_run(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    runs: list[tuple[Any, ...]],
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["finetune_lm.experiment"], "run", stop)
    assert main(BASE) == 130
    assert capsys.readouterr().err == "finetune-lm: interrupted.\n"


def test_a_usual_run_does_not_import_a_study() -> None:
    code = """
import sys
import finetune_lm.experiment, finetune_lm.cli
assert not {"optuna", "sqlalchemy", "scipy"} & set(sys.modules)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_what_print_config_prints_repeats_the_run(
    empty_directory: Path, capsys: pytest.CaptureFixture[str], runs: list[tuple[Any, ...]]
) -> None:
    argv = [*BASE, "--train_optimizer", "torch.optim.SGD", "--token", "hf_secret"]
    argv += ["--train_optimizer_kwargs.weight_decay", "__delete_field__", "--model_kwargs.x", "'1'"]
    assert main([*argv, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "train_optimizer: torch.optim.SGD\n" in printed
    assert "secret" not in printed
    assert runs == []
    (empty_directory / "run.yaml").write_text(printed)
    assert main(["--config", "run.yaml", "--print_config"]) == 0
    assert capsys.readouterr().out == printed


def test_a_token_in_a_librarys_message_is_not_shown(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    runs: list[tuple[Any, ...]],
) -> None:
    def fail(model: Any, *_: Any) -> None:
        raise UserError(f"The token {model.token} was refused.")

    monkeypatch.setattr(sys.modules["finetune_lm.experiment"], "run", fail)
    assert main([*BASE, "--token", "hf_secret", "--debug"]) == 2
    error = capsys.readouterr().err
    assert "secret" not in error
    assert error.endswith("finetune-lm: error: The token <token> was refused.\n")


def test_print_config_imports_nothing(tmp_path, monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    """A config file or a run's directory may come from somebody who is not trusted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "untrusted.py").write_text("raise SystemExit('it was imported')\n")
    (tmp_path / "run").mkdir()
    mine = [
        *("--model_name_or_path", "tiny-lm", "--do_optimize"),
        *("--train_file", "x.txt", "--validation_file", "x.txt", "--test_file", "x.txt"),
        *("--train_optimizer", "untrusted.Optimizer", "--lr_scheduler", "untrusted.Schedule"),
        *("--loss_classes.train", "untrusted.A", "untrusted.B"),
        *("--loss_classes_kwargs.train.A.f", "untrusted.f", "--loss_reduction_fns.train"),
        *("untrusted.f", "--model_modifier_fns", "untrusted.f", "--model_modifier_fn_kwargs.f.x"),
        *("import:untrusted", "--model_callbacks.end_epoch", "untrusted.C"),
        *("--data_preprocessing_fn.train", "untrusted.f", "--model_kwargs.x", "untrusted.x"),
        *("--study_kwargs.sampler", "untrusted.S", "--study_kwargs.storage", "untrusted.D"),
    ]
    assert main([*mine, "--print_config"]) == 0
    printed = capsys.readouterr().out
    Path("run/config.yaml").write_text(printed)
    for argv in (["--config", "run/config.yaml"], ["--resume", "run"]):
        assert main([*argv, "--print_config"]) == 0
        assert capsys.readouterr().out == printed
    assert printed.count("untrusted.") == 12
    assert "import:untrusted" in printed
    assert "untrusted" not in sys.modules
    assert main([*mine, "--model_kwargs.y", "no-name.x", "--print_config"]) == 2
    assert "not a name that Python could import" in capsys.readouterr().err
    assert main(mine) == 2  # without it they are imported
    assert "importing untrusted failed with SystemExit" in capsys.readouterr().err
