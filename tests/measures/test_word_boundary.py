"""What words cost."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from families import Family, family, gpt2_tokenizer
from finetune_lm.arguments import ModelArguments
from finetune_lm.data.words import word_spans
from finetune_lm.measures import WordBoundary
from finetune_lm.model_modifiers import add_new_tokens
from finetune_lm.models.loading import load_model
from helpers import dataset, examples, save_family
from measured import WAYS, measured
from tokenizer_classes import build

EOS = "<eos>"
# p(next | last) in twentieths over EOS, Ġx, Ġy, x, y, "."; a case to be worked out by hand.
CHAIN = {
    EOS: (1, 2, 1, 8, 6, 2),
    "Ġx": (1, 5, 4, 2, 6, 2),
    "Ġy": (2, 6, 2, 4, 3, 3),
    "x": (2, 6, 4, 2, 3, 3),
    "y": (3, 5, 5, 1, 2, 4),
    ".": (8, 5, 4, 1, 1, 1),
}


def chain_tokenizer():
    """Byte-level BPE with just these entries, and a lone space that is never likely."""
    vocab = {token: i for i, token in enumerate([*CHAIN, "Ġ"])}
    model = tokenizers.models.BPE(vocab, [("Ġ", "x"), ("Ġ", "y")])
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([EOS])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=EOS, eos_token=EOS
    )


class ChainModel(torch.nn.Module):
    """Predicts each token from the one before it, as `CHAIN` says."""

    def __init__(self, table=None):
        super().__init__()
        table = torch.tensor(list(CHAIN.values())) / 20 if table is None else table
        self.table = torch.zeros(len(table) + 1, len(table) + 1)
        self.table[: len(table), : len(table)] = table

    def forward(self, input_ids, attention_mask, labels):
        return SimpleNamespace(logits=self.table[input_ids].log(), loss=torch.tensor(0.0))


def chain_family(table=None):
    return Family("chain", "lm", chain_tokenizer(), ChainModel(table))


def by_word(rows):
    columns = ["surprisal", "surprisal_corrected"]
    return rows.groupby(["example_num", "word_num", "word"])[columns].sum(min_count=1)


def test_the_case_that_is_worked_out_by_hand():
    fam = chain_family()
    data = dataset(fam, examples(["x xy. y"]))
    rows = measured(fam, data, [WordBoundary(fam.model, fam.tokenizer)])
    assert rows["token"].tolist() == ["x", " x", "y", ".", " y"]
    words = by_word(rows)
    np.testing.assert_allclose(words["surprisal"], [1.3219, 5.7959, 2.3219], atol=1e-4)
    np.testing.assert_allclose(words["surprisal_corrected"], [1.8244, 5.2934, 3.0875], atol=1e-4)
    assert words["surprisal_corrected"].sum() == pytest.approx(10.2053, abs=1e-4)
    # Its first token carries what is before a word, its last one what is behind.
    before, after = math.log2(17 / 20), math.log2(3 / 5)
    assert rows["surprisal_corrected"][0] == pytest.approx(1.3219 + before - after, abs=1e-4)


class WithoutEnds(WordBoundary):
    """B without the end of the text, as minicons and the code of Oh & Schuler have it."""

    def __init__(self, model, tokenizer):
        super().__init__(model, tokenizer)
        self._ends_text = np.array([], dtype=np.int64)


def metaspace_tokenizer():
    """As Llama 2, whose first word has the mark of a beginning as well."""
    entries = ["<unk>", EOS, "▁x", "▁y", "x", "y", ".", "▁"]
    vocab = {token: i for i, token in enumerate(entries)}
    model = tokenizers.models.BPE(vocab, [("▁", "x"), ("▁", "y")], unk_token="<unk>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = tokenizers.decoders.Metaspace(prepend_scheme="first")
    backend.add_special_tokens([EOS, "<unk>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=EOS, eos_token=EOS, unk_token="<unk>"
    )


def wordpiece_tokenizer():
    entries = ["[UNK]", EOS, "x", "y", "##x", "##y", "."]
    model = tokenizers.models.WordPiece(
        {token: i for i, token in enumerate(entries)}, unk_token="[UNK]"
    )
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    backend.add_special_tokens([EOS, "[UNK]"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=EOS, eos_token=EOS, unk_token="[UNK]"
    )


# By kind: the tokenizer, the entries that start a word, those that go on with one, and those that
# are of no use here.
KINDS = {
    "byte-level": (chain_tokenizer, ("Ġx", "Ġy"), ("x", "y", "."), ("Ġ",)),
    "SentencePiece": (metaspace_tokenizer, ("▁x", "▁y"), ("x", "y", "."), ("▁", "<unk>")),
    "WordPiece": (wordpiece_tokenizer, ("x", "y"), ("##x", "##y"), (".", "[UNK]")),
}
LONGEST = 4


def random_table(tokenizer, going_on, unused, seed):
    """Of a chain in which few words are long: (vocabulary, vocabulary)."""
    vocab = tokenizer.get_vocab()
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(len(vocab)), size=len(vocab))
    p[:, [vocab[t] for t in unused]] = 0.0
    inner = [vocab[t] for t in going_on]
    p[np.ix_([i for i in range(len(p)) if i != vocab[EOS]], inner)] *= 0.02
    return torch.tensor(p / p.sum(1, keepdims=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_words_of_random_models_sum_to_one(kind):
    """All words behind a context, and the end of the text, with what only longer words have."""
    make, starting, going_on, unused = KINDS[kind]
    tokenizer = make()
    vocab = tokenizer.get_vocab()
    for seed in range(2):
        table = random_table(tokenizer, going_on, unused, seed)
        model = ChainModel(table)
        fam = Family(kind, "lm", tokenizer, model)
        inside = [s.lstrip("#") for s in going_on]
        words = [
            first + "".join(rest)
            for n in range(LONGEST)
            for first in [s.lstrip("Ġ▁") for s in starting]
            for rest in itertools.product(inside, repeat=n)
        ]
        for context in ["x", "y xx"]:
            texts = [f"{context} {word}" for word in words]
            rows = measured(fam, dataset(fam, examples(texts)), [WordBoundary(model, tokenizer)])
            cost = rows.groupby(["example_num", "word_num"])["surprisal_corrected"].sum(min_count=1)
            last = cost.groupby("example_num").last()
            assert len(last) == len(words)
            # What ends the text is one of all that a word may be followed by.
            at_end = vocab[tokenizer.tokenize(context)[-1]]
            bound = [vocab[t] for t in (*starting, EOS)]
            ends = float(table[at_end, vocab[EOS]] / table[at_end, bound].sum())
            assert (2.0**-last).sum() + ends == pytest.approx(1.0, abs=1e-4)
            assert (2.0 ** -rows.groupby("example_num")["surprisal"].sum()).sum() < 0.9


def test_at_the_beginning_of_a_text_words_are_those_without_a_space():
    tokenizer = chain_tokenizer()
    table = random_table(tokenizer, ("x", "y", "."), ("Ġ",), seed=3)
    fam = Family("chain", "lm", tokenizer, ChainModel(table))
    words = [
        "".join(word) for n in range(1, LONGEST + 1) for word in itertools.product("xy.", repeat=n)
    ]
    rows = measured(fam, dataset(fam, examples(words)), [WordBoundary(fam.model, tokenizer)])
    cost = rows.groupby("example_num")["surprisal_corrected"].sum(min_count=1)
    # Among what starts no word there is the end of the text.
    start = table[0]
    ends = float(start[0] / (1 - start[1] - start[2]))
    assert (2.0**-cost).sum() + ends == pytest.approx(1.0, abs=1e-4)


def test_without_the_end_of_the_text_words_do_not_sum_to_one():
    """The numbers of tools that leave it out: the difference is the definition."""
    fam = chain_family()
    data = dataset(fam, examples(["x xy. y", "y x"]))
    ours, theirs = (
        measured(fam, data, [cls(fam.model, fam.tokenizer)])["surprisal_corrected"]
        for cls in (WordBoundary, WithoutEnds)
    )
    p = np.array(list(CHAIN.values())) / 20
    ids = dict(zip(CHAIN, range(len(CHAIN)), strict=True))
    # " y" behind ".", raw and by P(S) alone.
    raw = -math.log2(p[ids["."], ids["Ġy"]])
    starts = p[:, [1, 2]].sum(1)
    by_hand = raw + math.log2(starts[ids["."]]) - math.log2(starts[ids["Ġy"]])
    assert theirs[4] == pytest.approx(by_hand, abs=1e-4)
    assert ours[4] == pytest.approx(3.0875, abs=1e-4)
    # Behind "Ġx", over words of any length: what they are divided by is too little.
    inside = p[np.ix_([3, 4, 5], [3, 4, 5])]
    mass = np.linalg.solve(np.eye(3) - inside, starts[[3, 4, 5]])
    total = sum(p[1, j] * (starts[j] + p[j, [3, 4, 5]] @ mass) for j in (1, 2)) / starts[1]
    assert total == pytest.approx(0.77, abs=5e-3)


TEXTS = [
    "The man has always broken the glass.",
    "The women drank",
    "A naïve café-owner  said so?",
    "one\ntwo \n three",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen", "pythia", "olmo2"])
def test_over_a_text_the_corrections_are_what_is_before_it_and_behind_it(name, way):
    """Whatever it is cut into: each word's end is the next one's beginning."""
    fam = family(name)
    data = dataset(fam, examples(TEXTS), append_eos=False, bos_policy="eos")
    measure = WordBoundary(fam.model, fam.tokenizer)
    rows = measured(fam, data, [measure], way)
    assert rows["surprisal_corrected"].notna().all()
    for number, text in enumerate(TEXTS):
        of_text = rows[rows["example_num"] == number]
        change = (of_text["surprisal_corrected"] - of_text["surprisal"]).sum()
        ids = data.dataset["input_ids"][number]
        with torch.no_grad():
            p = fam.model(torch.tensor([list(ids)])).logits[0].double().softmax(-1).numpy()
        every = np.arange(p.shape[1])
        starts, ends = measure._starts(every), measure._is_end(every)
        n_start = len(ids) - len(of_text)
        assert measure._starts(np.array([ids[n_start]]))[0] == (name == "llama")
        before = starts | ends if name == "llama" else ~starts
        begin = math.log2(p[n_start - 1, before].sum())
        end = -math.log2(p[-1, starts | ends].sum())
        assert change == pytest.approx(begin + end, abs=2e-4), text


def brute_force(fam, ids, words, n_start):
    """The corrected surprisal of each word, by the formula and nothing else."""
    decode = fam.tokenizer.decode
    with torch.no_grad():
        logits = fam.model(torch.tensor([list(ids)])).logits[0].double()
    log_p = (logits.log_softmax(-1) / math.log(2)).numpy()
    anchor = decode(fam.tokenizer("a", add_special_tokens=False)["input_ids"])
    first = fam.tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = np.array(
        [decode([*first, i])[len(anchor) :][:1].isspace() for i in range(log_p.shape[1])]
    )
    ends = np.zeros_like(starts)
    for end in (fam.tokenizer.eos_token_id, fam.model.generation_config.eos_token_id):
        ends |= np.arange(len(ends)) == end
    starts &= ~ends

    def total(position, which):
        return math.log2((2.0 ** log_p[position, which]).sum())

    found = []
    for word in words:
        raw = -sum(log_p[k - 1, ids[k]] for k in word)
        first_term = starts | ends if starts[ids[word[0]]] else ~starts
        assert starts[ids[word[0]]] or word[0] == n_start
        found.append(raw + total(word[0] - 1, first_term) - total(word[-1], starts | ends))
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen", "pythia", "olmo2"])
def test_words_cost_what_the_formula_says(name, way):
    fam = family(name)
    texts = TEXTS[:2]
    data = dataset(fam, examples(texts), bos_policy="eos")
    rows = measured(fam, data, [WordBoundary(fam.model, fam.tokenizer)], way)
    for number, text in enumerate(texts):
        of_text = rows[rows["example_num"] == number].reset_index()
        ids = list(data.dataset["input_ids"][number])
        n_start = len(ids) - len(of_text)
        words = [list(group.index + n_start) for _, group in of_text.groupby("word_num")]
        assert len(words) == len(word_spans(text))
        found = of_text.groupby("word_num")["surprisal_corrected"].sum()
        np.testing.assert_allclose(found, brute_force(fam, ids, words, n_start), atol=1e-4)


def test_what_cannot_be_told_is_missing():
    wordpiece = Family("wp", "lm", wordpiece_tokenizer(), None)
    table = random_table(wordpiece.tokenizer, ("##x", "##y"), ("[UNK]",), seed=1)
    wordpiece = wordpiece._replace(model=ChainModel(table))
    data = dataset(wordpiece, examples(["x xy. y"]))
    rows = measured(wordpiece, data, [WordBoundary(wordpiece.model, wordpiece.tokenizer)])
    # "xy." is two units, of which the model could not know that they are one word.
    assert rows["surprisal_corrected"].isna().tolist() == [False, True, True, True, False]

    fam = family("gpt2")
    measure = WordBoundary(fam.model, fam.tokenizer)
    cut = measured(fam, dataset(fam, examples([TEXTS[0]]), max_length=6), [measure])
    last = cut["word_num"] == cut["word_num"].max()
    assert cut["surprisal_corrected"].isna().equals(last)

    chinese = measured(fam, dataset(fam, examples(["the 猫 sat", "我喜欢猫。"])), [measure])
    has_han = chinese["word"].str.contains("[猫我]")
    assert chinese["surprisal_corrected"].isna().equals(has_han)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_masked_model_has_none(name):
    from finetune_lm.data_preprocessing import mask_random_tokens

    fam = family(name)
    data = dataset(fam, function=mask_random_tokens)
    rows = measured(fam, data, [WordBoundary(fam.model, fam.tokenizer)])
    assert len(rows)
    assert rows["surprisal_corrected"].isna().all()


def test_separators_of_their_own_need_no_correction():
    model = SimpleNamespace(generation_config=None)
    assert not WordBoundary(model, transformers.ByT5Tokenizer())._is_needed
    assert WordBoundary(model, gpt2_tokenizer())._is_needed


def test_where_tokens_tell_that_a_word_is_over_one_of_several_units_is_missing():
    """As in OpenAI GPT, whose tokens do not tell whether there is a space before a mark."""
    tokenizer = build("OpenAIGPTTokenizer")
    fam = Family("ends", "lm", tokenizer, ChainModel(torch.rand(len(tokenizer), len(tokenizer))))
    data = dataset(fam, examples(["the man, he has"]), bos_policy="none")
    rows = measured(fam, data, [WordBoundary(fam.model, tokenizer)])
    words = rows.groupby("word")[["surprisal", "surprisal_corrected"]].agg(sum_or_missing)
    # Of the first word nothing predicts the first token.
    assert words["surprisal_corrected"].isna().to_dict() == {
        "the": True, "man,": True, "he": False, "has": False
    }  # fmt: skip
    told = words.dropna()
    np.testing.assert_allclose(told["surprisal"], told["surprisal_corrected"])


def sum_or_missing(values):
    return values.sum(skipna=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_labels_of_a_seq2seq_model(name, way):
    fam = family(name)
    labels = ["The man drank.", "A naïve café-owner said so?"]
    data = dataset(fam, examples(labels, labels))
    measure = WordBoundary(fam.model, fam.tokenizer)
    rows = measured(fam, data, [measure], way)
    generated = rows["sequence_type"] == "generated_sequence"
    assert rows["surprisal_corrected"][generated].isna().all()
    rows = rows[~generated & rows["word_num"].notna()]
    assert rows["surprisal_corrected"].notna().all()
    for number in range(len(labels)):
        of_text = rows[rows["example_num"] == number]
        ids = data.dataset["labels"][number]
        with torch.no_grad():
            inputs = {k: torch.tensor([list(data.dataset[k][number])]) for k in ("input_ids",)}
            logits = fam.model(**inputs, labels=torch.tensor([list(ids)])).logits[0].double()
        p = logits.softmax(-1).numpy()
        every = np.arange(p.shape[1])
        starts, ends = measure._starts(every), measure._is_end(every)
        first = 1 if name == "bart" else 0
        before = ~starts if name == "bart" else starts | ends
        change = (of_text["surprisal_corrected"] - of_text["surprisal"]).sum()
        begin, end = (
            math.log2(p[first, before].sum()),
            -math.log2(p[len(ids) - 1, starts | ends].sum()),
        )
        assert change == pytest.approx(begin + end, abs=2e-4)


def test_adding_a_word_puts_it_where_its_spelling_says():
    fam = family("gpt2")
    measure = WordBoundary(fam.model, fam.tokenizer)
    ids = fam.tokenizer.convert_tokens_to_ids
    assert measure._starts(np.array([ids("Ġ"), ids("Ċ"), ids("a"), ids("Ġthe")])).tolist() == [
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_words_that_were_added_leave_the_others_where_they_are(name, tmp_path):
    fam = family(name)
    before = WordBoundary(fam.model, fam.tokenizer)
    n = len(fam.tokenizer)
    args = ModelArguments(
        save_family(fam, tmp_path),
        model_task=fam.task,
        model_modifier_fns=[add_new_tokens],
        model_modifier_fn_kwargs={"add_new_tokens": {"added_tokens": ["flomped"]}},
    )
    loaded = load_model(args)
    after = WordBoundary(loaded.model, loaded.tokenizer)
    every = np.arange(n)
    np.testing.assert_array_equal(before._starts(every), after._starts(every))
    # In a sentence it begins a word, right behind punctuation it goes on with one.
    assert after._starts(np.array([n, n + 1])).tolist() == [True, False]


def test_a_word_that_not_all_tokens_have_a_row_of_is_missing():
    """A function may leave out some of a word's tokens."""
    fam = family("gpt2")
    measure = WordBoundary(fam.model, fam.tokenizer)
    text = "The unbelievable story was told"
    whole = measured(fam, dataset(fam, examples([text])), [measure])
    several = whole["word"] == "unbelievable"
    places = np.flatnonzero(several)
    assert len(places) >= 3
    for out in (places[0], places[1], places[-1]):

        def leave_out(batch, tokenizer, out=int(out)):
            labels = batch["input_ids"].clone()
            labels[:, 1 + out] = -100
            return {**batch, "labels": labels}

        rows = measured(fam, dataset(fam, examples([text]), function=leave_out), [measure])
        assert len(rows) == len(whole) - 1
        assert rows["surprisal_corrected"].isna().equals(rows["word"] == "unbelievable")


def test_a_token_of_two_words_is_no_word():
    """Words may be cut within a token."""
    fam = family("gpt2")
    measure = WordBoundary(fam.model, fam.tokenizer)
    text = "The glass has it"
    words = {"words": ["The", "gl", "ass", "has", "it"]}
    rows = measured(fam, dataset(fam, examples([text], metadata=[words])), [measure])
    assert rows["token"].tolist() == ["The", " glass", " has", " it"]
    assert rows["word"].tolist() == ["The", "ass", "has", "it"]
    assert rows["surprisal_corrected"].isna().tolist() == [False, True, False, False]


def test_probabilities_that_are_no_numbers_are_missing():
    """Where no token that begins a word is possible, none ends either."""
    table = torch.tensor(list(CHAIN.values())) / 20
    table[3, [0, 1, 2]] = 0.0
    fam = chain_family(table)
    rows = measured(fam, dataset(fam, examples(["x y"])), [WordBoundary(fam.model, fam.tokenizer)])
    assert rows["surprisal_corrected"].isna().all()
