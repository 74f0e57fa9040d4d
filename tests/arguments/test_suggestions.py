"""What is said to somebody who knows another program, or whose keyboard or editor helped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finetune_lm.arguments import parse_arguments
from finetune_lm.arguments.command_line import argument_names
from finetune_lm.arguments.help import help_for
from finetune_lm.arguments.references import resolve_name
from finetune_lm.arguments.suggestions import dotted_name, known_elsewhere, names_elsewhere
from finetune_lm.errors import UserError

MODEL = ["--model_name_or_path", "gpt2"]
BASE = [*MODEL, "--test_file", "test.txt.gz"]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems_of(*argv: str, base: list[str] = BASE) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse_arguments([*base, *argv])
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("num_train_epochs", "epochs"),
        ("num-train-epochs", "epochs"),
        ("learning_rate", "train_optimizer_kwargs.lr"),
        ("batch_size", "per_device_train_batch_size"),
        ("per_device_eval_batch_size", "per_device_validation_batch_size"),
        ("model", "model_name_or_path"),
        ("pretrained", "model_name_or_path"),
        ("tokenizer", "tokenizer_name"),
        ("fp16", "precision fp16"),
        ("bf16", "precision bf16"),
        ("warmup_steps", "lr_scheduler_kwargs.num_warmup_steps"),
        ("warmup_ratio", "lr_scheduler_kwargs.warmup_ratio"),
        ("weight_decay", "train_optimizer_kwargs.weight_decay"),
        ("adam_epsilon", "train_optimizer_kwargs.eps"),
        ("optim", "train_optimizer"),
        ("lr_scheduler_type", "lr_scheduler"),
        ("output", "output_dir"),
        ("eval_file", "validation_file"),
        ("save_steps", "checkpoint_every"),
        ("resume_from_checkpoint", "resume"),
        ("max_seq_length", "max_length"),
        ("mlm_probability", "data_preprocessing_fn_kwargs.train.mask_prop"),
        ("early_stopping_patience", "patience"),
        ("tasks", "test_file"),
        ("device", "use_gpu"),
    ],
)
def test_a_name_of_another_program_leads_to_ours(name: str, meant: str) -> None:
    assert problems_of(f"--{name}", "1") == [
        f"--{name} is not an argument. Did you mean --{meant}?"
    ]
    with pytest.raises(UserError, match=rf"Did you mean --{re.escape(meant)}\?$"):
        help_for([name])


@pytest.mark.parametrize("name", ["logging_steps", "eval_strategy", "max_steps", "do_train"])
def test_what_has_no_counterpart_is_explained(name: str) -> None:
    [problem] = problems_of(f"--{name}", "1")
    assert problem == f"--{name} is not an argument. {known_elsewhere(name)}"


def test_every_hint_leads_to_an_argument() -> None:
    ours = set(argument_names())
    for name in names_elsewhere():
        assert name not in ours
        for found in re.findall(r"--([a-z_.]+[a-z])", known_elsewhere(name) or ""):
            assert help_for([found])


def test_names_of_transformers_are_known() -> None:
    """Of its trainer's arguments, those that have to do with training and its results."""
    import dataclasses

    import transformers

    ours = {name.rpartition(".")[2] for name in argument_names()}
    unknown = {each.name for each in dataclasses.fields(transformers.TrainingArguments)}
    unknown -= {*names_elsewhere(), *ours}
    elsewhere = (
        "ddp|fsdp|hub|dataloader|deepspeed|liger|use_liger|log_|trackio|include_|push_|accelerator|"
        "parallelism|skip_memory|disable_tqdm|report_to|eval_|batch_eval|torch_empty|auto_find|"
        "remove_unused|length_|label_|local_rank|project|prediction_loss|save_on|enable_jit|"
        "greater_is|ignore_data|restore_|full_determ|neftune|optim_target|average_tokens|use_cache|"
        "train_sampling|logging_nan|gradient_checkpointing_kwargs|activation_checkpointing_kwargs"
    )
    assert not {name for name in unknown if not re.match(elsewhere, name)}


@pytest.mark.parametrize("dash", ["-", *"\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\uff0d"])
@pytest.mark.parametrize("rest", ["epochs", "epochs=3", "train_optimizer_kwargs.lr"])
def test_a_name_behind_another_dash_is_told(dash: str, rest: str) -> None:
    [problem] = problems_of(f"{dash}{rest}", *([] if "=" in rest else ["3"]))
    name = rest.partition("=")[0]
    assert problem.startswith(f"{dash}{name} must begin with two hyphens but begins with ")
    assert problem.endswith(f": --{name}.")
    if dash != "-":
        assert f"(U+{ord(dash):04X})" in problem


def test_two_dashes_that_an_editor_made() -> None:
    assert problems_of("\u2013-epoch", "3") == [
        "\u2013-epoch must begin with two hyphens but begins with an en dash (U+2013): --epoch.",
        "--epoch is not an argument. Did you mean --epochs?",
    ]


@pytest.mark.parametrize(
    "value", ["-1", "-1e-3", "-inf", "-ed", "\u2013", "\u2014like", "-out", "--"]
)
def test_a_dash_before_what_is_no_name_stays_a_value(value: str) -> None:
    parsed = parse_arguments([*BASE, "--model_kwargs.x", "a", value])
    assert parsed.model is not None
    assert len(parsed.model.model_kwargs["x"]) == 2


