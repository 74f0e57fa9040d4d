"""What a run in both modes of a model cannot do is told in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_lm import UserError
from finetune_lm.cli import main
from finetune_lm.data_preprocessing import expand_with_masks, mask_random_spans
from finetune_lm.model_modifiers import AlternateModes, ModelCallback
from helpers import write_lines
from two_modes_model import CODE
from two_modes_runs import ALL, BOTH, do, training

pytest_plugins = ["two_modes_runs"]
pytestmark = pytest.mark.usefixtures("texts_here")


class Switch(ModelCallback):
    """Sets the mode of the training without its class saying so."""

    to = "mlm"

    def __init__(self, model, tokenizer, run):
        self.run = run

    def __call__(self, epoch, batch):
        self.run.mode = self.to


class SwitchNowhere(Switch):
    to = "both"


def test_what_cannot_be_is_told_in_a_line(place, tmp_path):
    def told(model: str | Path = place, directory: str = "out", **more: Any) -> str:
        of_model = more.pop("of_model", {})
        with pytest.raises(UserError) as caught:
            do(Path(model), BOTH, directory, of_model, **{**training(), **more})
        [problem] = caught.value.problems
        return problem

    assert told("tiny-lm") == (
        "model_task must fit the model, but 'tiny-lm' (of type 'gpt2') is not a masked next-token "
        "language model."
    )
    assert told("tiny-mlm") == (
        "model_task lm+mlm needs a model that is causal and masked in one, but 'tiny-mlm' (of type "
        "'bert') has no causal mode. Give --model_task mlm."
    )
    # Its own code has no class for the other mode.
    config = json.loads((place / "config.json").read_text())
    del config["auto_map"]["AutoModelForMaskedLM"]
    one = shutil.copytree(place, tmp_path / "one")
    (one / "config.json").write_text(json.dumps(config))
    assert told(one).endswith("(of type 'two_modes') is not a masked next-token language model.")
    # The modes have not the same weights.
    apart = shutil.copytree(place, tmp_path / "apart")
    code = CODE.replace(
        "class Causal(Masked):\n",
        "class Causal(Masked):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.more = nn.Linear(2, 2)\n\n",
    )
    (apart / "two_modes.py").write_text(code)
    assert "more" in told(apart)
    # Masks, where it learns from them, and as many examples for both modes.
    plain = {"data_preprocessing_fn": {}}
    assert "must have masks ([MASK]) to train" in told(of_model={"train_mode": "mlm"}, **plain)
    # It sees what comes.
    leaky = shutil.copytree(place, tmp_path / "leaky")
    (leaky / "two_modes.py").write_text(CODE.replace("looks_ahead = False", "looks_ahead = True"))
    assert told(leaky) == (
        f"model_task lm+mlm needs a model that is causal and masked in one, but what "
        f"{str(leaky)!r} predicts in its lm mode changes with later tokens: it has no causal mode."
    )
    alternating = {"model_callbacks": {"begin_epoch": [AlternateModes]}}
    assert "must have masks ([MASK]) to train" in told(of_model=alternating, **plain)
    for mode in ("mlm", BOTH):
        assert told(of_model={"select_mode": mode}, **plain) == (
            "check.txt.gz must have masks if the best epoch is chosen in the mlm mode, but has "
            "none: its loss would be that of repeating what the model sees. Give "
            "--data_preprocessing_fn.validation, or another --select_mode."
        )
    of_other_length = [{"text": "The man", "labels": "The man has"}]
    write_lines(Path("short.json.gz"), of_other_length)
    assert "line 1: a masked language model (the mlm mode) needs a label for each token" in told(
        test_file=["short.json.gz"]
    )
    grown = {"data_preprocessing_fn": dict.fromkeys(ALL, expand_with_masks)}
    grown["data_preprocessing_fn_strategy"] = {}
    assert "needs the same examples in each" in told(of_model=alternating, **grown)
    kl = {"KLBaselineLoss": {"dataset": "test.txt.gz", "data_preprocessing_fn": mask_random_spans}}
    problem = told(loss_classes_kwargs={"train": kl})
    assert "mask_random_spans is for sequence-to-sequence models (seq2seq) but" in problem
    assert "a causal language model (lm) and a masked next-token language model (mntp)" in problem
    spans = {"data_preprocessing_fn": {"test": mask_random_spans}}
    assert "mask_random_spans is for sequence-to-sequence models" in told(**spans)
    write_lines(Path("check_metadata.json.gz"), [{"mode": "x"}] * 2)
    assert "metadata must not have the key 'mode'" in told()
    Path("check_metadata.json.gz").unlink()
    # What callbacks set.
    for cls, expected in (
        (Switch, "no callback class says that modes alternate: alternates_modes = True in its"),
        (SwitchNowhere, "has set the mode of the training to 'both', but it must be lm or mlm."),
    ):
        callbacks = {"model_callbacks": {"pre_train_batch": [cls]}}
        assert expected in told(of_model=callbacks, directory=cls.__name__)


def test_arguments_of_modes_are_checked(capsys):
    alone = ["--test_file", "test.txt.gz", "--model_name_or_path", "tiny-lm"]
    for given, expected in {
        "--train_mode mlm": "train_mode has no use without --model_task lm+mlm.",
        "--select_mode lm": "select_mode has no use without --model_task lm+mlm.",
        "--model_callbacks.begin_epoch model_modifiers.AlternateModes": (
            "AlternateModes has no use without --model_task lm+mlm."
        ),
        "--model_task lm+mlm --train_mode lm+mlm": "train_mode must be lm or mlm but got 'lm+mlm'",
        "--model_task lm+mlm --select_mode both": "select_mode must be lm, mlm or lm+mlm but got",
        "--model_task lm+mlm --model_callbacks.end_epoch model_modifiers.AlternateModes": (
            "AlternateModes must be given as model_callbacks.begin_epoch or"
        ),
        **{
            "--model_task lm+mlm --model_callbacks.begin_epoch model_modifiers.AlternateModes "
            f"--model_callbacks_kwargs.begin_epoch.AlternateModes.{kwarg}": expected
            for kwarg, expected in {
                "every 0": "every must be a whole number of at least 1 but got 0.",
                "every.mlm half": "every.mlm must be a whole number of at least 1 but got 'half'.",
                "every.both 2": "every must have a number for lm or mlm but has 'both'.",
                "start masked": "start must be lm or mlm but got 'masked'.",
            }.items()
        },
    }.items():
        assert main([*alone, *given.split()]) == 2
        assert expected in capsys.readouterr().err, given
