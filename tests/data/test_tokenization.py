"""Start tokens, end tokens and truncation, for tokenizers of every family."""

from __future__ import annotations

import copy

import pytest

from families import TASKS as FAMILY_TASKS
from families import TOKENIZERS, gpt2_tokenizer, llama_tokenizer, qwen_tokenizer
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.errors import UserError
from finetune_lm.models.tasks import TASKS
from helpers import WithoutOffsets

TEXT = "The man's naïve café wasn't  unbelievable."
STARTING = ["gpt2", "llama", "bert", "roberta"]


def encoder(name, max_length=64, **kwargs):
    task = TASKS[FAMILY_TASKS[name][0]]
    return TextEncoder(TOKENIZERS[name](), max_length, add_start=task.starts_texts, **kwargs)


@pytest.mark.parametrize("name", STARTING)
def test_exactly_one_start_token(name):
    encode = encoder(name)
    [encoding] = encode([TEXT])
    assert encoding.input_ids[:1] == encode.start_ids
    assert encoding.input_ids.count(*encode.start_ids) == 1
    assert encoding.char_start[0] == -1


@pytest.mark.parametrize("name", STARTING)
def test_a_start_token_in_the_text_is_not_doubled(name):
    encode = encoder(name)
    start = encode.tokenizer.bos_token or encode.tokenizer.cls_token
    [encoding] = encode([start + TEXT])
    assert encoding.input_ids[:2].count(*encode.start_ids) == 1


def test_a_start_token_whose_id_is_0():
    assert gpt2_tokenizer().bos_token_id == 0
    assert encoder("gpt2")(["The man"])[0].input_ids[0] == 0


def test_no_start_token_where_there_is_none():
    [encoding] = encoder("qwen")([TEXT])
    assert encoding.char_start[0] == 0
    plain = qwen_tokenizer()(TEXT)["input_ids"]
    assert encoding.input_ids == plain


def test_eos_starts_a_text_if_the_policy_says_so():
    [encoding] = encoder("qwen", bos_policy="eos")([TEXT])
    assert encoding.input_ids[0] == qwen_tokenizer().eos_token_id
    assert encoding.char_start[:2] == [-1, 0]


def test_policy_none_leaves_texts_as_the_tokenizer_makes_them():
    assert encoder("gpt2", bos_policy="none")([TEXT])[0].char_start[0] == 0
    assert encoder("llama", bos_policy="none")([TEXT])[0].char_start[0] == -1


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_seq2seq_texts_are_what_the_tokenizer_makes(name):
    assert encoder(name)([TEXT])[0].input_ids == TOKENIZERS[name]()(TEXT)["input_ids"]


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen"])
def test_append_eos(name):
    without = encoder(name)([TEXT])[0]
    with_end = encoder(name, append_eos=True)([TEXT])[0]
    assert with_end.input_ids == [*without.input_ids, TOKENIZERS[name]().eos_token_id]
    assert with_end.char_start[-1] == -1


@pytest.mark.parametrize("name", ["bert", "roberta", "t5", "bart"])
def test_append_eos_adds_none_where_there_is_one(name):
    assert encoder(name, append_eos=True)([TEXT]) == encoder(name)([TEXT])


def test_append_eos_without_an_eos_token():
    tokenizer = copy.deepcopy(gpt2_tokenizer())
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="append_eos needs a tokenizer with an EOS token"):
        TextEncoder(tokenizer, 64, append_eos=True)


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize("append_eos", [False, True])
@pytest.mark.parametrize("max_length", [4, 7, 12])
def test_truncation_leaves_room_for_what_is_put_in(name, append_eos, max_length):
    whole = encoder(name, append_eos=append_eos)([TEXT])[0]
    encode = encoder(name, max_length, append_eos=append_eos)
    [cut] = encode([TEXT])
    assert len(cut.input_ids) == max_length
    assert cut.n_cut == len(whole.input_ids) - max_length
    # The same beginning, the same end token.
    n_behind = int(whole.char_start[-1] == -1)
    assert cut.input_ids[: max_length - n_behind] == whole.input_ids[: max_length - n_behind]
    if n_behind:
        assert cut.input_ids[-1] == whole.input_ids[-1]
    assert cut.cut_start == whole.char_start[max_length - n_behind]


def test_a_text_of_just_the_right_length_is_not_cut():
    length = len(encoder("bert")([TEXT])[0].input_ids)
    assert encoder("bert", length)([TEXT]) == encoder("bert")([TEXT])


def test_no_room_for_the_text():
    with pytest.raises(UserError, match="max_length must leave room for the text but is 2"):
        encoder("bert", 2)([TEXT])


@pytest.mark.parametrize(
    ("name", "text", "literal"),
    [("bert", "un[MASK]able [MASK]", "[MASK]"), ("t5", "a <extra_id_0> b", "<extra_id_0>")],
)
def test_masks_and_sentinels_are_of_the_text(name, text, literal):
    encode = encoder(name)
    [encoding] = encode([text])
    mask = encode.tokenizer.convert_tokens_to_ids(literal)
    places = [s for i, s in zip(encoding.input_ids, encoding.char_start, strict=True) if i == mask]
    assert places == [i for i in range(len(text)) if text.startswith(literal, i)]


def test_unknown_tokens_are_of_the_text():
    [encoding] = encoder("bert")(["The 😀 man 😀"])
    unknown = TOKENIZERS["bert"]().unk_token_id
    assert [
        s for i, s in zip(encoding.input_ids, encoding.char_start, strict=True) if i == unknown
    ] == [4, 10]


@pytest.mark.parametrize("name", list(TOKENIZERS))
@pytest.mark.parametrize(
    "text",
    [TEXT, "The man has always broken the glass.", "A naïve café-owner said: “so what?” "],
)
def test_alignment_by_decoding_agrees_with_offsets(name, text):
    from helpers import words_of_encoding

    fast = TOKENIZERS[name]()
    with_offsets = TextEncoder(fast, 64)([text])[0]
    by_decoding = TextEncoder(WithoutOffsets(fast), 64)([text])[0]
    assert by_decoding.input_ids == with_offsets.input_ids
    assert words_of_encoding(text, by_decoding) == words_of_encoding(text, with_offsets)


def test_llama_like_tokenizer_puts_bos_itself():
    assert llama_tokenizer()("a")["input_ids"][0] == llama_tokenizer().bos_token_id
