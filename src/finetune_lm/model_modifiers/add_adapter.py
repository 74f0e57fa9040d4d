"""Add an adapter, by PEFT: a few weights that learn in place of the model's own."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

from finetune_lm.errors import UserError, first_line
from finetune_lm.messages import say
from finetune_lm.model_modifiers._adapter_config import (
    LORA,
    TOKEN_FIELDS,
    adapter_config,
    needs_whole_weights,
)
from finetune_lm.model_modifiers._word_rows import token_ids
from finetune_lm.models.adapters import Adapter, adapter_of, keep_adapter
from finetune_lm.models.loading import readable_count
from finetune_lm.models.predictions import largest_difference, sample_predictions
from finetune_lm.models.saved_adapters import quiet
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.ranks import world

TOLERANCE = 1e-4
"""How far an adapter that has learned nothing may move a prediction, in nats."""

_MERGED_INTO_ANY = frozenset({LORA, "ADALORA", "BOFT", "IA3", "LOHA", "LOKR", "OFT", "VERA"})
"""Kinds of adapter that go into whatever layer they are on, so that it need not be tried."""


def add_adapter(
    model: Any, tokenizer: Any, peft_type: str = LORA, merge: bool = False, **settings: Any
) -> None:
    """Add an adapter to a model: only its weights learn, and the model's own stay as they are.

    It is PEFT's (https://huggingface.co/docs/peft), and so are the names and values of its
    settings: those of the configuration class that belongs to ``peft_type``, ``LoraConfig`` for
    LoRA. The ids of tokens (``trainable_token_indices``) may be given as words.

    Before it has learned anything an adapter must leave every prediction as it was. That is tried
    out, and one that does not is refused.

    A run saves the adapter in ``model/``, as PEFT does. With ``merge`` it saves there the model
    with the adapter merged into it, which transformers loads like any other, and the adapter in
    ``adapter/``.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.
        peft_type: The kind of adapter, by PEFT's name: ``LORA``, ``IA3``, ``LOHA``, ``VERA``, ...
        merge: Whether the model is to be saved with the adapter merged into it.
        **settings: Settings of PEFT's configuration class for the kind: ``r``, ``lora_alpha``,
            ``target_modules`` and so on.

    Raises:
        UserError: If PEFT is not installed, does not take the settings or knows no layers of this
            model to put the adapter on; if the adapter moves predictions before it has learned
            anything, or could not be merged into the model.

    Example:
        >>> add_adapter(model, tokenizer, r=4, target_modules="all-linear")  # doctest: +SKIP
        add_adapter: LORA, 21K weights learn beside 0.4M that do not.
    """
    _check(peft_type, merge, **settings)
    if adapter_of(model) is not None:
        raise UserError("add_adapter can be used once, but the model has an adapter already.")
    settings = {
        name: _with_ids(name, value, tokenizer) if name in TOKEN_FIELDS else value
        for name, value in settings.items()
    }
    config = adapter_config(peft_type, settings)
    named = [i for name in TOKEN_FIELDS for i in _ids_in(settings.get(name))]
    before = sample_predictions(model, tokenizer, named)
    of_model = {id(weight) for weight in model.parameters()}

    import peft

    n_before = sum(weight.numel() for weight in model.parameters())
    try:
        with quiet():
            around = peft.get_peft_model(model, config)
    except Exception as error:  # of many kinds: layers that are not there or not fit for it
        raise UserError(_not_taken(config, error)) from error
    model.eval()
    names = [name for name, weight in model.named_parameters() if id(weight) in of_model]
    keep_adapter(model, Adapter(around, frozenset(names), merge))
    _check_can_be_merged(model, config)
    moved = largest_difference(before, sample_predictions(model, tokenizer, named))
    if not moved <= TOLERANCE:
        raise UserError(
            f"add_adapter must leave every prediction as it is until something is learned, but "
            f"this one moves some by up to {moved:.2g} nats. {_reason(model, settings)}"
        )
    _check_embeddings(model, tokenizer, named)
    n_learned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    if not n_learned:
        raise UserError("add_adapter must add something that learns, but this adapter does not.")
    _try_to_merge(model, config)
    say(
        f"add_adapter: {config.peft_type.value}, {readable_count(n_learned)} weights learn; the "
        f"{readable_count(n_before)} of the model stay as they are."
    )


def _check(peft_type: Any = LORA, merge: Any = False, **settings: Any) -> None:
    """Check what can be checked without a model.

    Raises:
        UserError: If PEFT is not installed or does not take the settings.
    """
    problems = (
        [] if isinstance(merge, bool) else [f"merge must be True or False but got {merge!r}."]
    )
    try:
        adapter_config(peft_type, settings)
    except UserError as error:
        problems = [*error.problems, *problems]
    if problems:
        raise UserError(*problems)


# Called when a command line is read, before anything is loaded. The second says that what is not
# the adapter's stays as it was loaded; the third, which modifiers cannot come behind this one; the
# last, which adapters need whole weights.
vars(add_adapter).update(
    check=_check,
    leaves_weights=True,
    comes_after=("add_new_tokens",),
    needs_whole_weights=needs_whole_weights,
)


def _with_ids(name: str, value: Any, tokenizer: Any) -> Any:
    """Tokens as PEFT wants them, by their ids, where words are given.

    Raises:
        UserError: If a word is not one token.
    """
    if isinstance(value, Mapping):
        return {key: _with_ids(name, tokens, tokenizer) for key, tokens in value.items()}
    if value is None:
        return None
    tokens = [value] if isinstance(value, str | int) else list(value)
    words = [token for token in tokens if isinstance(token, str)]
    ids = dict(zip(words, token_ids(words, tokenizer, name), strict=True)) if words else {}
    return [ids[token] if isinstance(token, str) else token for token in tokens]


def _ids_in(value: Any) -> Iterable[int]:
    if isinstance(value, Mapping):
        return [i for tokens in value.values() for i in tokens]
    return value or []


def _check_embeddings(model: Any, tokenizer: Any, named: list[int]) -> None:
    """See that what an adapter does to embeddings can be saved: input and output may be one table.

    A copy of the model is made to learn something, no matter what, merged, saved and loaded. Of
    several ranks the first does that, which is the only one that transformers lets save a model.

    Raises:
        UserError: If what is loaded predicts something else.
    """
    import torch

    both = (model.get_input_embeddings(), model.get_output_embeddings())
    is_adapted = any(type(module).__module__.startswith("peft.") for module in both)
    if not is_adapted or not world().is_first:
        return
    learned = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in learned.parameters():
            if weight.requires_grad:
                drawn = torch.randn(weight.shape, generator=generator)
                weight += 0.1 * drawn.to(weight)
    adapter = adapter_of(learned)
    assert adapter is not None
    with tempfile.TemporaryDirectory() as directory, quiet():
        adapter.merged().save_pretrained(directory)
        loaded = type(model).from_pretrained(directory, dtype=model.dtype).eval()
    one, other = (sample_predictions(each, tokenizer, named) for each in (learned, loaded))
    if not largest_difference(one, other) <= 10 * TOLERANCE:
        raise UserError(
            "add_adapter must leave input and output embeddings one where they are one in the "
            "model, but this adapter would make them two, and what is saved would be another "
            "model. Leave the embeddings out of target_modules and modules_to_save. "
            "model_modifiers.UnfreezeWordTokensCallback trains those of some words."
        )


def _check_can_be_merged(model: Any, config: Any) -> None:
    """See that all layers of an adapter can be merged: without that, what is saved is of no use.

    Raises:
        UserError: If not.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and type(module).merge is BaseTunerLayer.merge:
            raise UserError(
                f"add_adapter needs an adapter that can be merged into the model, but "
                f"{config.peft_type.value} cannot be merged into {type(module).__name__}."
            )


