"""Cross-entropy, surprisal and the likeliest token from rows of logits, in one pass.

All three need the same maximum and the same sum of exponentials, and so does the gradient. Rows are
gone through in blocks that stay in a processor's cache meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from finetune_lm.scoring.fast.criterion import blocks
from finetune_lm.scoring.measuring import LogitRows, Measurement

# How many logits there are at a time where no gradients are needed: 128 MB in float32, and on a GPU
# 512 MB, where each operation must be worth launching.
_LOGITS_AT_ONCE = 2**25
_LOGITS_AT_ONCE_ON_A_GPU = 2**27
# How many rows there are at a time on a CPU: of more the product is not faster.
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class TargetScores:
    """What some tokens cost, and what the model would rather have seen; gradients from `loss` only.

    Attributes:
        loss: The mean of `nll`: a tensor of one value.
        nll: What each target costs, in nats: (k,).
        best_id: The likeliest token in its place: (k,).
        best_nll: What that one costs, in nats: (k,).
        measured: What was measured besides, by name: (k + m,) each, where the last m are of
            positions behind the targets.
    """

    loss: Tensor
    nll: Tensor
    best_id: Tensor
    best_nll: Tensor
    measured: Mapping[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> TargetScores:
        """The same on a device."""
        return TargetScores(
            self.loss.to(device),
            self.nll.to(device),
            self.best_id.to(device),
            self.best_nll.to(device),
            {name: values.to(device) for name, values in self.measured.items()},
        )


class CrossEntropy:
    """The mean surprisal of targets, as a `Criterion`, and what each target costs.

    Args:
        targets: Token ids, (k,).
        measurement: What is measured besides, of these and perhaps of m positions behind them.
    """

    def __init__(self, targets: Tensor, measurement: Measurement | None = None) -> None:
        self._targets = targets
        self._measurement = measurement
        self._nll = torch.empty_like(targets, dtype=torch.float32)
        self._best_id = torch.empty_like(targets)
        self._best_nll = torch.empty_like(self._nll)

    def __len__(self) -> int:
        return len(self._targets)

    def judge(self, rows: slice, logits: Tensor, gradient: Tensor | None) -> None:
        """Take some rows in, in float32 whatever the precision of their logits."""
        k = len(self._targets)
        targets, nll = self._targets[rows], self._nll[rows]
        best_id, best_nll = self._best_id[rows], self._best_nll[rows]
        measurement = self._measurement
        shifted_block: Tensor | None = None
        with measurement.opened(rows) if measurement else nullcontext():
            for block in blocks(logits):
                given = logits[block]
                z = given.float()
                target_id = targets[block, None]
                where = slice(rows.start + block.start, rows.start + block.start + len(z))
                seen = measurement.rows(block, z, target_id[:, 0]) if measurement else None
                if measurement and seen:
                    measurement.read_logits(seen, where)
                best = z.amax(dim=-1, keepdim=True)
                best_id[block] = _argmax(z)
                target = z.gather(-1, target_id)
                # The logits of a float32 model are not needed any more, if they may be overwritten.
                out = z if z is not given or gradient is logits else None
                if measurement and seen and measurement.uses_exponentials:
                    if shifted_block is None:
                        shifted_block = torch.empty_like(z)
                    seen.shifted = torch.sub(z, best, out=shifted_block[: len(z)])
                    exponentials = torch.exp(seen.shifted, out=out)
                    seen.exponentials = exponentials
                else:
                    exponentials = torch.sub(z, best, out=out).exp_()
                total = exponentials.sum(dim=-1, keepdim=True)
                if measurement and seen:
                    seen.total = total[:, 0]
                    measurement.read_exponentials(seen, where)
                log_total = total.log()
                best_nll[block] = log_total.squeeze(-1)
                nll[block] = (log_total + (best - target)).squeeze(-1)
                if gradient is not None:
                    exponentials.div_(total * k)
                    exponentials.scatter_add_(-1, target_id, torch.full_like(target, -1.0 / k))
                    if exponentials is not given:
                        gradient[block] = exponentials

    def look_at(self, rows: slice, logits: Tensor) -> None:
        """Take in some of the m positions behind the targets, which count in no loss."""
        measurement = self._measurement
        assert measurement is not None
        with measurement.opened(rows):
            for block in blocks(logits):
                z = logits[block].float()
                where = slice(rows.start + block.start, rows.start + block.start + len(z))
                nothing = torch.zeros(len(z), dtype=torch.int64, device=z.device)
                measurement.read(measurement.rows(block, z, nothing), where)

    def results(self) -> tuple[Tensor, ...]:
        """The loss, then `TargetScores.nll`, `best_id` and `best_nll`."""
        return self._nll.mean(), self._nll, self._best_id, self._best_nll


@dataclass(frozen=True)
class Targets:
    """Tokens that rows of logits predict, several of which may be predicted by the same row.

    Attributes:
        token_id: Each of them: (k,).
        row: The row that predicts it: (k,).
    """

    token_id: Tensor
    row: Tensor


def _row_blocks(hidden: Tensor, n_logits: int) -> list[slice]:
    """Which rows are scored at a time."""
    n = len(hidden)
    on_cpu = hidden.device.type == "cpu"
    at_once = max(1, (_LOGITS_AT_ONCE if on_cpu else _LOGITS_AT_ONCE_ON_A_GPU) // n_logits)
    if on_cpu:
        # As few blocks of one size as may be.
        n_blocks = -(-n // min(at_once, _ROWS_AT_ONCE))
        at_once = -(-n // max(n_blocks, 1))
    return [slice(begin, min(begin + at_once, n)) for begin in range(0, n, max(at_once, 1))]


def score_rows(
    logits_of: Callable[[Tensor], AbstractContextManager[Tensor]],
    hidden: Tensor,
    asked: Targets,
    n_logits: int,
    measurement: Measurement | None = None,
) -> TargetScores:
    """Score targets. No gradients.

    Args:
        logits_of: Makes logits of rows of hidden states, for as long as the context lasts.
        hidden: What the last layer is fed, (n, width).
        asked: The targets.
        n_logits: How many logits are made of a row.
        measurement: What is measured besides at the targets.
    """
    which, targets = asked.row, asked.token_id
    order = which.argsort(stable=True)
    ends = torch.bincount(which, minlength=len(hidden)).cumsum(0).tolist()
    nll = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
    best_id, best_nll = torch.empty_like(targets), torch.empty_like(nll)
    for block in _row_blocks(hidden, n_logits):
        begin, end = block.start, block.stop
        begin_target = ends[begin - 1] if begin else 0
        chosen = order[begin_target : ends[end - 1]]
        rows = which[chosen] - begin
        with logits_of(hidden[begin:end]) as made:
            logits = made.float()
            if measurement is None:
                costs, best, ids = _likeliest(logits)
            else:
                first = torch.searchsorted(rows, torch.arange(end - begin, device=rows.device))
                begins = [*first.tolist(), len(rows)]
                read = _AskedRows(measurement, chosen, rows, targets[chosen], begins)
                # Of any of its targets, what is prepared beside a row is the same.
                with measurement.opened(chosen[first]):
                    costs, best, ids = _likeliest(logits, read)
            nll[chosen] = costs[rows] + (best[rows] - logits[rows, targets[chosen]])
        best_id[chosen], best_nll[chosen] = ids[rows], costs[rows]
    measured = measurement.values if measurement is not None else {}
    return TargetScores(nll.mean(), nll, best_id, best_nll, measured)


@dataclass(frozen=True)
class _AskedRows:
    """What is measured of some rows of logits, whose targets are in the order of these.

    Attributes:
        measurement: What is measured.
        places: Which of all targets these are: (k,).
        rows: The row that predicts each: (k,).
        targets: Token ids, (k,).
        begins: How many of these are of the rows before each, and of all: (n + 1,).
    """

    measurement: Measurement
    places: Tensor
    rows: Tensor
    targets: Tensor
    begins: Sequence[int]

    def of_block(self, block: slice, z: Tensor) -> tuple[LogitRows, Tensor]:
        """A block of the rows, and which of all targets are asked about in it."""
        part = slice(self.begins[block.start], self.begins[block.start + len(z)])
        row = self.rows[part] - block.start
        return self.measurement.rows(block, z, self.targets[part], row), self.places[part]


def _likeliest(logits: Tensor, asked: _AskedRows | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest token of each row: what it costs in nats, its logit, and its id: (n,) each."""
    costs, best = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    memory: list[Tensor] = []
    for block in blocks(logits):
        z = logits[block]
        # Fresh memory for each block would come from the system page by page.
        memory = memory or [torch.empty_like(z) for _ in range(1 if asked is None else 2)]
        ids[block] = chosen = _argmax(z)
        highest = z.gather(-1, chosen[:, None])
        best[block] = highest[:, 0]
        shifted = torch.sub(z, highest, out=memory[0][: len(z)])
        exponentials = torch.exp(shifted, out=memory[-1][: len(z)])
        total = exponentials.sum(dim=-1)
        if asked is not None:
            seen, places = asked.of_block(block, z)
            seen.shifted, seen.exponentials, seen.total = shifted, exponentials, total
            asked.measurement.read(seen, places)
        costs[block] = total.log()
    return costs, best, ids


def _argmax(z: Tensor) -> Tensor:
    # On a CPU numpy finds it in a fraction of the time.
    if z.device.type == "cpu":
        return torch.from_numpy(z.numpy().argmax(axis=-1))
    return z.argmax(dim=-1)
