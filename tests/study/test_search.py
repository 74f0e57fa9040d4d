"""A study from start to end, and what Optuna has to say meanwhile."""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
import sys
import warnings
from pathlib import Path

import optuna
import pytest
import torch
from safetensors.torch import load_file, save_file

import finetune_lm
import studies
from finetune_lm import DataTrainingArguments, ModelArguments, UserError
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.cli import main
from finetune_lm.study import search
from finetune_lm.study.parameters import with_values
from finetune_lm.study.results import load_results
from finetune_lm.study.search import OptunaMessages
from helpers import write_lines
from studies import LR, ListLoss, data_args, run_study, study_args, trials_of

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_every_trial_is_the_run_that_it_stands_for(model, tmp_path):
    params = {**LR, "epochs": {"values": [1, 4]}}
    args = data_args(tmp_path)
    result = run_study(model, args, study_args(4, params=params))
    assert [trial.state.name for trial in trials_of(result)] == ["COMPLETE"] * 4
    assert len({trial.params["lr"] for trial in trials_of(result)}) == 4
    for trial in trials_of(result)[:2]:
        place = {
            ("train_optimizer_kwargs", "lr"): trial.params["lr"],
            ("epochs",): trial.params["epochs"],
            ("output_dir",): str(tmp_path / f"run{trial.number}"),
        }
        single = finetune_lm.run(ModelArguments(model), with_values(args, place))
        assert trial.value == single.best_loss
        assert trial.user_attrs["best_epoch"] == single.best_epoch
        assert trial.user_attrs["n_epochs"] == trial.params["epochs"]
        assert min(trial.intermediate_values.values()) == single.best_loss
        assert list(trial.intermediate_values) == list(range(trial.params["epochs"]))


def test_what_a_study_leaves_behind(model, tmp_path, capsys, plots):
    result = run_study(model, data_args(tmp_path), study_args(2))
    assert sorted(path.name for path in result.output_dir.iterdir()) == [
        *("config.txt", "config.yaml", "optimization_journal.log", "optimization_plots.html"),
        *("optimization_plots.pdf", "optimization_results.csv.gz", "run.json"),
    ]
    best = min(trials_of(result), key=lambda trial: trial.value)
    assert (result.best_loss, result.best_number) == (best.value, best.number)
    assert result.best_params == {"lr": best.params["lr"]}
    assert result.best_args.lr == best.params["lr"]
    assert result.best_args.seed == 5
    assert result.metrics is None
    assert result.trials["value"].tolist() == [trial.value for trial in trials_of(result)]
    assert result.trials["number"].tolist() == [0, 1]

    text = (result.output_dir / "config.txt").read_text()
    assert "DataTrainingArguments\n" in text
    assert re.search(r"values: +\[0.0001, 0.01\]", text)
    for trial in trials_of(result):
        assert f"trial {trial.number}, 20" in text
        assert f"  lr: {trial.params['lr']}\n" in text
        assert f"  {trial.value:.4f} (lr " in text
    record = json.loads((result.output_dir / "run.json").read_text())
    assert record["state"] == "finished"
    assert record["study"]["name"] == result.study.study_name
    assert record["study"]["storage"] == "optimization_journal.log"
    assert record["trials"] == {"COMPLETE": 2}
    assert (record["best_trial"], record["best_validation_loss"]) == (best.number, best.value)
    assert record["seed"] == 5

    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("trial ") for line in said) == 2
    assert not any("[I " in line or "[W " in line for line in said)
    assert said[-1].startswith(f"best trial: {best.number}, validation loss {best.value:.4f} (lr ")


def test_the_config_file_does_the_study_again(model, tmp_path):
    # From here on by the command line, where everything has to have a name.
    argv = [
        *("--model_name_or_path", model, "--do_optimize", "--epochs", "2"),
        *("--train_file", studies.files(tmp_path)["train_file"]),
        *("--validation_file", studies.files(tmp_path)["validation_file"]),
        *("--study_kwargs.sampler", "optuna.samplers.RandomSampler"),
        *("--params.train_optimizer.values", "torch.optim.SGD", "torch.optim.AdamW"),
    ]
    assert main([*argv, "--output_dir", "one"]) == 0
    assert main(["--config", "one/config.yaml", "--output_dir", "two"]) == 0
    one, two = (load_results(Path(d, "optimization_results.csv.gz")) for d in ("one", "two"))
    columns = ["study_name", "number", "state", "value", "lr", "train_optimizer", "seed"]
    assert one[columns].equals(two[columns])
    # And goes on with it.
    more = ["--config", "one/config.yaml", "--output_dir", "one", "--study_kwargs.load_if_exists"]
    assert main(more) == 0
    table = load_results(Path("one/optimization_results.csv.gz"))
    assert len(table) == 4
    assert table[columns][:2].equals(one[columns])
    assert set(table["study_name"]) == set(one["study_name"])
    assert len(list(Path("one").glob("config*.txt"))) == 2


