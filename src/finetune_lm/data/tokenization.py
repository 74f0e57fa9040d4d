"""Texts to token ids: start, end and truncation as the tables' numbers need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_lm.arguments.suggestions import nearest
from finetune_lm.constants import BOS_TOKEN
from finetune_lm.data.offsets import spans_by_decoding
from finetune_lm.data.words import NO_PLACE
from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import SPACE

# A text of which any vocabulary makes tokens that differ from those around it.
_PROBES = ("a b", "A B", "1 2")

_NOWHERE = [NO_PLACE, NO_PLACE]


@dataclass(frozen=True)
class Encoding:
    """One text as the model sees it.

    Attributes:
        input_ids: Token ids, start and end tokens included: (length,).
        char_start: The character of the text at which each token begins, -1 for start and end
            tokens: (length,).
        char_end: The character behind each token, likewise.
        n_cut: How many tokens of the text were cut off because it is too long.
        cut_start: The character at which the first of them begins, -1 if none was.
    """

    input_ids: list[int]
    char_start: list[int]
    char_end: list[int]
    n_cut: int = 0
    cut_start: int = NO_PLACE


class TextEncoder:
    """Turns texts into token ids, all in the same way.

    What the tokenizer puts before a text stays, whatever its name, and nothing is added to it.
    Where it puts nothing there, one start token is put there if there is one. What the tokenizer
    appends stays. Nothing is longer than ``max_length``, start and end tokens counted in.

    Args:
        tokenizer: A transformers tokenizer, fast or not.
        max_length: The most tokens that a text may have.
        add_start: Whether to put a start token there where the tokenizer puts nothing.
        bos_policy: Which. ``auto``: BOS, else CLS, else none; ``eos``: BOS, else CLS, else EOS;
            ``none``: none; ``token:NAME``: that one.
        append_eos: Whether to put an end token (EOS, else SEP) there where the tokenizer does not.

    Attributes:
        start_ids: What stands before every text, put there by whomever.
        put_id: The one of them that the tokenizer does not put there itself, None if it does.

    Raises:
        UserError: If a token is asked for and the tokenizer has none.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        *,
        add_start: bool = True,
        bos_policy: str = "auto",
        append_eos: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.bos_policy = bos_policy
        self.add_start = add_start and bos_policy != "none"
        wanted = _wanted_start(tokenizer, bos_policy)
        frame = _frame(tokenizer)
        front = frame[0] if frame is not None else []
        if self.add_start and not front and wanted is None and bos_policy == "eos":
            raise UserError("bos_policy eos needs a tokenizer with an EOS token; it has none.")
        self.put_id = wanted if self.add_start and not front else None
        self.start_ids = front if self.put_id is None else [self.put_id]
        self._marker_ids = _marker_ids(tokenizer)
        self.end_id = _first_id(tokenizer.eos_token_id, tokenizer.sep_token_id)
        self.append_eos = append_eos
        if append_eos and self.end_id is None:
            raise UserError(
                "append_eos needs a tokenizer with an EOS token but this one has none. "
                "Leave it out, or name the token: --tokenizer_kwargs.eos_token TOKEN"
            )

    @property
    def start_tokens(self) -> list[str]:
        """What stands before every text, by name."""
        return [str(token) for token in self.tokenizer.convert_ids_to_tokens(self.start_ids)]

    def __call__(self, texts: Sequence[str], *, as_target: bool = False) -> list[Encoding]:
        """Encode texts.

        Args:
            texts: The texts, none of them blank.
            as_target: Whether they are the labels of a seq2seq model, which a few tokenizers spell
                differently.

        Raises:
            UserError: If ``max_length`` leaves no room for any token of a text.
        """
        has_offsets = bool(self.tokenizer.is_fast)
        frame = _frame(self.tokenizer, as_target)
        encoded = self.tokenizer(
            **{"text_target" if as_target else "text": list(texts)},
            add_special_tokens=True,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_special_tokens_mask=frame is None,
            return_offsets_mapping=has_offsets,
            verbose=False,
        )
        encodings = []
        for i, text in enumerate(texts):
            ids = list(encoded["input_ids"][i])
            if frame is not None:
                front, behind = map(len, frame)
                of_text: Sequence[int] = range(front, len(ids) - behind)
            else:
                is_special = encoded["special_tokens_mask"][i]
                of_text = [place for place, special in enumerate(is_special) if not special]
            if has_offsets:
                offsets = encoded["offset_mapping"][i]
                found = [offsets[place] for place in of_text]
            else:
                # Of what is cut off it is enough to know where it begins.
                kept = [ids[place] for place in of_text[: self.max_length + 1]]
                found = spans_by_decoding(self.tokenizer, text, kept)
                found += found[-1:] * (len(of_text) - len(kept))
            spans: list[Sequence[int]] = [_NOWHERE] * len(ids)
            for place, span in zip(of_text, found, strict=True):
                spans[place] = span
            if self._marker_ids:  # most vocabularies have none
                # A marker is told to be the letter behind it.
                spans = [
                    (span[0], span[0]) if token in self._marker_ids else span
                    for token, span in zip(ids, spans, strict=True)
                ]
            encodings.append(self._bounded(*self._with_ends(ids, spans)))
        return encodings

    def _with_ends(
        self, ids: list[int], spans: list[Sequence[int]]
    ) -> tuple[list[int], list[Sequence[int]]]:
        """The start token once, and the end token if it is asked for."""
        if self.add_start and len(self.start_ids) == 1:
            # A text may spell out the start token that is put there as well.
            while len(ids) > 1 and [ids[0]] == [ids[1]] == self.start_ids:
                ids, spans = ids[1:], spans[1:]
            if ids[:1] == self.start_ids:
                spans = [_NOWHERE, *spans[1:]]
            else:
                ids, spans = [*self.start_ids, *ids], [_NOWHERE, *spans]
        if self.append_eos and ids[-1:] != [self.end_id]:
            assert self.end_id is not None
            ids, spans = [*ids, self.end_id], [*spans, _NOWHERE]
        return ids, spans

    def _bounded(self, ids: list[int], spans: list[Sequence[int]]) -> Encoding:
        """Cut the end of the text off, not the tokens that stand behind it."""
        char_start, char_end = [span[0] for span in spans], [span[1] for span in spans]
        n_cut = len(ids) - self.max_length
        if n_cut <= 0:
            return Encoding(ids, char_start, char_end)
        n_behind = next((i for i, start in enumerate(reversed(char_start)) if start != NO_PLACE), 0)
        n_kept = self.max_length - n_behind
        if all(start == NO_PLACE for start in char_start[: max(n_kept, 0)]):
            n_special = sum(start == NO_PLACE for start in char_start)
            raise UserError(
                f"max_length must leave room for the text but is {self.max_length}, and "
                f"{n_special} start and end tokens are put around it."
            )
        behind = slice(len(ids) - n_behind, None)
        return Encoding(
            [*ids[:n_kept], *ids[behind]],
            [*char_start[:n_kept], *char_start[behind]],
            [*char_end[:n_kept], *char_end[behind]],
            n_cut,
            cut_start=char_start[n_kept],
        )


