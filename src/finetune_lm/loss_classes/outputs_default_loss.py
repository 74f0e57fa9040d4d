"""The loss that the model itself computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.constants import BY_LABELS, IGNORED_LABEL

if TYPE_CHECKING:
    from torch import Tensor


class OutputsDefaultLoss:
    """The cross-entropy that a transformers model returns with its outputs.

    In nats, averaged over the labels that count.

    Args:
        model: Not used; every loss class is given it.
        tokenizer: Not used; every loss class is given it.

    Example:
        >>> loss = OutputsDefaultLoss(model, tokenizer)  # doctest: +SKIP
        >>> loss(model(**batch), batch["labels"])  # doctest: +SKIP
    """

    needs_logits = False
    """Nothing of the outputs but ``loss`` is used."""

    unit = "nats/token"

    reduce_over_ranks = BY_LABELS

    def __init__(self, model: Any, tokenizer: Any) -> None:
        del model, tokenizer

    def __call__(self, outputs: Any, labels: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            outputs: What the model returned.
            labels: The labels it was called with, (n, label_length).

        Returns:
            A tensor of one value; 0 where no label counts (a mean over nothing is not a number).
        """
        loss: Tensor = outputs.loss
        # The fast way, which has no logits, is for batches with labels that count. Looking at the
        # labels would wait for the device.
        if getattr(outputs, "logits", None) is None:
            return loss
        # The first label of a causal model is predicted by nothing, so that alone is none either:
        # the model's own mean is then not a number.
        counted = labels != IGNORED_LABEL
        if not counted.any() or (not counted[:, 1:].any() and not outputs.loss.isfinite()):
            nothing: Tensor = outputs.logits.sum() * 0.0
            return nothing
        return loss
