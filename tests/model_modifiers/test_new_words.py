"""A new word is one token wherever it stands as a word, and nothing else changes."""

from __future__ import annotations

import copy
import functools
import re

import numpy as np
import pytest
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.model_modifiers._new_words import pieces, teach
from finetune_lm.model_modifiers._spelling import Spelling
from finetune_lm.models.vocabulary import JOINER, Vocabulary, spelled
from helpers import words_of_encoding
from tokenizer_kinds import KINDS, tokenizer_of_kind

NEW = ["crined", "dax", "naïvo", "xo-xo", "O'Dax", "ж"]

SENTENCES = [
    "The man crined the water.",
    "crined is it.",
    "crined",
    "He said: “crined”, \"crined\" (crined).",
    "The man's crined; the children crined, crined-water.",
    "A   crined\t crined  it, crined crined dax",
    "the naïvo. \"naïvo\" Naïvo ж, (ж) ж",
    "xo-xo and O'Dax, o'dax; (xo-xo)",
    "Was it crined? Crined! CRINED…",
    "crined's dax's 'dax' crined’s",
]  # fmt: skip
UNTOUCHED = [
    "recrineds crineds recrined crined_ _crined crined2 2crined crinedé écrined",
    "The man has always broken the glass, haven't they?",
    " two  spaces\tand a tab \n and “quotes”—dashes… ",
    "xo-xos axo-xo dax_ daxes naïvos",
    "😀 ½ ﬁ Ǆ ñ 中文",
    "жж ажа",
]


def taught(tokenizer, words=NEW):
    changed = copy.deepcopy(tokenizer)
    spelling = Spelling.of(changed)
    teach(changed, spelling, list(dict.fromkeys(spelling.normalized(changed, w) for w in words)))
    return changed


@functools.cache
def both(name):
    """A tokenizer, the same with new words, the forms of these, and what they are in a text."""
    before = tokenizer_of_kind(name)
    after = taught(before)
    new = set(after.get_vocab().values()) - set(before.get_vocab().values())
    spelling = Spelling.of(before)
    read = {spelling.normalized(before, word) for word in NEW}
    return before, after, new, read


def encoded(tokenizer, text):
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return list(zip(made["input_ids"], map(tuple, made["offset_mapping"]), strict=True))


def occurrences(name, text):
    """Where new words stand as words. The longest comes first."""
    before, _, _, read = both(name)
    spelling = Spelling.of(before)
    ignored = re.IGNORECASE if spelling.normalized(before, "A") == "a" else re.NOFLAG
    words = "|".join(sorted({*NEW, *read}, key=len, reverse=True))
    return [
        match.span()
        for match in re.finditer(rf"(?<!\w)(?:{words})(?!\w)", text, ignored)
        if spelling.normalized(before, match.group()) in read
    ]


def without_space(text, span):
    begin, end = span
    while begin < end and text[begin].isspace():
        begin += 1
    return begin, end


def check(name, text):
    """Compare a text's tokens with those it had when the new words were words like any other.

    Returns whether that was possible: a token that was partly of a word cannot stay.
    """
    before, after, new, _ = both(name)
    old, now = encoded(before, text), encoded(after, text)
    places = occurrences(name, text)
    edges = {edge for span in places for edge in span}
    if any(b < e < z for _, s in old for b, z in [without_space(text, s)] for e in edges):
        return False

    found = [without_space(text, span) for token, span in now if token in new]
    assert found == places, spelled(after, [token for token, _ in now])
    left = list(old)
    for token, span in now:
        if token not in new:
            assert left.pop(0) == (token, span)
            continue
        begin, end = without_space(text, span)
        replaced = []
        while left and left[0][1][0] < end:
            replaced.append(left.pop(0))
        assert replaced
        assert all(begin - 1 <= b and z <= end for _, (b, z) in replaced)
    assert left == []
    if before.unk_token_id not in [token for token, _ in old]:
        texts = [
            t.decode([i for i, _ in tokens], clean_up_tokenization_spaces=False)
            for t, tokens in ((before, old), (after, now))
        ]
        if Spelling.of(before).sign is None:  # puts spaces around hyphens and apostrophes
            texts = ["".join(text.split()) for text in texts]
        assert texts[0] == texts[1]
    return True