def _try_to_merge(model: Any, config: Any) -> None:
    """See the same in a copy of the model, for kinds that go into some layers only, or into none.

    Raises:
        UserError: If it cannot be.
    """
    adapter, kind = adapter_of(model), config.peft_type.value
    assert adapter is not None
    if kind in _MERGED_INTO_ANY:
        return
    try:
        adapter.merged()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"add_adapter needs an adapter that can be merged into the model, but {kind} cannot: "
            f"{first_line(error)}"
        ) from error


def _not_taken(config: Any, error: Exception) -> str:
    said = first_line(error)
    if "target_modules" in said and getattr(config, "target_modules", None) is None:
        return (
            f"add_adapter must be told which layers to adapt, since PEFT knows none for this kind "
            f"of model. Give target_modules all-linear, or names of layers. ({said})"
        )
    return f"add_adapter cannot add this {config.peft_type.value} adapter to this model: {said}"


def _reason(model: Any, settings: Mapping[str, Any]) -> str:
    """Why an adapter moves predictions, as far as that is known."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    outputs = model.get_output_embeddings()
    layers = (
        [m for m in outputs.modules() if isinstance(m, TrainableTokensLayer)] if outputs else []
    )
    if any(getattr(layer.get_base_layer(), "bias", None) is not None for layer in layers):
        return (
            "PEFT's trainable tokens leave out the bias of the output layer. "
            "model_modifiers.UnfreezeWordTokensCallback trains the same rows, beside an adapter "
            "too, and moves nothing."
        )
    if starts := [name for name in settings if name.startswith("init_")]:
        return f"It begins with weights that are not nothing, by {starts[0]} {settings[starts[0]]}."
    return "Choose other settings."