def test_a_study_that_is_there_is_not_begun_again(model, tmp_path):
    args = data_args(tmp_path)
    run_study(model, args, study_args(1))
    with pytest.raises(UserError, match=r"already. To continue it, give --study_kwargs.load_if"):
        run_study(model, args, study_args(1))
    result = run_study(model, args, study_args(2, study_kwargs={"load_if_exists": True}))
    assert len(trials_of(result)) == 3
    # Unlike a sampler with a seed and nothing else, it does not begin again where it began.
    assert len({trial.params["lr"] for trial in trials_of(result)}) == 3


def test_other_settings_are_another_study(model, tmp_path):
    args = data_args(tmp_path, output_dir=None)
    kwargs = {"storage": str(tmp_path / "all.log"), "load_if_exists": True}
    names = set()
    for number in range(2):
        tried = with_values(args, {("epochs",): number + 1})
        result = run_study(model, tried, study_args(1, study_kwargs=kwargs))
        assert len(trials_of(result)) == 1
        names.add(result.study.study_name)
    assert len(names) == 2
    assert len(optuna.get_all_study_names(result.study._storage)) == 2
    # By one name they would have become one.
    kwargs["study_name"] = names.pop()
    other = with_values(args, {("epochs",): 3})
    with pytest.raises(UserError, match="was made with another epochs, so its trials cannot"):
        run_study(model, other, study_args(1, study_kwargs=kwargs))


def test_a_named_study_is_found_again_without_a_directory(model, tmp_path):
    args = data_args(tmp_path, output_dir=None)
    kwargs = {"study_name": "mine", "load_if_exists": True}
    for n_trials in (1, 2):
        result = run_study(model, args, study_args(1, study_kwargs=kwargs))
        assert len(trials_of(result)) == n_trials
    assert result.output_dir == Path("outputs/teach", model.replace("/", "-"), "mine")


def test_a_drawn_seed_is_that_of_the_study(model, tmp_path):
    """Trials from two seeds could not be compared."""
    args = data_args(tmp_path, output_dir="out")
    settings = {name: value for name, value in vars(args).items() if name in ("train_file",)}
    settings |= {"validation_file": args.validation_file, "epochs": 1, "output_dir": "out"}
    results = [
        run_study(
            model,
            DataTrainingArguments(**settings),
            study_args(1, study_kwargs={"load_if_exists": True}),
        )
        for _ in range(2)
    ]
    assert results[0].best_args.seed == results[1].best_args.seed
    assert set(results[1].trials["seed"]) == {results[0].best_args.seed}
    records = [json.loads(path.read_text()) for path in Path("out").glob("run*.json")]
    assert {record["seed"] for record in records} == {results[0].best_args.seed}
    explicit = DataTrainingArguments(**settings, seed=(results[0].best_args.seed + 1) % 2**32)
    with pytest.raises(UserError, match=r"was made with another seed \(\d+, not \d+\)"):
        run_study(model, explicit, study_args(1, study_kwargs={"load_if_exists": True}))


def test_a_study_that_another_process_begins_while_this_one_loads(model, tmp_path, monkeypatch):
    args = data_args(tmp_path, seed=DrawnSeed(8))
    kwargs = {"load_if_exists": True}
    first = run_study(model, args, study_args(2, study_kwargs=kwargs))
    # It was not there when this one looked.
    monkeypatch.setattr(search, "find_study", lambda *_, **__: None)
    args = data_args(tmp_path, seed=DrawnSeed(9))
    second = run_study(model, args, study_args(1, study_kwargs=kwargs))
    assert second.trials["seed"].tolist() == [8, 8, 8]
    assert len({trial.params["lr"] for trial in trials_of(second)}) == 3
    last = trials_of(second)[2]
    tried = with_values(
        args,
        {
            ("seed",): 8,
            ("train_optimizer_kwargs", "lr"): last.params["lr"],
            ("output_dir",): str(tmp_path / "single"),
        },
    )
    assert last.value == finetune_lm.run(ModelArguments(model), tried).best_loss
    assert first.best_args.seed == second.best_args.seed == 8


