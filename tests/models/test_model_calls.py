"""Models are called so that they keep nothing for a next call, and predict the same."""

from __future__ import annotations

import functools
import math

import pytest
import torch
import transformers

import families
from families import CAUSAL_TASKS, MORE_TASKS, PAIR_TASKS, TASKS, WINDOW_TASKS, family
from finetune_lm.constants import IGNORED_LABEL, LM, SEQ2SEQ
from finetune_lm.models.model_calls import called
from finetune_lm.models.tasks import TASKS as TASK_OF
from finetune_lm.models.tasks import sample_inputs
from finetune_lm.scoring.visibility import check_order

IDS = torch.tensor([[7, 20, 31, 8, 40, 9], [50, 51, 12, 13, 61, 70]])


@pytest.mark.parametrize("name", [*TASKS, *MORE_TASKS, *PAIR_TASKS, *WINDOW_TASKS, *CAUSAL_TASKS])
def test_nothing_is_kept_and_all_is_predicted_alike(name):
    model = family(name).model
    before = model.config.to_dict()
    inputs = sample_inputs(model, IDS)
    with torch.no_grad():
        usual, found = model(**inputs), called(model, inputs)
    assert (found.logits - usual.logits).abs().max() <= 1e-6 * usual.logits.abs().max()
    assert "past_key_values" not in found
    assert model.config.to_dict() == before


class Decoder(torch.nn.Module):
    def forward(self, input_ids, use_cache=True):
        return {"cache": use_cache}


class HandsOn(torch.nn.Module):
    """As Granite's mixtures do."""

    def __init__(self):
        super().__init__()
        self.decoder = Decoder()

    def forward(self, input_ids, **kwargs):
        return self.decoder(input_ids, **kwargs)


class Strict(HandsOn):
    """One of somebody's own, which has a decoder and takes no argument for it."""

    def forward(self, input_ids):
        return self.decoder(input_ids)


class TakesAny(torch.nn.Module):
    def forward(self, input_ids, **kwargs):
        return dict(kwargs)


def test_only_who_takes_the_argument_is_given_it():
    for make, expected in (
        (Decoder, {"cache": False}),
        (HandsOn, {"cache": False}),
        (Strict, {"cache": True}),
        (TakesAny, {}),
    ):
        assert called(make(), {"input_ids": IDS}) == expected

    # What is put around a model's own forward, which may take less.
    model = Decoder()
    own = model.forward
    model.forward = functools.wraps(own)(lambda *args, **kwargs: own(*args, **kwargs))
    assert called(model, {"input_ids": IDS}) == {"cache": False}
    model.forward = lambda input_ids: own(input_ids)
    assert called(model, {"input_ids": IDS}) == {"cache": True}
    assert called(Decoder(), {"input_ids": IDS}) == {"cache": False}


def test_a_decoder_by_itself_with_fewer_layers_than_its_encoder_had():
    """Its cache would be one of another number of layers."""
    config = families.CONFIGS["bart"](380)
    config.encoder_layers, config.decoder_layers = 1, 3
    torch.manual_seed(0)
    model = transformers.BartForCausalLM(config).eval()
    logits = called(model, sample_inputs(model, IDS)).logits
    alone = torch.cat([called(model, sample_inputs(model, each[None])).logits for each in IDS])
    torch.testing.assert_close(logits, alone)
    check_order("mine", TASK_OF[LM], model)


def test_the_decoder_of_fsmt():
    """With a cache it sees later tokens, and without more it is fed the inputs, not the labels."""
    torch.manual_seed(0)
    config = transformers.FSMTConfig(
        langs=["en", "de"], src_vocab_size=90, tgt_vocab_size=90, d_model=16, encoder_layers=2,
        decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.FSMTForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.3)
    task = TASK_OF[SEQ2SEQ]
    check_order("mine", task, model)
    end, ignored, pad = config.eos_token_id, IGNORED_LABEL, config.pad_token_id
    labels = torch.tensor([[60, 61, 62, 63, end], [70, 71, end, ignored, ignored]])
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": labels.clone()}
    outputs = task.outputs(model, inputs)
    assert torch.equal(inputs["labels"], labels)
    # It begins with the last label; what comes behind padding is not asked for.
    decoded = torch.tensor([[end, 60, 61, 62, 63], [end, 70, 71, end, pad]])
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    logits = model(**plain, decoder_input_ids=decoded, use_cache=False).logits
    costs = -logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    assert math.isclose(outputs.loss.item(), costs[labels != ignored].mean().item(), rel_tol=1e-5)
    torch.testing.assert_close(outputs.logits[labels != ignored], logits[labels != ignored])
    without = called(model, task.without_labels(model, inputs)).logits
    assert torch.equal(without, outputs.logits)
