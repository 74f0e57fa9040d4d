"""What the tables need to know of a vocabulary entry, found out once for each entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from finetune_lm.data.ragged import IntArray


class Vocabulary:
    """Texts of tokens, and which tokens begin a word.

    Entries are decoded when first met and kept, so that no token is decoded once per epoch.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        size = max(tokenizer.get_vocab().values(), default=-1) + 1
        # Models often have a few more rows than the tokenizer has tokens; those decode to nothing.
        self._texts: npt.NDArray[np.object_] = np.empty(size, dtype=object)
        self._begins_word = np.zeros(size, dtype=bool)
        self._known = np.zeros(size, dtype=bool)
        anchor = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
        self._anchor: list[int] = list(anchor[-1:])
        self._anchor_text = self._decode([self._anchor])[0]
        frame = {
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
        }
        # Where unknown tokens serve as padding, they stand for words all the same.
        padding = {tokenizer.pad_token_id} - {tokenizer.unk_token_id}
        self.structural_ids = (frame | padding) - {None}
        """Ids of tokens that frame a text. Masks, sentinels and unknown tokens stand for words."""
        self.filler = next(iter(self.structural_ids), 0)
        """An id to stand where there is no token."""
        self._standalone_ids = set(tokenizer.all_special_ids) - self.structural_ids

    def texts(self, ids: IntArray) -> npt.NDArray[np.object_]:
        """The decoded text of each token: an object array shaped like ``ids``."""
        return self._learned(ids, self._texts)

    def begins_word(self, ids: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each token is spelled as the beginning of a word: shaped like ``ids``."""
        return self._learned(ids, self._begins_word)

    def is_structural(self, ids: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each token frames a text: shaped like ``ids``."""
        return np.isin(ids, list(self.structural_ids))

    def is_standalone(self, ids: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each token is a word of its own whatever stands beside it (a sentinel)."""
        return np.isin(ids, list(self._standalone_ids))

    def join(self, ids: list[int]) -> str:
        """The text of several tokens together, without space around it."""
        return self._decode([ids])[0].strip()

    def _learned(self, ids: IntArray, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = len(self._known)
        inside = np.where(ids < size, ids, 0)
        new = np.unique(inside[~self._known[inside]])
        if len(new):
            self._texts[new] = _printable(self._decode([[int(i)] for i in new]))
            behind = self._decode([[*self._anchor, int(i)] for i in new])
            n = len(self._anchor_text)
            self._begins_word[new] = [text[n : n + 1].isspace() for text in behind]
            self._known[new] = True
        values = table[inside]
        if (ids >= size).any():
            values[ids >= size] = "" if table is self._texts else False
        return values

    def _decode(self, rows: list[list[int]]) -> list[str]:
        return list(self._tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False))


def _printable(texts: list[str]) -> list[str]:
    """Byte-level tokenizers have a token for byte 0, which no reader of CSV files takes."""
    return [text.replace("\0", "\\x00") for text in texts]
