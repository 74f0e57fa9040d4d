"""Each rule of the command line is a row: tokens, the argument they reach, its value."""

from __future__ import annotations

import builtins
import json
import os.path
from pathlib import Path
from typing import Any

import pytest

from finetune_lm.arguments import ParsedArguments, parse_arguments
from finetune_lm.arguments.references import Reference
from finetune_lm.cli import main
from finetune_lm.errors import UserError

BASE = ["--model_name_or_path", "gpt2", "--test_file", "test.txt.gz"]
MODEL = ["--model_name_or_path", "gpt2"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(*argv: str, base: list[str] = BASE) -> ParsedArguments:
    return parse_arguments([*base, *argv])


def problems_of(*argv: str, base: list[str] = BASE) -> tuple[str, ...]:
    with pytest.raises(UserError) as caught:
        parse(*argv, base=base)
    return caught.value.problems


def value_at(parsed: ParsedArguments, name: str) -> Any:
    first, *rest = name.split(".")
    groups = (parsed.model, parsed.data, parsed.optimization)
    value = next(getattr(group, first) for group in groups if hasattr(group, first))
    for key in rest:
        value = value[key]
    return value


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        # a name and its value
        ("--model_revision dev", "model_revision", "dev"),
        ("--model_revision=dev", "model_revision", "dev"),
        ("--model_kwargs.x=--y", "model_kwargs.x", "--y"),
        # numbers, and quotes around them
        ("--epochs 3", "epochs", 3),
        ("--delta 1e-3", "delta", 1e-3),
        ("--delta 1", "delta", 1.0),
        ("--model_kwargs.n -1", "model_kwargs.n", -1),
        ("--model_kwargs.n -1e-3", "model_kwargs.n", -1e-3),
        ("--model_kwargs.n '5'", "model_kwargs.n", "5"),
        ('--model_kwargs.n "5"', "model_kwargs.n", "5"),
        # a dot in a name
        ("--model_kwargs.a.b.c 1", "model_kwargs", {"a": {"b": {"c": 1}}}),
        ("--model_kwargs.a.b 1 --model_kwargs.a.c 2", "model_kwargs", {"a": {"b": 1, "c": 2}}),
        # a dot in a value
        ("--model_kwargs.f os.path.join", "model_kwargs.f", os.path.join),
        ("--model_kwargs.f import:json", "model_kwargs.f", json),
        ("--model_kwargs.f 'os.path'", "model_kwargs.f", "os.path"),
        ("--model_kwargs.f \"'x.y'\"", "model_kwargs.f", "'x.y'"),
        ("--model_kwargs.f a/b.c", "model_kwargs.f", "a/b.c"),
        # builtins
        ("--loss_reduction_fns.train callable:sum", "loss_reduction_fns.train", builtins.sum),
        # words
        ("--use_fast_tokenizer False", "use_fast_tokenizer", False),
        ("--use_gpu True", "use_gpu", True),
        ("--patience None", "patience", None),
        ("--model_kwargs.x None", "model_kwargs.x", None),
        # a name without a value
        ("--use_gpu", "use_gpu", True),
        ("--use_gpu --epochs 3", "use_gpu", True),
        ("--model_kwargs.x --epochs 3", "model_kwargs.x", True),
        # defaults stay, and can be deleted
        (
            "--train_optimizer_kwargs.lr 1e-4",
            "train_optimizer_kwargs",
            {"lr": 1e-4, "weight_decay": 0},
        ),
        (
            "--train_optimizer_kwargs.weight_decay __delete_field__",
            "train_optimizer_kwargs",
            {"lr": 2e-6},
        ),
        ("--train_optimizer_kwargs __delete_field__", "train_optimizer_kwargs", {}),
        ("--train_optimizer_kwargs {}", "train_optimizer_kwargs", {"lr": 2e-6, "weight_decay": 0}),
        (
            '--train_optimizer_kwargs json:{"lr":1}',
            "train_optimizer_kwargs",
            {"lr": 1, "weight_decay": 0},
        ),
        (
            "--study_kwargs.sampler_kwargs.deterministic_objective __delete_field__",
            "study_kwargs.sampler_kwargs",
            {},
        ),
        ("--study_kwargs.pruner_kwargs.patience 5", "study_kwargs.pruner_kwargs.min_delta", 0.0),
        # lists
        ("--params.lr.values 1e-5 1e-4 --use_gpu", "params.lr.values", [1e-5, 1e-4]),
        ("--params.lr.values 1e-5 1e-4 --use_gpu", "params.lr.suggest_kwargs", {}),
        ("--use_gpu", "test_file", ["test.txt.gz"]),
        ("--model_kwargs.x a 1 None", "model_kwargs.x", ["a", 1, None]),
        ("--model_modifier_fns callable:print", "model_modifier_fns", [print]),
        ("--model_modifier_fns []", "model_modifier_fns", []),
        ("--loss_classes.train callable:print", "loss_classes.train", [print]),
        ("--loss_classes.train callable:print callable:sum", "loss_classes.train", [print, sum]),
        # json
        ('--model_kwargs.x json:[{"a":1.5},{}]', "model_kwargs.x", [{"a": 1.5}, {}]),
        ("--model_kwargs.x json:0.5", "model_kwargs.x", 0.5),
        # declared as text
        ("--model_revision 1234", "model_revision", "1234"),
        ("--model_revision None", "model_revision", "None"),
        ("--model_revision True", "model_revision", "True"),
        ("--output_dir out.v2", "output_dir", "out.v2"),
        ("--output_dir None", "output_dir", None),
        ("--cache_dir 'None'", "cache_dir", "None"),
        ("--token True", "token", True),
        ("--token hf.x", "token", "hf.x"),
        (
            "--data_preprocessing_fn_strategy.train per_batch",
            "data_preprocessing_fn_strategy",
            {"train": "per_batch", "validation": "once", "test": "once", "probe": "once"},
        ),
        # what follows from other arguments
        ("--model_revision x", "tokenizer_name", "gpt2"),
        ("--tokenizer_name bert", "tokenizer_name", "bert"),
        # classes of a study are not imported before there is one
        ("--study_kwargs.sampler not.there", "study_kwargs.sampler", Reference("not.there")),
    ],
)  # fmt: skip
def test_rules(argv: str, name: str, value: Any) -> None:
    found = value_at(parse(*argv.split(" ")), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("argv", "with_equals"),
    [
        (f"--{name} {value}", f"--{name}={value}")
        for name, value in [
            *(("epochs", "3"), ("delta", "1e-3"), ("use_gpu", "True"), ("patience", "None")),
            *(
                ("model_kwargs.x", text)
                for text in ("'5'", "-1", "a=b", "os.path.join", "{}", "[]")
            ),
            *(("model_kwargs.x", text) for text in ('json:{"a":[1,2]}', "import:json", "x y")),
            ("model_kwargs.a.b.c", "1"),
            ("train_optimizer_kwargs.weight_decay", "__delete_field__"),
            ("loss_reduction_fns.train", "callable:sum"),
            ("params.lr.values", "1e-5 1e-4"),
            ("test_file", "a.txt b.txt"),
            ("output_dir", "out.v2"),
            ("model_revision", "1234"),
        ]
    ],
)
def test_an_equals_sign_does_what_a_space_does(argv: str, with_equals: str) -> None:
    model = ["--model_name_or_path=gpt2", *([] if "test_file" in argv else ["--test_file=t.txt"])]
    name = argv.split(" ")[0].removeprefix("--").removesuffix(".weight_decay")
    spaced, equals = (
        value_at(parse(*each.split(" "), base=model), name) for each in (argv, with_equals)
    )
    assert equals == spaced
    assert type(equals) is type(spaced)


