from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional

from families import family
from finetune_lm.models.tasks import TASKS
from finetune_lm.scoring.fast.activations import computes_again
from finetune_lm.scoring.fast.dropout import drawn, dropout_by_bytes
from finetune_lm.scoring.fast.output_layer import OutputLayer
from helpers import dataset


@pytest.mark.parametrize("p", [0.0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_each_value_is_drawn_with_its_probability(p):
    """Within 4.5 standard deviations; less than what is settled by a byte of 256 shows."""
    torch.manual_seed(0)
    n = 1_000_003
    found = drawn(n, p)
    assert found.shape == (n,)
    assert abs(found.sum() - n * p) <= 4.5 * (n * p * (1 - p)) ** 0.5
    # Neighbours, which come from one number, know nothing of each other.
    both = (found[1:] & found[:-1]).sum()
    assert abs(both - n * p**2) <= 7 * (n * p**2 * (1 - p**2)) ** 0.5


def test_it_follows_from_the_seed_of_torch():
    torch.manual_seed(3)
    first, second = drawn(1000, 0.5), drawn(1000, 0.5)
    torch.manual_seed(3)
    assert np.array_equal(drawn(1000, 0.5), first)
    assert not np.array_equal(first, second)


def test_what_is_kept_weighs_more_and_has_the_gradient():
    torch.manual_seed(0)
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        values = torch.ones(7, 9, dtype=kind, requires_grad=True)
        with dropout_by_bytes():
            found = torch.nn.Dropout(0.2)(values)
        assert found.dtype == kind
        assert set(found.flatten().tolist()) == {0.0, float(torch.tensor(1.25, dtype=kind))}
        [gradient] = torch.autograd.grad(found.sum(), [values])
        assert torch.equal(gradient, found.detach())
        changed = torch.ones(7, 9, dtype=kind)
        with dropout_by_bytes():
            assert functional.dropout(changed, 0.2, inplace=True) is changed
        assert (changed == 0).any()


def test_where_nothing_is_drawn_torch_does_it():
    values, usual = torch.ones(3, 4), functional.dropout
    with dropout_by_bytes():
        assert torch.equal(functional.dropout(values, 0.5, training=False), values)
        assert torch.equal(functional.dropout(values, 0.0), values)
        assert not functional.dropout(values, 1.0).any()
        with pytest.raises(ValueError, match="between 0 and 1"):
            functional.dropout(values, 1.5)
    assert functional.dropout is usual


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "bart"])
def test_models_drop_out_in_this_way_wherever_they_do(name, monkeypatch):
    """In modules as in functions; torch's own way where the backward pass computes layers again."""
    fam = family(name)
    [batch] = dataset(fam).batches(8)
    task = TASKS[fam.task]
    rows, positions = task.predictions(batch.inputs["labels"])
    inputs = task.without_labels(fam.model, batch.inputs)
    by_torch, usual = [], torch._VF.dropout

    def watched(values, p, training):
        by_torch.append(training and p > 0)
        return usual(values, p, training)

    monkeypatch.setattr(torch._VF, "dropout", watched)
    layer = OutputLayer(fam.model.train())
    layer.check(inputs, rows, positions)
    by_torch.clear()
    torch.manual_seed(0)
    first, second = (layer.logits(inputs, rows, positions) for _ in range(2))
    assert not any(by_torch)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(layer.logits(inputs, rows, positions), first)
    fam.model.gradient_checkpointing_enable()
    OutputLayer(fam.model).logits(inputs, rows, positions)
    assert any(by_torch)


def test_reversible_layers_are_computed_again():
    """Their backward pass sets the seed again, and would drop out other values than these were."""
    config = transformers.ReformerConfig(
        vocab_size=20, hidden_size=8, attention_head_size=4, num_attention_heads=2,
        feed_forward_size=16, attn_layers=["local"], local_attn_chunk_length=32, is_decoder=True,
        axial_pos_embds=False, max_position_embeddings=64, hidden_dropout_prob=0.5,
    )  # fmt: skip
    assert computes_again(transformers.ReformerModelWithLMHead(config))
