"""What words cost, from what tokens cost and from where words end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.measures._measure import Measure
from finetune_lm.models.vocabulary import Vocabulary, vocabulary_of
from finetune_lm.scoring.measuring import LogitRows, Tokens

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Scripts whose words are not told apart by spaces: Thai, Lao, Tibetan, Myanmar, Khmer, Tai and
# others of that region, Japanese syllables, Chinese characters.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"
    "\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uaa60-\uaadf"
    "\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
# What a probability is at least, so that its logarithm is a number.
_LEAST = 1e-37


class WordBoundary(Measure):
    r"""The column ``surprisal_corrected``, whose sum over a word is the word's surprisal.

    A tokenizer that marks the beginnings of words tells only by the next token that a word is over,
    so the product of a word's token probabilities does not sum to 1 over words. With B the tokens
    that start a word and those that end the text, and P(B | c) the sum of their probabilities,

    .. math::
        \mathrm{corrected}(w) = \mathrm{raw}(w) + \log_2 P(B \mid t_{<i}) - \log_2 P(B \mid t_{\le
        j})

    for a word of the tokens i to j (Pimentel & Meister 2024, https://arxiv.org/abs/2406.14561; Oh &
    Schuler 2024, https://arxiv.org/abs/2406.10851). The first token of a word carries the first
    term and the last one the second, so that values are summed by word as surprisals are. Where a
    text begins with a token that does not start a word by its spelling, the first term is that of
    all tokens of this kind.

    It is missing for all tokens of a word that is not told by the tokens: one that is two units of
    the tokenizer or a part of one (words next to punctuation of BERT-like vocabularies, words that
    metadata cut from others), one whose text was cut, one in a script without spaces; for masked
    models, which have no probability that a word is over; and for what a seq2seq model would say.
    It is the surprisal itself where separators are tokens of their own (characters, bytes) and
    where tokens tell that they end a word.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
    """

    columns = ("surprisal_corrected",)
    over_word = "sum"
    looks_behind = True

    def __init__(self, model: Any, tokenizer: Any) -> None:
        vocabulary = vocabulary_of(tokenizer)
        self._vocabulary = vocabulary
        self._ends_text = np.array(sorted(_ends_of_text(model, tokenizer)), dtype=np.int64)
        self._is_needed = not vocabulary.marks_ends and _marks_beginnings(vocabulary)
        self._masks: Tensor | None = None

    def of_rows(self, rows: LogitRows, beside: Any = None) -> dict[str, Tensor]:
        """See `Measure.of_rows`: log2 P(B) and log2 of what does not start a word."""
        if not self._is_needed:
            nothing = rows.of_targets(rows.logits[:, 0] * 0.0)
            return {"boundary": nothing, "inside": nothing}
        if self._masks is None:
            self._masks = self._made_masks(rows.exponentials)
        sums = rows.exponentials @ self._masks
        shares = (sums / rows.total[:, None]).clamp_(min=_LEAST).log2()
        shares = rows.of_targets(shares)
        return {"boundary": shares[:, 0], "inside": shares[:, 1]}

    def _made_masks(self, exponentials: Tensor) -> Tensor:
        """What is in B, and what starts no word: (vocabulary, 2) of zeros and ones."""
        import torch

        size = exponentials.shape[-1]
        starts, ends = self._starts(np.arange(size)), self._is_end(np.arange(size))
        masks = np.stack([starts | ends, ~starts], axis=1)
        return torch.from_numpy(masks).to(exponentials)

    def _starts(self, ids: npt.NDArray[np.int64]) -> BoolArray:
        """Whether each token starts a word, by what it decodes to in the middle of a text."""
        vocabulary = self._vocabulary
        if vocabulary.continuing_ids is not None:
            # Decoders leave out the space before punctuation, which is a unit all the same.
            begins = ~np.isin(ids, vocabulary.continuing_ids) & (ids >= 0)
        else:
            begins = vocabulary.begins_word(ids) | np.isin(ids, vocabulary.sentinel_ids)
        return begins & ~self._is_end(ids)

    def _is_end(self, ids: npt.NDArray[np.int64]) -> BoolArray:
        return np.isin(ids, self._ends_text)

    def finish(
        self,
        measured: Mapping[str, FloatArray],
        behind: Mapping[str, FloatArray],
        tokens: Tokens,
    ) -> dict[str, FloatArray]:
        """See `Measure.finish`."""
        if not tokens.in_order:
            return {"surprisal_corrected": np.full_like(tokens.surprisal, np.nan)}
        if not self._is_needed:
            return {"surprisal_corrected": tokens.surprisal}
        is_end = self._is_end(tokens.token_id)
        begins_unit = self._starts(tokens.token_id) | is_end | tokens.begins
        next_begins = self._starts(tokens.next_id) | self._is_end(tokens.next_id)
        ends_unit = next_begins | (tokens.next_id < 0)
        first_term = np.where(
            self._starts(tokens.token_id) | is_end, measured["boundary"], measured["inside"]
        )
        corrected = tokens.surprisal + np.where(begins_unit, first_term, np.float32(0.0))
        corrected -= np.where(ends_unit & ~is_end, behind["boundary"], np.float32(0.0))
        # What frames a text is no word's.
        frames = self._vocabulary.is_structural(tokens.token_id) & ~is_end
        corrected = np.where(frames, tokens.surprisal, corrected)
        is_told = self._is_told(tokens, begins_unit, ends_unit)
        return {"surprisal_corrected": _whole_words(corrected, is_told | frames, tokens.word)}

    def _is_told(self, tokens: Tokens, begins_unit: BoolArray, ends_unit: BoolArray) -> BoolArray:
        """Whether each token leaves it possible that its word is one unit of the tokenizer.

        Nothing but blanks may be a unit of its own beside that.
        """
        word, n = tokens.word, len(tokens.word)
        begins_word = np.ones(n, dtype=bool)
        begins_word[1:] = (word[1:] != word[:-1]) | (word[1:] < 0)
        told = (begins_unit | ~begins_word) & (ends_unit | ~tokens.ends_word)
        told &= ~(tokens.is_cut & (tokens.next_id < 0))
        # Units by number, and which of them are more than blanks.
        unit = np.cumsum(begins_unit | begins_word) - 1
        texts = self._vocabulary.texts(tokens.token_id)
        has_text = np.zeros(unit[-1] + 1 if n else 0, dtype=bool)
        np.logical_or.at(has_text, unit, np.array([bool(t.strip()) for t in texts], dtype=bool))
        first_of_unit = np.flatnonzero(begins_unit | begins_word)
        of_units = word[first_of_unit]
        in_words = of_units[has_text & (of_units >= 0)]
        counts = np.bincount(in_words) if len(in_words) else np.zeros(0, dtype=np.int64)
        several = np.flatnonzero(counts > 1)
        told &= ~np.isin(word, several)
        without_spaces = [bool(t and _WITHOUT_SPACES.search(t)) for t in tokens.word_text]
        told &= ~np.array(without_spaces, dtype=bool)
        return told


def _whole_words(values: FloatArray, is_told: BoolArray, word: npt.NDArray[np.int64]) -> FloatArray:
    """The values, missing for all tokens of a word if they are for one."""
    is_told = is_told & ~np.isnan(values)
    spoiled = np.unique(word[~is_told & (word >= 0)])
    return np.where(is_told & ~np.isin(word, spoiled), values, np.float32(np.nan))


def _ends_of_text(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text, as the model and the tokenizer say."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {*own} if isinstance(own, list | tuple) else {own}
    ids.add(tokenizer.eos_token_id)
    if ids == {None}:
        ids.add(tokenizer.sep_token_id)
    return {int(i) for i in ids if i is not None}


def _marks_beginnings(vocabulary: Vocabulary) -> bool:
    """Whether tokens that begin a word have the space before it in them.

    In vocabularies of characters or bytes a space is a token of its own.
    """
    ids = vocabulary.ordinary_ids
    begins = ids[vocabulary.begins_word(ids)]
    return any(text.strip() for text in vocabulary.texts(begins))