def test_options_take_an_equals_sign_too(empty_directory: Path) -> None:
    Path("a.yaml").write_text("epochs: 3\n")
    parsed = parse("--config=a.yaml", "--debug=True", "--preview=2")
    assert parsed.data is not None
    assert (parsed.data.epochs, parsed.debug, parsed.preview) == (3, True, 2)
    assert "--epochs" in str(parse_arguments(["--help=epochs"]).help)


def test_text_files_are_not_imported() -> None:
    data = parse(
        *("--train_file", "a.v2.txt", "--validation_file", "'c.txt'"),
        *("--test_file", "d.v2.txt", "e.txt"),
        base=MODEL,
    ).data
    assert data is not None
    assert (data.train_file, data.validation_file) == ("a.v2.txt", "c.txt")
    assert data.test_file == ["d.v2.txt", "e.txt"]


def test_the_defaults() -> None:
    parsed = parse()
    assert parsed.data is not None
    assert parsed.data.patience is None
    assert parsed.data.lr == 2e-6  # type: ignore[attr-defined]
    assert 0 <= parsed.data.seed < 2**32
    assert not parsed.print_config
    assert not parsed.debug


@pytest.mark.parametrize(
    ("argv", "problems"),
    [
        ("--lr 1", ["--lr is not an argument. Did you mean --train_optimizer_kwargs.lr?"]),
        ("--epoch 1", ["--epoch is not an argument. Did you mean --epochs?"]),
        (
            "--train-file x",
            ["--train-file is not an argument. Did you mean --train_file?"],
        ),
        (
            "--train_optimiser_kwargs.lr 1",
            [
                "--train_optimiser_kwargs.lr is not an argument. "
                "Did you mean --train_optimizer_kwargs.lr?"
            ],
        ),
        (
            "--batch_size 1",
            ["--batch_size is not an argument. Did you mean --per_device_train_batch_size?"],
        ),
        ("--zzz 1", ["--zzz is not an argument."]),
        ("--epochs 1 --epochs 2", ["epochs is given more than once."]),
        ("--epochs=1 --epochs 1", ["epochs is given more than once."]),
        (
            "--params.a 1 --params.a.b 2",
            [
                "params.a and params.a.b cannot both be given: one sets the whole and the other a "
                "part of it.",
                "params.a must be a dictionary but got 1 (an integer).",
            ],
        ),
        (
            "--params {} --params.a.values 1",
            [
                "params and params.a.values cannot both be given: one sets the whole and the "
                "other a part of it."
            ],
        ),
        ("--params..a 1", ["params..a has a dot with no name on one side of it."]),
        ("--patience x", ["patience must be an integer or None but got 'x' (text)."]),
        ("--patience 1.5", ["patience must be an integer or None but got 1.5 (a number)."]),
        ("--patience", ["patience must be an integer or None but got True (a truth value)."]),
        ("--epochs 1 2", ["epochs must be an integer but got [1, 2] (a list)."]),
        ("--epochs.x 1", ["epochs must be an integer but got {'x': 1} (a dictionary)."]),
        ("--use_gpu true", ["use_gpu must be True or False but got 'true' (text)."]),
        ("--use_gpu=", ["use_gpu must be True or False but got '' (text)."]),
        ("--use_gpu 1", ["use_gpu must be True or False but got 1 (an integer)."]),
        ("--delta True", ["delta must be a number but got True (a truth value)."]),
        ("--cache_dir", ["cache_dir must be text or None but got True (a truth value)."]),
        (
            "--train_optimizer AdamW",
            [
                "train_optimizer must be a class or function with its module, such as torch.sum "
                "but got 'AdamW' (text). Did you mean torch.optim.AdamW?"
            ],
        ),
        (
            "--train_optimizer_kwargs 3",
            ["train_optimizer_kwargs must be a dictionary but got 3 (an integer)."],
        ),
        (
            "--epochs __delete_field__",
            [
                "epochs is not a dictionary, so nothing can be deleted from it; leave it out to "
                "have its default."
            ],
        ),
        (
            "--train_optimizer_kwargs.l __delete_field__",
            [
                "train_optimizer_kwargs.l cannot be deleted because it is not there. "
                "Did you mean train_optimizer_kwargs.lr?"
            ],
        ),
        (
            "--model_kwargs.x a __delete_field__",
            ["model_kwargs.x cannot have __delete_field__ inside a list."],
        ),
        (
            "--data_preprocessing_fn.tran callable:sum",
            [
                "data_preprocessing_fn.tran does not exist; the keys of data_preprocessing_fn are "
                "train, validation, test, probe. Did you mean data_preprocessing_fn.train?"
            ],
        ),
        (
            "--loss_classes.validation __delete_field__",
            ["loss_classes.validation is needed and cannot be deleted."],
        ),
        (
            "--model_kwargs.f os.path.joyn",
            [
                "model_kwargs.f: 'os.path.joyn' cannot be imported: os.path has no 'joyn'. Did you "
                "mean os.path.join? If the text itself is meant, put quotes around it: "
                "'\"os.path.joyn\"'."
            ],
        ),
        ("--config", ["config must be followed by the name of a file."]),
        ("--print_config yes", ["print_config takes no value."]),
        ("--debug --debug", ["debug is given more than once."]),
        (
            "--train_optimizer_kwargs.seed 3",
            [
                "train_optimizer_kwargs.seed cannot be set because seed is the name of another "
                "argument."
            ],
        ),
        (
            "--do_optimize --study_kwargs.sampler optuna.samplers.GPSamplr",
            [
                "'optuna.samplers.GPSamplr' cannot be imported: optuna.samplers has no "
                "'GPSamplr'. Did you mean optuna.samplers.GPSampler? If the text itself is meant, "
                "put quotes around it: '\"optuna.samplers.GPSamplr\"'."
            ],
        ),
    ],
)
def test_mistakes_are_told(argv: str, problems: list[str]) -> None:
    assert list(problems_of(*argv.split(" "))) == problems


