"""Where a masked model predicts a masked token: at the mask, or one position before.

Most masked models predict at the mask. GPT-BERT and its kin predict one before, as a causal model
does. Whoever reads the wrong place gets numbers that look like surprisals. Neither the name of a
class nor the way its loss is computed tells for sure, so the model is asked which of the two places
knows the words of the data. That does not tell for sure either: a model that has learned a few
sentences by heart may know more in the wrong place. So what is found is told and never refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.constants import IGNORED_LABEL, LM
from finetune_lm.data.batch import on_device
from finetune_lm.data.examples import Files
from finetune_lm.messages import say_once, warn
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.loading import LoadedModel, length_limit
from finetune_lm.models.model_calls import called
from finetune_lm.models.tasks import TASKS, Task
from finetune_lm.models.vocabulary import padding_id, vocabulary_of
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.scoring.visibility import asked_in_passing

if TYPE_CHECKING:
    from torch import Tensor

_N_TOKENS = 32
"""How many tokens are masked, one at a time."""
_N_TEXTS, _LONGEST, _AT_ONCE = 16, 48, 8
"""In how many texts, up to which token, and how many of these go in together."""

_FEWEST, _MARGIN, _ERRORS = 8, 2.0, 4.0
"""The difference counts that at least so many tokens have, of so many bits and so many standard
errors, where the better place knows words: they cost so many bits less than a word drawn blindly.
An untrained model knows no word in either place, and one that has learned another text by heart
none of this one."""

_SAME_LOSS = 1e-3
"""How far two losses may be apart that are the same, relative to them."""

_WHERE = ("at the mask", "one position before the mask")


@dataclass(frozen=True)
class _Found:
    """What a model has shown.

    Attributes:
        offset: How many positions before a mask it is predicted; None if that has not shown.
        costs: What tokens cost by the prediction at the mask and one before, in bits; None if these
            have not told.
    """

    offset: int | None = None
    costs: tuple[float, float] | None = None


def check_mask_position(loaded: LoadedModel, files: Files) -> None:
    """Say so if masked tokens seem to be predicted elsewhere than this kind of model is asked.

    Some tokens of the data are masked, one at a time, and what they cost is compared in both
    places. Where a model has not learned enough to tell, its own loss may.

    Args:
        loaded: The model, on its device.
        files: The data.
    """
    task, vocabulary = loaded.task, vocabulary_of(loaded.tokenizer)
    if not task.learns_from_masks or vocabulary.mask_id is None:
        return
    texts = _texts(files, loaded.tokenizer.mask_token)
    found = origin_of(loaded.model).untouched.shared(
        "mask position", texts, lambda: _asked(loaded, texts)
    )
    if found.offset not in (None, task.label_offset):
        say_once(f"warning: {_told(loaded, task, found)}")


def _told(loaded: LoadedModel, task: Task, found: _Found) -> str:
    here, there = _WHERE[task.label_offset], _WHERE[1 - task.label_offset]
    if found.costs is None:
        seen = f"but the loss of {loaded.name!r} itself takes them {there}"
    else:
        cost, cost_there = (found.costs[k] for k in (task.label_offset, 1 - task.label_offset))
        seen = f"where they cost {cost:.1f} bits; {there} they cost {cost_there:.1f}"
    [other] = [each for each in TASKS.values() if each.learns_from_masks and each is not task]
    remedy = f"--model_task {other.name} reads"
    if loaded.mode is not None:
        remedy = f"runs with --model_task {LM} and --model_task {other.name} read"
    return (
        f"model_task {loaded.kind} reads predictions of masked tokens {here}, {seen}. If "
        f"{loaded.name!r} was trained to predict them there, the numbers are probably wrong: "
        f"{remedy} that place."
    )


def _texts(files: Files, mask: str) -> list[str]:
    """Some texts of each file, whole ones where a file has masks in them."""
    found: list[str] = []
    every = [examples for group in files.values() for examples in group]
    for examples in every:
        whole = [t for t in examples.labels or examples.texts if mask not in t]
        found += whole[: max(_N_TEXTS // len(every), 1)]
    return list(dict.fromkeys(found))[:_N_TEXTS]


def _asked(loaded: LoadedModel, texts: Sequence[str]) -> _Found:
    """Ask a model."""
    try:
        with asked_in_passing(loaded.model):
            costs, own = _costs(loaded, texts)
    except Exception as error:
        # Models have as many reasons as there are kinds of them to need other inputs.
        if _is_of_device(error):
            raise
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        warn(f"it could not be tested where {loaded.name} predicts masked tokens: {why}")
        return _Found()
    offset = _better_place(costs, len(loaded.tokenizer))
    if offset is not None:
        here, before = costs.mean(dim=0).tolist()
        return _Found(offset, (here, before))
    # A loss that is computed one before says so; many are computed at the mask, as they were
    # written for other models.
    return _Found(1) if own == 1 else _Found()


def _better_place(costs: Tensor, n_tokens: int) -> int | None:
    """In which of the two places a model knows words that it does not know in the other.

    Args:
        costs: What tokens cost by the prediction at the mask and one before, in bits: (k, 2).
        n_tokens: How many tokens there are to choose from.

    Returns:
        How many positions before the mask that is; None if it has not shown.
    """
    n = len(costs)
    if n < _FEWEST:
        return None
    difference = costs[:, 0] - costs[:, 1]
    mean, error = float(difference.mean()), float(difference.std()) / math.sqrt(n)
    knows = float(costs.mean(dim=0).min()) <= math.log2(n_tokens) - _MARGIN
    return int(mean > 0) if knows and abs(mean) >= max(_MARGIN, _ERRORS * error) else None


def _is_of_device(error: Exception) -> bool:
    """Whether an error says nothing of the model: memory ran out, or a device has failed."""
    import torch

    failed = getattr(torch, "AcceleratorError", ())
    return is_out_of_memory(error) or isinstance(error, failed)


def _costs(loaded: LoadedModel, texts: Sequence[str]) -> tuple[Tensor, int | None]:
    """What masked tokens cost by both predictions, and at which of them the model's loss is.

    Returns:
        In bits, (k, 2); and the offset of the loss, None if it is neither or cannot be told.
    """
    import torch
    from torch.nn.functional import cross_entropy

    rows = list(_masked(loaded, texts))
    device = next(loaded.model.parameters()).device
    found, own = [torch.zeros(0, 2, dtype=torch.float64)], None
    for begin in range(0, len(rows), _AT_ONCE):
        part = rows[begin : begin + _AT_ONCE]
        inputs, labels = _batch(loaded, part)
        logits = called(loaded.model, on_device(inputs, device)).logits.float().cpu().double()
        row = torch.arange(len(part))
        at, target = (torch.tensor(each) for each in zip(*(r[1:] for r in part), strict=True))
        both = [cross_entropy(logits[row, at - k], target, reduction="none") for k in (0, 1)]
        found.append(torch.stack(both, dim=1) / math.log(2))
        if not begin:
            own = _own_loss_at(loaded.model, {**inputs, "labels": labels}, both)
    return torch.cat(found), own


def _own_loss_at(model: Any, inputs: dict[str, Tensor], both: Sequence[Tensor]) -> int | None:
    """How many positions before a label that prediction is of which a model computes its loss."""
    device = next(model.parameters()).device
    try:
        own = float(called(model, on_device(inputs, device)).loss)
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        if _is_of_device(error):
            raise
        return None
    means = [float(each.mean()) for each in both]
    same = [abs(own - mean) <= _SAME_LOSS * max(mean, 1.0) for mean in means]
    return same.index(True) if sum(same) == 1 else None


def _masked(loaded: LoadedModel, texts: Sequence[str]) -> Iterator[tuple[list[int], int, int]]:
    """Texts as tokens with one of them masked, where that is, and which it was."""
    vocabulary = vocabulary_of(loaded.tokenizer)
    longest = min(_LONGEST, length_limit(loaded.model, loaded.tokenizer) or _LONGEST)
    wanted = -(-_N_TOKENS // max(len(texts), 1))
    for text in texts:
        ids = loaded.tokenizer(text, truncation=True, max_length=longest)["input_ids"]
        special = vocabulary.is_special(np.asarray(ids, dtype=np.int64))
        places = [i for i in range(1, len(ids)) if not special[i]]
        for i in places[:: max(len(places) // wanted, 1)][:wanted]:
            assert vocabulary.mask_id is not None
            yield [*ids[:i], vocabulary.mask_id, *ids[i + 1 :]], i, ids[i]


def _batch(
    loaded: LoadedModel, rows: Sequence[tuple[list[int], int, int]]
) -> tuple[dict[str, Tensor], Tensor]:
    """What the model is called with, padded on the right, and the labels of the masked tokens."""
    import torch

    shape = len(rows), max(len(ids) for ids, _, _ in rows)
    input_ids = torch.full(shape, padding_id(loaded.tokenizer))
    mask, labels = torch.zeros_like(input_ids), torch.full(shape, IGNORED_LABEL)
    for row, (ids, at, target) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        mask[row, : len(ids)] = 1
        labels[row, at] = target
    return {"input_ids": input_ids, "attention_mask": mask}, labels
