"""What each token costs a model, from its logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from finetune_lm.data.batch import from_device, to_device

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_lm.scoring.fast.cross_entropy import TargetScores
    from finetune_lm.scoring.measuring import Measurement

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

# How many logits are looked at together: their float32 copy stays below 256 MB.
_LOGITS_AT_ONCE = 2**26
# The same in float64, where that is done once: 64 MB.
_EXACT_LOGITS_AT_ONCE = 2**23


@dataclass(frozen=True)
class Scores:
    """What some tokens cost, and what the model would rather have seen.

    Attributes:
        surprisal: Of each token, in bits: (n,).
        predicted_token_id: The token that the model finds likeliest in its place: (n,).
        predicted_token_surprisal: Of that one, in bits: (n,).
        measured: What was measured besides, by name: (n,) each.
        measured_behind: The same of the prediction behind each token, NaN where there is none.
    """

    surprisal: FloatArray
    predicted_token_id: npt.NDArray[np.int64]
    predicted_token_surprisal: FloatArray
    measured: Mapping[str, FloatArray] = field(default_factory=dict)
    measured_behind: Mapping[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def of_none(cls) -> Self:
        """The scores of no token."""
        nothing = np.empty(0, dtype=np.float32)
        return cls(nothing, np.empty(0, dtype=np.int64), nothing)

    @classmethod
    def joined(cls, parts: Sequence[Scores], places: Sequence[IntArray]) -> Scores:
        """The scores of several parts of some tokens.

        Args:
            parts: They.
            places: Where the tokens of each are among all, (n,) each.
        """
        order = np.concatenate(places).argsort()
        scored = [part for part in parts if len(part.surprisal)] or [cls.of_none()]

        def together(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
            return np.concatenate(columns)[order]

        def by_name(columns: Sequence[Mapping[str, FloatArray]]) -> dict[str, FloatArray]:
            return {name: together([each[name] for each in columns]) for name in columns[0]}

        return cls(
            together([part.surprisal for part in scored]),
            together([part.predicted_token_id for part in scored]),
            together([part.predicted_token_surprisal for part in scored]),
            by_name([part.measured for part in scored]),
            by_name([part.measured_behind for part in scored]),
        )

    def take(self, which: npt.NDArray[np.int64], behind: npt.NDArray[np.int64]) -> Scores:
        """The scores of some of the tokens, in the order given.

        Args:
            which: Which tokens: (n,).
            behind: Where in what was measured the prediction behind each is, -1 for nowhere: (n,).
        """
        measured, measured_behind = {}, {}
        if self.measured:
            # Of many columns each would be taken by itself.
            values = np.stack(list(self.measured.values()))
            values_behind = np.where(behind >= 0, values[:, behind], np.float32(np.nan))
            measured = dict(zip(self.measured, values[:, which], strict=True))
            measured_behind = dict(zip(self.measured, values_behind, strict=True))
        return Scores(
            self.surprisal[which],
            self.predicted_token_id[which],
            self.predicted_token_surprisal[which],
            measured,
            measured_behind,
        )


ScoresToCome = Callable[[], Scores]
"""Returns scores, once they are there: on a GPU they are still computed when this is made."""


def score_tokens(
    logits: Tensor,
    rows: Tensor,
    columns: Tensor,
    targets: Tensor,
    measurement: Measurement | None = None,
) -> ScoresToCome:
    """The surprisal of tokens, ``(logsumexp(logits) - logit[token]) / ln 2``.

    Computed in float32 whatever the precision of the logits, which are left as they are.

    Args:
        logits: (batch, length, vocabulary).
        rows: The row of ``logits`` that predicts each token: (n,).
        columns: The position in that row: (n,).
        targets: The tokens' ids: (n,).
        measurement: What is measured besides.
    """
    import torch

    logits = logits.detach()
    rows, columns, targets = (to_device(each, logits.device) for each in (rows, columns, targets))
    n_at_once = max(1, _LOGITS_AT_ONCE // logits.shape[-1])
    parts = []
    for begin in range(0, len(targets), n_at_once):
        part = slice(begin, begin + n_at_once)
        selected = logits[rows[part], columns[part]].float()
        total = selected.logsumexp(dim=-1)
        best, best_id = selected.max(dim=-1)
        chosen = selected.gather(-1, targets[part, None]).squeeze(-1)
        parts.append((total - chosen, best_id, total - best))
        if measurement is not None:
            with measurement.opened(part):
                whole = slice(0, len(selected))
                measurement.read(measurement.rows(whole, selected, targets[part]), part)
    measured = measurement.values if measurement is not None else {}
    if not parts:
        return Scores.of_none
    nll, ids, best_nll = (torch.cat(column) for column in zip(*parts, strict=True))
    return in_bits(nll, ids, best_nll, measured)


def mean_cost(logits: Tensor, targets: Tensor) -> float:
    """What tokens cost on average, in nats, computed in float64: what all ways are compared with.

    Args:
        logits: (n, vocabulary), at least one row.
        targets: The tokens' ids: (n,).
    """
    import torch

    n_at_once = max(1, _EXACT_LOGITS_AT_ONCE // logits.shape[-1])
    total = 0.0
    parts = torch.split(logits, n_at_once), torch.split(targets.cpu(), n_at_once)
    for part, ids in zip(*parts, strict=True):
        # Not every device has float64.
        exact = part.detach().cpu().double()
        chosen = exact.gather(-1, ids[:, None]).squeeze(-1)
        total += float((exact.logsumexp(dim=-1) - chosen).sum())
    return total / len(targets)


def in_bits(
    nll: Tensor,
    best_id: Tensor,
    best_nll: Tensor,
    measured: Mapping[str, Tensor] | None = None,
) -> ScoresToCome:
    """Scores from what tokens cost in nats, and the likeliest in their places: (n,) each.

    What was measured besides stays as it is, (n or more,) each.
    """
    import torch

    # One transfer for all. float32 holds every integer up to 2**24, more than any vocabulary has.
    numbers = from_device(torch.stack([nll, best_id.float(), best_nll]))
    names = list(measured or ())
    values = from_device(torch.stack(list(measured.values()))) if measured else list

    def arrived() -> Scores:
        nats, ids, best_nats = numbers()
        bits = np.float32(1 / math.log(2))
        besides = dict(zip(names, values(), strict=True))
        return Scores(nats * bits, ids.astype(np.int64), best_nats * bits, besides)

    return arrived


def look_up(
    scored: TargetScores, index: Any, rows: Tensor, positions: Tensor, targets: Tensor
) -> ScoresToCome:
    """What some tokens cost, all of which are among those that were scored the fast way.

    Args:
        scored: The scores of all of these.
        index: Where in that each position is, as by `place_of`.
        rows: The row that predicts each token: (n,).
        positions: The position in that row: (n,).
        targets: The tokens: (n,).
    """
    scores = in_bits(scored.nll, scored.best_id, scored.best_nll, scored.measured)
    return taken(scores, index, rows, positions, targets)


def taken(
    scores: ScoresToCome, index: Any, rows: Tensor, positions: Tensor, targets: Tensor
) -> ScoresToCome:
    """The scores of some tokens, all of which are among those that were scored."""
    del targets
    which = index[rows.numpy(), positions.numpy()]
    assert (which >= 0).all()
    behind = index[rows.numpy(), positions.numpy() + 1]
    return lambda: scores().take(which, behind)


def place_of(shape: Sequence[int], rows: Tensor, positions: Tensor) -> IntArray:
    """For each place of a rectangle the number of the position that it is, -1 if it is none.

    There is one column more, in which there is nothing.
    """
    index = np.full((shape[0], shape[1] + 1), -1)
    index[rows.numpy(), positions.numpy()] = np.arange(len(rows))
    return index