def test_a_value_before_any_name() -> None:
    assert problems_of(base=["gpt2", *BASE]) == (
        "'gpt2' has no name before it; every value follows its name, as in "
        "--model_name_or_path gpt2.",
    )


def test_all_mistakes_are_told_together() -> None:
    argv = ["--lr", "1", "--epochs", "x", "--min_epochs", "5", "--patience", "-1"]
    argv += ["--model_task", "ml", "--model_kwargs.x", "not_there_at_all.y", "--do_optimise"]
    problems = problems_of(*argv, base=[])
    expected = [
        "--lr is not",
        "--do_optimise is not",
        "model_kwargs.x: ",
        "model_name_or_path must be given.",
        "model_task must be lm, mlm, mntp, seq2seq or lm+mlm but got 'ml'.",
        "epochs must be an integer but got 'x' (text).",
        "train_file and validation_file, or test_file",
        "patience cannot be negative but got -1.",
    ]
    assert len(problems) == len(expected), problems
    for start in expected:
        assert sum(problem.startswith(start) for problem in problems) == 1


def test_a_reported_value_is_not_reported_again() -> None:
    argv = ("--train_file", "--validation_file", "a.txt", "--epochs", "x", "--min_epochs", "300")
    problems = problems_of(*argv, base=MODEL)
    assert [problem.split()[0] for problem in problems] == ["train_file", "epochs"]


