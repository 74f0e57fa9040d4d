"""One straight way: how deep a text, a learning rate, a KL sentence, a trial and a measure go.

`trips` says what counts as a call. Each trip is followed to its stations, the functions that
CONTRIBUTING names; a station is at most six calls below the page that it starts from.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from finetune_lm.cli import main
from test_layers import MODULES
from trips import counted

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
MOST = 6
PARAMETERS = 5
FILES_OF_A_BATCH = {False: 20, True: 33}
"""By whether the fast way is taken."""

ON_THE_WAY = ("experiment", "study", "training", "evaluation", "runs", "recording", "data")


def call(tmp_path, *more):
    args = ["--model_name_or_path", "tiny-lm", "--epochs", "1", "--seed", "1"]
    args += ["--train_file", f"{DATA}/flomped_active.txt.gz", "--max_train_samples", "12"]
    args += ["--validation_file", f"{DATA}/flomped_passive.txt.gz"]
    args += ["--max_validation_samples", "4", "--per_device_train_batch_size", "4"]
    assert main([*args, "--output_dir", str(tmp_path / "out"), *more]) == 0


@pytest.fixture(scope="module", autouse=True)
def everything_imported(tmp_path_factory):
    """Before calls are counted, which takes long for what is done on importing."""
    importlib.import_module("finetune_lm.study.search")
    call(tmp_path_factory.mktemp("first"))


def check(calls, stations, **which):
    depths = [calls.deepest(station, **which) for station in stations]
    assert [way for depth, way in depths if depth > MOST] == []


def test_a_text(tmp_path):
    with counted() as calls:
        call(tmp_path, "--test_file", f"{DATA}/flomped_test.txt.gz", "--max_test_samples", "4")
    stations = [
        "reading_examples.py: read_examples",
        "Dataset.__init__",
        "Dataset.batches",
        "Forward.__call__",
        "TokenRows.of_batches",
        "TableWriter.write",
    ]
    # A model may be scored with many batches at once, which is the business of the package.
    check(calls, stations, not_through="scoring/")


def test_a_learning_rate(tmp_path):
    with counted("cli.py") as calls:
        call(tmp_path, "--train_optimizer_kwargs.lr", "1e-3")
    stations = [
        "command_line.py: split_command_line",
        "values.py: read_value",
        "nested.py: merge",
        "Arguments.__post_init__",
        "optimizers.py: make_optimizer",
    ]
    check(calls, stations)


def test_a_sentence_of_the_kl_term(tmp_path):
    loss = "--loss_classes_kwargs.train.KLBaselineLoss"
    with counted() as calls:
        call(
            tmp_path,
            *("--loss_classes.train", "loss_classes.KLBaselineLoss"),
            *(f"{loss}.dataset", f"{DATA}/fillers.txt.gz"),
            *(f"{loss}.max_samples_per_dataset", "20", f"{loss}.n_examples_per_batch", "4"),
        )
    stations = ["Dataset.__init__", "KLBaselineLoss.__call__", "KLBaselineLoss._draw"]
    check(calls, [*stations, "reading_examples.py: read_examples"], not_through="scoring/")
    stations = ["BaselineData.baseline_logits", "OutputLayer.judged", "KLDivergence.__init__"]
    check(calls, stations, not_through="scoring/forward")


def test_a_measure(tmp_path):
    with counted() as calls:
        call(tmp_path, "--measures", "measures.WordBoundary", "measures.Rank")
    stations = ["given_measures", "make_measures", "Forward.__call__"]
    check(calls, stations, not_through="scoring/")
    check(calls, ["measuring.py: finished", "measure_columns.py: measure_columns"])


def test_a_trial(tmp_path):
    with counted() as calls:
        call(
            tmp_path,
            *("--do_optimize", "--params.lr.values", "1e-5", "1e-3"),
            *("--optimize_kwargs.n_trials", "1"),
        )
    stations = [
        "Parameter.suggest",
        "with_values",
        "TrialRunner.prepared",
        "training/loop.py: train",
        "_Pruning.epoch",
    ]
    check(calls, stations)


@pytest.mark.parametrize("fast", FILES_OF_A_BATCH)
def test_the_files_that_a_training_batch_passes(tmp_path, fast):
    """Where the model is called the plain way; the fast one adds what is in `scoring/fast`."""
    with counted() as calls:
        call(tmp_path, "--fast", str(fast))
    batches = [i for i, name in enumerate(calls.order) if name.endswith("Pass.batches")]
    # The second batch: what is looked up once is there by then.
    of_batch = calls.order[batches[1] : batches[2]]
    assert sum(name.endswith("Forward.__call__") for name in of_batch) == 1
    files = {name.split(":")[0] for name in of_batch}
    assert len(files) <= FILES_OF_A_BATCH[fast], sorted(files)


@pytest.mark.parametrize("part", ON_THE_WAY)
def test_no_function_on_the_way_takes_more_than_five_parameters(part):
    found = []
    for module, path in MODULES.items():
        if module.split(".")[1:2] == [part]:
            nodes = ast.walk(ast.parse(path.read_text("utf-8")))
            functions = [node for node in nodes if isinstance(node, ast.FunctionDef)]
            found += [(f"{module}.{node.name}", _parameters(node)) for node in functions]
    assert found
    assert [name for name, parameters in found if len(parameters) > PARAMETERS] == []


def _parameters(node):
    given = node.args
    several = [each for each in (given.vararg, given.kwarg) if each is not None]
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs, *several)]
    return [name for name in names if name not in ("self", "cls")]


def test_the_page_of_a_run_is_a_page():
    assert len(MODULES["finetune_lm.experiment"].read_text("utf-8").splitlines()) <= 150
