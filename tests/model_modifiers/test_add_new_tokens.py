"""What is said of new words, what is refused, and what other parts of the program make of them."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
import transformers

from families import CONFIGS, family
from finetune_lm.arguments import ModelArguments
from finetune_lm.data_preprocessing import mask_word_tokens, mask_words
from finetune_lm.errors import UserError
from finetune_lm.model_modifiers import add_new_tokens
from finetune_lm.models.loading import load_model
from finetune_lm.models.vocabulary import vocabulary_of
from helpers import dataset, examples, save_family, score
from masking import encode
from new_tokens import (
    BUILTIN,
    TIED,
    UNTIED,
    entries,
    in_sentence,
    is_bert,
    model_and_tokenizer,
    tables,
)

TEXTS = ["The man crined it.", "crined is it.", "He said (crined), dax."]


def test_words_that_are_there_already(capsys):
    model, tokenizer = model_and_tokenizer("tiny-lm")
    capsys.readouterr()
    before = copy.deepcopy(model.state_dict())
    n = len(tokenizer)
    add_new_tokens(model, tokenizer, ["water", "man"])
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "add_new_tokens: 'water' is one token already and is left alone.",
        "add_new_tokens: 'man' is one token already and is left alone.",
    ]
    assert len(tokenizer) == n
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    add_new_tokens(model, tokenizer, ["crined", "water"])
    rows = model.get_input_embeddings().weight.detach().clone()
    add_new_tokens(model, tokenizer, ["crined"], init="random")
    assert "'crined' is one token already" in capsys.readouterr().err
    assert torch.equal(model.get_input_embeddings().weight, rows)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bert"])
def test_common_words_that_a_small_vocabulary_lacks(name):
    """Also those that the new tokenizer is tried out on."""
    model, tokenizer = model_and_tokenizer(name)
    words = ["the", "man", "water", "is", "old", "said", "and", "then", "so", "child", "bread"]
    words += ["d", "ed", "reed", "reeds", "manly", "unmanly", "xo", "xo-xo"]
    before = copy.deepcopy(tokenizer)
    lacking = [word for word in words if len(in_sentence(before, word)) > 1]
    assert len(lacking) > 3
    add_new_tokens(model, tokenizer, words)
    for word in words:
        assert len(in_sentence(tokenizer, word)) == 1
    per_word = 1 if is_bert(tokenizer) else 2
    assert len(tokenizer) - len(before) <= per_word * len(lacking)


def test_what_is_said(capsys):
    said = {}
    for name in BUILTIN:
        model, tokenizer = model_and_tokenizer(name)
        capsys.readouterr()
        add_new_tokens(model, tokenizer, ["crined", "crined "])
        said[name] = capsys.readouterr().err
    assert said == {
        "tiny-lm": "add_new_tokens: 'crined' is one token now: 'Ġcrined' (id 1700) in a sentence, "
        "'crined' (id 1701) at the start of a text or right behind punctuation.\n",
        "tiny-mlm": "add_new_tokens: 'crined' is one token now: 'crined' (id 1400).\n",
        "tiny-seq2seq": "add_new_tokens: 'crined' is one token now: '▁crined' (id 1600) in a "
        "sentence, '##crined' (id 1601) right behind punctuation.\n",
    }


def test_capitals_for_an_uncased_model(capsys):
    model, tokenizer = model_and_tokenizer("bert")
    n = len(tokenizer)
    add_new_tokens(model, tokenizer, ["Crined", "crined", "Naïvo"])
    assert capsys.readouterr().err.splitlines() == [
        "add_new_tokens: 'Crined' and 'crined' are the same word for this tokenizer.",
        f"add_new_tokens: 'Crined' is one token now: 'crined' (id {n}).",
        f"add_new_tokens: 'Naïvo' is one token now: 'naivo' (id {n + 1}).",
    ]
    assert in_sentence(tokenizer, "CRINED naïvo") == [n, n + 1]


def test_an_entry_that_is_there_but_stands_in_no_sentence_keeps_its_row(capsys):
    model, tokenizer = model_and_tokenizer("tiny-lm")
    vocab = tokenizer.get_vocab()
    # A token that only ever goes on with a word: "ined" in "crined".
    inside = next(
        token
        for token in sorted(vocab)
        if re.fullmatch("[a-z]{3,}", token)
        and len(in_sentence(tokenizer, token)) > 1
        and tokenizer.tokenize(token) == [token]
    )
    row = model.get_input_embeddings().weight[vocab[inside]].detach().clone()
    n = len(tokenizer)
    add_new_tokens(model, tokenizer, inside)
    assert "which was there before" in capsys.readouterr().err
    assert len(tokenizer) == n + 1
    assert torch.equal(model.get_input_embeddings().weight[vocab[inside]], row)
    assert in_sentence(tokenizer, inside) == [n]
    assert tokenizer(f"({inside})", add_special_tokens=False)["input_ids"][1] == vocab[inside]


BAD = {
    "nothing": ({"added_tokens": []}, "added_tokens must be a list of words but got [] "),
    "no list": ({"added_tokens": 3}, "added_tokens must be a list of words but got 3"),
    "a number": (
        {"added_tokens": ["a", 1984]},
        "has 1984 in it. Put quotes around a number that is meant as a word: '\"1984\"'.",
    ),
    "blank": ({"added_tokens": ["crined", " "]}, "but one of them is empty."),
    "two words": (
        {"added_tokens": ["to crine"]},
        "must be a list of single words but has 'to crine' in it. Give each by itself: to crine",
    ),
    "a mark": ({"added_tokens": ["▁crined"]}, "as they stand in a text but has '▁crined' in it."),
    "a continuation": ({"added_tokens": ["##ed"]}, "as they stand in a text but has '##ed' in it."),
    "no such start": (
        {"added_tokens": ["crined"], "init": "randon"},
        "init must be mean, mean_cov, random, subwords or copy:WORD but got 'randon'. "
        "Did you mean random?",
    ),
    "no word to copy": (
        {"added_tokens": ["crined"], "init": "copy:"},
        "init must be mean, mean_cov, random, subwords or copy:WORD but got 'copy:'.",
    ),
    "a start that is no text": (
        {"added_tokens": ["crined"], "init": 0.5},
        "init must be mean, mean_cov, random, subwords or copy:WORD but got 0.5.",
    ),
    "no scale": (
        {"added_tokens": ["crined"], "init": "mean_cov", "scale": 0},
        "scale must be a number above 0 but got 0.",
    ),
    "a scale that is no number": (
        {"added_tokens": ["crined"], "init": "mean_cov", "scale": "small"},
        "scale must be a number above 0 but got 'small'.",
    ),
    "a scale without end": (
        {"added_tokens": ["crined"], "init": "mean_cov", "scale": float("inf")},
        "scale must be a number above 0 but got inf.",
    ),
    "a scale for another start": (
        {"added_tokens": ["crined"], "scale": 0.1},
        "scale has no use because init is 'mean'; it is for mean_cov.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_values_are_told_before_anything_is_loaded(case):
    kwargs, message = BAD[case]
    with pytest.raises(UserError) as caught:
        add_new_tokens(*model_and_tokenizer("gpt2"), **kwargs)
    assert message.strip() in str(caught.value)
    args = ModelArguments(
        "no/such-model",
        model_modifier_fns=[add_new_tokens],
        model_modifier_fn_kwargs={"add_new_tokens": kwargs},
    )
    [problem] = args.problems()
    assert problem.startswith("model_modifier_fn_kwargs.add_new_tokens: ")
    assert message.strip() in problem


def unchanged(model, tokenizer, before):
    return len(tokenizer) == before[1] and all(
        torch.equal(before[0][key], value) for key, value in model.state_dict().items()
    )


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("bert", {"added_tokens": "[MASK]"}, r"cannot hold '\[MASK\]', which is a special token"),
        ("t5", {"added_tokens": "<extra_id_3>"}, "which is a special token of this model"),
        (
            "tiny-lm",
            {"added_tokens": "crined", "init": "copy:flomped"},
            "init copy:WORD needs a WORD that is one token of this model, but 'flomped' is Ġfl om",
        ),
        (
            "tiny-mlm",
            {"added_tokens": "☃☃", "init": "subwords"},
            r"init subwords needs words whose parts the tokenizer knows, but '☃☃' is \[UNK\]",
        ),
        (
            "bert",
            {"added_tokens": "中文"},
            "words that this model's tokenizer leaves as they are, but it reads '中文' as",
        ),
        ("tiny-lm", {"added_tokens": "<|endoftext|>x"}, "would not read it as one token"),
    ],
)
def test_what_does_not_go_with_the_model(name, kwargs, message):
    model, tokenizer = model_and_tokenizer(name)
    before = (copy.deepcopy(model.state_dict()), len(tokenizer))
    with pytest.raises(UserError, match=message):
        add_new_tokens(model, tokenizer, **kwargs)
    assert unchanged(model, tokenizer, before)


def test_a_tokenizer_that_would_disturb_the_neighbours_is_refused():
    """One of a kind that is not known here: it ends words with a mark, as GPT-1's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    text = "the man is old water and then so he said crined . , ' \" ( ) -"
    backend.train_from_iterator([text, " ".join(set(text))] * 3, trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    model = transformers.GPT2LMHeadModel(CONFIGS["gpt2"](len(tokenizer)))
    before = (copy.deepcopy(model.state_dict()), len(tokenizer))
    with pytest.raises(
        UserError, match=r"cannot hold 'dinec' for this model: its tokenizer \(BPE\)"
    ):
        add_new_tokens(model, tokenizer, "dinec")
    assert unchanged(model, tokenizer, before)


def test_a_tokenizer_written_in_python_is_refused():
    tokenizer = transformers.ByT5Tokenizer()
    with pytest.raises(UserError, match="needs a fast tokenizer, but ByT5Tokenizer is written in"):
        add_new_tokens(family("t5").model, tokenizer, "crined")


def test_a_model_that_cannot_grow():
    model, tokenizer = model_and_tokenizer("gpt2")

    def refuse(*_, **__):
        raise NotImplementedError("not for this one")

    model.resize_token_embeddings = refuse
    before = (copy.deepcopy(model.state_dict()), len(tokenizer))
    with pytest.raises(UserError, match=r"can be enlarged, but this one \(GPT2LMHead"):
        add_new_tokens(model, tokenizer, "crined")
    assert unchanged(model, tokenizer, before)


@pytest.mark.parametrize("name", ["tiny-mlm", "roberta", "t5", "tiny-seq2seq", "bert"])
@pytest.mark.parametrize("function", [mask_words, mask_word_tokens])
def test_masking_finds_the_new_word(name, function):
    model, tokenizer = model_and_tokenizer(name)
    before = copy.deepcopy(tokenizer)
    add_new_tokens(model, tokenizer, ["crined"])
    new = set(entries(tokenizer, before))
    text = 'crined man "crined" (crined), recrineds the crined crined.'
    inputs = encode(tokenizer, [text])
    assert sum(int(i) in new for i in inputs["input_ids"][0]) == 5
    outputs = function(inputs, tokenizer, ["crined"])
    assert not any(int(i) in new for i in outputs["input_ids"][0])
    assert sum(int(i) in new for i in outputs["labels"][0]) == 5
    assert "recrineds" in tokenizer.decode(outputs["input_ids"][0]).replace(" ", "")


@pytest.mark.parametrize("name", [*TIED[:5], *UNTIED[:2], *BUILTIN])
def test_tables_have_the_word_as_a_word(name):
    model, tokenizer = model_and_tokenizer(name)
    add_new_tokens(model, tokenizer, ["crined"])
    task = {"tiny-lm": "lm", "tiny-mlm": "mlm", "tiny-seq2seq": "seq2seq"}.get(name)
    fam = family(name) if task is None else family({"lm": "gpt2", "mlm": "bert"}.get(task, "t5"))
    fam = fam._replace(tokenizer=tokenizer, model=model.eval())
    lines = ["The man has crined it.", 'crined, "crined" the crined']
    data = dataset(fam, examples(lines))
    if fam.task == "mlm":
        data = dataset(
            fam, examples(lines), function=mask_words, kwargs={"words_to_mask": "crined"}
        )
    rows, _ = score(fam, data)
    if "sequence_type" in rows:
        rows = rows[rows["sequence_type"] == "label_sequence"]
    new = rows[rows["token"].str.strip() == "crined"]
    assert new["word_num"].tolist() == [3, 0, 1, 3]
    assert new["word"].tolist() == ["crined", "crined,", '"crined"', "crined"]
    assert new["token_is_word"].tolist() == [True, False, False, True] or fam.task == "mlm"
    assert new["token_num_in_word"].tolist()[:2] == [0, 0]
    # With the space before it where tokens of this model have that, and no other.
    if name in ("gpt2", "tiny-lm", "qwen", "bart", "roberta"):
        assert new["token"].tolist() == [" crined", "crined", "crined", " crined"]
    else:
        assert set(new["token"]) == {"crined"}
    assert vocabulary_of(tokenizer).ordinary_ids.max() == new["token_id"].max()


@pytest.mark.parametrize("name", [*TIED[:7], *UNTIED[:4]])
def test_saved_and_loaded_again(name, tmp_path):
    fam = family(name)
    directory = save_family(fam, tmp_path / "start")
    made = load_model(
        ModelArguments(
            directory,
            model_modifier_fns=[add_new_tokens],
            model_modifier_fn_kwargs={
                "add_new_tokens": {"added_tokens": ["crined", "dax"], "init": "random"}
            },
        )
    )
    made.model.save_pretrained(tmp_path / "out" / "model")
    made.tokenizer.save_pretrained(tmp_path / "out" / "tokenizer")
    loaded = load_model(ModelArguments(str(tmp_path / "out" / "model")))
    assert loaded.n_params == made.n_params
    now, then = tables(loaded.model), tables(made.model)
    assert all(np.array_equal(now[key], then[key]) for key in then)
    with torch.no_grad():
        for text in TEXTS:
            ids = made.tokenizer(text)["input_ids"]
            assert loaded.tokenizer(text)["input_ids"] == ids
            batch = {"input_ids": torch.tensor([ids]), "labels": torch.tensor([ids])}
            assert torch.equal(made.model(**batch).logits, loaded.model(**batch).logits)


def test_a_list_of_one_may_be_given_as_one():
    args = ModelArguments(
        "tiny-lm",
        model_modifier_fns=[add_new_tokens],
        model_modifier_fn_kwargs={"add_new_tokens": {"added_tokens": "crined"}},
    )
    assert args.problems() == []
    assert len(load_model(args).tokenizer) == 1702