def test_test_files_are_ignored_with_a_word(model, tmp_path, capsys):
    args = data_args(tmp_path, test_file=["there/is/no/such/file.txt"])
    result = run_study(model, args, study_args(1))
    assert "test_file is not used in a study" in capsys.readouterr().err
    assert not list(result.output_dir.glob("*test_results*"))
    assert result.test_results is None


def test_the_direction(model, tmp_path, capsys):
    kwargs = {"direction": "maximize"}
    result = run_study(model, data_args(tmp_path), study_args(3, study_kwargs=kwargs))
    assert result.best_loss == max(trial.value for trial in trials_of(result))
    for trial in trials_of(result):
        assert trial.value == min(trial.intermediate_values.values())
    said = capsys.readouterr().err
    assert "direction is maximize: the value of a trial is its lowest validation loss" in said
    assert "_maximize_" in result.study.study_name


def test_nothing_is_written_before_everything_is_loaded(model, tmp_path):
    args = data_args(tmp_path)
    with pytest.raises(UserError, match="is not there"):
        run_study("./no_such_model", args, study_args(1))
    kwargs = {"train": {"ListLoss": {"no_such": 1}}}
    broken = data_args(tmp_path, loss_classes={"train": [ListLoss]}, loss_classes_kwargs=kwargs)
    with pytest.raises(UserError, match="ListLoss must accept"):
        run_study(model, broken, study_args(1))
    assert not (tmp_path / "out").exists()


def test_a_full_disk(model, tmp_path, monkeypatch):
    def full(path, table):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(search, "write_results", full)
    with pytest.raises(UserError, match="cannot be written to: No space left on device"):
        run_study(model, data_args(tmp_path), study_args(1))


def test_a_storage_that_is_lost(model, tmp_path, monkeypatch):
    import sqlalchemy.exc

    def lost(*_, **__):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("server closed"))

    def report(*_, **__):
        for name in ("_write_log", "_sync_with_backend"):
            monkeypatch.setattr(optuna.storages.JournalStorage, name, lost)
        lost()

    monkeypatch.setattr(optuna.Trial, "report", report)
    with pytest.raises(UserError, match=r"was lost: .*server closed\..*load_if_exists"):
        run_study(model, data_args(tmp_path), study_args(1))


def test_passwords_and_tokens_are_in_no_file(model, tmp_path, monkeypatch):
    from finetune_lm.study import plan as plan_module
    from finetune_lm.study.storage import storage_place

    def elsewhere(study_kwargs, default):
        place = storage_place({"storage": "sqlite:///s.db"}, default)
        return type(place)(storage_place(study_kwargs, default).shown, place.open, place.is_there)

    monkeypatch.setattr(plan_module, "storage_place", elsewhere)
    storage = "postgresql://me:secret1@host/studies"
    result = run_study(
        model,
        data_args(tmp_path),
        study_args(1, study_kwargs={"storage": storage}),
        token="secret2",
    )
    for path in [*result.output_dir.iterdir(), tmp_path / "s.db"]:
        content = path.read_bytes()
        assert b"secret1" not in content
        assert b"secret2" not in content
    assert "me@host" in (result.output_dir / "config.yaml").read_text()


