"""The one door to a model, shared by all who ask what tokens cost it.

The plain way is ``model(**batch)``. The fast way (the package `fast`) computes the logits that
predict a label and no others, without padding where the model allows it. It is compared with the
plain way once for each model, by a few examples, and left where it comes to anything else.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from finetune_lm.data.batch import Batch, on_device, to_device
from finetune_lm.messages import say_once
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.inference import without_learning
from finetune_lm.models.sharding import is_sharded
from finetune_lm.models.tasks import Task
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.scoring.halving import free_memory
from finetune_lm.scoring.measuring import Measuring
from finetune_lm.scoring.surprisal import mean_cost

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.scoring.fast.cross_entropy import TargetScores
    from finetune_lm.scoring.fast.output_layer import OutputLayer

# How far the fast way's loss may be from the plain one's, relative to it.
_TOLERANCE = 1e-5
# How far a model's own loss may be from that of its logits besides, in nats: torch's float32
# cross-entropy is up to 4e-5 off where a likely token is one of 256,000, in some processors.
_TOLERANCE_OF_OWN_LOSS = 1e-4


class Scorer:
    """A model, and what is known of the fast ways to it.

    Args:
        model: A transformers model. It is not kept alive.
        task: What kind it is.
        fast: Whether to take the fast way where it comes to the same.
    """

    def __init__(self, model: Any, task: Task, *, fast: bool = True) -> None:
        # All who ask for a model's scorer share it.
        self._model_of = weakref.ref(model)
        self.task = task
        self.fast = fast and not is_sharded(model)
        self._layers: dict[bool, OutputLayer] = {}

    @property
    def model(self) -> Any:
        """The model."""
        return self._model_of()

    def layer(self, *, may_pack: bool = True, longest: int = 0) -> OutputLayer:
        """Its output layer, which makes logits at the positions that are asked about.

        Args:
            may_pack: Whether padding may be left out.
            longest: The length of the longest text that it is asked about, in tokens. Padding stays
                where that does not fit into a window of the model's attention.
        """
        from finetune_lm.scoring.fast.output_layer import OutputLayer
        from finetune_lm.scoring.fast.ragged_kinds import fits_window, say_why_padding_stays

        if self.fast and may_pack and not fits_window(self.model, longest):
            say_why_padding_stays(self.model, longest)
            may_pack = False
        if may_pack not in self._layers:
            self._layers[may_pack] = OutputLayer(self.model, fast=self.fast, may_pack=may_pack)
        return self._layers[may_pack]

    def asked(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        """What the model is called with, and the row, position and token of each prediction."""
        return self._asked(batch.inputs)

    def _asked(self, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
        rows, positions = self.task.predictions(inputs["labels"])
        targets = inputs["labels"][rows, positions + self.task.label_offset]
        return self.task.without_labels(self.model, inputs), rows, positions, targets

    def score(
        self,
        batch: Batch,
        layer: OutputLayer,
        device: torch.device,
        measures: Sequence[Any] = (),
    ) -> TargetScores:
        """What the labels of a batch that count cost, the fast way, in the order of `asked`."""
        from finetune_lm.scoring.fast.cross_entropy import CrossEntropy, TargetScores
        from finetune_lm.scoring.fast.output_layer import Behind

        inputs, rows, positions, targets = self.asked(batch)
        targets = to_device(targets, device)
        if not measures:
            criterion = CrossEntropy(targets)
            return TargetScores(*layer.judged(criterion, inputs, rows, positions))  # type: ignore[arg-type]
        k = len(rows)
        measuring = Measuring(measures, inputs, batch.is_label)
        all_rows, all_positions = measuring.everywhere(rows, positions)
        measurement = measuring.begin(all_rows, all_positions, device)
        criterion = CrossEntropy(targets, measurement)
        more = all_rows[k:], all_positions[k:]
        looked_at = Behind(*more, criterion.look_at) if len(more[0]) else None
        loss, nll, ids, best_nll = layer.judged(criterion, inputs, rows, positions, looked_at)
        return TargetScores(loss, nll, ids, best_nll, measurement.values)

    def comes_to_the_same(
        self, batch: Batch, layer: OutputLayer, device: torch.device
    ) -> bool | None:
        """Whether the fast way comes to the same, which the first batch of a model shows.

        A few of its examples do; fewer if memory does not do for these, since the plain way takes
        more of it than the fast one. A batch that has what those before had not is looked at again.

        Returns:
            None if the model finds no numbers in this batch, so that it cannot be told.
        """
        from finetune_lm.scoring.fast.comparing import ALL_TRAITS, traits_of

        if not layer.is_there or layer.gives_own_loss is False:
            return False
        if layer.own_loss_seen < ALL_TRAITS:
            rows, _ = self.task.predictions(batch.inputs["labels"])
            seen = traits_of(batch.inputs["attention_mask"], rows)
            if layer.gives_own_loss is None or not seen <= layer.own_loss_seen:
                few = self._few_to_compare(batch)
                layer.gives_own_loss = self._gives_own_loss_in_parts(few, layer, device)
                if layer.gives_own_loss is None:
                    return None
                rows, _ = self.task.predictions(few["labels"])
                layer.own_loss_seen |= traits_of(few["attention_mask"], rows)
        return layer.selects and bool(layer.gives_own_loss)

    def _few_to_compare(self, batch: Batch) -> dict[str, Tensor]:
        """The inputs of a few short examples of a batch, with labels."""
        from finetune_lm.scoring.fast.comparing import few_to_compare

        inputs, rows, positions, _ = self.asked(batch)
        labels = batch.inputs["labels"]
        few, _, _ = few_to_compare({**inputs, "labels": labels}, rows, positions)
        return {name: few[name] for name in batch.inputs}

    def _gives_own_loss_in_parts(
        self, few: dict[str, Tensor], layer: OutputLayer, device: torch.device
    ) -> bool | None:
        """The same as `_gives_own_loss`, by a part of them if memory does not do for all."""
        for n in range(len(few["labels"]), 0, -1):
            try:
                part = {name: tensor[:n] for name, tensor in few.items()}
                return self._gives_own_loss(part, layer, device)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            free_memory()
        say_once("fast: the model is called as usual, since there is too little memory to compare.")
        return False

    def _gives_own_loss(
        self, few: dict[str, Tensor], layer: OutputLayer, device: torch.device
    ) -> bool | None:
        """Whether the loss of the fast way is the model's own; None if the model finds no numbers.

        Both are compared with what the plain way's logits cost in float64.
        """
        from finetune_lm.scoring.fast.criterion import of_logits
        from finetune_lm.scoring.fast.cross_entropy import CrossEntropy

        model = self.model
        inputs, rows, positions, targets = self._asked(few)
        try:
            with without_learning(model):
                with layer.seen_at_work():
                    outputs = self.task.outputs(model, on_device(few, device))
                own = outputs.loss.item()
                logits = outputs.logits[rows.to(device), positions.to(device)]
                del outputs
                plain = mean_cost(logits, targets)
                if math.isnan(plain):
                    return None
                found = layer.compare(inputs, rows, positions, logits)
                if found is None:
                    return False
                fast = of_logits(found, CrossEntropy(targets.to(device)))[0].item()
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            say_once(f"fast: the model is called as usual, since it must be: {error}")
            return False
        kind = layer.autocast_to or model.dtype
        is_same = _is_near(fast, plain, kind) and _is_near(own, plain, kind, _TOLERANCE_OF_OWN_LOSS)
        if not is_same:
            say_once(
                f"fast: the model is called as usual, since its own loss differs ({own:.6g} "
                f"instead of {fast:.6g})."
            )
        return is_same


def scorer_of(model: Any, task: Task, *, fast: bool = True) -> Scorer:
    """The scorer of a model that was loaded: one for all who ask, so that it is checked once.

    The arguments are those of `Scorer`.
    """
    # Two kinds of one name differ in whose loss is minimised.
    kind = type(task).__name__
    return origin_of(model).shared("scorer", [kind, fast], lambda: Scorer(model, task, fast=fast))


def _is_near(found: float, expected: float, kind: torch.dtype, besides: float = 0.0) -> bool:
    import torch

    tolerance = _TOLERANCE if kind in (torch.float32, torch.float64) else 1e-2
    return abs(found - expected) <= tolerance * max(abs(expected), 1.0) + besides
