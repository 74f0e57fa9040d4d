"""`--help KLBaselineLoss` tells what the class takes, as `--help epochs` does of an argument."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import pytest

import finetune_lm.data_preprocessing as data_preprocessing
import finetune_lm.loss_classes as loss_classes
import finetune_lm.model_modifiers as model_modifiers
from finetune_lm.arguments.help import help_for
from finetune_lm.errors import UserError

PREFIXES = {
    "KLBaselineLoss": "--loss_classes_kwargs.train.KLBaselineLoss.",
    "add_new_tokens": "--model_modifier_fn_kwargs.add_new_tokens.",
    "UnfreezeWordTokensCallback": "--model_callbacks_kwargs.POINT.UnfreezeWordTokensCallback.",
    "mask_random_tokens": "--data_preprocessing_fn_kwargs.train.",
}
DOCUMENTED = [
    (package.__name__.rpartition(".")[2], name)
    for package in (loss_classes, data_preprocessing, model_modifiers)
    for name in package.__all__
    if callable(getattr(package, name)) and name != "for_tasks"
]


@pytest.mark.parametrize(("package", "name"), DOCUMENTED)
def test_everything_that_users_can_name(package: str, name: str) -> None:
    function = getattr(sys.modules[f"finetune_lm.{package}"], name)
    text = help_for([name])
    assert help_for([f"{package}.{name}"]) == help_for([name.lower()]) == text
    assert text.startswith(f"  {package}.{name}\n      ")
    parameters = inspect.signature(function).parameters.values()
    own = {"*" if p.kind is p.VAR_KEYWORD else p.name for p in parameters}
    own -= {"model", "tokenizer", "inputs", "run"}
    blocks = re.findall(r"^  --(\S+)\n      default: (\S.*)\n((?:      .+\n?)+)", text, re.M)
    assert {argument.rpartition(".")[2] for argument, _, _ in blocks} == own
    if name in PREFIXES:
        assert all(f"--{argument}".startswith(PREFIXES[name]) for argument, _, _ in blocks)
    if not own:
        assert "It takes no arguments of its own." in text


def test_defaults_are_those_of_the_signature() -> None:
    text = help_for(["KLBaselineLoss"])
    defaults = {
        "dataset": "none, it must be given",
        "scaleby": "2.5",
        "data_preprocessing_fn": "data_preprocessing.identity",
    }
    for argument, default in defaults.items():
        assert f"KLBaselineLoss.{argument}\n      default: {default}\n" in text


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("torch.optim.SGD", "--train_optimizer_kwargs.momentum"),
        ("AdamW", "--train_optimizer_kwargs.lr"),
        ("StepLR", "--lr_scheduler_kwargs.gamma"),
        ("optuna.samplers.TPESampler", "--study_kwargs.sampler_kwargs.n_startup_trials"),
        ("mine.Loss", "weight"),
    ],
)
def test_others(name: str, argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(
        "class Loss:\n"
        "    '''My loss.\n\n    Args:\n"
        "        weight (float): How much\n            it weighs.\n    '''\n"
        "    def __init__(self, model, tokenizer, weight, *args, **kwargs): ...\n"
    )
    text = help_for([name])
    assert f"  {argument}\n      default: " in text
    if name == "mine.Loss":
        assert text == (
            "  mine.Loss\n      My loss.\n\n  weight\n      default: none, it must be given\n"
            "      How much it weighs.\n"
        )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("epoch", "--epoch is not an argument. Did you mean --epochs?"),
        ("num_train_epochs", "--num_train_epochs is not an argument. Did you mean --epochs?"),
        ("nonsense", "--nonsense is not an argument."),
        ("loss_classes.KLBaselineLos", "Did you mean loss_classes.KLBaselineLoss?"),
        ("epochs.x", "--epochs.x is not an argument."),
    ],
)
def test_what_is_not_there(name: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        help_for([name])