def test_a_study_goes_on_only_with_the_same_weights_data_and_source(model, tmp_path, capsys):
    """Each was accepted before, and the trials of both stood in one table."""
    own = tmp_path / "model"
    shutil.copytree(model, own)
    (tmp_path / "study_loss.py").write_text(
        "from finetune_lm.loss_classes import OutputsDefaultLoss\n"
        "class Mine(OutputsDefaultLoss):\n    pass\n"
    )
    write_lines(tmp_path / "kl.txt.gz", studies.TRAIN[:3])
    argv = [
        *("--model_name_or_path", str(own), "--do_optimize", "--epochs", "1", "--seed", "4"),
        *("--train_file", studies.files(tmp_path)["train_file"]),
        *("--validation_file", studies.files(tmp_path)["validation_file"]),
        *("--loss_classes.train", "study_loss.Mine", "loss_classes.KLBaselineLoss"),
        *("--loss_classes_kwargs.train.KLBaselineLoss.dataset", "kl.txt.gz"),
        *("--loss_classes_kwargs.train.KLBaselineLoss.n_examples_per_batch", "2"),
        *("--study_kwargs.sampler", "optuna.samplers.RandomSampler"),
        *("--study_kwargs.study_name", "mine", "--study_kwargs.load_if_exists"),
        *("--optimize_kwargs.n_trials", "1", "--output_dir", "out"),
    ]
    try:
        assert main(argv) == 0
        assert main([*argv, "--checkpoint_every", "3"]) == 0
        capsys.readouterr()

        def refused(path, change, told):
            content = path.read_bytes()
            change(path)
            assert main(argv) == 2
            assert f"was made with another {told}, so its trials" in capsys.readouterr().err
            path.write_bytes(content)

        def edit(path):
            path.write_text(path.read_text() + "# edited\n")

        def other_weight(path):
            weights = load_file(path)
            max(weights.values(), key=torch.numel).view(-1)[-1] += 0.01
            save_file(weights, path, {"format": "pt"})

        refused(tmp_path / "study_loss.py", edit, "source of study_loss")
        refused(own / "model.safetensors", other_weight, "weights of the model")
        refused(
            tmp_path / "kl.txt.gz",
            lambda path: write_lines(path, studies.TRAIN[2:]),
            "loss_classes_kwargs",
        )
        assert main(argv) == 0
        assert len(load_results(Path("out/optimization_results.csv.gz"))) == 3
        record = json.loads(Path("out/run.json").read_text())["identity"]
        assert record["model"].keys() == {"weights", "config"}
    finally:
        sys.modules.pop("study_loss", None)


def test_what_is_experimental_is_said_once_in_words(capsys):
    messages = OptunaMessages()
    with messages.active():
        for _ in range(2):
            optuna.pruners.PatientPruner(optuna.pruners.WilcoxonPruner(), patience=3)
            optuna.samplers.GPSampler(deterministic_objective=True)
        assert capsys.readouterr().err == ""
        messages.tell_experimental()
        messages.tell_experimental()
    assert capsys.readouterr().err == (
        f"warning: Optuna {optuna.__version__} calls WilcoxonPruner, PatientPruner, "
        f"deterministic_objective experimental: other versions may behave differently.\n"
    )


def test_other_warnings_are_said_once(capsys):
    with OptunaMessages().active():
        for _ in range(3):
            optuna.samplers.GPSampler(constraints_func=lambda trial: (0.0,))
    said = capsys.readouterr().err
    assert said.count("`constraints_func` has been deprecated") == 1
    assert said.startswith("warning: ")
    assert len(said.splitlines()) == 1


def test_trials_are_not_told_twice_and_log_records_once(capsys):
    with OptunaMessages().active():
        study = optuna.create_study()

        def objective(trial):
            if trial.number:
                raise ValueError("no")
            return trial.suggest_float("x", 0, 1)

        study.optimize(objective, n_trials=3, catch=(ValueError,))
        logger = logging.getLogger("optuna.samplers._gp.sampler")
        logger.warning("The parameter 'x' in trial#7 is sampled independently.")
        logger.warning("The parameter 'x' in trial#8 is sampled independently.")
        logger.info("nothing")
    assert capsys.readouterr().err == (
        "warning: The parameter 'x' in trial#7 is sampled independently.\n"
    )


def test_afterwards_everything_is_as_it_was():
    def state():
        handlers = {id(handler) for handler in logging.getLogger("optuna").handlers}
        return handlers, optuna.logging.get_verbosity(), warnings.showwarning

    before = state()
    with OptunaMessages().active():
        assert state() != before
    assert state() == before
    with pytest.raises(RuntimeError), OptunaMessages().active():
        raise RuntimeError
    assert state() == before


def test_warnings_of_others_are_left_to_python():
    with pytest.warns(UserWarning, match="mine"), OptunaMessages().active():
        warnings.warn("mine", UserWarning, stacklevel=1)
