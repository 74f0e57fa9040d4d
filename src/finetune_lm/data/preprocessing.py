"""Apply a preprocessing function, once or to each batch, and check what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from finetune_lm.arguments.calls import takes_named
from finetune_lm.arguments.references import short_name
from finetune_lm.constants import IGNORED_LABEL, ONCE
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.data_preprocessing import UPDATE_LABEL_FNS, expand_with_masks, identity
from finetune_lm.errors import UserError, users_code

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_lm.arguments import DataTrainingArguments

EXPANSION_KEYS = ("expanded_lengths", "expanded_length")
EXPANSION_PADDING = -1


@dataclass(frozen=True)
class Preprocessing:
    """A preprocessing function with its arguments, and when it is applied.

    Attributes:
        function: Takes a dictionary of tensors and the tokenizer, returns such a dictionary.
        strategy: ``once``, when the data is loaded, or ``per_batch``, anew for each batch.
        kwargs: More arguments for the function.
    """

    function: Callable[..., dict[str, Tensor]] = identity
    strategy: str = ONCE
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, args: DataTrainingArguments, dataset_type: str) -> Self:
        """What the arguments say of one type of data set."""
        return cls(
            args.data_preprocessing_fn[dataset_type],
            args.data_preprocessing_fn_strategy[dataset_type],
            args.data_preprocessing_fn_kwargs[dataset_type],
        )

    @property
    def name(self) -> str:
        """The function's name, for messages."""
        return short_name(self.function)

    @property
    def pll(self) -> str:
        """Which pseudo-log-likelihood it makes of a text, where a model is a masked one.

        ``original`` (Salazar et al. 2020) or ``within_word_l2r`` (Kauf & Ivanova 2023) if each
        token is masked in an example of its own; else what is masked is masked together, by the
        function of this name.
        """
        if self.function is not expand_with_masks:
            return self.name
        return "within_word_l2r" if self.kwargs.get("within_word_l2r") else "original"

    @property
    def updates_labels(self) -> bool:
        """Whether the text of the labels is to be read off the labels that it makes."""
        return any(self.function is function for function in UPDATE_LABEL_FNS)

    @property
    def takes_model(self) -> bool:
        """Whether the function names ``model`` among its arguments."""
        return takes_named(self.function, "model")

    def __call__(
        self,
        inputs: dict[str, Tensor],
        tokenizer: Any,
        model: Any = None,
        name_of: Callable[[int], str] = "example {}".format,
        *,
        needs_labels: bool = False,
    ) -> tuple[dict[str, Tensor], IntArray]:
        """Apply the function to some examples.

        Args:
            inputs: ``input_ids``, ``attention_mask`` and perhaps ``labels``, (n, length) each.
            tokenizer: The tokenizer that made them.
            model: The model, which the function is given if it names it.
            name_of: What an error calls the example with a given number, from 0.
            needs_labels: Whether the function must return labels. Else the inputs are their own.

        Returns:
            What the function made of them, always with ``labels`` and ``attention_mask``, and how
            many examples each became: (n,).

        Raises:
            UserError: If what the function returns does not hold together.
        """
        n = len(inputs["input_ids"])
        kwargs = {**self.kwargs, "model": model} if self.takes_model else self.kwargs
        with users_code(f"data_preprocessing_fn {self.name}"):
            returned = self.function(dict(inputs), tokenizer, **kwargs)
        if not isinstance(returned, Mapping) or "input_ids" not in returned:
            shown = sorted(returned) if isinstance(returned, Mapping) else repr(returned)[:80]
            raise UserError(
                f"{self.name} must return a dictionary with 'input_ids' but returned {shown}."
            )
        outputs = {key: self._checked(key, value) for key, value in returned.items()}
        n_made = len(outputs["input_ids"])
        repeats = self._repeats(outputs, n, n_made, name_of)
        if "labels" not in outputs and needs_labels:
            raise UserError(f"{self.name} must return 'labels' but returned {sorted(outputs)}.")
        outputs.setdefault("labels", outputs["input_ids"].clone())
        if "attention_mask" not in outputs or len(outputs["attention_mask"]) != n_made:
            raise UserError(
                f"{self.name} must return an 'attention_mask' for its {n_made} examples."
            )
        if len(outputs["labels"]) != n_made:
            raise UserError(
                f"{self.name} must return as many labels as inputs but returned "
                f"{len(outputs['labels'])} and {n_made}."
            )
        return outputs, repeats

    def check_parallel(self, outputs: dict[str, Tensor], kind: str) -> None:
        """See that there is a label for each input token.

        Args:
            outputs: What the function returned.
            kind: The kind of model that needs it so, for the message.

        Raises:
            UserError: If the shapes differ.
        """
        shapes = [tuple(outputs[key].shape) for key in ("input_ids", "labels")]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{self.name} must return a label for each input token, as a {kind} needs it, but "
                f"returned inputs of shape {shapes[0]} and labels of shape {shapes[1]}."
            )

    def check_ids(self, outputs: dict[str, Tensor], n_ids: int) -> None:
        """See that the model has all tokens that the function has put in.

        Args:
            outputs: What the function returned.
            n_ids: How many tokens the model has.

        Raises:
            UserError: If it has one of them not.
        """
        ids, labels = outputs["input_ids"], outputs["labels"]
        given = {"input_ids": ids[outputs["attention_mask"] != 0]}
        given["labels"] = labels[labels != IGNORED_LABEL]
        for key, values in given.items():
            wrong = values[(values < 0) | (values >= n_ids)]
            if len(wrong):
                ignored = f", or {IGNORED_LABEL} where none counts" if key == "labels" else ""
                raise UserError(
                    f"{self.name} must return {key!r} of tokens that the model has, from 0 to "
                    f"{n_ids - 1}{ignored}, but returned {int(wrong[0])}."
                )

    def check_mask(self, outputs: dict[str, Tensor]) -> None:
        """See that padding is behind the tokens, where it will be cut off.

        Args:
            outputs: What the function returned.

        Raises:
            UserError: If it is not.
        """
        ids, mask = outputs["input_ids"], outputs["attention_mask"]
        if mask.shape != ids.shape:
            raise UserError(
                f"{self.name} must return an 'attention_mask' of the shape of its 'input_ids' but "
                f"returned {tuple(mask.shape)} and {tuple(ids.shape)}."
            )
        if ((mask != 0) & (mask != 1)).any() or (mask[:, 1:] > mask[:, :-1]).any():
            raise UserError(
                f"{self.name} must return an 'attention_mask' that is 1 for each token of an "
                f"example and 0 for the padding behind them, but returned another."
            )

    def check_lengths(self, outputs: dict[str, Tensor], max_length: int) -> None:
        """See that no input has become longer than the model can take.

        Args:
            outputs: What the function returned.
            max_length: The most tokens that an input may have.

        Raises:
            UserError: If one has.
        """
        mask = outputs["attention_mask"]
        longest = int(mask.sum(dim=1).max()) if len(mask) else 0
        if longest > max_length:
            raise UserError(
                f"{self.name} must not make examples longer than the model or max_length allows "
                f"({max_length} tokens) but made one of {longest}."
            )

    def _checked(self, key: str, value: Any) -> Any:
        """What the function returned under a key, if it is what it must be."""
        import torch

        if key not in ("input_ids", "attention_mask", "labels"):
            return value
        is_whole = isinstance(value, torch.Tensor) and not (
            value.is_floating_point() or value.is_complex()
        )
        if is_whole and value.ndim == 2:
            return value.detach().cpu().long()
        shown = (
            f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
            if isinstance(value, torch.Tensor)
            else f"{type(value).__name__}"
        )
        raise UserError(
            f"{self.name} must return {key!r} as a tensor of whole numbers, (examples, length), "
            f"but returned {shown}."
        )

    def _repeats(
        self, outputs: dict[str, Tensor], n: int, n_made: int, name_of: Callable[[int], str]
    ) -> IntArray:
        lengths = [outputs.pop(key) for key in EXPANSION_KEYS if key in outputs]
        if not lengths:
            if n_made != n:
                raise UserError(
                    f"{self.name} made {n_made} examples of {n} and must say how many of each: "
                    f"return {EXPANSION_KEYS[0]!r}."
                )
            return np.ones(n, dtype=np.int64)
        try:
            repeats: IntArray = np.asarray(lengths[0]).reshape(-1).astype(np.int64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.name}: {EXPANSION_KEYS[0]!r} must be whole numbers but is "
                f"{type(lengths[0]).__name__}."
            ) from error
        repeats = repeats[repeats != EXPANSION_PADDING]
        if len(repeats) != n or repeats.sum() != n_made or (repeats < 0).any():
            # The first example for which there is no number, or not what its number says.
            made = np.cumsum(repeats[:n])
            wrong = np.flatnonzero((repeats[:n] < 0) | (made > n_made))
            first = wrong[0] if len(wrong) else min(len(repeats), n - 1)
            raise UserError(
                f"{self.name}: {EXPANSION_KEYS[0]!r} must have one number for each of {n} "
                f"examples, {n_made} in all, but has {len(repeats)}, {repeats.sum()} in all. "
                f"It goes wrong at {name_of(int(first))}."
            )
        return repeats
