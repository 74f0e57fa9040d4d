"""What a model's predictions must not depend on: later tokens, and padding.

Where they do, surprisals look right and are wrong: a model that sees the answer finds it likely,
and a sentence costs something else in another batch. No list of names tells; the model is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import FP32, IGNORED_LABEL, LM, LM_MLM, MLM
from finetune_lm.data.batch import on_device
from finetune_lm.errors import UserError
from finetune_lm.messages import say, warn
from finetune_lm.models.inference import without_learning
from finetune_lm.models.model_calls import called
from finetune_lm.models.sharding import put_together_no_more
from finetune_lm.models.tasks import TASKS, CausalLMWithoutLoss, Task
from finetune_lm.models.vocabulary import embeddings_of
from finetune_lm.randomness import generator_states, restore_generators

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# How many tokens a model is asked about, and how many of them, those before the last one, are
# exchanged. The last one stays, since the decoders of mBART and PLBART begin with the last label,
# which their tokenizers make the code of a language.
_N_TOKENS = 9
_N_CHANGED = 2
# How far logits may be apart that ought to be the same, relative to the largest: rounding is some
# 1e-6 in float32, as long as the shapes are the same even less.
_ROUNDING = 2e-5
_ROUNDING_OF_HALF_PRECISION = 2e-2
# How many logits a model may make of a text: 128 MB in float32. Of a longer one, those that are
# not looked at are left out.
_MOST_LOGITS = 2**25


def is_exact(model: Any, precision: str) -> bool:
    """Whether a model computes in float32 or better."""
    import torch

    exact = (torch.float32, torch.float64)
    return precision == FP32 and all(p.dtype in exact for p in model.parameters())


def check_order(
    name: str, task: Task, model: Any, *, is_exact: bool = True, mode: str | None = None
) -> None:
    """See that no prediction depends on tokens behind it, where tokens are predicted in order.

    One call with two short sequences that differ in their last tokens.

    Args:
        name: The model, for messages.
        task: What it is asked to do.
        model: The model.
        is_exact: Whether it computes in float32 or better.
        mode: The mode in which this is asked of it, if it has two.

    Raises:
        UserError: If one does.
    """
    if not task.predicts_in_order:
        return
    import torch

    try:
        ids = _ordinary_ids(model)
        labels = ids[:_N_TOKENS].repeat(2, 1)
        labels[1, -1 - _N_CHANGED : -1] = ids[_N_TOKENS:]
        inputs = {
            "input_ids": labels if task.labels_parallel_inputs else labels[:1].repeat(2, 1),
            "attention_mask": torch.ones_like(labels),
            "labels": labels,
        }
        logits = _logits(model, task, inputs)[:, : -1 - _N_CHANGED]
        sees_later = not _is_same(logits[0], logits[1], is_exact)
    except Exception as error:
        # Models have as many reasons as there are kinds of them to need other inputs.
        warn(f"it could not be tested whether {name} sees later tokens: {_in_short(error)}")
        return
    if sees_later and mode is not None:
        raise UserError(
            f"model_task {LM_MLM} needs a model that is causal and masked in one, but what "
            f"{name!r} predicts in its {mode} mode changes with later tokens: it has no causal "
            f"mode."
        )
    if sees_later:
        raise UserError(
            f"model_task {task.name} needs a model that does not see the tokens it is to predict, "
            f"but what {name!r} predicts changes with later tokens. {_remedy(model)}"
        )


def task_by_loss(name: str, task: Task, model: Any) -> Task:
    """The task of a model, whose own loss is left alone only if it is about the next token.

    One call with a short sequence; a second if the first token, which is nobody's next one, costs
    something. Then it matters which token it is, unless that is a term for something else.

    Args:
        name: The model, for messages.
        task: What it is asked to do.
        model: The model.
    """
    if task is not TASKS[LM]:
        return task
    import torch

    def cost_of_first(label: Tensor) -> float:
        labels = torch.full_like(ids, IGNORED_LABEL)
        labels[:, 0] = label
        with asked_in_passing(model):
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
            return float(called(model, inputs).loss)

    try:
        ids = _ordinary_ids(model)[None].to(next(model.parameters()).device)
        cost = cost_of_first(ids[:, 0])
        if not math.isfinite(cost) or math.isclose(cost, cost_of_first(ids[:, 1]), rel_tol=1e-5):
            return task
    except Exception:
        return task  # what is wrong shows with the first batch
    say(
        f"{name}: the loss is computed here, since the model's own would teach it to repeat each "
        f"token instead of predicting the next."
    )
    return CausalLMWithoutLoss()


def cost_of_padding(
    task: Task, model: Any, ids: list[int], padding_id: int, length: int, *, is_exact: bool = True
) -> float | None:
    """By how many bits a text's surprisals change if it is padded.

    Args:
        task: What the model is asked to do.
        model: The model.
        ids: The text's tokens.
        padding_id: The token to pad with.
        length: To what length, in tokens.
        is_exact: Whether the model computes in float32 or better.

    Returns:
        The largest change in its tokens and in those that are likeliest in their places; 0 if
        it is no more than rounding. None if the model does not take one of both.
    """
    import torch

    n = len(ids)
    text = torch.tensor([ids])
    padded = torch.full((1, length), padding_id)
    labels = torch.full_like(padded, IGNORED_LABEL)
    padded[:, :n] = labels[:, :n] = text
    alone = {"input_ids": text, "attention_mask": torch.ones_like(text), "labels": text}
    mask = (torch.arange(length) < n).long()[None]
    inputs = {"input_ids": padded, "attention_mask": mask, "labels": labels}
    try:
        one, other = (_logits(model, task, each, n)[0, :n] for each in (alone, inputs))
    except Exception:
        # Some take only some lengths. What is wrong besides shows with the first batch.
        return None
    if _is_same(one, other, is_exact):
        return 0.0
    costs = [-logits.double().log_softmax(-1) / math.log(2) for logits in (one, other)]
    asked = torch.stack([text[0].to(one.device), one.argmax(-1)], dim=1)
    change = costs[0].gather(1, asked) - costs[1].gather(1, asked)
    return float(change.abs().max())


@contextmanager
def asked_in_passing(model: Any) -> Iterator[None]:
    """Leave a model, and all generators of random numbers, as if it had not been called.

    It is in eval mode meanwhile, is not compiled, and builds no graph.
    """
    import torch
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    states = generator_states()
    # BigBird does without its blocks from the first short text on.
    kinds = [
        (module, module.attention_type)
        for module in model.modules()
        if hasattr(module, "set_attention_type") and hasattr(module, "attention_type")
    ]
    try:
        with without_learning(model), torch.compiler.set_stance("force_eager"):
            yield
    except BaseException:
        put_together_no_more(model)
        raise
    finally:
        for module, kind in reversed(kinds):
            if module.attention_type != kind:
                module.set_attention_type(kind)
        restore_generators(states)
        logging.set_verbosity(verbosity)


def _logits(model: Any, task: Task, inputs: dict[str, Tensor], n: int | None = None) -> Tensor:
    """The logits of sequences, (n, length, vocabulary); perhaps of the first n positions only."""
    device: torch.device = next(model.parameters()).device
    inputs = task.without_labels(model, inputs)
    with asked_in_passing(model), _of_first(model, inputs["input_ids"].numel(), n):
        logits: Tensor = called(model, on_device(inputs, device)).logits
    return logits.float()


@contextmanager
def _of_first(model: Any, length: int, n: int | None) -> Iterator[None]:
    """Let a model's last layer see the first n positions, if all would make too many logits."""
    find = getattr(model, "get_output_embeddings", None)
    layer = find() if find is not None else None
    weight = getattr(layer, "weight", None)
    if n is None or layer is None or weight is None or length * len(weight) <= _MOST_LOGITS:
        yield
        return

    def select(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # ProphetNet predicts several tokens at each position, which stand side by side.
        is_usual = args[0].ndim == 3 and args[0].shape[1] == length
        return (args[0][:, :n], *args[1:]) if is_usual else args

    handle = layer.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _is_same(one: Tensor, other: Tensor, is_exact: bool) -> bool:
    """Whether logits (n, vocabulary) differ by no more than rounding.

    What is added to all logits of a position makes no difference to what it predicts.
    """
    one, other = (each - each.mean(dim=-1, keepdim=True) for each in (one, other))
    tolerance = _ROUNDING if is_exact else _ROUNDING_OF_HALF_PRECISION
    difference = (one - other).abs().max()
    # What is no number is no leak; it is told elsewhere.
    return not bool(difference > tolerance * one.abs().max())


def _ordinary_ids(model: Any) -> Tensor:
    """Different tokens that stand for nothing special, as far as there are enough of them."""
    import torch

    config = model.config
    size = int(embeddings_of(model).shape[0])
    special = {v for k, v in config.to_dict().items() if k.endswith("token_id")}
    wanted = _N_TOKENS + _N_CHANGED
    spread = [i for i in range(0, size, max(1, size // (3 * wanted))) if i not in special]
    return torch.tensor([spread[i % len(spread)] for i in range(wanted)])


def _remedy(model: Any) -> str:
    import transformers

    masked = TASKS[MLM]
    if type(model.config) not in getattr(transformers, masked.auto_class)._model_mapping:
        return "Take a model that predicts each token from those before it."
    if getattr(model.config, "is_decoder", None) is not False:
        return f"Give --model_task {MLM}."
    return (
        f"Give --model_task {MLM}, or, if it was trained as a decoder, "
        f"--config_kwargs.is_decoder True."
    )


def _in_short(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
