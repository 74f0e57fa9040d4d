"""Making a tokenizer read a word as one token, and everything else as before.

Tokenizers look for added tokens before they cut a text into words, and treat what stands before and
behind one as texts of their own. Added just so, ``crined`` would leave the space before it to a
token of its own or swallow it, so that decoding gives another text, and before the comma behind it
some would put a space.

So a word is added as a tokenizer's own words are: with the sign for the space before it
(``Ġcrined`` or ``▁crined``), and without (`Spelling.forms`). Which of the two stands in a text is
settled by rules that join the tokenizer's normalizer. They act on the new words only, and are saved
in ``tokenizer.json`` with everything else. WordPiece drops spaces, so one entry does there, and no
rules are needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from finetune_lm.model_modifiers._spelling import Spelling, parts
from finetune_lm.models.vocabulary import JOINER

_OF_WORD = "\\w\\p{Alphabetic}\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""What goes on with a word, for a class of characters: the same that tokenizers mean by the option
``single_word``, which decides about the forms without a space."""


def teach(tokenizer: Any, spelling: Spelling, words: Sequence[str]) -> None:
    """Make a tokenizer read words as one token each, in place.

    Args:
        tokenizer: A fast tokenizer.
        spelling: How it writes words.
        words: The words, as its normalizer leaves them.
    """
    from tokenizers import AddedToken

    # The rules come first, because they say how tokens that are added after them are looked for.
    if spelling.sign is not None:
        _add_rules(tokenizer.backend_tokenizer, spelling, words)
        _keep_rules_when_loaded(tokenizer)
    tokenizer.add_tokens(
        [
            AddedToken(form.content, normalized=True, single_word=not form.follows_space)
            for word in words
            for form in spelling.forms(word)
        ]
    )


def pieces(tokenizer: Any, word: str, before: str) -> list[int] | None:
    """The tokens that a word is.

    Args:
        tokenizer: A tokenizer.
        word: The word.
        before: What stands before it; a space at the end belongs to the word.

    Returns:
        Token ids, None if the word shares a token with what stands before it.
    """
    lead, whole = (
        list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []
        for text in (before.rstrip(), before + word)
    )
    return whole[len(lead) :] if whole[: len(lead)] == lead else None


def _add_rules(backend: Any, spelling: Spelling, words: Sequence[str]) -> None:
    """Let the normalizer tell the forms of new words apart.

    A rule replaces at least one character, and only where a new word is, so no other text changes
    and no token moves.
    """
    from tokenizers import decoders, normalizers, pre_tokenizers

    sign = str(spelling.sign)
    entries, at_spaces, at_starts, without_space, behind = [], [], [], [], []
    decoding: dict[str, str] = {}
    if spelling.spaces_pieces:
        # The same for every text, but done before the new words are found, so not behind them.
        at_spaces += [normalizers.Prepend(" "), _rule(r"\A (?= )", "")]
        backend.pre_tokenizer = _without_prefix(backend.pre_tokenizer)
    if not spelling.splits_at_spaces:
        any_word = "|".join(_whole(word) for word in words)
        at_spaces.append(_rule(f"{spelling.space}(?={any_word})", JOINER + sign))
    for word in words:
        spaced, bare = spelling.forms(word)
        # An entry must be found where the word is, so it is read as a text that has it there.
        lead = "" if spelling.starts_spaced else " "
        entries.append(_rule(rf"\A{re.escape(spaced.content)}\z", lead + word))
        if spelling.starts_spaced:
            start = r"(?<!\S)" if spelling.splits_at_spaces else r"\A"
            at_starts.append(_rule(start + _head(word), JOINER + sign + word[0]))
            mark = rf"\A{spelling.space}?{re.escape(bare.content)}\z"
            without_space.append(_rule(mark, word))
        elif bare.content != word:
            entries.append(_rule(rf"\A{re.escape(bare.content)}\z", word))
        if spelling.signs_pieces:
            behind.append(_rule(_tail(word) + rf"(?=[^{_OF_WORD}\s{JOINER}])", word[-1] + JOINER))
        # Some versions of tokenizers decode what an entry is read as, some the entry itself.
        for form in (spaced, bare):
            decoding |= {form.read_as: form.decoded, form.content: form.decoded}

    before = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence(
        [*entries, *before, *at_spaces, *at_starts, *without_space, *behind]
    )
    if behind and not _removes(backend.pre_tokenizer, sign + JOINER):
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [backend.pre_tokenizer, pre_tokenizers.Split(sign + JOINER, "removed")]
        )
    if backend.decoder is not None:
        to_decode = [
            decoders.Replace(_regex(rf"\A{re.escape(read)}\z"), decoded)
            for read, decoded in decoding.items()
            if read != decoded
        ]
        backend.decoder = decoders.Sequence([*to_decode, backend.decoder])


def _whole(word: str) -> str:
    """A pattern for a word that is not the beginning of a longer one."""
    ends_inside = re.match(r"\w", word[-1])
    return re.escape(word) + (f"(?![{_OF_WORD}])" if ends_inside else "")


def _head(word: str) -> str:
    """A pattern for the first character of such a word."""
    return rf"{re.escape(word[0])}(?={_whole(word)[len(re.escape(word[0])) :]})"


def _tail(word: str) -> str:
    """A pattern for the last character of a word that is not the end of a longer one."""
    stem = re.escape(word[:-1])
    return rf"(?<=\A{stem}|[^{_OF_WORD}]{stem}){re.escape(word[-1])}"


def _rule(pattern: str, content: str) -> Any:
    from tokenizers import normalizers

    return normalizers.Replace(_regex(pattern), content)


def _regex(pattern: str) -> Any:
    from tokenizers import Regex

    return Regex(pattern)


def _removes(pre_tokenizer: Any, text: str) -> bool:
    """Whether a pre-tokenizer takes a text out already, as after an earlier call."""
    return any(
        part["type"] == "Split" and part["pattern"] == {"String": text}
        for part in parts(pre_tokenizer)
    )


def _without_prefix(pre_tokenizer: Any) -> Any:
    """The same pre-tokenizer, which begins with a ByteLevel, but putting no spaces."""
    from tokenizers import pre_tokenizers

    state = json.loads(pre_tokenizer.__getstate__())
    first = state
    while first["type"] == "Sequence":
        first = first["pretokenizers"][0]
    first["add_prefix_space"] = False
    empty = (
        pre_tokenizers.Sequence([]) if state["type"] == "Sequence" else pre_tokenizers.ByteLevel()
    )
    empty.__setstate__(json.dumps(state).encode())
    return empty


def _keep_rules_when_loaded(tokenizer: Any) -> None:
    """See that loading the saved tokenizer takes all of ``tokenizer.json``.

    The classes for single families make their normalizer and pre-tokenizer anew and take only the
    vocabulary from the file. The general class takes the file as it is.
    """
    from transformers import PreTrainedTokenizerFast

    if type(tokenizer) is PreTrainedTokenizerFast:
        return
    # What else the class of the family has settled is kept as options.
    for option in ("model_input_names", "padding_side", "truncation_side"):
        tokenizer.init_kwargs[option] = getattr(tokenizer, option)
    tokenizer.__class__ = PreTrainedTokenizerFast
