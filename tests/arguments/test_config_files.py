from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finetune_lm.arguments import (
    DELETE_FIELD,
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    ParsedArguments,
    config_dict,
    config_text,
    config_yaml,
    parse_arguments,
)
from finetune_lm.errors import UserError
from raw_texts import TEXTS

BASE = ["--model_name_or_path", "gpt2", "--test_file", "test.txt.gz"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse_with(*texts: str, argv: list[str] = BASE) -> ParsedArguments:
    names = []
    for number, text in enumerate(texts):
        names.append(f"{number}.yaml")
        Path(names[-1]).write_text(text, encoding="utf-8")
    return parse_arguments([*argv, "--config", *names])


def problems_of(*texts: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_with(*texts)
    return list(caught.value.problems)


def arguments(**model_kwargs: Any) -> tuple[Any, Any, Any]:
    data = DataTrainingArguments(test_file="test.txt.gz", seed=1)
    return ModelArguments("gpt2", model_kwargs=model_kwargs), data, OptimizationArguments()


def test_a_file_takes_the_same_names_and_values() -> None:
    parsed = parse_with(
        """\
# the values of a file go by the rules of the command line
epochs: 3
use_gpu: true
model_revision: 1234
patience: null
delta: 1e-3
train_optimizer_kwargs.lr: 1e-4
loss_reduction_fns:
  train: callable:sum
model_kwargs:
  number: 5
  text: '"5"'
  function: os.path.join
  list: [1, 1e-5, a, None, True]
  nested: {a.b: 1, 2: x}
  switch: on
  nothing: ~
  infinite: -.inf
  day: 2001-01-01
  rows: 'json:[{"a": 1.5}]'
"""
    )
    assert parsed.model is not None
    assert parsed.data is not None
    assert (parsed.data.epochs, parsed.data.patience, parsed.data.delta) == (3, None, 1e-3)
    assert parsed.data.train_optimizer_kwargs == {"lr": 1e-4, "weight_decay": 0}
    assert parsed.data.loss_reduction_fns["train"] is sum
    assert parsed.model.use_gpu is True
    assert parsed.model.model_revision == "1234"
    import os.path

    assert parsed.model.model_kwargs == {
        "number": 5,
        "text": "5",
        "function": os.path.join,
        "list": [1, 1e-5, "a", None, True],
        "nested": {"a.b": 1, "2": "x"},
        "switch": "on",
        "nothing": None,
        "infinite": -math.inf,
        "day": "2001-01-01",
        "rows": [{"a": 1.5}],
    }


def test_later_files_and_then_the_command_line_win() -> None:
    first = "epochs: 3\ntrain_optimizer_kwargs: {lr: 1, betas: [0.8, 0.9]}\nseed: 1"
    second = "epochs: 4\ntrain_optimizer_kwargs: {betas: __delete_field__, eps: 2}\nseed: 2"
    argv = [*BASE, "--seed", "3", "--train_optimizer_kwargs.weight_decay", "__delete_field__"]
    data = parse_with(first, second, argv=argv).data
    assert data is not None
    assert (data.epochs, data.seed) == (4, 3)
    assert data.train_optimizer_kwargs == {"lr": 1, "eps": 2}


def test_config_may_be_repeated(empty_directory: Path) -> None:
    (empty_directory / "a.yaml").write_text("epochs: 3\nseed: 1\n")
    (empty_directory / "b.yaml").write_text("epochs: 4\n")
    for argv in (["--config", "a.yaml", "--config", "b.yaml"], ["--config", "a.yaml", "b.yaml"]):
        data = parse_arguments([*argv, *BASE]).data
        assert data is not None
        assert (data.epochs, data.seed) == (4, 1)


def test_an_empty_file_gives_nothing() -> None:
    assert parse_with("", "# nothing\n").data is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("\nx\n", "0.yaml, line 2: a config file holds `name: value` lines, not a single value."),
        ("a: [1\nb: 2\n", "0.yaml, line 2: not valid YAML: expected ',' or ']', but got ':'."),
        ("epochs: 1\n\tx: 2\n", "0.yaml, line 2: not valid YAML: found character '\\t' that "
         "cannot start any token."),
        ("a: 1\n---\nb: 2\n", "0.yaml, line 2: not valid YAML: but found another document."),
        ("epochs: 1\nseed: 1\nepochs: 2\n",
         "0.yaml, line 3: epochs is given more than once, first in line 1."),
        ("model_kwargs:\n  a: 1\n  a: 2\n",
         "0.yaml, line 3: model_kwargs.a is given more than once, first in line 2."),
        ("model_kwargs.a: 1\nmodel_kwargs: {a: 1}\n",
         "0.yaml: model_kwargs and model_kwargs.a cannot both be given: one sets the whole and "
         "the other a part of it."),
        ("epochs: 1\nseed: !!python/name:os.system\n",
         "0.yaml, line 2: the tag !!python/name:os.system is not allowed; a config file holds only "
         "plain values. Write a class or function by its name, such as torch.optim.SGD."),
        ("seed: !x 1\n",
         "0.yaml, line 1: the tag !x is not allowed; a config file holds only "
         "plain values. Write a class or function by its name, such as torch.optim.SGD."),
        ("? [a]\n: 1\n", "0.yaml, line 1: a name has to be a plain word."),
        ("seed: 1\nepoch: 1\n", "0.yaml, line 2: --epoch is not an argument. Did you mean "
         "--epochs?"),
        ("seed: 1\nepochs: x\n", "0.yaml, line 2: epochs must be an integer but got 'x' (text)."),
        ("use_gpu: no\n", "0.yaml, line 1: use_gpu must be True or False but got 'no' (text)."),
        ("config: x.yaml\n",
         "0.yaml, line 1: config can be given only on the command line, and without a dot."),
        ("model_kwargs:\n  a: 1\n  f: os.path.joyn\n",
         "0.yaml, line 3: model_kwargs.f: 'os.path.joyn' cannot be imported: os.path has no "
         "'joyn'. Did you mean os.path.join? If the text itself is meant, put quotes around it: "
         "'\"os.path.joyn\"'."),
        ("a\x01: 1\n", "0.yaml, line 1: the character '\\x01' is not allowed in YAML."),
    ],
)  # fmt: skip
def test_mistakes_in_a_file_are_told_with_their_line(text: str, problem: str) -> None:
    assert problems_of(text) == [problem]


