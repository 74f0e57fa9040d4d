"""Frozen means frozen, to the last bit; and what is not frozen is as if nothing were."""

from __future__ import annotations

import pytest
import torch

from families import family
from finetune_lm.model_modifiers import (
    FreezeWordTokensCallback,
    PartiallyFrozenModelCallback,
    UnfreezeWordTokensCallback,
)
from finetune_lm.model_modifiers._frozen_entries import FrozenEntries
from freezing import FACTORED, OPTIMIZERS, clone, replay, train

PLACES = {
    # Tied input and output embeddings.
    "gpt2": {
        "transformer.wte.weight": ["[(1,5,9)]", "[100:200, 3]"],
        "transformer.wpe.weight": ["[:, 0]", "[3]"],
        "transformer.h.0.attn.c_attn.weight": ["[1:, 1:]"],
        "transformer.h.0.ln_1.bias": ["[-4:]"],
        "transformer.h.1.mlp.c_fc.weight": [""],
        "transformer.h.1.mlp.c_fc.bias": [""],
    },
    # Untied ones.
    "llama": {
        "model.embed_tokens.weight": ["[(1,5,9)]", "[100:200, 3]"],
        "lm_head.weight": ["[1:]"],
        "model.layers.0.self_attn.q_proj.weight": ["[:, 0]"],
        "model.layers.1.mlp.up_proj.weight": [""],
        "model.norm.weight": ["[...]"],
    },
}


def masks(model, places):
    """True for what is frozen, worked out by plain indexing: by the name of the parameter."""
    found = {}
    for name, parameter in model.named_parameters():
        mask = torch.zeros(parameter.shape, dtype=torch.bool)
        for index in places.get(name, ()):
            key = index[1:-1].replace("(", "[").replace(")", "]") if index else "..."
            exec(f"mask[{key}] = True", {"mask": mask})
        found[name] = mask
    return found


def patterns(places):
    return [name + index for name, indices in places.items() for index in indices]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, *FACTORED])
def test_frozen_entries_are_bit_identical_after_many_steps(name, optimizer):
    make = {**OPTIMIZERS, **FACTORED}[optimizer]
    before = family(name)
    after = family(name)
    frozen = masks(before.model, PLACES[name])
    callback = PartiallyFrozenModelCallback(
        after.model, after.tokenizer, frozen_params=patterns(PLACES[name])
    )
    model, gradients = train(after, make, callback)
    moved = dict(model.named_parameters())
    for parameter_name, original in before.model.named_parameters():
        mask, now = frozen[parameter_name], moved[parameter_name]
        assert torch.equal(now[mask], original[mask]), parameter_name
        assert (now != original)[~mask].float().mean() > 0.9 or mask.all(), parameter_name
        assert now.requires_grad == (not mask.all())

    # The same gradients without the callback: every other entry comes out the same, and the frozen
    # ones do not stay, so zero gradients alone would not have been enough.
    replayed = dict(replay(clone(before.model), make, gradients).named_parameters())
    drifted = 0
    for parameter_name, parameter in replayed.items():
        mask = frozen[parameter_name]
        if optimizer in OPTIMIZERS:
            assert torch.equal(parameter[~mask], moved[parameter_name][~mask]), parameter_name
        drifted += int((parameter != moved[parameter_name])[mask].sum())
    assert drifted > 0


@pytest.mark.parametrize("name", PLACES)
def test_gradients_are_the_models_own_where_nothing_is_frozen(name):
    plain, partly = family(name), family(name)
    frozen = masks(plain.model, PLACES[name])
    callback = PartiallyFrozenModelCallback(
        partly.model, partly.tokenizer, frozen_params=patterns(PLACES[name])
    )
    [make] = [make for key, make in OPTIMIZERS.items() if key == "SGD"]
    _, [expected] = train(plain, make, n_steps=1)
    _, [found] = train(partly, make, callback, n_steps=1)
    for (parameter_name, _), plain_one, own in zip(
        plain.model.named_parameters(), expected, found, strict=True
    ):
        mask = frozen[parameter_name]
        if mask.all():
            assert own is None
        else:
            assert torch.equal(own[~mask], plain_one[~mask])
            assert not own[mask].any()


