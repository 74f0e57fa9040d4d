"""Words put together of rows of tokens, against words put together by hand."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_lm.arguments.given_measures import GivenMeasure
from finetune_lm.arguments.references import short_name
from finetune_lm.measures import __all__ as names_of_measures
from finetune_lm.recording.word_columns import over_word, word_columns
from finetune_lm.recording.word_rows import WordRows

TYPES = {
    "task": pa.string(),
    "dataset_name": pa.string(),
    "dataset_type": pa.string(),
    "epoch": pa.int64(),
    "batch_number": pa.int64(),
    "example_num": pa.int64(),
    "original_text": pa.string(),
    "input_text": pa.string(),
    "word_num": pa.int64(),
    "word": pa.string(),
    "token_num_in_word": pa.int64(),
    "token_start": pa.int64(),
    "token_end": pa.int64(),
    "token_is_start_of_word": pa.bool_(),
    "token_is_word": pa.bool_(),
    "is_target": pa.bool_(),
    "region": pa.string(),
    "surprisal": pa.float32(),
    "token_entropy": pa.float32(),
    "rank": pa.int64(),
    "mine": pa.float32(),
    "seed": pa.int64(),
    "k": pa.string(),
}
COMMON = {
    "task": "lm",
    "dataset_name": "d",
    "dataset_type": "test",
    "epoch": None,
    "batch_number": 0,
    "example_num": 0,
    "original_text": "t",
    "input_text": "t",
    "is_target": True,
    "region": None,
    "token_entropy": 0.5,
    "rank": 3,
    "mine": 1.0,
    "seed": 1,
    "k": "v",
}


def token(word_num, word, number, span, surprisal=1.0, **more):
    """A row; ``span`` is None where no text is given."""
    start, end = span or (None, None)
    return {
        **COMMON,
        "word_num": word_num,
        "word": word,
        "token_num_in_word": number,
        "token_start": start,
        "token_end": end,
        "token_is_start_of_word": number == 0,
        "token_is_word": number == 0 and span is not None and end - start == len(word),
        "surprisal": surprisal,
        **more,
    }


def table(rows):
    return pa.table({name: pa.array([r[name] for r in rows], t) for name, t in TYPES.items()})


def words_of(rows, *, sizes=None, given=None):
    """The words of some rows, given in parts of these sizes."""
    maker = WordRows(list(TYPES), given or {})
    parts, begin = [], 0
    for size in [*(sizes or []), len(rows)]:
        parts.append(maker.add(table(rows[begin : begin + size])))
        begin += size
    parts.append(maker.finish())
    parts = [part for part in parts if part is not None]
    made = pa.concat_tables(parts).to_pylist() if parts else []
    assert maker.count.n_words == len(made)
    assert maker.count.n_missing == sum(row["surprisal"] is None for row in made)
    return made


def shown(made):
    return [(row["word_num"], row["word"], row["surprisal"]) for row in made]


def test_a_word_costs_what_its_tokens_cost():
    made = words_of(
        [
            token(0, "The", 0, (0, 3), 1.5, region="a", token_entropy=0.25, rank=7),
            token(1, "teas.", 0, (4, 7), 2.0, token_entropy=0.75, rank=9),
            token(1, "teas.", 1, (7, 8), 0.25, region="b"),
            token(1, "teas.", 2, (8, 9), 4.0),
            token(None, None, None, None, 9.0, is_target=False),
        ],
        given={"mine": "sum"},
    )
    first, second = made
    assert first == {
        **{n: COMMON[n] for n in ("task", "dataset_name", "dataset_type", "epoch", "batch_number")},
        "example_num": 0,
        "word_num": 0,
        "word": "The",
        "char_start": 0,
        "char_end": 3,
        "n_tokens": 1,
        "surprisal": 1.5,
        "region": "a",
        "token_entropy": 0.25,
        "rank": 7,
        "mine": 1.0,
        "seed": 1,
        "k": "v",
    }
    assert second == {
        **first,
        **{"word_num": 1, "word": "teas.", "char_start": 4, "char_end": 9, "n_tokens": 3},
        **{"surprisal": 6.25, "region": "b", "token_entropy": 0.75, "rank": 9, "mine": 3.0},
    }


def test_a_measure_of_ones_own_is_left_out_unless_it_says_what_is_taken():
    [row] = words_of([token(0, "a", 0, (0, 1))])
    assert "mine" not in row
    [row] = words_of([token(0, "a", 0, (0, 1))], given={"mine": "first", "rank": None})
    assert row["mine"] == 1.0
    assert "rank" not in row


def test_the_columns_of_this_packages_measures_are_taken_as_the_measures_say():
    from finetune_lm import measures

    for name in names_of_measures:
        cls = getattr(measures, name)
        kwargs = {"words": ["tea"]} if name == "Candidates" else {}
        measure = GivenMeasure(cls, short_name(cls), kwargs)
        for column in measure.columns():
            assert over_word(column) == measure.over_word


def test_a_word_without_its_last_token_has_no_surprisal():
    made = words_of([token(0, "a", 0, (0, 1)), token(1, "teas", 0, (2, 5))])
    assert shown(made) == [(0, "a", 1.0), (1, "teas", None)]
    assert (made[1]["char_start"], made[1]["char_end"], made[1]["n_tokens"]) == (2, 6, 1)
    assert made[1]["rank"] == 3  # of the first token, which is there
    assert made[1].get("token_entropy") == 0.5


def test_a_word_of_which_a_token_is_not_predicted_has_no_surprisal():
    made = words_of(
        [
            token(0, "as", 0, (0, 1), None),
            token(0, "as", 1, (1, 2)),
            token(1, "b", 0, (3, 4), math.nan),
        ]
    )
    assert shown(made) == [(0, "as", None), (1, "b", None)]


def test_words_that_share_a_token_have_no_surprisal():
    """Of 他们好 the words are 他, 们 and 好; 们好 is a token."""
    within = {"token_is_start_of_word": False}
    made = words_of([token(0, "他", 0, (0, 1)), token(2, "好", 0, (1, 3), **within)])
    assert shown(made) == [(0, "他", 1.0), (1, None, None), (2, "好", None)]
    assert [row["n_tokens"] for row in made] == [1, 0, 1]
    assert made[1]["rank"] is made[2]["rank"] is None
    assert made[2]["char_start"] is None
    # The first of a text: all is in one token.
    made = words_of([token(2, "好", 0, (0, 3), **within), token(3, "吗", 0, (3, 4))])
    assert shown(made) == [(0, None, None), (1, None, None), (2, "好", None), (3, "吗", 1.0)]
    # Part of the word before, and cut: as long as the word, and not the word.
    made = words_of([token(0, "ab", 0, (0, 1)), token(1, "bb", 0, (1, 3), **within)])
    assert shown(made) == [(0, "ab", None), (1, "bb", None)]


def test_tokens_that_are_masked_one_at_a_time_are_of_one_word():
    rows = [
        token(1, "teas", 0, (2, 5), 2.0, input_text="a [M]s", task="mlm"),
        token(1, "teas", 1, (5, 6), 4.0, input_text="a tea[M]", task="mlm"),
        token(0, "a", 0, (0, 1), 1.0, input_text="[M] teas", task="mlm"),
    ]
    for sizes in (None, [1], [2], [1, 1]):
        assert shown(words_of(rows, sizes=sizes)) == [(0, "a", 1.0), (1, "teas", 6.0)]
    # In training the model is another one in the next batch.
    learned = [{**row, "dataset_type": "train", "batch_number": i} for i, row in enumerate(rows)]
    assert shown(words_of(learned)) == [(1, "teas", None), (1, "teas", None), (0, "a", 1.0)]
    # Two ways of masking a text that were made of it are two.
    twice = [*rows, token(1, "teas", 1, (5, 6), 8.0, input_text="[M] tea[M]", task="mlm")]
    assert shown(words_of(twice)) == [
        (1, "teas", None), (1, "teas", None), (0, "a", 1.0), (1, "teas", None),
    ]  # fmt: skip


def test_labels_that_were_made():
    """Sentinels are no words; several sequences of one example are apart."""

    def sequence(word, cost):
        return [
            token(0, "<extra_id_0>", 0, None, 5.0, is_target=False, task="seq2seq"),
            token(1, word, 0, None, cost, task="seq2seq"),
            token(1, word, 1, None, cost, task="seq2seq"),
            token(2, "<extra_id_1>", 0, None, 5.0, is_target=False, task="seq2seq"),
        ]

    made = words_of([*sequence("so", 1.0), *sequence("so", 2.0)])
    assert shown(made) == [(1, "so", 2.0), (1, "so", 4.0)]
    assert made[0]["char_start"] is None
    # Of a masked model it is not known whether such a word goes on.
    made = words_of([token(1, "so", 0, None, 1.0, task="mlm")])
    assert shown(made) == [(1, "so", None)]
    made = words_of([{**token(1, "so", 0, None, 1.0, task="mlm"), "token_is_word": True}])
    assert shown(made) == [(1, "so", 1.0)]


@st.composite
def texts(draw):
    """Rows of several examples in order, and the words that come of them, found one by one."""
    rows, expected = [], []
    for example in range(draw(st.integers(1, 4))):
        n_words = draw(st.integers(1, 4))
        words = [draw(st.sampled_from(["a", "bc", "cde", "dddd"])) for _ in range(n_words)]
        at = 0
        mine = []
        for number, word in enumerate(words):
            cuts = sorted(draw(st.sets(st.integers(1, len(word)), max_size=2)) | {len(word)})
            begin = 0
            for place, end in enumerate(cuts):
                cost = draw(st.sampled_from([0.5, 1.25, None]))
                mine.append((number, word, place, (at + begin, at + end), cost))
                begin = end
            at += len(word) + 1
        n_kept = draw(st.integers(1, len(mine)))
        for number in dict.fromkeys(m[0] for m in mine[:n_kept]):
            tokens = [m for m in mine if m[0] == number]
            kept = [m for m in mine[:n_kept] if m[0] == number]
            is_whole = len(kept) == len(tokens) and all(m[4] is not None for m in kept)
            cost = sum(m[4] for m in kept) if is_whole else None
            expected.append((example, number, tokens[0][1], cost, len(kept)))
        rows += [token(*m, example_num=example) for m in mine[:n_kept]]
    return rows, expected


@settings(deadline=None)
@given(texts(), st.lists(st.integers(0, 5), max_size=6))
def test_words_of_any_texts_in_any_parts(case, sizes):
    rows, expected = case
    made = words_of(rows, sizes=sizes)
    keys = ("example_num", "word_num", "word", "surprisal", "n_tokens")
    assert [tuple(row[key] for key in keys) for row in made] == expected


def test_no_rows_no_words():
    maker = WordRows(list(TYPES))
    assert maker.add(table([])) is None
    assert maker.finish() is None
    only_ends = [token(None, None, None, None, is_target=False)]
    assert maker.add(table(only_ends)) is None
    assert maker.finish() is None
    assert maker.count.n_words == 0


@pytest.mark.parametrize("with_pll", [True, False])
def test_order_of_columns(with_pll):
    tokens = list(TYPES)
    tokens.insert(tokens.index("rank"), "surprisal_corrected")
    taken = {"surprisal": "sum", "token_entropy": "first", "surprisal_corrected": "sum"}
    assert word_columns(tokens, taken, with_pll=with_pll) == [
        *("task", "dataset_name", "dataset_type", "epoch", "batch_number", "example_num"),
        *("word_num", "word", "char_start", "char_end", "n_tokens"),
        *("surprisal", "surprisal_corrected", "region", "token_entropy"),
        *(["pll"] if with_pll else []),
        *("seed", "k"),
    ]