def test_help_and_version_need_nothing_else() -> None:
    assert "--epochs" in str(parse_arguments(["--help"]).help)
    assert "--epochs" in str(parse_arguments(["-h"]).help)
    assert parse_arguments(["--version"]).version
    assert parse(*("--print_config", "--debug")).print_config
    assert parse("--debug").debug


@pytest.mark.parametrize(
    "argv",
    [
        ["--token", "hf_secret", "x"],
        ["--token", "hf_secret", "--token", "hf_secret"],
        ["--tokn", "hf_secret"],
        ["--token.x", "hf_secret"],
        ["--model_kwargs.token", "hf_secret.x", "--epochs", "x"],
        ["--model_kwargs", 'json:{"token": "hf_secret", }'],
        ["--epochs", 'json:{"token": "hf_secret"}'],
        ["--epochs", 'json:[{"token": "hf_secret"}]'],
    ],
)
def test_no_mistake_shows_the_token(argv: list[str]) -> None:
    assert "secret" not in "\n".join(problems_of(*argv))


def test_nested_tokens_are_text() -> None:
    parsed = parse("--model_kwargs.token", "hf.x", "--config_kwargs.use_auth_token", "True")
    assert value_at(parsed, "model_kwargs.token") == "hf.x"
    assert value_at(parsed, "config_kwargs.use_auth_token") is True


def test_a_value_that_cannot_be_read_does_not_hide_a_wrong_key_beside_it() -> None:
    with pytest.raises(UserError) as caught:
        parse_arguments(
            [
                *("--model_name_or_path", "m", "--test_file", "t.txt"),
                *("--loss_classes.train", "loss_classes.Nothing", "--loss_classes.trian", "x"),
            ]
        )
    first, second = caught.value.problems
    assert "'loss_classes.Nothing' cannot be imported" in first
    assert "loss_classes.trian does not exist" in second


@pytest.mark.parametrize("texts", [["0"], ["-1"], ["x"], ["1", "2"], []])
def test_a_preview_needs_a_number(texts, capsys):
    argv = ["--model_name_or_path", "x", "--test_file", "x.txt.gz", "--preview", *texts]
    assert main(argv) == 2
    assert "preview must be a number of examples, at least 1, but got" in capsys.readouterr().err
