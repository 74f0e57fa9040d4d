from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from families import PAIR_TASKS, family
from finetune_lm.models.tasks import TASKS
from finetune_lm.scoring.fast import ragged, ragged_kinds
from finetune_lm.scoring.fast.output_layer import OutputLayer
from helpers import assert_same_gradient, assert_same_logits, dataset, examples

LMS = ["gpt2", "llama", "pythia", "olmo", "olmo2", "qwen"]
PAIRS = ["t5", "flan-t5", "bart", *PAIR_TASKS]
MLMS = ["bert", "roberta", "distilbert", "albert", "electra"]
ALIKE = [
    "The man has always broken the glass.",
    "The man has always broken the box.",
    "The man has always broken the glass.",
    "The man drank.",
    "She drank a glass of cold water.",
]


def batch_of(fam, texts=ALIKE):
    [batch] = dataset(fam, examples(texts)).batches(8)
    task = TASKS[fam.task]
    rows, positions = task.predictions(batch.inputs["labels"])
    return task.without_labels(fam.model, batch.inputs), rows, positions


def plain_logits(fam, inputs, rows, positions):
    return fam.model(**inputs).logits[rows, positions]


@pytest.mark.parametrize("name", LMS + MLMS + PAIRS)
def test_logits_and_gradients_without_padding_are_those_with_it(name):
    fam = family(name)
    inputs, rows, positions = batch_of(fam)
    layer = OutputLayer(fam.model)
    # Some embeddings of positions are no parameters to be learned.
    parameters = [p for p in fam.model.parameters() if p.requires_grad]

    def gradients(logits):
        loss = (logits.log_softmax(-1) ** 2).mean()
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    found = layer.logits(inputs, rows, positions)
    assert layer.is_ragged
    expected = plain_logits(fam, inputs, rows, positions)
    torch.testing.assert_close(found, expected)
    for a, b in zip(gradients(found), gradients(expected), strict=True):
        if a is None or b is None:
            assert a is b
            continue
        assert a.layout == torch.strided
        assert_same_gradient(a, b)


@pytest.mark.parametrize("name", LMS)
def test_shared_beginnings_come_to_the_same(name):
    fam = family(name)
    inputs, rows, positions = batch_of(fam)
    layer = OutputLayer(fam.model)
    with torch.no_grad():
        layer.check(inputs, rows, positions)
        hidden, which = layer.of_beginnings(inputs, rows, positions)
        assert len(hidden) < len(rows)
        expected = plain_logits(fam, inputs, rows, positions)
        with layer.of_hidden(hidden) as logits:
            torch.testing.assert_close(logits[which], expected)


def test_a_model_is_as_it_was_afterwards():
    fam = family("gpt2")
    inputs, rows, positions = batch_of(fam)
    before = plain_logits(fam, inputs, rows, positions)
    OutputLayer(fam.model).logits(inputs, rows, positions)
    assert fam.model.config._attn_implementation == "sdpa"
    assert not fam.model.transformer.wte.sparse
    assert torch.equal(plain_logits(fam, inputs, rows, positions), before)


@pytest.mark.parametrize("name", MLMS)
def test_sentences_that_are_seen_whole_share_no_beginnings(name):
    """What follows a beginning changes it, so only padding is left out."""
    fam = family(name)
    inputs, rows, positions = batch_of(fam)
    layer = OutputLayer(fam.model)
    with torch.no_grad():
        layer.check(inputs, rows, positions)
    assert layer.is_ragged
    assert not layer.has_beginnings


@pytest.mark.parametrize("name", ["roberta", "m2m100"])
def test_a_padding_token_in_a_text_is_counted_as_the_model_counts_it(name):
    """These number positions by tokens that are not padding, also within a text."""
    fam = family(name)
    inputs, rows, positions = batch_of(fam)
    layer = OutputLayer(fam.model)
    with torch.no_grad():
        layer.check(inputs, rows, positions)
        padding = fam.model.get_input_embeddings().padding_idx
        inputs["input_ids"][0, 3] = padding
        found = layer.logits(inputs, rows, positions)
        torch.testing.assert_close(found, plain_logits(fam, inputs, rows, positions))


def test_kinds_that_are_not_known_keep_their_padding():
    assert not ragged_kinds.supports(family("prophetnet").model)
    chunked = family("bert").model
    chunked.config.chunk_size_feed_forward = 8
    assert not ragged_kinds.supports(chunked)
    decoder = family("bert").model
    assert ragged_kinds.supports(decoder)
    decoder.config.is_decoder = True
    assert not ragged_kinds.supports(decoder)
    model = family("gpt2").model
    assert ragged_kinds.supports(model)
    model.gradient_checkpointing_enable()
    assert not ragged_kinds.supports(model)


sentences = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), min_size=1, max_size=8)


