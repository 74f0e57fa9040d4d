"""Make of each example as many as it has tokens, each with another token masked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_lm.constants import IGNORED_LABEL, MLM, SEQ2SEQ
from finetune_lm.data_preprocessing._masking import mask_or_corrupt, with_labels
from finetune_lm.data_preprocessing._selection import maskable
from finetune_lm.data_preprocessing._settings import for_tasks
from finetune_lm.errors import UserError
from finetune_lm.models.vocabulary import Vocabulary, vocabulary_of

if TYPE_CHECKING:
    from torch import Tensor


def _check(within_word_l2r: bool = False, tokenizer: Any = None) -> None:
    if not isinstance(within_word_l2r, bool):
        raise UserError(f"within_word_l2r must be True or False but got {within_word_l2r!r}.")


@for_tasks(MLM, SEQ2SEQ, check=_check, needs_masks=True)
def expand_with_masks(
    inputs: dict[str, Tensor], tokenizer: Any, within_word_l2r: bool = False
) -> dict[str, Tensor]:
    """Make of each example one for each of its tokens, with that token masked.

    The tokens are those of the text itself: no special tokens, no padding; unknown tokens are. The
    surprisals of all examples made of a sentence add up to its pseudo-log-likelihood (Salazar et
    al. 2020), in bits and with the sign changed.

    Where no labels are given, they are for a masked language model the original token at the mask
    and -100 elsewhere; for a span-denoising model a sentinel, the token, and another sentinel. An
    example without any token to mask stays as it is, with nothing to predict but, for a
    span-denoising model, the sentinel that ends the labels.

    Args:
        inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, each (n, length).
        tokenizer: A tokenizer with a mask token, or one with sentinels.
        within_word_l2r: Whether the later tokens of a word are hidden along with one of its tokens,
            so that they do not give it away (Kauf & Ivanova 2023). Only the one is scored. A word
            is a run of tokens with no space and no punctuation between them. For a span-denoising
            model one sentinel stands for them all, and the labels end with the one scored unless it
            is the word's last.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels`` of all examples made, m of them, and
        ``expanded_lengths``: how many were made of each example, -1 behind them, (m,).

    Raises:
        UserError: If the tokenizer has neither a mask token nor sentinels, or a text has
            sentinels in it already.

    Example:
        >>> inputs = tokenizer(["The man drank."], return_tensors="pt")  # doctest: +SKIP
        >>> expanded = expand_with_masks(inputs, tokenizer)  # doctest: +SKIP
        >>> tokenizer.batch_decode(expanded["input_ids"])  # doctest: +SKIP
        ['[CLS] [MASK] man drank. [SEP]', '[CLS] the [MASK] drank. [SEP]', ...]
    """
    import torch

    _check(within_word_l2r)
    vocabulary = vocabulary_of(tokenizer)
    allowed = maskable(dict(inputs), vocabulary)
    n_made = allowed.sum(dim=1)
    # An example without a token to mask has one row too, in which nothing is masked.
    counts = n_made.clamp(min=1)
    repeated = {key: tensor.repeat_interleave(counts, dim=0) for key, tensor in inputs.items()}
    target = torch.zeros_like(repeated["input_ids"], dtype=torch.bool)
    rows = (n_made > 0).repeat_interleave(counts).nonzero().squeeze(1)
    target[rows, allowed.nonzero()[:, 1]] = True

    hidden = target
    if within_word_l2r:
        hidden = target | _later_in_word(repeated["input_ids"], target, vocabulary)
    made = mask_or_corrupt(repeated, tokenizer, vocabulary, hidden, target, "expand_with_masks")
    if "labels" not in inputs and within_word_l2r:
        made["labels"] = _only_target(made["labels"], repeated, target, hidden, vocabulary)
    lengths = torch.full((len(made["input_ids"]),), -1, device=counts.device)
    lengths[: len(counts)] = counts
    return {**made, "expanded_lengths": lengths}


def _later_in_word(ids: Tensor, target: Tensor, vocabulary: Vocabulary) -> Tensor:
    """The tokens behind the target that go on with its word: (n, length)."""
    import torch

    goes_on = vocabulary.continues(ids.cpu().numpy(), after_space=True)
    continues = torch.from_numpy(goes_on).to(ids.device)
    word = (~continues).cumsum(dim=1)
    word_of_target = (word * target).sum(dim=1, keepdim=True)
    return (word == word_of_target) & (target.cumsum(dim=1) > 0) & ~target


def _only_target(
    labels: Tensor,
    inputs: dict[str, Tensor],
    target: Tensor,
    hidden: Tensor,
    vocabulary: Vocabulary,
) -> Tensor:
    """Labels without the tokens that are hidden but not scored."""
    import torch

    if vocabulary.mask_id is not None:
        return with_labels(inputs, target)["labels"]
    # Ending behind the target, these say nothing about what else the sentinel stands for.
    more = (hidden & ~target).any(dim=1, keepdim=True)
    behind = torch.arange(labels.shape[1], device=labels.device) >= 2
    labels = labels.masked_fill(more & behind, IGNORED_LABEL)
    return labels[:, : int((labels != IGNORED_LABEL).sum(dim=1).max())]