def test_files_that_cannot_be_read(empty_directory: Path) -> None:
    (empty_directory / "latin.yaml").write_bytes(b"seed: 1\ncache_dir: caf\xe9\n")
    with pytest.raises(UserError) as caught:
        parse_arguments([*BASE, "--config", "none.yaml", ".", "latin.yaml", "a\0b"])
    assert list(caught.value.problems) == [
        "none.yaml: the config file cannot be read: No such file or directory.",
        ".: the config file cannot be read: Is a directory.",
        "latin.yaml, line 2: this is not UTF-8 text.",
        "'a\\x00b': the config file cannot be read: embedded null byte.",
    ]


def test_a_token_in_a_broken_file_is_not_shown() -> None:
    assert "secret" not in problems_of("token: [hf_secret\nx: hf_secret: {\n")[0]
    assert "secret" not in problems_of("model_kwargs: {token: hf_secret}\nepochs: x\n")[0]


leaves = (
    TEXTS
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.sampled_from([sum, int, print, json, json.loads, json.JSONDecoder.decode])
)
keys = TEXTS.filter(lambda key: key not in ("token", "use_auth_token", "hub_token"))
values = st.recursive(
    leaves, lambda nested: st.lists(nested) | st.dictionaries(keys, nested), max_leaves=10
)