@given(sentences)
def test_a_tree_has_each_beginning_once(rows):
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    layout = ragged.lay_out_tree(ids, mask)
    nodes = layout.node_of_place[layout.begins[:, None] + torch.arange(length) * mask]
    beginnings = {}
    for i, row in enumerate(rows):
        for j in range(len(row)):
            node = int(nodes[i, j])
            assert beginnings.setdefault(node, tuple(row[: j + 1])) == tuple(row[: j + 1])
            assert int(layout.positions[node]) == j
    assert len(beginnings) == len(set(beginnings.values())) == len(layout.place_of_node)
    flat = layout.node_of_place[layout.place_of_node]
    assert flat.tolist() == list(range(len(flat)))


@given(sentences)
def test_a_row_has_each_token_in_order(rows):
    length = max(map(len, rows))
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    layout = ragged.lay_out(mask)
    assert layout.positions.tolist() == [j for row in rows for j in range(len(row))]
    assert layout.node_of_place[layout.place_of_node].tolist() == list(range(sum(map(len, rows))))


def test_examples_that_nothing_is_asked_about_are_neither_read_nor_decoded():
    fam = family("t5")
    inputs, rows, positions = batch_of(fam)
    asked = rows != 1
    rows, positions = rows[asked], positions[asked]
    decoder, encoder = ragged.lay_out_pair(inputs, rows, positions)
    assert not (encoder.rows == 1).any()
    assert decoder.rows.tolist() == rows.tolist()
    layer = OutputLayer(fam.model)
    found = layer.logits(inputs, rows, positions)
    assert layer.is_ragged
    torch.testing.assert_close(found, plain_logits(fam, inputs, rows, positions))
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in fam.model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_of_shared_beginnings_none_goes_in_behind_what_is_asked_about(name):
    """The last token of a text predicts nothing, and a text of which nothing is asked even less."""
    fam = family(name)
    inputs, rows, positions = batch_of(fam)
    asked = (rows != 1) & ((rows != 4) | (positions < 2))
    rows, positions = rows[asked], positions[asked]
    layer, fed = OutputLayer(fam.model), []
    with torch.no_grad():
        layer.check(inputs, rows, positions)
        expected = plain_logits(fam, inputs, rows, positions)
        fam.model.register_forward_pre_hook(
            lambda _, args, given: fed.append(given["input_ids"].numel()), with_kwargs=True
        )
        hidden, which = layer.of_beginnings(inputs, rows, positions)
        with layer.of_hidden(hidden) as logits:
            assert_same_logits(logits[which], expected)
    texts = [inputs["input_ids"][i, : j + 1].tolist() for i, j in zip(rows, positions, strict=True)]
    assert fed == [len(set(map(tuple, texts)))]


def test_sentences_of_very_different_lengths_are_attended_to_in_several_rectangles():
    lengths = torch.tensor([120, 5, 6, 110, 7] + [5] * 20)
    mask = (torch.arange(120) < lengths[:, None]).long()
    layout = ragged.lay_out(mask, is_causal=False)
    assert sorted(layout.shapes) == [(2, 120), (23, 7)]
    assert layout.node_of_place[layout.place_of_node].tolist() == list(range(int(lengths.sum())))
    assert layout.nodes(layout.rows, layout.positions).tolist() == list(range(int(lengths.sum())))
    assert int(layout.is_real.sum()) == int(lengths.sum())
    # Head by head the same places, each a rectangle of its own.
    heads, k = 3, int(lengths.sum())
    node_of_cell, cell_of_node = layout.cells(heads)
    spread = torch.arange(k * heads)[node_of_cell]
    assert spread[cell_of_node].tolist() == list(range(k * heads))
    sizes = [n * length for n, length in layout.shapes]
    begin = 0
    for part, (n, length) in zip(layout.node_of_place.split(sizes), layout.shapes, strict=True):
        cells = spread[begin : begin + n * heads * length].view(n, heads, length)
        begin += n * heads * length
        for head in range(heads):
            assert torch.equal(cells[:, head], part.view(n, length) * heads + head)
    assert begin == len(spread)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "bart"])
def test_several_rectangles_come_to_the_same(name, monkeypatch):
    monkeypatch.setattr(ragged, "_WORTH_A_RECTANGLE", 1)
    fam = family(name)
    inputs, rows, positions = batch_of(fam)
    if fam.task != "seq2seq":
        assert len(ragged.lay_out(inputs["attention_mask"]).shapes) > 1
    layer = OutputLayer(fam.model)
    with torch.no_grad():
        expected = plain_logits(fam, inputs, rows, positions)
        torch.testing.assert_close(layer.logits(inputs, rows, positions), expected)
        assert layer.is_ragged
        if layer.has_beginnings:
            hidden, which = layer.of_beginnings(inputs, rows, positions)
            with layer.of_hidden(hidden) as logits:
                torch.testing.assert_close(logits[which], expected)
