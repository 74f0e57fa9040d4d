"""Which architectures can go without padding, and what is to be known of them for that."""

from __future__ import annotations

from typing import Any

from finetune_lm.messages import say_once
from finetune_lm.scoring.fast.activations import computes_again

CAUSAL_TYPES = frozenset(
    {
        *("gpt2", "gpt_neox", "llama", "smollm3", "mistral", "ministral", "ministral3"),
        *("olmo", "olmo2", "olmo3", "qwen2", "qwen3", "phi", "phi3", "starcoder2", "stablelm"),
        *("gemma", "gemma2", "gemma3_text", "vaultgemma", "cohere", "cohere2", "granite"),
        *("helium", "exaone4", "cwm", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe"),
    }
)
"""Architectures whose layers are told positions by ``position_ids`` and attend by transformers'
attention interface, over everything before a token or a window of it. Whether that holds for a
model's configuration is looked at by its first batch."""

COUNTED_BEHIND_PADDING = frozenset({"roberta", "xlm-roberta", "camembert"})
"""Architectures whose first position is the one behind the id of the padding token."""

BIDIRECTIONAL_TYPES = COUNTED_BEHIND_PADDING | {"bert", "distilbert", "electra", "albert"}
"""Architectures of which the same holds, but that each token sees the whole sentence."""

COUNTED_IN_TEXTS = frozenset({"m2m_100"})
"""Architectures that are told no positions, but count the tokens of their inputs. NLLB is one."""

PAIR_TYPES = COUNTED_IN_TEXTS | {
    *("t5", "mt5", "bart", "mbart", "plbart", "pegasus", "marian"),
    *("blenderbot", "blenderbot-small"),
}
"""Architectures with an encoder and a decoder of which the same holds, but that positions are given
to them in ways of their own: to mT5 as to T5, to all others as to BART."""


def supports(model: Any) -> bool:
    """Whether a model is of a kind that is known here."""
    config = getattr(model, "config", None)
    return (
        (is_causal(model) or _is_bidirectional(config) or is_pair(model))
        # What is computed again for the backward pass would be computed without the layout.
        and not computes_again(model)
        # Some compute a sentence in chunks, of which its length must be a multiple.
        and not getattr(config, "chunk_size_feed_forward", 0)
        and not getattr(config, "add_cross_attention", False)
        and getattr(config, "_attn_implementation", None) in ("sdpa", "eager")
    )


def is_causal(model: Any) -> bool:
    """Whether a model is of a kind that is known here and whose tokens see those before them."""
    return getattr(getattr(model, "config", None), "model_type", None) in CAUSAL_TYPES


def is_pair(model: Any) -> bool:
    """Whether a model is of a kind that is known here and has an encoder and a decoder."""
    return getattr(getattr(model, "config", None), "model_type", None) in PAIR_TYPES


def _is_bidirectional(config: Any) -> bool:
    # Some can be told to be decoders.
    return getattr(config, "model_type", None) in BIDIRECTIONAL_TYPES and not getattr(
        config, "is_decoder", False
    )


def window_of(model: Any) -> int | None:
    """How many tokens a token sees at most, itself among them; None for all before it.

    Where only some of the layers have such a window, it is theirs.
    """
    config = getattr(model, "config", None)
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if window is None or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return int(window)


def fits_window(model: Any, longest: int) -> bool:
    """Whether texts are so short that a window of attention makes no difference to them.

    Args:
        model: The model.
        longest: The length of the longest text, in tokens.
    """
    window = window_of(model)
    return window is None or longest <= window


def say_why_padding_stays(model: Any, longest: int) -> None:
    """Tell the user why padding is not left out.

    Args:
        model: The model.
        longest: The length of the longest text that it is asked about, in tokens.
    """
    if not supports(model):
        name = getattr(getattr(model, "config", None), "model_type", None)
        kind = f"models of type {name}" if name else "models of this type"
        say_once(f"fast: padding stays, since {kind} need it here.")
    elif not fits_window(model, longest):
        say_once(
            f"fast: padding stays, since a text has {longest} tokens, and this model's attention "
            f"reaches over {window_of(model)}."
        )
