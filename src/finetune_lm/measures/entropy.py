"""How uncertain the model is before it sees a token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from finetune_lm.measures._measure import Measure, products_of_rows
from finetune_lm.scoring.measuring import LogitRows

if TYPE_CHECKING:
    from torch import Tensor


class Entropy(Measure):
    r"""The entropy of the next token before it is seen, in bits: :math:`-\sum_v p_v \log_2 p_v`.

    The name says *token*: the entropy of a word's first token underestimates that of the word
    (Clark, Oh & Schuler 2025).

    Args:
        model: The model.
        tokenizer: Its tokenizer.

    Example:
        >>> Entropy(model=None, tokenizer=None)(torch.zeros(1, 8), torch.tensor([0]))
        {'token_entropy': tensor([3.])}
    """

    columns = ("token_entropy",)

    def __init__(self, model: Any, tokenizer: Any) -> None:
        del model, tokenizer

    def of_rows(self, rows: LogitRows, beside: Any = None) -> dict[str, Tensor]:
        """See `Measure.of_rows`."""
        # ln p is the shifted logit less ln of the total; sum_v p_v of it, as a product of rows.
        expected = products_of_rows(rows.exponentials, rows.shifted)
        if expected.device.type != "cpu" or not bool(expected.isfinite().all()):
            # A token that is ruled out (a logit of -inf) adds nothing: 0 ln 0 is 0.
            shifted = rows.shifted.masked_fill(rows.exponentials == 0, 0.0)
            expected = products_of_rows(rows.exponentials, shifted)
        nats = (rows.total.log() - expected / rows.total).clamp_(min=0.0)
        return {"token_entropy": rows.of_targets(nats / math.log(2))}
