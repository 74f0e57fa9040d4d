"""Names of parameters: patterns, ties, and what is said where there is nothing."""

from __future__ import annotations

import pytest
import torch

from families import family
from finetune_lm.errors import UserError
from finetune_lm.model_modifiers._parameters import checked_patterns, find_all


@pytest.fixture(scope="module")
def gpt2():
    return family("gpt2").model


def entries(model, texts):
    """How many entries of each parameter some patterns mean, by its first name."""
    marked = find_all(model, checked_patterns(texts, "frozen_params"), "frozen_params")
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: int(mask.expand(p.shape).sum()) for p, mask in marked.items()}


def test_names_and_stars(gpt2):
    wte = "transformer.wte.weight"
    assert entries(gpt2, wte) == {wte: gpt2.transformer.wte.weight.numel()}
    attention = entries(gpt2, "transformer.h.*.attn*")
    assert list(attention) == [n for n, _ in gpt2.named_parameters() if ".attn." in n]
    assert len(attention) == 8
    biases = entries(gpt2, ["transformer.h.?.*.bias"])
    assert list(biases) == [n for n, _ in gpt2.named_parameters() if ".h." in n and ".bias" in n]
    assert len(entries(gpt2, "*")) == len(list(gpt2.parameters()))
    # A dot is a dot.
    with pytest.raises(UserError, match="is called 'transformer_wte_weight'"):
        entries(gpt2, "transformer_wte_weight")
    assert entries(gpt2, "*.weight[0]").keys() == entries(gpt2, "*.weight").keys()


def test_entries_of_several_patterns_together(gpt2):
    wte = "transformer.wte.weight"
    assert entries(gpt2, [f"{wte}[0:4]", f"{wte}[2:6]", f"{wte}[5]"]) == {wte: 6 * 16}
    assert entries(gpt2, [f"{wte}[3,:]", f"{wte}[:, 2]"]) == {wte: 16 + 380 - 1}
    assert entries(gpt2, [f"{wte}[3]", wte]) == {wte: 380 * 16}
    assert entries(gpt2, [f" {wte} [ (1,5,9), -1 ]"]) == {wte: 3}


@pytest.mark.parametrize(
    ("name", "aliases"),
    [
        ("gpt2", ["transformer.wte.weight", "lm_head.weight"]),
        ("bert", ["bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"]),
        ("t5", ["shared.weight", "decoder.embed_tokens.weight", "lm_head.weight"]),
        ("roberta", ["roberta.embeddings.word_embeddings.weight", "lm_head.decoder.weight"]),
    ],
)
def test_a_tied_parameter_answers_to_all_its_names(name, aliases):
    model = family(name).model
    embeddings = model.get_input_embeddings().weight
    for alias in aliases:
        [found] = find_all(model, checked_patterns(alias, "x"), "x")
        assert found is embeddings


def test_untied_parameters_are_two():
    model = family("llama").model
    assert entries(model, ["model.embed_tokens.weight[0]", "lm_head.weight[1]"]) == {
        "model.embed_tokens.weight": 16,
        "lm_head.weight": 16,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "transformer.wte.wieght",
            "frozen_params: no parameter of the model is called 'transformer.wte.wieght'. There "
            "are transformer.wte.weight, ",
        ),
        (
            "transformer.h.0",
            "called 'transformer.h.0'. transformer.h.0.* means all that are below it, such as "
            "transformer.h.0.ln_1.weight.",
        ),
        ("transformer.x.*", "called 'transformer.x.*'. There are "),
        ("wpe", "called 'wpe'. There are transformer.wpe.weight and others."),
        ("*attnn*", "called '*attnn*'. There are "),
        (
            "transformer.wte.weight[380]",
            "frozen_params: 'transformer.wte.weight[380]' does not fit transformer.wte.weight: "
            "380 is out of range: dimension 0 has 380 entries, from 0 to 379 or from -380 to -1.",
        ),
        ("*.bias[0,0]", "does not fit transformer.h.0.ln_1.bias: the index is for 2 dimensions"),
        ("transformer.wte.weight[3:3]", "the slice 3:3 of dimension 0 is empty"),
        ("transformer.wte.weight[3", "must end with ']'"),
        ("transformer.wte.weight[a]", "[a] is not an index: 'a' cannot stand there."),
        ("[3]", "'[3]' must begin with the name of a parameter"),
        ("", "'' must begin with the name of a parameter"),
    ],
)
def test_where_there_is_nothing(gpt2, text, message):
    with pytest.raises(UserError) as caught:
        entries(gpt2, text)
    assert message in str(caught.value)
    assert len(caught.value.problems) == 1


def test_everything_that_is_wrong_is_told_at_once(gpt2):
    with pytest.raises(UserError) as caught:
        entries(gpt2, ["x", "transformer.wte.weight", "transformer.wte.weight[999]"])
    assert len(caught.value.problems) == 2
    with pytest.raises(UserError) as caught:
        checked_patterns(["a[", "b[x]", "c"], "unfrozen_params")
    assert [p.split(":")[0] for p in caught.value.problems] == ["unfrozen_params"] * 2


@pytest.mark.parametrize("value", [[], 3, [3], None, {"a": 1}, [None]])
def test_what_are_no_names(value):
    with pytest.raises(UserError, match="frozen_params must be a list of names of parameters but"):
        checked_patterns(value, "frozen_params")


def test_masks_broadcast(gpt2):
    patterns = checked_patterns("transformer.wte.weight[(1,5)]", "x")
    [(parameter, mask)] = find_all(gpt2, patterns, "x").items()
    assert mask.shape == (380, 1)
    assert mask.dtype == torch.bool
    assert mask.squeeze().nonzero().squeeze().tolist() == [1, 5]
    assert parameter is gpt2.transformer.wte.weight
