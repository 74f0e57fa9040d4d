"""A model that is causal and masked in one, with code of its own, as GPT-BERT comes."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import transformers

import finetune_lm
from families import MORE_TASKS, TEXTS, family
from families import TASKS as FAMILIES
from finetune_lm import DataTrainingArguments, ModelArguments, UserError, measures
from finetune_lm.cli import main
from finetune_lm.data_preprocessing import expand_with_masks, mask_random_tokens
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from finetune_lm.models.loading import LoadedModel, load_model
from finetune_lm.models.tasks import TASKS
from finetune_lm.models.two_modes import check_config
from finetune_lm.scoring.mask_position import _better_place, _costs, check_mask_position
from helpers import examples, write_lines
from two_modes_model import CODE, save_two_modes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return save_two_modes(tmp_path_factory.mktemp("two_modes"))


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def arguments(place: Path, mode: str, **data) -> tuple[ModelArguments, DataTrainingArguments]:
    model = ModelArguments(str(place), model_task=mode, trust_remote_code=True)
    data = {"seed": 4, "test_output_file_prefix": "x", **data}
    return model, DataTrainingArguments(**data)


def test_the_mode_must_be_given_and_the_code_trusted(place, capsys):
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(str(place), trust_remote_code=True))
    assert "may be any of these: lm, mlm." in str(caught.value)
    assert "Give --model_task lm or mlm or mntp or seq2seq or lm+mlm." in str(caught.value)
    write_lines(Path("texts.txt.gz"), TEXTS[:1])
    for mode in ("lm", "mntp", "lm+mlm"):
        given = ["--model_name_or_path", str(place), "--model_task", mode]
        assert main([*given, "--test_file", "texts.txt.gz"]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.endswith("Read it, and then give --trust_remote_code.")
    modes = {mode: load_model(arguments(place, mode, test_file="x")[0]) for mode in ("lm", "mntp")}
    assert [type(modes[mode].model).__name__ for mode in modes] == ["Causal", "Masked"]
    states = [modes[mode].model.state_dict() for mode in modes]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_what_is_learned_in_one_mode_is_measured_in_the_other(place):
    teach, check = (
        write_lines(Path("teach.txt.gz"), TEXTS[:4]),
        write_lines(Path("check.txt.gz"), TEXTS[4:]),
    )
    masks = {"data_preprocessing_fn": dict.fromkeys(("train", "validation"), mask_random_tokens)}
    kl = {"dataset": check, "data_preprocessing_fn": mask_random_tokens, "scaleby": 0.1}
    shared = {
        "train_file": teach,
        "validation_file": check,
        "epochs": 6,
        "train_optimizer_kwargs": {"lr": 3e-2},
        "per_device_train_batch_size": 2,
        "loss_classes": {"train": [OutputsDefaultLoss, KLBaselineLoss]},
        "loss_classes_kwargs": {"train": {"KLBaselineLoss": kl}},
        "measures": {"validation": [measures.BaselineKL]},
    }
    runs = {}
    for fast in (True, False):
        args = arguments(place, "mntp", output_dir=f"mntp-{fast}", fast=fast, **shared, **masks)
        runs[fast] = finetune_lm.run(*args).metrics
    metrics = runs[True]
    name = "OutputsDefaultLoss"
    # The loss is that of the rows, though the model's own would be that of other positions.
    for _, batch in metrics.groupby(["dataset_type", "epoch", "batch_number"]):
        mean = batch["surprisal"].mean() * math.log(2)
        assert batch[name].iloc[0] == pytest.approx(mean, abs=1e-4)
    by_epoch = metrics[metrics["dataset_type"] == "train"].groupby("epoch")[name].mean()
    assert by_epoch.iloc[-1] < by_epoch.iloc[0] - 0.5
    assert runs[False]["loss"].tolist() == pytest.approx(metrics["loss"].tolist(), abs=1e-3)
    assert metrics["kl_from_baseline"].max() > 0.01
    for start, name in ((str(place), "before"), ("mntp-True/model", "after")):
        args = arguments(Path(start), "lm", test_file=teach, output_dir=name)
        runs[name] = finetune_lm.run(*args).test_results["surprisal"]
    assert (runs["before"] - runs["after"]).abs().max() > 0.1


def test_which_labels_count():
    labels = torch.tensor([[5, -100, 7, -100], [-100, 6, -100, -100]])
    task = TASKS["mntp"]
    assert task.counted(labels).tolist() == [
        [False, False, True, False],
        [False, True, False, False],
    ]
    rows, positions = task.predictions(labels)
    assert (rows.tolist(), positions.tolist()) == ([0, 1], [1, 0])


SHIFTED = CODE.replace(
    "F.cross_entropy(logits.flatten(0, 1), labels.flatten())",
    "F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())",
)


def test_masks_that_are_predicted_in_the_other_place_are_told_of(place, tmp_path, capsys):
    """By what a model has learned, and of one that has not by its own loss, if that tells."""
    learned = save_two_modes(tmp_path / "learned", n_steps=30)
    shifted = save_two_modes(tmp_path / "shifted", SHIFTED)
    itself = save_two_modes(tmp_path / "itself", n_steps=30, offset=0)
    file = write_lines(Path("texts.txt.gz"), TEXTS)
    built_in = write_lines(
        Path("built_in.txt.gz"), ["The woman has drunk the water.", "The dogs see a boy."]
    )
    masks = {"data_preprocessing_fn": {"test": expand_with_masks}}

    def told(model: str | Path, task: str, file: str) -> str | None:
        args = ModelArguments(str(model), model_task=task, trust_remote_code=True)
        data = DataTrainingArguments(
            test_file=file, seed=1, output_dir=f"{task}-{Path(model).name}"
        )
        capsys.readouterr()
        # A warning: the run goes on.
        assert len(finetune_lm.run(args, replace(data, **masks)).test_results)
        lines = capsys.readouterr().err.splitlines()
        found = [line for line in lines if "predictions of masked tokens" in line]
        assert len(found) < 2
        return found[0] if found else None

    costs = r"where they cost \d+\.\d bits; {} they cost \d\.\d"
    wrong = told(learned, "mlm", file)
    assert re.fullmatch(
        "warning: model_task mlm reads predictions of masked tokens at the mask, "
        + costs.format("one position before the mask")
        + rf"\. If {str(learned)!r} was trained to predict them there, the numbers are probably "
        r"wrong: --model_task mntp reads that place\.",
        wrong,
    )
    assert told(learned, "mntp", file) is None
    assert told(learned, "lm+mlm", file) is None
    assert told(shifted, "mlm", file) == (
        f"warning: model_task mlm reads predictions of masked tokens at the mask, but the loss of "
        f"{str(shifted)!r} itself takes them one position before the mask. If {str(shifted)!r} was "
        f"trained to predict them there, the numbers are probably wrong: --model_task mntp reads "
        f"that place."
    )
    assert told(shifted, "mntp", file) is None
    # Of one that knows nothing nothing is said.
    assert told(place, "mlm", file) is None
    assert told(itself, "mlm", file) is None
    assert told(itself, "lm+mlm", file).endswith(
        "runs with --model_task lm and --model_task mlm read that place."
    )
    # An ordinary model, by two short texts.
    assert told("tiny-mlm", "mlm", built_in) is None
    wrong = told("tiny-mlm", "mntp", built_in)
    assert re.search("before the mask, " + costs.format("at the mask"), wrong)
    assert wrong.endswith("--model_task mlm reads that place.")


def test_a_configuration_of_transformers_has_one_mode():
    for is_decoder, lacking, other in ((False, "causal", "mlm"), (True, "masked", "lm")):
        config = transformers.BertConfig(is_decoder=is_decoder)
        with pytest.raises(UserError, match=f"has no {lacking} mode. Give --model_task {other}"):
            check_config("my_bert", config)


@pytest.mark.parametrize(
    ("here", "before", "place"),
    [
        # An ordinary model that has learned other texts by heart, of 2048 tokens.
        (14.9, 10.3, None),
        (14.9, 9.1, None),
        (14.9, 8.9, 1),
        (8.9, 14.9, 0),
        (3.0, 4.9, None),
        (3.0, 5.1, 0),
    ],
)
def test_what_shows_that_masks_are_predicted_elsewhere(here, before, place):
    costs = torch.tensor([[here, before]]).repeat(16, 1)
    assert _better_place(costs, 2048) == place
    assert _better_place(costs[:7], 2048) is None
    # One of many: 2.5 bits on the mean, but no four standard errors.
    assert _better_place(torch.tensor([[40.0, 0.0], *[[0.0, 0.0]] * 15]), 2048) is None


def test_an_error_of_the_device_is_not_taken_for_an_answer(monkeypatch, capsys):
    errors = [torch.OutOfMemoryError("full"), MemoryError(), RuntimeError("CUDA out of memory")]
    if hasattr(torch, "AcceleratorError"):
        errors.append(torch.AcceleratorError("device-side assert"))
    files = {"test": [examples(TEXTS)]}
    found = family("bert")
    found.model.name_or_path = "bert"
    loaded = LoadedModel("bert", TASKS["mlm"], found.model, found.tokenizer)
    for error in [*errors, IndexError("index out of range in self")]:
        monkeypatch.setattr(found.model, "forward", Mock(side_effect=error))
        if error in errors:
            with pytest.raises(type(error)):
                check_mask_position(loaded, files)
        else:
            check_mask_position(loaded, files)
    assert capsys.readouterr().err == (
        "warning: it could not be tested where bert predicts masked tokens: index out of range in "
        "self\n"
    )


def test_no_ordinary_masked_model_is_taken_for_another():
    """All families, with random weights and tokenizers of all kinds; and texts of new words."""
    texts = [*TEXTS, "Blick dax wug.", "!", ""]
    files = {"test": [examples(texts)]}
    for name, (kind, _) in {**FAMILIES, **MORE_TASKS}.items():
        if kind == "mlm":
            found = family(name)
            loaded = LoadedModel(name, TASKS["mlm"], found.model, found.tokenizer)
            found.model.name_or_path = name
            check_mask_position(loaded, files)
            with torch.no_grad():
                costs, own = _costs(loaded, texts)
            # Not for want of tokens, nor since the model could not be asked.
            assert (len(costs) > 20, own) == (True, 0), name


def test_buffers_that_no_file_has_are_those_that_the_code_makes(place, tmp_path):
    """transformers leaves in them what was in memory before."""
    code = CODE.replace(
        "        self.post_init()\n",
        "        self.register_buffer('places', torch.arange(129), persistent=False)\n"
        "        self.post_init()\n",
    ).replace("torch.arange(n, device=states.device)", "self.places[:n]")
    with_buffer = save_two_modes(tmp_path / "with_buffer", code)
    ids = torch.arange(5, 25)[None]
    for mode in ("lm", "mntp"):
        torch.manual_seed(1)
        models = [
            load_model(arguments(p, mode, test_file="x")[0]).model for p in (with_buffer, place)
        ]
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.manual_seed(1)))
        assert torch.equal(models[0].places, torch.arange(129))
        with torch.no_grad():
            assert torch.equal(*(model(ids).logits for model in models))
    needs_more = code.replace("def __init__(self, config):", "def __init__(self, config, more):")
    (with_buffer / "two_modes.py").write_text(needs_more)
    args = replace(arguments(with_buffer, "lm", test_file="x")[0], model_kwargs={"more": 1})
    with pytest.raises(UserError, match=r"its buffers cannot be computed again: .*'more'"):
        load_model(args)
