"""A causal model's own loss must be about the next token, or it is computed here."""

from __future__ import annotations

import math

import pytest
import torch
import transformers

import finetune_lm
from families import bart_tokenizer, family
from finetune_lm import DataTrainingArguments, ModelArguments
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from finetune_lm.models.tasks import TASKS, CausalLMWithoutLoss
from finetune_lm.scoring.visibility import _ordinary_ids, task_by_loss
from helpers import write_lines

LM = TASKS["lm"]


def decoder(name):
    config = getattr(transformers, name.replace("ForCausalLM", "Config"))(
        vocab_size=len(bart_tokenizer()), d_model=16, encoder_layers=2, decoder_layers=2,
        hidden_size=16, num_decoder_layers=2, num_decoder_attention_heads=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_position_embeddings=64, is_decoder=True, is_encoder_decoder=False,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return getattr(transformers, name)(config).eval()


@pytest.mark.parametrize(
    "name", [f"{kind}ForCausalLM" for kind in ("Bart", "MBart", "Pegasus", "TrOCR", "ProphetNet")]
)
def test_decoders_whose_loss_is_of_the_token_itself(name, capsys):
    """Untrained ones, too, whose predictions hardly differ from place to place."""
    task = task_by_loss("this", LM, decoder(name))
    assert isinstance(task, CausalLMWithoutLoss)
    assert "this: the loss is computed here" in capsys.readouterr().err


def test_losses_of_the_next_token_are_left_alone(capsys):
    for name in ("gpt2", "llama", "pythia", "olmoe", "gemma3", "qwen2-moe"):
        assert task_by_loss(name, LM, family(name).model) is LM
    for name in ("bert", "t5"):
        assert task_by_loss(name, TASKS[family(name).task], family(name).model).name != "lm"
    assert capsys.readouterr().err == ""


def test_what_a_loss_has_besides_is_left_alone():
    """Also where it happens to be what tokens cost more in their own place, or is all there is."""
    model, cost = family("gpt2").model, torch.nn.functional.cross_entropy
    ids = _ordinary_ids(model)
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    more = cost(logits, ids) - cost(logits[:-1], ids[1:])

    for reduction in ("mean", "sum"):

        def loss(logits, labels, reduction=reduction, **_):
            of_next = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            return more + cost(*of_next, reduction=reduction)

        model.loss_function = loss
        assert task_by_loss("this", LM, model) is LM


@pytest.mark.parametrize("fast", [True, False])
def test_what_is_minimised_is_what_tokens_cost(tmp_path, fast):
    """Beside a term that knows the model as one like others, too."""
    decoder("BartForCausalLM").save_pretrained(tmp_path / "model")
    bart_tokenizer().save_pretrained(tmp_path / "model")
    lines = write_lines(tmp_path / "lines.txt.gz", ["The man has broken the glass.", "It is cold."])
    parts, term = ("train", "validation"), {"dataset": lines, "n_examples_per_batch": 1}
    metrics = finetune_lm.run(
        ModelArguments(str(tmp_path / "model"), model_task="lm"),
        DataTrainingArguments(
            train_file=lines,
            validation_file=lines,
            epochs=1,
            loss_classes={part: [KLBaselineLoss, OutputsDefaultLoss] for part in parts},
            loss_classes_kwargs={part: {"KLBaselineLoss": term} for part in parts},
            fast=fast,
            bos_policy="none",
            output_dir=str(tmp_path / "out"),
        ),
    ).metrics
    for _, rows in metrics.groupby("dataset_type"):
        nats = rows["surprisal"].mean() * math.log(2)
        assert rows["OutputsDefaultLoss"].iloc[0] == pytest.approx(nats, abs=1e-4)
