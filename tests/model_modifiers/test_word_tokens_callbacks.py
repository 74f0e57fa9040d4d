"""Which rows words mean, and which words and names mean none. What happens to the rows is tested
with everything else that is frozen."""

from __future__ import annotations

import copy

import pytest
import torch

from families import family
from finetune_lm.errors import UserError
from finetune_lm.model_modifiers import FreezeWordTokensCallback, UnfreezeWordTokensCallback
from finetune_lm.model_modifiers._word_rows import word_rows


def rows(fam, words, name=None):
    [(parameter, mask)] = word_rows(
        fam.model, fam.tokenizer, words, "words_to_freeze", name
    ).items()
    ids = mask.flatten().nonzero().flatten().tolist()
    return parameter, fam.tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("gpt2", ["Ġthe", "Ġwater"]),
        ("llama", ["▁the", "▁water"]),
        ("bert", ["the", "water"]),
        ("roberta", ["Ġthe", "Ġwater"]),
        ("t5", ["▁the", "▁water"]),
        ("bart", ["Ġthe", "Ġwater"]),
        ("distilbert", ["the", "water"]),
        ("albert", ["the", "water"]),
        ("electra", ["the", "water"]),
        ("pythia", ["Ġthe", "Ġwater"]),
        ("olmo2", ["Ġthe", "Ġwater"]),
        ("flan-t5", ["▁the", "▁water"]),
    ],
)
def test_the_token_that_sentences_use(name, tokens):
    """Not the one at the beginning of a text, where there is another."""
    fam = family(name)
    parameter, found = rows(fam, ["the", "water", " the "])
    assert sorted(found) == sorted(tokens)
    assert parameter is fam.model.get_input_embeddings().weight
    assert rows(fam, "the")[1] == [tokens[0]]


def test_a_word_that_was_added():
    fam = family("gpt2")
    tokenizer = copy.deepcopy(fam.tokenizer)
    tokenizer.add_tokens(["crined"])
    fam.model.resize_token_embeddings(len(tokenizer))
    assert rows(fam._replace(tokenizer=tokenizer), "crined")[1] == ["crined"]


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("gpt2", "crined", "'crined' falls into 5: 'Ġc' 'r' 'i' 'n' 'ed'. model_modifiers.add_new"),
        ("bert", "crined", ": 'c' '##r' '##i' '##n' '##e"),
        ("t5", "man", "'man' falls into 3: '▁' 'm' 'an'."),
        ("gpt2", "the man", "'the man' falls into 2: 'Ġthe' 'Ġman'."),
        ("bert", "☃", "'☃' is unknown to the tokenizer: it is read as '[UNK]'."),
        ("bert", "\u200b", "'\\u200b' has no tokens of its own."),
    ],
)
def test_words_that_are_not_single_tokens(name, word, message):
    fam = family(name)
    for cls, words_name in (
        (FreezeWordTokensCallback, "words_to_freeze"),
        (UnfreezeWordTokensCallback, "words_to_unfreeze"),
    ):
        with pytest.raises(UserError) as caught:
            cls(fam.model, fam.tokenizer, ["water", word])
        must = f"{words_name} must hold words that are single tokens inside a sentence, but"
        assert [p.startswith(must) for p in caught.value.problems] == [True]
        assert message in str(caught.value)
    # Nothing was frozen on the way.
    assert all(parameter.requires_grad for parameter in fam.model.parameters())


def test_a_special_token_is_a_word_like_others():
    assert rows(family("bert"), ["[MASK]", "[UNK]"])[1] == ["[UNK]", "[MASK]"]
    assert rows(family("t5"), "<extra_id_0>")[1] == ["<extra_id_0>"]


def test_every_word_that_will_not_do_is_told():
    fam = family("bert")
    with pytest.raises(UserError) as caught:
        UnfreezeWordTokensCallback(fam.model, fam.tokenizer, ["crined", "water", "☃"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("words", [[], "", [""], [3], None, 3, {"a": 1}])
def test_what_are_no_words(words):
    fam = family("gpt2")
    with pytest.raises(UserError, match="words_to_freeze must be a list of words but"):
        FreezeWordTokensCallback(fam.model, fam.tokenizer, words)


def test_embeddings_by_name():
    fam = family("llama")
    parameter, tokens = rows(fam, "the", "lm_head.weight")
    assert parameter is fam.model.lm_head.weight
    assert tokens == ["▁the"]
    assert rows(family("t5"), "the", "decoder.embed_tokens.weight")[1] == ["▁the"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model.embed_token.weight",
            "word_embeddings_name: no parameter of the model is called 'model.embed_token.weight'. "
            "There are model.embed_tokens.weight,",
        ),
        ("model.embed_tokens", "model.embed_tokens.* means all that are below it, such as model"),
        (
            "model.norm.weight",
            "word_embeddings_name must name a parameter with a row for each token, but it has 16 "
            "rows and token ",
        ),
    ],
)
def test_names_of_no_embeddings(name, message):
    with pytest.raises(UserError) as caught:
        rows(family("llama"), "the", name)
    assert message in str(caught.value)


def test_a_model_that_does_not_tell_where_its_embeddings_are():
    fam = family("gpt2")
    model = torch.nn.Sequential(torch.nn.Embedding(400, 4), torch.nn.Linear(4, 400))
    with pytest.raises(UserError, match="word_embeddings_name must be given, because Sequential"):
        UnfreezeWordTokensCallback(model, fam.tokenizer, "the")
    UnfreezeWordTokensCallback(model, fam.tokenizer, "the", word_embeddings_name="0.weight")
    assert [p.requires_grad for p in model.parameters()] == [True, False, False]