@pytest.mark.parametrize("dash", ["-", "\u2014", "\u2013-"])
def test_a_token_behind_another_dash_is_not_shown(dash: str, capsys) -> None:  # type: ignore[no-untyped-def]
    from finetune_lm.cli import main

    assert main([*BASE, f"{dash}token", "hf_secret", "--epochs", "hf_secret"]) == 2
    assert "secret" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "name", "meant"),
    [
        ("train_optimizer", "AdamW", "torch.optim.AdamW"),
        ("train_optimizer", "sgd", "torch.optim.SGD"),
        ("lr_scheduler", "StepLR", "torch.optim.lr_scheduler.StepLR"),
        ("loss_classes.train", "KLBaselineLoss", "loss_classes.KLBaselineLoss"),
        ("loss_reduction_fns.train", "mean", "torch.mean"),
        ("data_preprocessing_fn.test", "mask_words", "data_preprocessing.mask_words"),
        ("model_modifier_fns", "add_new_tokens", "model_modifiers.add_new_tokens"),
        ("model_callbacks.end_epoch", "ModelCallback", "model_modifiers.ModelCallback"),
        (
            "model_pre_train_step_callbacks",
            "unfreezewordtokenscallback",
            "model_modifiers.UnfreezeWordTokensCallback",
        ),
    ],
)
def test_a_class_without_its_module(argument: str, name: str, meant: str) -> None:
    [problem] = problems_of(f"--{argument}", name)
    assert problem.endswith(f"but got '{name}' (text). Did you mean {meant}?") or (
        argument == "lr_scheduler" and problem.endswith(f"but got '{name}'. Did you mean {meant}?")
    )


def test_everything_that_users_can_name_is_found_by_its_last_part() -> None:
    import finetune_lm.data_preprocessing as data_preprocessing
    import finetune_lm.loss_classes as loss_classes
    import finetune_lm.model_modifiers as model_modifiers

    for package in (loss_classes, data_preprocessing, model_modifiers):
        for name in package.__all__:
            if callable(getattr(package, name)):
                dotted = f"{package.__name__.rpartition('.')[2]}.{name}"
                assert dotted_name(name) == dotted_name(name.lower()) == dotted
                assert resolve_name(dotted) is getattr(package, name)
    assert dotted_name("nothing_of_the_kind") is None
    assert dotted_name("") is None


@pytest.mark.parametrize("name", ["tiny_lm", "Tiny-LM", "tinylm", "tiny_mlm", "tiny_seq2seq"])
def test_a_builtin_model_spelt_otherwise(name: str) -> None:
    meant = {"tl": "tiny-lm", "tm": "tiny-mlm", "ts": "tiny-seq2seq"}[
        "t" + re.sub("[-_]", "", name.lower())[4]
    ]
    problems = problems_of("--test_file", "x", "--model_name_or_path", name, base=[])
    assert problems == [
        f"model_name_or_path must be the name of a model or a directory but there is no {name}. "
        f"Did you mean {meant}?"
    ]
    Path(name).mkdir()  # what is there is meant
    parse_arguments(["--test_file", "x", "--model_name_or_path", name])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--delta 0,001", "delta must be a number but got '0,001' (text; the decimal sign is a "
         "point: 0.001)."),
        ("--epochs 20,000", "epochs must be an integer but got '20,000' (text; a number has no "
         "commas: 20000)."),
        ("--train_optimizer_kwargs.lr 0,001", "train_optimizer_kwargs.lr must be a number but got "
         "'0,001' (text; the decimal sign is a point: 0.001)."),
        ("--train_optimizer_kwargs.lr 1,5e-4", "train_optimizer_kwargs.lr must be a number but got "
         "'1,5e-4' (text; the decimal sign is a point: 1.5e-4)."),
        ("--train_optimizer_kwargs.eps ,1", "train_optimizer_kwargs.eps must be a number but got "
         "',1' (text; the decimal sign is a point: .1)."),
        ("--data_preprocessing_fn.test data_preprocessing.mask_random_tokens "
         "--data_preprocessing_fn_kwargs.test.mask_prop 0,15",
         "data_preprocessing_fn_kwargs.test.mask_prop must be a number but got '0,15' (text; the "
         "decimal sign is a point: 0.15)."),
        ("--lr_scheduler linear --lr_scheduler_kwargs.num_warmup_steps 1,000",
         "lr_scheduler_kwargs.num_warmup_steps must be an integer, at least 0, but got '1,000' "
         "(text; a number has no commas: 1000)."),
        ("--train_file t.txt --validation_file t.txt --loss_classes.train "
         "loss_classes.KLBaselineLoss --loss_classes_kwargs.train.KLBaselineLoss.dataset ./t.txt "
         "--loss_classes_kwargs.train.KLBaselineLoss.scaleby 0,5",
         "loss_classes_kwargs.train.KLBaselineLoss.scaleby must be a number but got '0,5' (text; "
         "the decimal sign is a point: 0.5)."),
    ],
)  # fmt: skip
def test_a_comma_in_a_number_is_told(argv: str, told: str) -> None:
    assert problems_of(*argv.split(" ")) == [told]


@pytest.mark.parametrize("value", ["1,2", "0,001", "1,000"])
def test_a_comma_where_text_belongs_is_none_of_our_business(value: str) -> None:
    parsed = parse_arguments([*BASE, "--model_kwargs.x", value, "--output_dir", value])
    assert parsed.model is not None
    assert parsed.model.model_kwargs["x"] == value
