"""How far a prediction has moved from that of the model as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from finetune_lm.data.batch import to_device
from finetune_lm.measures._measure import Measure, products_of_rows
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.vocabulary import added_ids
from finetune_lm.scoring.measuring import LogitRows
from finetune_lm.scoring.scorer import scorer_of

if TYPE_CHECKING:
    from torch import Tensor


class BaselineKL(Measure):
    r"""The divergence of the untouched model's prediction from the model's, in bits.

    .. math::
        \sum_{v \in V} p_0(v) \, (\log_2 p_0(v) - \log_2 p(v))

    where :math:`p_0` is what the model as it was named predicts in this place, before any modifier,
    in eval mode, and V its vocabulary: tokens that were added to the model are left out, and what
    remains is normalised again. Where the model has to read an added token for its prediction the
    value is missing, since the untouched model has no such token.

    Args:
        model: The model. It must come from the Hub or a directory.
        tokenizer: Its tokenizer.

    Raises:
        UserError: If the untouched model cannot be had.
    """

    columns = ("kl_from_baseline",)

    def __init__(self, model: Any, tokenizer: Any) -> None:
        origin = origin_of(model)
        baseline = origin.baseline()
        self._baseline = baseline.model.to(next(model.parameters()).device)
        self._layer = scorer_of(baseline.model, baseline.task, fast=origin.fast).layer()
        self._added = sorted(added_ids(tokenizer, baseline.tokenizer))
        self._in_order = baseline.task.predicts_in_order

    def prepare(self, inputs: Mapping[str, Tensor], rows: Tensor, positions: Tensor) -> Tensor:
        """What the untouched model's last layer is fed at some positions, or its logits there.

        Not numbers where it cannot read what is before.

        Returns:
            (k, width).
        """
        import torch

        readable, own = self._readable(inputs, rows, positions)
        with torch.no_grad():
            self._layer.check(own, rows, positions)
            made: Tensor | None
            if self._layer.has_beginnings and self._layer.resumes_alone:
                hidden, which = self._layer.of_beginnings(own, rows, positions)
                made = hidden[which]
            else:
                made = self._layer.hidden(own, rows, positions)
            if made is None:
                made = self._layer.logits(own, rows, positions)
        if not bool(readable.all()):
            made = made.masked_fill(~to_device(readable, made.device)[:, None], torch.nan)
        return made

    def _readable(
        self, inputs: Mapping[str, Tensor], rows: Tensor, positions: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Whether the untouched model can read what each prediction is made of, and its inputs."""
        import torch

        own = dict(inputs)
        readable = torch.ones(len(rows), dtype=torch.bool)
        if not self._added:
            return readable, own
        for name in {"input_ids", "decoder_input_ids"} & own.keys():
            is_added = torch.isin(own[name], torch.tensor(self._added))
            own[name] = own[name].masked_fill(is_added, 0)
            grows = name == "decoder_input_ids" or "decoder_input_ids" not in own
            if self._in_order and grows:
                readable &= ~is_added.cumsum(dim=1).bool()[rows, positions]
            else:
                readable &= ~is_added.any(dim=1)[rows]
        return readable, own

    @contextmanager
    def beside(self, made: Tensor, which: Any) -> Iterator[Tensor]:
        """The untouched model's logits at some of the positions that were prepared."""
        if self._layer.resumes:
            with self._layer.of_hidden(made[which]) as logits:
                yield logits
        else:
            yield made[which]

    def of_rows(self, rows: LogitRows, beside: Any = None) -> dict[str, Tensor]:
        """See `Measure.of_rows`."""
        import torch

        from finetune_lm.scoring.fast import scratch

        width = min(rows.logits.shape[-1], beside.shape[-1])
        left_out = torch.tensor([i for i in self._added if i < width], dtype=torch.int64)
        left_out = to_device(left_out, beside.device)
        q = rows.shifted[:, :width]
        p = beside[:, :width].float()
        counted = p.index_fill(1, left_out, -torch.inf) if len(left_out) else p
        of_q = rows.exponentials
        total_q = rows.total
        if len(left_out) or width < of_q.shape[-1]:
            total_q = of_q[:, :width].index_fill(1, left_out, 0.0).sum(dim=-1)
        # Fresh memory for each block would come from the system page by page.
        with scratch.borrowed(p.shape, p) as difference, scratch.borrowed(p.shape, p) as of_p:
            torch.sub(p, counted.amax(dim=-1, keepdim=True), out=difference)
            torch.exp(difference, out=of_p).index_fill_(1, left_out, 0.0)
            difference.sub_(q)
            expected = products_of_rows(of_p, difference)
            if expected.device.type != "cpu" or not bool(expected.isfinite().all()):
                # What the untouched model rules out (a logit of -inf) adds nothing: 0 ln 0 is 0.
                expected = products_of_rows(of_p, difference.masked_fill_(of_p == 0, 0.0))
            total_p = of_p.sum(dim=-1)
        nats = expected / total_p + total_q.log() - total_p.log()
        # Rounding can take what is 0 a little below.
        return {"kl_from_baseline": rows.of_targets(nats.clamp(min=0.0) / math.log(2))}
