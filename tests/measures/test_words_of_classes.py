"""What words cost, for every tokenizer class: right by brute force, or missing."""

import functools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from families import Family
from finetune_lm.data.words import word_spans
from finetune_lm.measures import WordBoundary
from finetune_lm.measures.word_boundary import _WITHOUT_SPACES
from helpers import dataset, examples
from measured import measured
from texts_of_classes import ALL, TEXTS

ODD = [
    "  the man ate",
    "the  man ate ",
    "the\nman\tate",
    "(the) man, ate!",
    "the",
    "a the\u00a0man",
]
MORE_ENTRIES = 3
"""How many rows a model has for which there is no token."""


class RandomChain(torch.nn.Module):
    """Predicts each token from the one before it, at random."""

    def __init__(self, n, ends):
        super().__init__()
        generator = torch.Generator().manual_seed(n)
        self.given, self.asked = torch.randn(2, n, 6, generator=generator)
        self.generation_config = SimpleNamespace(eos_token_id=ends)

    def forward(self, input_ids, attention_mask, labels):
        logits = self.given[input_ids] @ self.asked.T
        return SimpleNamespace(logits=logits, loss=torch.tensor(0.0))

    def log_p(self, last):
        logits = self.given[last].double() @ self.asked.double().T
        return (logits.log_softmax(-1) / math.log(2)).numpy()


def joined(tokenizer, ids):
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def starting(tokenizer, n, is_wordpiece):
    """Whether each entry begins another word behind a text, by decoding all of it."""
    before = tokenizer("the man", add_special_tokens=False, verbose=False)["input_ids"]
    words = joined(tokenizer, before).split()
    found = np.zeros(n, dtype=bool)
    for entry, i in tokenizer.get_vocab().items():
        if is_wordpiece:
            found[i] = not entry.startswith("##") or entry == "##"
            continue
        try:
            text = joined(tokenizer, [*before, i])
        except KeyError:  # an entry that the class itself cannot decode
            continue
        # Some decoders leave a space out where nothing follows it.
        found[i] = text.split()[: len(words)] == words and (text.split() != words or "▁" in entry)
        # Sentinels stand for spans, whose words begin with them.
        found[i] |= text != text.rstrip() or entry.startswith("<extra_id_")
    return found


class Told:
    """The words of a text as the tokenizer's units tell them."""

    def __init__(self, fam, measure):
        tokenizer, vocabulary = fam.tokenizer, measure._vocabulary
        n = len(fam.model.given)
        self.fam, self.vocabulary = fam, vocabulary
        self.ends = np.zeros(n, dtype=bool)
        self.ends[[*fam.model.generation_config.eos_token_id]] = True
        own = [i for i in [tokenizer.eos_token_id] if i is not None]
        self.ends[own] = True
        is_wordpiece = vocabulary.continuing_ids is not None
        self.starts = starting(tokenizer, n, is_wordpiece) & ~self.ends

    def cost(self, ids, word, first_of_text):
        """What the word of some places in a text costs; None if it is not one unit."""
        begin, end = word[0], word[-1]
        opens, closes = self.starts | self.ends, end + 1 == len(ids)
        closes = closes or opens[ids[end + 1]]
        units = [k for k in word if k == begin or self.starts[ids[k]]]
        blank = [self.is_blank(ids[k : (*units, end + 1)[i + 1]]) for i, k in enumerate(units)]
        is_told = begin == first_of_text or self.starts[ids[begin]]
        if not (is_told and closes and blank.count(False) <= 1):
            return None
        log_p = {k: self.fam.model.log_p(ids[k]) for k in (begin - 1, *word)}
        total = sum(-log_p[k - 1][ids[k]] for k in word if k - 1 in log_p)

        def share(place, which):
            return math.log2((2.0 ** log_p[place][which]).sum())

        first = opens if self.starts[ids[begin]] else ~self.starts
        return total + share(begin - 1, first) - share(end, opens)

    def is_blank(self, ids):
        return all(not str(text).strip() for text in self.vocabulary.texts(np.array(ids)))


@functools.cache
def random_family(make, name):
    tokenizer = make(name)
    n = max(*tokenizer.get_vocab().values(), *tokenizer("a")["input_ids"], 153) + 1 + MORE_ENTRIES
    fam = Family(name, "lm", tokenizer, RandomChain(n, [n - 2, n - 4]))
    return fam, WordBoundary(fam.model, tokenizer)


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_each_word_costs_what_the_formula_says_or_is_missing(make, name):
    fam, measure = random_family(make, name)
    tokenizer = fam.tokenizer
    told = Told(fam, measure)
    policy = "eos" if tokenizer.eos_token_id is not None else "none"
    data = dataset(fam, examples([*TEXTS, *ODD]), bos_policy=policy)
    rows = measured(fam, data, [measure], size=3)
    n_told = 0
    for number, text in enumerate([*TEXTS, *ODD]):
        ids = list(data.dataset["input_ids"][number])
        of_text = rows[rows["example_num"] == number].reset_index(drop=True)
        n_start = len(ids) - len(of_text)
        assert of_text["token_id"].tolist() == ids[n_start:]
        framed = [i in measure._vocabulary.structural_ids for i in ids[n_start:]]
        first_of_text = n_start + framed.index(False)
        spans = word_spans(text)
        for word_num, group in of_text.groupby("word_num"):
            begin, end = spans[int(word_num)]
            word = list(group.index + n_start)
            found = group["surprisal_corrected"].sum(skipna=False)
            assert group["surprisal_corrected"].isna().nunique() == 1
            if _WITHOUT_SPACES.search(text[begin:end]):
                assert np.isnan(found)
            elif n_start == 0 and word_num == 0:
                assert np.isnan(found)  # nothing predicts its first token
            elif measure._is_needed:
                expected = told.cost(ids, word, first_of_text)
                assert np.isnan(found) == (expected is None), (text, word)
                assert expected is None or found == pytest.approx(expected, abs=2e-3)
            else:
                assert np.isnan(found) or found == pytest.approx(group["surprisal"].sum())
            n_told += not np.isnan(found)
    assert n_told >= 4


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_of_a_text_that_is_cut_the_last_word_is_missing(make, name):
    fam, measure = random_family(make, name)
    if fam.tokenizer.eos_token_id is None:
        pytest.skip("nothing can be appended")
    text = "the man has always taken all the tea"
    for append_eos in (False, True):
        data = dataset(fam, examples([text]), bos_policy="eos", append_eos=append_eos)
        n = len(data.dataset["input_ids"][0])
        if n < 7:
            continue
        data = dataset(
            fam, examples([text]), bos_policy="eos", append_eos=append_eos, max_length=n - 1
        )
        rows = measured(fam, data, [measure])
        words = rows.groupby("word_num")["surprisal_corrected"].sum(min_count=1)
        assert np.isnan(words.iloc[-1])
        assert words.iloc[:-1].notna().all()