def test_whole_parameters_have_no_gradients_and_optimizers_no_state_for_them():
    fam = family("gpt2")
    names = {"transformer.wpe.weight", "transformer.ln_f.bias"}
    PartiallyFrozenModelCallback(
        fam.model, fam.tokenizer, frozen_params=["*wpe.weight[:]", "transformer.ln_f.bias"]
    )
    optimizer = torch.optim.AdamW(fam.model.parameters(), lr=1e-2, weight_decay=0.1)
    model, _ = train(fam, lambda _: optimizer, n_steps=2)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) or not parameter.grad.any()
        assert parameter.requires_grad == (name not in names)
        assert (parameter in optimizer.state) == (name not in names)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "roberta", "bart"])
@pytest.mark.parametrize("kind", ["freeze", "unfreeze"])
@pytest.mark.parametrize("words", [["water"], ["water", "the"], ["the", "water", "they"]])
def test_word_rows(name, kind, words):
    fam, original = family(name), dict(family(name).model.named_parameters())
    cls = {"freeze": FreezeWordTokensCallback, "unfreeze": UnfreezeWordTokensCallback}[kind]
    callback = cls(fam.model, fam.tokenizer, words)
    model, _ = train(fam, OPTIMIZERS["AdamW"], callback, n_steps=6)
    encode = fam.tokenizer
    ids = {encode(f"a {word} a", add_special_tokens=False)["input_ids"][1:-1][0] for word in words}
    assert len(ids) == len(words)
    embeddings = model.get_input_embeddings().weight
    for parameter_name, parameter in model.named_parameters():
        changed = parameter != original[parameter_name]
        if parameter is not embeddings:
            assert bool(changed.any()) == (kind == "freeze"), parameter_name
            continue
        rows = changed.any(dim=1).nonzero().flatten().tolist()
        assert set(rows) == (ids if kind == "unfreeze" else set(range(len(embeddings))) - ids)


def test_muon_moves_whole_matrices_and_no_frozen_entry():
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(6, 4))
    before = parameter.detach().clone()
    entries = FrozenEntries(
        parameter, torch.tensor([True, False, False, True, False, False])[:, None]
    )
    optimizer = torch.optim.Muon([parameter], lr=0.1, weight_decay=0.1)
    for _ in range(50):
        parameter.grad = torch.randn(6, 4)
        entries.before_step()
        optimizer.step()
        entries.put_back()
    assert torch.equal(parameter[[0, 3]], before[[0, 3]])
    assert (parameter[[1, 2, 4, 5]] != before[[1, 2, 4, 5]]).all()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
@pytest.mark.parametrize("transposed", [False, True])
def test_few_entries_are_listed_and_many_are_marked(share, transposed):
    torch.manual_seed(1)
    values = torch.randn(40, 50)
    parameter = torch.nn.Parameter(values.T if transposed else values)
    mask = torch.rand(parameter.shape) < share
    entries = FrozenEntries(parameter, mask)
    before = parameter.detach().clone()
    gradient = torch.randn(parameter.shape)
    gradient[0, 0] = float("nan")
    mask[0, 0] = True
    entries = FrozenEntries(parameter, mask)
    parameter.grad = gradient.clone()
    for _ in range(2):
        entries.before_step()
        assert torch.equal(parameter.grad, gradient.masked_fill(mask, 0.0))
        with torch.no_grad():
            parameter.mul_(0.5)
        entries.put_back()
    assert torch.equal(parameter[mask], before[mask])
    assert torch.equal(parameter[~mask], before[~mask] * 0.25)
    kept = entries._kept
    assert kept.numel() == (int(mask.sum()) if share < 0.2 else mask.numel())


def test_what_others_do_to_frozen_entries_is_not_undone():
    """Only what happens in the step is: a callback may still set weights itself."""
    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    entries = FrozenEntries(parameter, torch.tensor([[True], [False], [False]]))
    parameter.grad = torch.ones(3, 2)
    for value in (1.0, 2.0):
        parameter.data[0] = value
        entries.before_step()
        with torch.no_grad():
            parameter.add_(10)
        entries.put_back()
        assert parameter[0].tolist() == [value, value]


def test_without_a_gradient_nothing_happens():
    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    entries = FrozenEntries(parameter, torch.tensor([[True], [False], [False]]))
    entries.before_step()
    parameter.data.fill_(1.0)
    entries.put_back()
    assert parameter.detach().eq(1.0).all()