def _frame(tokenizer: Any, as_target: bool = False) -> tuple[list[int], list[int]] | None:
    """What a tokenizer puts before and behind every text; None if that cannot be told.

    Tokenizers have a mask of special tokens as well, which not all written in Python get right.
    """
    as_what = "text_target" if as_target else "text"
    for probe in _PROBES:
        whole, text = (
            list(
                tokenizer(
                    **{as_what: probe},
                    add_special_tokens=add,
                    return_attention_mask=False,
                    verbose=False,
                )["input_ids"]
            )
            for add in (True, False)
        )
        for n_before in range(len(whole) - len(text) + 1):
            if text and whole[n_before : n_before + len(text)] == text:
                return whole[:n_before], whole[n_before + len(text) :]
    return None


def _wanted_start(tokenizer: Any, bos_policy: str) -> int | None:
    """The token that a text is to begin with where the tokenizer puts nothing there.

    Raises:
        UserError: If one is named that does not exist.
    """
    if bos_policy.startswith(BOS_TOKEN):
        name = bos_policy.removeprefix(BOS_TOKEN)
        entries = tokenizer.get_vocab()
        if name not in entries:
            special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
            close = nearest(name, special) or nearest(name, entries)
            hint = f" Did you mean {BOS_TOKEN}{close}?" if close is not None else ""
            raise UserError(
                f"bos_policy names the token {name!r}, but the tokenizer has no such token.{hint}"
            )
        return int(entries[name])
    or_end = [tokenizer.eos_token_id] if bos_policy == "eos" else []
    return _first_id(tokenizer.bos_token_id, tokenizer.cls_token_id, *or_end)


def _marker_ids(tokenizer: Any) -> list[int]:
    """The entries of a vocabulary that say where words begin, and nothing else."""
    return [i for entry, i in tokenizer.get_vocab().items() if entry and not entry.strip(SPACE)]


def _first_id(*ids: int | None) -> int | None:
    """The first that is given; 0 is an id like any other."""
    return next((i for i in ids if i is not None), None)
