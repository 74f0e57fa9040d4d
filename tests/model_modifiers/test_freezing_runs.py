"""Freezing from the command line: the saved model against the one it was made from."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
import transformers

import finetune_lm
from families import TEXTS, family
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.cli import main
from finetune_lm.model_modifiers import PartiallyFrozenModelCallback
from helpers import save_family, write_lines

PREPROCESSING = {"mlm": "mask_random_tokens", "seq2seq": "mask_random_spans", "lm": "identity"}
OPTIMIZERS = {
    "AdamW": [
        "--train_optimizer_kwargs.lr",
        "1e-2",
        "--train_optimizer_kwargs.weight_decay",
        "0.1",
    ],
    "SGD": [
        *("--train_optimizer", "torch.optim.SGD", "--train_optimizer_kwargs.lr", "1e-1"),
        *("--train_optimizer_kwargs.momentum", "0.9", "--train_optimizer_kwargs.nesterov"),
        *("--train_optimizer_kwargs.weight_decay", "0.1"),
    ],
    "Adafactor": [
        *("--train_optimizer", "torch.optim.Adafactor", "--train_optimizer_kwargs.lr", "1e-2"),
        *("--train_optimizer_kwargs.weight_decay", "0.1"),
    ],
}
STEP = "model_pre_train_step_callbacks"


@pytest.fixture
def crined(tmp_path):
    """Models that have the word `crined` as a token of its own, added as users add it."""

    def make(name):
        fam = family(name)
        tokenizer = copy.deepcopy(fam.tokenizer)
        tokenizer.add_tokens(["crined"])
        fam.model.resize_token_embeddings(len(tokenizer))
        return save_family(fam._replace(tokenizer=tokenizer), tmp_path / name)

    return make


def run(directory, name, *argv, optimizer="AdamW"):
    """Train from the command line on sentences with `crined`.

    Returns:
        The parameters before and after by name, and the id of `crined`.
    """
    lines = [text.replace("the", "crined the") for text in TEXTS]
    train = write_lines(Path("teach.txt.gz"), lines)
    function = f"data_preprocessing.{PREPROCESSING[family(name).task]}"
    status = main(
        [
            *("--model_name_or_path", directory, "--output_dir", "out", "--seed", "2"),
            *("--train_file", train, "--validation_file", train, "--epochs", "4"),
            *("--per_device_train_batch_size", "2", *OPTIMIZERS[optimizer]),
            *("--data_preprocessing_fn.train", function),
            *("--data_preprocessing_fn.validation", function),
            *argv,
        ]
    )
    assert status == 0
    auto = getattr(transformers, type_of(name))
    before, after = (auto.from_pretrained(place) for place in (directory, "out/model"))
    token = transformers.AutoTokenizer.from_pretrained("out/tokenizer").get_vocab()["crined"]
    assert finetune_lm.load_metrics("out")["epoch"].max() == 3
    return dict(before.named_parameters()), dict(after.named_parameters()), token, after


def type_of(name):
    return {
        "lm": "AutoModelForCausalLM", "mlm": "AutoModelForMaskedLM",
        "seq2seq": "AutoModelForSeq2SeqLM",
    }[family(name).task]  # fmt: skip


FAMILIES = ["gpt2", "llama", "bert", "t5", "roberta"]


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_rows_of_some_words_change(crined, name):
    callback = "UnfreezeWordTokensCallback"
    before, after, token, model = run(
        crined(name),
        name,
        *(f"--{STEP}", f"model_modifiers.{callback}"),
        *(f"--{STEP}_kwargs.{callback}.words_to_unfreeze", "crined", "water"),
    )
    embeddings = model.get_input_embeddings().weight
    for parameter_name, parameter in after.items():
        rows = (parameter != before[parameter_name]).reshape(len(parameter), -1).any(dim=1)
        if parameter is embeddings:
            assert token in rows.nonzero()
            assert rows.sum() == 2
        else:
            assert not rows.any(), parameter_name


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_but_the_rows_of_some_words_change(crined, name, optimizer):
    callback = "FreezeWordTokensCallback"
    before, after, token, model = run(
        crined(name),
        name,
        *("--model_callbacks.pre_train_step", f"model_modifiers.{callback}"),
        *(f"--model_callbacks_kwargs.pre_train_step.{callback}.words_to_freeze", "crined"),
        optimizer=optimizer,
    )
    embeddings = model.get_input_embeddings().weight
    for parameter_name, parameter in after.items():
        changed = parameter != before[parameter_name]
        assert changed.any(), parameter_name
        if parameter is embeddings:
            still = (~changed.any(dim=1)).nonzero().flatten().tolist()
            assert token in still
            # Adafactor leaves alone what has never had a gradient.
            assert still == [token] or optimizer == "Adafactor"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_parts_by_name(crined, name):
    callback = "PartiallyFrozenModelCallback"
    embeddings = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}[name]
    before, after, _, _ = run(
        crined(name),
        name,
        *(f"--{STEP}", f"model_modifiers.{callback}"),
        *(f"--{STEP}_kwargs.{callback}.unfrozen_params",),
        *(f"{embeddings}[(3,5)]", f"{embeddings}[0:2, -1]", "*.0.*attn*.weight"),
        optimizer="SGD",
    )
    for parameter_name, parameter in after.items():
        changed = parameter != before[parameter_name]
        if parameter_name == embeddings:
            expected = torch.zeros_like(changed)
            expected[[3, 5]] = True
            expected[0:2, -1] = True
            assert torch.equal(changed & ~expected, torch.zeros_like(changed))
            assert changed[[3, 5]].all()
        else:
            is_trained = bool(re.fullmatch(r".*\.0\..*attn.*\.weight", parameter_name))
            assert bool(changed.any()) == is_trained, parameter_name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            [
                *(f"--{STEP}", "model_modifiers.UnfreezeWordTokensCallback"),
                *(f"--{STEP}_kwargs.UnfreezeWordTokensCallback.words_to_unfreeze", "flomped"),
            ],
            "words_to_unfreeze must hold words that are single tokens inside a sentence, but "
            "'flomped' falls into 3: 'Ġfl' 'om' 'ped'. ",
        ),
        (
            [
                *(f"--{STEP}", "model_modifiers.PartiallyFrozenModelCallback"),
                *(
                    f"--{STEP}_kwargs.PartiallyFrozenModelCallback.frozen_params",
                    "transformer.wtf*",
                ),
            ],
            "frozen_params: no parameter of the model is called 'transformer.wtf*'. There are ",
        ),
        (
            [
                *(f"--{STEP}", "model_modifiers.PartiallyFrozenModelCallback"),
                *(f"--{STEP}_kwargs.PartiallyFrozenModelCallback.frozen_params", "*"),
            ],
            "must leave something of the model to train",
        ),
    ],
)
def test_mistakes_are_told_in_a_line_and_nothing_is_written(capsys, argv, message):
    train = write_lines(Path("teach.txt.gz"), TEXTS)
    files = ["--train_file", train, "--validation_file", train]
    assert main(["--model_name_or_path", "tiny-lm", *files, *argv]) == 2
    shown = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(shown) == 1
    assert message in shown[0]
    assert [path.name for path in Path().iterdir()] == ["teach.txt.gz"]


def test_freezing_does_not_change_dropout(tmp_path):
    """Nothing learns (lr 0), so every number of both runs is the same if dropout is."""
    directory = save_family(family("gpt2"), tmp_path / "gpt2")
    file = write_lines(tmp_path / "teach.txt.gz", TEXTS)
    tables = []
    for name, callbacks in (("a", []), ("b", [PartiallyFrozenModelCallback])):
        args = ModelArguments(
            directory,
            model_pre_train_step_callbacks=callbacks,
            model_pre_train_step_callbacks_kwargs={
                cls.__name__: {"frozen_params": ["*.attn.*", "transformer.wpe.weight[3]"]}
                for cls in callbacks
            },
        )
        data_args = DataTrainingArguments(
            train_file=file,
            validation_file=file,
            epochs=2,
            per_device_train_batch_size=2,
            train_optimizer_kwargs={"lr": 0.0},
            seed=3,
            output_dir=name,
        )
        finetune_lm.run(args, data_args)
        tables.append(Path(name, "metrics.csv.gz").read_bytes())
    assert tables[0] == tables[1]
    rows = finetune_lm.load_metrics("a")
    rows = rows[rows["dataset_type"] == "train"]
    by_epoch = rows.groupby(["original_text", "epoch"])["surprisal"].sum().unstack()
    assert (by_epoch[0] != by_epoch[1]).all()  # there is dropout