@pytest.mark.parametrize("name", KINDS)
def test_one_token_wherever_it_stands_as_a_word(name):
    for text in SENTENCES:
        assert check(name, text), text


@pytest.mark.parametrize("name", KINDS)
def test_texts_without_the_word_stay_as_they_are(name):
    before, after, _, _ = both(name)
    for text in UNTOUCHED:
        assert encoded(after, text) == encoded(before, text), text
        assert after(text) == before(text), text


WORDS = st.sampled_from(
    [*NEW, "Crined", "the", "The", "man", "crineds", "recrined", "water", "naïve", "haven't", "😀"]
)
BEFORE = st.sampled_from(["", "", "", "(", '"', "“", "'", "-", "[", "…", "—"])
BEHIND = st.sampled_from(["", "", "", ".", ",", ")", '"', "”", "'s", "?!", "-", "…", " -"])
BETWEEN = st.sampled_from([" ", " ", " ", "  ", "\t", " \t "])


@st.composite
def texts(draw):
    parts = draw(st.lists(st.tuples(BETWEEN, BEFORE, WORDS, BEHIND), min_size=1, max_size=6))
    text = "".join(part for each in parts for part in each)
    return text[len(parts[0][0]) :]


@settings(max_examples=400)
@given(texts(), st.sampled_from(KINDS))
def test_neighbours_are_undisturbed(text, name):
    # White space of several characters without a space last is cut differently before an added
    # token than before a word, as if the text ended there.
    assume(not re.search(r"\s\t[^\s]", text))
    assume(check(name, text))


@given(st.text(max_size=30), st.sampled_from(KINDS))
def test_any_text_without_the_word_stays_as_it_is(text, name):
    assume(not occurrences(name, text))
    before, after, _, _ = both(name)
    assert encoded(after, text) == encoded(before, text)


# Of these Python and the tokenizers think the same, whether they are of a word.
AROUND = st.text(st.characters(categories=["Lu", "Ll", "Nd", "P", "Sm", "Sc", "Zs"]), max_size=8)


@given(AROUND, AROUND, st.sampled_from(KINDS))
def test_whatever_stands_around_it_nothing_breaks(before, behind, name):
    old, after, new, _ = both(name)
    for text in (f"{before}crined{behind}", f"{before} crined {behind}"):
        n = sum(token in new for token, _ in encoded(after, text))
        assert n == len(occurrences(name, text))
        assert old.get_vocab().items() <= after.get_vocab().items()


@given(st.text(max_size=8), st.text(max_size=8), st.sampled_from(KINDS))
def test_no_mark_gets_into_a_text(before, behind, name):
    assume(JOINER not in before + behind)
    old, after, _, _ = both(name)
    for text in (f"{before}crined{behind}", f"{before} crined {behind}"):
        tokens = encoded(after, text)
        assert all(0 <= begin <= end <= len(text) for _, (begin, end) in tokens)
        ids = [token for token, _ in tokens]
        assert JOINER not in after.decode(ids)
        if old.unk_token_id not in old(text)["input_ids"]:
            assert old.unk_token_id not in ids


@pytest.mark.parametrize("name", KINDS)
def test_loading_gives_the_same_tokenizer(name, tmp_path):
    before, after, _, _ = both(name)
    copy.deepcopy(after).save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*SENTENCES, *UNTOUCHED]:
        assert encoded(loaded, text) == encoded(after, text)
        ids = after(text)["input_ids"]
        assert loaded(text) == before(text) or ids != before(text)["input_ids"]
        assert dict(loaded(text)) == dict(after(text))
        assert loaded.decode(ids) == after.decode(ids)
    for attribute in (
        *("all_special_ids", "special_tokens_map", "model_input_names", "padding_side"),
        *("truncation_side", "model_max_length", "vocab_size"),
    ):
        assert getattr(loaded, attribute) == getattr(after, attribute), attribute
        assert getattr(after, attribute) == getattr(before, attribute), attribute
    assert loaded.get_vocab() == after.get_vocab()


