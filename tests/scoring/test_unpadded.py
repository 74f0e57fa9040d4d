"""Models that padding leaks into: a text costs the same in any batch of a validation or a test."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import finetune_lm
from families import LEAKY_TASKS, family
from finetune_lm import DataTrainingArguments, ModelArguments, messages
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.ranks import World, being
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from helpers import (
    assert_same_logits,
    dataset,
    examples,
    row_maker,
    rows_of,
    save_family,
    write_lines,
)

CPU = torch.device("cpu")
TEXTS = [
    "The man has always broken the glass.",
    "The women drank.",
    "A naïve café-owner said so?",
    "The children drank.",
    "It is the old teacher that the children don't see.",
]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(messages, "_said", set())


def data_of(fam):
    torch.manual_seed(0)
    masks = {"function": mask_random_tokens, "kwargs": {"mask_prop": 0.4}}
    return dataset(fam, examples(TEXTS), **(masks if fam.task == "mlm" else {}))


def scored(fam, data, size, pads):
    forward = Forward(
        Scorer(fam.model, data.task, fast=True), data, size, needs=Needs(False), pads=pads
    )
    make = row_maker(fam, data)
    tables, losses = [], []
    with torch.no_grad():
        for batch in data.batches(size):
            outputs = forward(batch, CPU, alone=False)
            tables.append(rows_of(make, batch, outputs.score))
            n = int(data.task.counted(batch.inputs["labels"]).sum())
            losses.append((float(outputs.for_losses.loss), n))
    table = pd.concat([each.to_pandas() for each in tables], ignore_index=True)
    return table, sum(loss * n for loss, n in losses) / sum(n for _, n in losses)


@pytest.mark.parametrize("name", LEAKY_TASKS)
def test_a_text_costs_the_same_in_any_batch(name):
    fam = family(name)
    data = data_of(fam)
    alone, its_loss = scored(fam, data, 1, pads=True)
    costs = ["surprisal", "predicted_token_surprisal"]
    for size in (2, 5):
        together, loss = scored(fam, data, size, pads=False)
        pd.testing.assert_frame_equal(alone, together, rtol=0, atol=1e-4)
        assert loss == pytest.approx(its_loss, rel=1e-5)
    padded, _ = scored(fam, data, 5, pads=True)
    assert (padded[costs] - alone[costs]).abs().max().max() > 0.01


def test_a_loss_is_given_outputs_in_the_shape_of_the_batch():
    fam = family("fnet")
    data = data_of(fam)
    fam.model.config.output_hidden_states = True
    [batch] = data.batches(len(TEXTS))
    with torch.no_grad():
        forward = Forward(Scorer(fam.model, data.task, fast=False), data, 5, pads=False)
        outputs = forward(batch, CPU).for_losses
        for row, length in enumerate(batch.inputs["attention_mask"].sum(1).tolist()):
            inputs = {name: each[row : row + 1, :length] for name, each in batch.inputs.items()}
            alone = fam.model(**inputs)
            assert_same_logits(outputs.logits[row, :length], alone.logits[0])
            assert not outputs.logits[row, length:].any()
            last = outputs.hidden_states[-1]
            assert_same_logits(last[row, :length], alone.hidden_states[-1][0])
    assert outputs.logits.shape[:2] == last.shape[:2] == batch.inputs["input_ids"].shape


def test_ranks_that_each_have_a_part_of_a_model_call_it_equally_often(monkeypatch):
    class AnotherRank(World):
        def gather(self, value):
            return [value, value + 2]  # its texts have more lengths

    fam = family("fnet")
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    n_lengths = len(set(batch.inputs["attention_mask"].sum(1).tolist()))
    n_rows = []
    fam.model.register_forward_pre_hook(
        lambda model, args, inputs: n_rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    found = []
    for is_split in (False, True):
        forward = Forward(Scorer(fam.model, data.task, fast=False), data, 5, pads=False)
        forward._is_sharded = is_split
        with torch.no_grad(), being(AnotherRank()):
            found.append(forward(batch, CPU).for_losses.logits)
    assert torch.equal(*found)
    assert len(n_rows) == 2 * n_lengths + 2
    assert sum(n_rows[:n_lengths]) == sum(n_rows[n_lengths:-2]) == len(TEXTS)


@pytest.mark.parametrize("name", ["fnet", "prophetnet", "bert"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_run_says_so_and_its_tables_do_not_depend_on_batches(
    name, fast, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    model = save_family(family(name), tmp_path / name)
    lines = [text.replace("The", "[MASK]") if name != "prophetnet" else text for text in TEXTS]
    if name == "prophetnet":
        path = write_lines(tmp_path / "data.txt.gz", lines)
    else:
        rows = [{"text": a, "labels": b} for a, b in zip(lines, TEXTS, strict=True)]
        path = write_lines(tmp_path / "data.json.gz", rows)

    def run(size, **kwargs):
        return finetune_lm.run(
            ModelArguments(model),
            DataTrainingArguments(
                train_file=path,
                validation_file=path,
                test_file=[path],
                per_device_train_batch_size=2,
                per_device_validation_batch_size=size,
                per_device_test_batch_size=size,
                epochs=1,
                save_best_model_state_to_disk=False,
                fast=fast,
                seed=1,
                output_dir=f"{name}-{size}",
                **kwargs,
            ),
        )

    one, several = run(1), run(5)
    said = capsys.readouterr().err
    leaks = name in LEAKY_TASKS
    assert ("bits in one text of" in said) == leaks
    assert ("texts go in without padding, grouped by length" in said) == leaks
    assert several.best_loss == pytest.approx(one.best_loss, rel=1e-4)
    for found, expected in zip(
        (several.test_results, several.metrics.query("dataset_type == 'validation'")),
        (one.test_results, one.metrics.query("dataset_type == 'validation'")),
        strict=True,
    ):
        assert len(expected) >= 3
        difference = found["surprisal"].to_numpy() - expected["surprisal"].to_numpy()
        assert abs(difference).max() < 1e-4
