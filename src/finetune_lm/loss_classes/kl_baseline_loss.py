"""What the model says in sentences that it is not taught, held to what it said before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import ONCE, OWN_SHARE
from finetune_lm.data.batch import to_device
from finetune_lm.data_preprocessing import identity
from finetune_lm.scoring.halving import Halving

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.data.examples import Examples
    from finetune_lm.data.ragged_arrays import IntArray
    from finetune_lm.loss_classes._kl_data import BaselineData, KLBatch
    from finetune_lm.loss_classes._kl_settings import KLSource
    from finetune_lm.loss_classes._kl_states import KeptStates


@dataclass(frozen=True)
class _Part:
    """Some examples of one data set, and what each counts by."""

    batch: KLBatch
    data: BaselineData
    kept: KeptStates | None
    weight: float

    def halves(self) -> list[_Part]:
        """Those halves in which something is predicted."""
        return [replace(self, batch=half) for half in self.batch.halves() if half.n_scored]


class KLBaselineLoss:
    r"""How far the model's predictions have moved from those of the model as it was.

    At every call ``n_examples_per_batch`` examples are drawn from each data set, without
    replacement: in training anew, in validation the same ones at every epoch, from a stream of
    random numbers of its own. With P the untouched model (the *baseline*) and Q the model, the loss
    is

    .. math::
        \frac{1}{D} \sum_{d=1}^{D} s_d \, \frac{1}{|E_d|} \sum_{e \in E_d} \frac{1}{|T_e|}
        \sum_{t \in T_e} \sum_{v \in V} P_t(v) \, (\ln P_t(v) - \ln Q_t(v))

    where D is the number of data sets, s_d is ``scaleby``, E_d the examples drawn (after
    preprocessing has expanded them) in which something is predicted that counts, T_e the positions
    of these predictions: for a causal model those that predict a token of the text, for the others
    those whose label is not -100, never padding. V is the baseline's vocabulary; tokens that were
    added to the model are left out, and what remains is normalised again. The unit is the nat.

    The model runs as it does in training, dropout included, so the loss is above 0 even for equal
    weights if there is dropout, unless ``dropout`` is False. The term goes back to Hawkins et al.
    (2020, CoNLL, https://aclanthology.org/2020.conll-1.33/) and to Wilson et al. (2023, TACL,
    https://doi.org/10.1162/tacl_a_00608).

    The baseline is loaded once, as the model was named, before any modifier. With the strategy
    ``once`` its cost is paid once for each example: see `BaselineData`. If there is more than one
    sub-batch, gradients are computed one after the other, so that memory does not grow with
    ``n_examples_per_batch``.

    Args:
        model: The model that is trained. It must come from the Hub or a directory.
        tokenizer: Its tokenizer.
        dataset: One or more data sets: data files as for training, directories written by
            ``datasets``' ``save_to_disk``, or names on the Hub.
        batch_size: How many of the examples go through the models at a time.
        scaleby: The weight s_d, one for all data sets or one for each.
        n_examples_per_batch: How many examples are drawn at each call, one number for all data sets
            or one for each. None, or more than there are, takes all.
        model_kwargs: Further keyword arguments for the baseline's ``from_pretrained``.
        tokenizer_kwargs: Further keyword arguments for its tokenizer's.
        size_average: As in ``torch.nn.KLDivLoss``, which has replaced it by ``reduction``.
        reduce: Likewise.
        reduction: How an example's divergences become one value: ``none`` and ``batchmean``, their
            mean over positions, as in the formula; ``sum``, their sum; ``mean``, their mean over
            positions and vocabulary.
        split_name: Which split of a data set that has several, one for all or one for each.
        max_samples_per_dataset: Use only so many examples, from the start, likewise.
        max_sample_length: Leave longer examples out: a number of tokens, start and end included.
        preprocessing_num_workers: How many processes tokenize.
        overwrite_cache: Whether to tokenize anew what an earlier run has left in the cache.
        data_preprocessing_fn: What the examples go through before the models see them.
        data_preprocessing_fn_kwargs: Keyword arguments for it.
        data_preprocessing_fn_strategy: ``once``, or ``per_batch`` for each draw anew. Then
            ``n_examples_per_batch`` and ``batch_size`` count the examples before preprocessing.
        return_all: Return the divergence of each example, times its ``scaleby``, instead of one
            value. A run then minimises their mean.
        dropout: Whether the model's dropout is on while it is trained.
        cache_mb: How much memory the baseline's predictions may take for each data set, in MiB.

    Raises:
        UserError: If an argument will not do, or the data or the baseline cannot be had.

    Example:
        >>> loss = KLBaselineLoss(model, tokenizer, dataset="fillers.txt.gz")  # doctest: +SKIP
        >>> loss(model(**batch), batch["labels"])  # doctest: +SKIP
        tensor(0.0131, grad_fn=<SumBackward0>)
    """

    needs_logits = False
    """The outputs are not used."""

    unit = "nats"

    reduce_over_ranks = OWN_SHARE

    epoch_weight: int
    """How many examples the last value is a mean over, or of these this rank's: what it counts by
    in an epoch's mean."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        dataset: str | Sequence[str],
        batch_size: int = 32,
        scaleby: float | Sequence[float] = 2.5,
        n_examples_per_batch: int | Sequence[int | None] | None = 20,
        model_kwargs: Mapping[str, Any] | None = None,
        tokenizer_kwargs: Mapping[str, Any] | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "none",
        split_name: str | Sequence[str] = "train",
        max_samples_per_dataset: int | Sequence[int | None] | None = None,
        max_sample_length: int | None = None,
        preprocessing_num_workers: int | None = None,
        overwrite_cache: bool = False,
        data_preprocessing_fn: Callable[..., Any] = identity,
        data_preprocessing_fn_kwargs: Mapping[str, Any] | None = None,
        data_preprocessing_fn_strategy: str = ONCE,
        return_all: bool = False,
        dropout: bool = True,
        cache_mb: float = 1024,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "model", "tokenizer")}
        from finetune_lm.loss_classes._kl_data import load_baseline_data
        from finetune_lm.loss_classes._kl_settings import KLSettings
        from finetune_lm.models.baseline import origin_of
        from finetune_lm.models.compiling import is_compiled
        from finetune_lm.models.sharding import is_sharded
        from finetune_lm.models.vocabulary import added_ids
        from finetune_lm.randomness import own_generator
        from finetune_lm.scoring.scorer import scorer_of

        settings = KLSettings.of(given)
        self.return_all = return_all
        self._model = model
        self._is_sharded = is_sharded(model)
        self._dropout = dropout
        self._batch_size = batch_size
        self._reduction = settings.reduction_used
        self._device: torch.device = next(model.parameters()).device
        origin = origin_of(model)
        baseline = origin.baseline(model_kwargs, tokenizer_kwargs)
        fast = origin.fast and not is_compiled(model)
        self._added_ids = added_ids(tokenizer, baseline.tokenizer)
        self._data: list[tuple[KLSource, BaselineData]] = load_baseline_data(
            settings, origin, baseline, self._device
        )
        longest = max((data.dataset.longest for _, data in self._data), default=0)
        self._output_layer = scorer_of(model, baseline.task, fast=fast).layer(longest=longest)
        self._generator = own_generator()
        self._beginning = self._generator.get_state()
        self._n_calls = 0
        stream = self._described_draws()
        self._kept = [data.kept_by(stream) for _, data in self._data]
        self.epoch_weight = 0

    def rewind(self) -> None:
        """Draw the same examples again from now on, as before each validation."""
        self._generator.set_state(self._beginning)
        self._n_calls = 0

    @staticmethod
    def check(**kwargs: Any) -> None:
        """See that keyword arguments will do, as far as that shows without a model.

        Raises:
            UserError: With a message for each that will not.
        """
        from finetune_lm.loss_classes._kl_settings import KLSettings

        KLSettings.of(kwargs)

    @staticmethod
    def read_files(**kwargs: Any) -> list[Examples]:
        """Read the data files that keyword arguments name, so that a bad line shows early.

        Raises:
            UserError: Naming the file, and the line where it is one line that is wrong.
        """
        from finetune_lm.data.reading_examples import read_examples
        from finetune_lm.loss_classes._kl_settings import KLSettings

        sources = KLSettings.of(kwargs).sources
        return [read_examples(s.path, s.max_samples) for s in sources if s.is_data_file]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs for the same draws afterwards."""
        return {
            "generator": self._generator.get_state(),
            "n_calls": self._n_calls,
            "kept": [None if kept is None else kept.state_dict() for kept in self._kept],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on drawing from where a checkpoint was written."""
        self._generator.set_state(state["generator"])
        # Checkpoints of 0.1.0 say nothing of the rest.
        self._n_calls = state.get("n_calls", 0)
        for kept, loaded in zip(self._kept, state.get("kept", ()), strict=False):
            if kept is not None and loaded is not None:
                kept.load_state_dict(loaded)

    def __call__(self, outputs: Any, labels: Tensor) -> Tensor:
        """The loss, on examples of its own.

        Args:
            outputs: What the model returned for the batch that it is taught. Not used.
            labels: That batch's labels. Not used.

        Returns:
            A tensor of one value; of one for each example if ``return_all`` is set.
        """
        import torch

        from finetune_lm.loss_classes._kl_divergence import KLDivergence
        from finetune_lm.loss_classes._sum_in_pieces import SumInPieces

        del outputs, labels
        drawn: list[_Part] = []
        n_of_all = 0
        for (source, data), kept in zip(self._data, self._kept, strict=True):
            # The same on all ranks, each of which then takes its share.
            batches = self._batched(self._draw(source, data), data, kept)
            n_scored = sum(batch.n_scored for batch in batches)
            n_of_all += n_scored
            weight = source.scaleby
            if not self.return_all:
                weight /= max(n_scored, 1) * len(self._data)
            drawn += [_Part(batch, data, kept, weight) for batch in batches]
        self._n_calls += 1
        shares = [replace(part, batch=part.batch.of_this_rank()) for part in drawn]
        parts = [share for share in shares if share.batch.n_scored]
        self.epoch_weight = sum(part.batch.n_scored for part in parts)
        if self._is_sharded:
            with self._in_its_mode():
                pairs = zip(drawn, shares, strict=True)
                summed = torch.stack([self._called_by_all(*pair) for pair in pairs]).sum()
            return summed / max(n_of_all, 1) if self.return_all else summed
        if not parts:
            # 0, and still a function of the model, in case it is the only loss.
            nothing: Tensor = next(self._model.parameters()).reshape(-1)[0] * 0.0
            return nothing
        halving = Halving(parts, _Part.halves, _described)
        with self._in_its_mode():
            if self.return_all:
                found = []
                for part in halving:
                    with halving.of(part):
                        found.append(self._weighted_divergences(part))
                together = torch.cat(found)
                # So that the means of all ranks add up to the mean of all.
                is_all = len(together) == n_of_all
                return together if is_all else together * (len(together) / n_of_all)
            # One part after another goes through both models, so that memory holds one graph.
            total = SumInPieces(self._model.parameters(), len(parts))
            for part in halving:
                with halving.of(part):
                    batch, weights = part.batch, to_device(self._weights(part), self._device)
                    logits = part.data.baseline_logits(batch, part.kept)
                    per_entry = self._reduction == "mean"
                    left_out = sorted(self._added_ids)
                    divergence = KLDivergence(logits, weights, left_out, per_entry=per_entry)
                    asked = batch.inputs, batch.rows, batch.positions
                    [value] = self._output_layer.judged(divergence, *asked)
                    total.add(value)
            return total.total()

    def _called_by_all(self, whole: _Part, share: _Part) -> Tensor:
        """The sum over this rank's share of a batch, by models that all ranks call together."""
        if share.batch.n_scored:
            return self._weighted_divergences(share).sum()
        nothing = whole.batch.select([0]).of_nothing()
        logits = self._output_layer.logits(nothing.inputs, nothing.rows, nothing.positions)
        whole.data.baseline_logits(nothing)
        return logits.sum()

    def _batched(
        self, examples: IntArray, data: BaselineData, kept: KeptStates | None
    ) -> list[KLBatch]:
        """Examples that were drawn, in batches."""
        from finetune_lm.randomness import drawing_from
        from finetune_lm.ranks import world

        with drawing_from(self._generator):  # for masks that are drawn anew
            batches = data.batches(examples, self._batch_size * world().size)
        if kept is not None:
            drawn = [batch.example for batch in batches]
            kept.drawn(self._n_calls, drawn, [batch.ranks for batch in batches])
        return batches

    def _draw(self, source: KLSource, data: BaselineData) -> IntArray:
        """Rows of a data set, without replacement: an integer array."""
        import torch

        order = torch.randperm(len(data), generator=self._generator)
        rows: IntArray = order[: source.n_examples].numpy()
        return rows

    def _weighted_divergences(self, part: _Part) -> Tensor:
        """The divergence of each example in which something is predicted: (n_scored,)."""
        import torch

        from finetune_lm.loss_classes._kl_divergence import kl_divergence

        batch = part.batch
        model_logits = self._output_layer.logits(batch.inputs, batch.rows, batch.positions)
        of_baseline = part.data.baseline_logits(batch, part.kept)
        with of_baseline(slice(0, len(batch.rows))) as baseline_logits:
            model_logits, baseline_logits = self._common(model_logits, baseline_logits)
            divergence = kl_divergence(model_logits, baseline_logits)
        counts = torch.tensor(batch.n_predictions)
        # Numbered without the examples in which nothing is predicted.
        rows = ((counts > 0).cumsum(0) - 1)[batch.rows]
        rows, counts = (to_device(each, self._device) for each in (rows, counts[counts > 0]))
        sums = divergence.new_zeros(batch.n_scored).index_add(0, rows, divergence)
        if self._reduction != "sum":
            sums = sums / counts
        if self._reduction == "mean":
            sums = sums / model_logits.shape[-1]
        return sums * part.weight

    def _described_draws(self) -> str:
        """All that it depends on which examples are drawn, and which of them for one batch."""
        from finetune_lm.ranks import world

        of_each = [(len(data), source.n_examples) for source, data in self._data]
        beginning = hashlib.sha256(self._beginning.numpy().tobytes()).hexdigest()
        return f"{beginning} {self._batch_size} {world().size} {of_each}"

    def _weights(self, part: _Part) -> Tensor:
        """What the divergence at each position counts by: (k,)."""
        import torch

        weights = torch.full((len(part.batch.rows),), part.weight)
        if self._reduction != "sum":
            weights = weights / torch.tensor(part.batch.n_predictions)[part.batch.rows]
        return weights

    def _common(self, model_logits: Tensor, baseline_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Both without what only one of them has."""
        import torch

        width = min(model_logits.shape[-1], baseline_logits.shape[-1])
        model_logits, baseline_logits = model_logits[:, :width], baseline_logits[:, :width]
        # Added tokens often lie behind the baseline's vocabulary. They do not where its embeddings
        # had rows to spare.
        if self._added_ids and min(self._added_ids) < width:
            has = torch.ones(width, dtype=torch.bool)
            has[[i for i in self._added_ids if i < width]] = False
            in_both = to_device(has.nonzero()[:, 0], model_logits.device)
            model_logits = model_logits.index_select(1, in_both)
            baseline_logits = baseline_logits.index_select(1, in_both)
        return model_logits, baseline_logits

    @contextmanager
    def _in_its_mode(self) -> Iterator[None]:
        """Let the model run as it does, or without dropout if that is wanted."""
        was_training = self._model.training
        if not self._dropout:
            self._model.eval()
        try:
            yield
        finally:
            if not self._dropout:
                self._model.train(was_training)


def _described(part: _Part) -> str:
    return f"{len(part.batch.example)} examples of a KL term: they go through the models"