def canonical(value: Any) -> Any:
    """Return a form in which NaN equals itself, and 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    # A seed that was drawn is a number like any other once it is written.
    kind = next((kind for kind in (bool, int, float) if isinstance(value, kind)), None)
    return (kind, repr(value)) if kind else value


@given(values, TEXTS.filter(str.strip), st.lists(TEXTS))
def test_what_is_written_reads_back(value: Any, text: str, files: list[str]) -> None:
    model = ModelArguments("gpt2", model_kwargs={"x": value}, model_revision=text, cache_dir=text)
    data = DataTrainingArguments(
        test_file=["a", *files], loss_classes_kwargs={"train": {"OutputsDefaultLoss": {"y": value}}}
    )
    optimization = OptimizationArguments(study_kwargs={"sampler_kwargs": {"z": value}})
    Path("run.yaml").write_text(config_yaml(model, data, optimization), encoding="utf-8")
    parsed = parse_arguments(["--config", "run.yaml"])
    for written, read in zip((model, data, optimization), arguments_of(parsed), strict=True):
        if written is not optimization:
            assert canonical(read.effective()) == canonical(written.effective())
    # Classes of a study stay names until there is a study, so they are compared as written.
    assert canonical(config_dict(*arguments_of(parsed))) == canonical(
        config_dict(model, data, optimization)
    )


def arguments_of(parsed: ParsedArguments) -> tuple[Any, Any, Any]:
    return parsed.model, parsed.data, parsed.optimization


def test_objects_of_torch_read_back() -> None:
    import torch

    objects = [torch.optim.SGD, torch.sum, torch.float32, torch.nn.CrossEntropyLoss, sum]
    written = config_yaml(*arguments(x=objects))
    assert "0x" not in written
    parsed = parse_with(written, argv=[])
    assert parsed.model is not None
    assert all(a is b for a, b in zip(parsed.model.model_kwargs["x"], objects, strict=True))


def test_defaults_that_were_deleted_stay_deleted() -> None:
    data = DataTrainingArguments(
        test_file="x", train_optimizer_kwargs={"weight_decay": DELETE_FIELD}
    )
    optimization = OptimizationArguments(params={"lr": DELETE_FIELD, "delta": {"values": [1, 2]}})
    written = config_dict(ModelArguments("gpt2"), data, optimization)
    assert written["train_optimizer_kwargs"] == {"lr": 2e-6, "weight_decay": "__delete_field__"}
    parsed = parse_with(config_yaml(ModelArguments("gpt2"), data, optimization), argv=[])
    assert parsed.data is not None
    assert parsed.optimization is not None
    assert parsed.data.train_optimizer_kwargs == {"lr": 2e-6}
    assert parsed.optimization.params == {"delta": {"values": [1, 2]}}


def test_the_values_that_are_used_are_written() -> None:
    model, data, optimization = arguments()
    data.lr = 0.5
    data.train_OutputsDefaultLoss_x = 7
    written = config_dict(model, data, optimization)
    assert written["train_optimizer_kwargs"]["lr"] == 0.5
    assert written["loss_classes_kwargs"]["train"] == {"OutputsDefaultLoss": {"x": 7}}
    assert written["loss_classes"]["train"] == ["loss_classes.OutputsDefaultLoss"]
    assert written["study_kwargs"]["sampler"] == "optuna.samplers.GPSampler"
    assert yaml.safe_load(config_yaml(model, data, optimization)) == written


def test_what_follows_the_models_name_still_does_when_it_is_changed() -> None:
    written = config_yaml(*arguments())
    parsed = parse_with(written, argv=["--model_name_or_path", "bert"])
    assert parsed.model is not None
    assert parsed.model.tokenizer_name == "bert"


def test_no_token_is_written() -> None:
    model = ModelArguments(
        "gpt2",
        token="hf_secret",
        model_kwargs={"a": [{"token": "hf_secret"}], "hub_token": "hf_secret"},
    )
    nested = {"train": {"OutputsDefaultLoss": {"model_kwargs": {"use_auth_token": "hf_secret"}}}}
    data = DataTrainingArguments(test_file="x", loss_classes_kwargs=nested)
    optimization = OptimizationArguments()
    for written in (config_yaml, config_text, config_dict):
        text = str(written(model, data, optimization))
        assert "secret" not in text
        for name in ("detokenize", "tokenizer", "ignore_pad_for_token_loss"):
            text = text.replace(name, "")
        assert "token" not in text


def test_the_text_for_people() -> None:
    model, data, optimization = arguments(dtype="float32", text="a\nb")
    data.loss_reduction_fns["train"] = lambda *losses: losses[0]
    text = config_text(model, data, optimization)
    lines = text.splitlines()
    assert lines[0] == "ModelArguments"
    assert any(line.split() == ["tokenizer_name:", "gpt2"] for line in lines)
    assert "    dtype: float32" in lines
    assert "    text:  'a\\nb'" in lines
    assert "    lr:           2e-06" in lines
    assert "    train:      <function <lambda>, given in Python>" in lines
    assert "    validation: torch.sum" in lines
    assert "    train:      [loss_classes.OutputsDefaultLoss]" in lines
    assert " at 0x" not in text
    assert lines[lines.index("DataTrainingArguments") - 1] == ""


def test_the_text_for_people_is_written_whatever_it_holds() -> None:
    assert "<object object, given in Python>" in config_text(*arguments(x=object()))
    assert "<object object, given in Python>" in config_yaml(*arguments(x=[object()]))