FAMILIES = {
    **dict.fromkeys(("gpt2", "gpt2-class", "gpt2-prefix-space", "tiny-lm"), "GPT2Config"),
    **dict.fromkeys(("roberta", "roberta-class", "roberta-prefix-space"), "RobertaConfig"),
    **dict.fromkeys(("t5", "t5-class", "tiny-seq2seq"), "T5Config"),
    **dict.fromkeys(("llama", "llama-class", "llama-legacy", "llama3"), "LlamaConfig"),
    **dict.fromkeys(("bert", "bert-cased", "tiny-mlm"), "BertConfig"),
    "bart": "BartConfig",
    "neox-class": "GPTNeoXConfig",
    "albert-class": "AlbertConfig",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_beside_a_config_of_its_family_it_is_the_same_too(name, tmp_path):
    """Users put model and tokenizer into one directory; then the config names another class."""
    _, after, _, _ = both(name)
    getattr(transformers, FAMILIES[name])().save_pretrained(tmp_path)
    copy.deepcopy(after).save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in SENTENCES:
        assert encoded(loaded, text) == encoded(after, text)


@pytest.mark.parametrize("name", KINDS)
def test_words_may_be_added_in_several_calls(name):
    before, together, _, _ = both(name)
    one_by_one = before
    for word in NEW:
        one_by_one = taught(one_by_one, [word])
    for text in [*SENTENCES, *UNTOUCHED]:
        assert encoded(one_by_one, text) == encoded(together, text)
        ids = together(text)["input_ids"]
        assert one_by_one.decode(ids) == together.decode(ids)


@pytest.mark.parametrize("name", KINDS)
def test_the_word_of_a_sentence_is_one_entry_and_its_text_is_the_word(name):
    before, after, _, _ = both(name)
    spelling = Spelling.of(before)
    read = spelling.normalized(before, "naïvo")
    inside = {tuple(pieces(after, "naïvo", lead)) for lead in ("a ", "the man ", "so, ")}
    assert len(inside) == 1
    [[token]] = inside
    vocabulary = Vocabulary(after)
    [text] = vocabulary.texts(np.array([token]))
    [other] = vocabulary.texts(np.array(before("a man")["input_ids"][-1:]))
    assert text.strip() == read
    assert text[:1].isspace() == (spelling.sign == "Ġ")
    assert other is not None
    if spelling.sign is not None:
        assert spelled(after, [token]) == [spelling.sign + read]
        bare = pieces(after, "naïvo", '"')
        assert bare is not None
        assert len(bare) == 1
        assert bare != [token]
        assert vocabulary.texts(np.array(bare))[0] == read
    # A text of one word is spelled as a text begins.
    start = pieces(after, "naïvo", "")
    assert start == pieces(after, "naïvo", "a " if spelling.starts_spaced else '"') or (
        spelling.sign is None
    )


@pytest.mark.parametrize("name", KINDS)
def test_every_token_belongs_to_its_word(name):
    _, after, new, _ = both(name)
    encoder = TextEncoder(after, 200)
    for text in SENTENCES:
        [encoding] = encoder([text])
        words = words_of_encoding(text, encoding)
        split = text.split()
        for token, number in zip(encoding.input_ids, words, strict=True):
            if token in new:
                bare = after.decode([token]).strip()
                assert bare.casefold() in split[number].casefold().replace("ï", bare[2:3]), text
        assert sorted(set(words) - {-1}) == list(range(len(split))), text
