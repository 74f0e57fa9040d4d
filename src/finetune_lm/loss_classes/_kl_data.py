"""Sentences, and what the untouched model predicts in them, found out once for each."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_lm.constants import ONCE
from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset, DatasetOptions
from finetune_lm.data.examples import Examples, check_texts
from finetune_lm.data.feeding import (
    encoder_options,
    examples_in_mode,
    in_mode,
    kind_problems,
    tell_of_masks,
    tokenizer_problems,
)
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.ragged_arrays import IntArray
from finetune_lm.data.reading_examples import read_examples
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.data_preprocessing import identity
from finetune_lm.errors import UserError, first_line
from finetune_lm.loss_classes._kl_settings import KLSettings, KLSource
from finetune_lm.loss_classes._kl_states import KeptStates
from finetune_lm.models.baseline import Origin
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.tasks import TASKS_OF_MODES
from finetune_lm.randomness import apart_from_the_run
from finetune_lm.ranks import world
from finetune_lm.scoring.halving import in_halves
from finetune_lm.scoring.scorer import scorer_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from finetune_lm.loss_classes._kl_divergence import BaselineLogits


# How many examples go through the untouched model at a time. More would take no less time each.
_EXAMPLES_TOGETHER = 32
# For how many streams of draws at a time something is kept.
_STREAMS_KEPT = 2


@dataclass(frozen=True)
class KLBatch:
    """Some examples, and where in them something is predicted that counts. All on the CPU.

    Attributes:
        inputs: What a model is called with for its logits.
        rows: The example of each prediction, as its row in the batch: (k,).
        positions: Where in the logits it is: (k,).
        n_predictions: How many predictions each example has.
        example: The row of the data set that each example comes from.
    """

    inputs: dict[str, Tensor]
    rows: Tensor
    positions: Tensor
    n_predictions: list[int]
    example: list[int]

    @property
    def n_scored(self) -> int:
        """In how many of the examples something is predicted that counts."""
        return sum(n > 0 for n in self.n_predictions)

    @cached_property
    def ranks(self) -> IntArray:
        """Which process deals with each example, where several make a run together: (n,)."""
        n_tokens = self.inputs["attention_mask"].sum(dim=1).numpy()
        return world().dealt(n_tokens + np.array(self.n_predictions))

    def of_this_rank(self) -> KLBatch:
        """The examples that this process deals with, where several make a run together."""
        mine = np.flatnonzero(self.ranks == world().rank).tolist()
        return self if len(mine) == len(self.example) else self.select(mine)

    def of_nothing(self) -> KLBatch:
        """The same examples, about which nothing is asked."""
        n_predictions = [0] * len(self.example)
        return replace(
            self, rows=self.rows[:0], positions=self.positions[:0], n_predictions=n_predictions
        )

    def halves(self) -> list[KLBatch]:
        """Its halves; none of one example."""
        n = len(self.example)
        parts = [range(n // 2), range(n // 2, n)] if n > 1 else []
        return [self.select(list(part)) for part in parts]

    def select(self, chosen: list[int]) -> KLBatch:
        """Some of the examples, in order."""
        import torch

        place = torch.full((len(self.example),), -1)
        place[chosen] = torch.arange(len(chosen))
        rows = place[self.rows]
        return KLBatch(
            {name: tensor[chosen] for name, tensor in self.inputs.items()},
            rows[rows >= 0],
            self.positions[rows >= 0],
            [self.n_predictions[i] for i in chosen],
            [self.example[i] for i in chosen],
        )


class BaselineData:
    """One data set of a KL term, with the untouched model's predictions in it.

    What the last layer of the untouched model is fed is kept for each example from the first time
    that it is drawn, if its examples stay the same (the strategy ``once``): 4 bytes a unit of the
    layer's width and token, where the model is. Beyond the budget it is computed anew each time.

    Args:
        baseline: The untouched model, in eval mode.
        dataset: The examples.
        cache_bytes: How much may be kept.
        fast: Whether to compute only what is asked about.
    """

    def __init__(
        self, baseline: LoadedModel, dataset: Dataset, cache_bytes: float, *, fast: bool = True
    ) -> None:
        self.dataset = dataset
        self._baseline = baseline
        scorer = scorer_of(baseline.model, baseline.task, fast=fast)
        self._output_layer = scorer.layer(longest=dataset.longest)
        self._cache_bytes = cache_bytes if dataset.preprocessing.strategy == ONCE else 0.0
        self._of_streams: dict[str, KeptStates] = {}

    def kept_by(self, stream: str) -> KeptStates | None:
        """What is kept of the examples that a stream of draws comes to.

        It is there for the next loss that draws the same, such as that of the next trial.

        Args:
            stream: All that the draws depend on.

        Returns:
            None if nothing is to be kept.
        """
        if not self._cache_bytes:
            return None
        kept = self._of_streams.pop(stream, None)
        if kept is None:
            assert self.dataset.label_ids is not None
            n_bytes = self.dataset.label_ids.lengths * self._output_layer.n_bytes_fed
            kept = KeptStates(n_bytes, self._cache_bytes)
        # Those of training and validation; others belong to trials that drew otherwise.
        self._of_streams[stream] = kept
        while len(self._of_streams) > _STREAMS_KEPT:
            del self._of_streams[next(iter(self._of_streams))]
        return kept

    def __len__(self) -> int:
        return len(self.dataset)

    def batches(self, example: IntArray, batch_size: int) -> list[KLBatch]:
        """Some rows of the data set in batches."""
        return [self._asked(batch) for batch in self.dataset.batches(batch_size, example)]

    def baseline_logits(self, batch: KLBatch, kept: KeptStates | None = None) -> BaselineLogits:
        """What the untouched model predicts: (k, vocabulary), in the order of the batch.

        Args:
            batch: The examples.
            kept: What is known of them, and where more is kept.
        """
        import torch

        with torch.no_grad():
            hidden = self._hidden(batch, kept) if kept is not None else None
            if hidden is not None:
                return lambda rows: self._output_layer.of_hidden(hidden[rows])
            logits = self._output_layer.logits(batch.inputs, batch.rows, batch.positions)
            return lambda rows: nullcontext(logits[rows])

    def _hidden(self, batch: KLBatch, kept: KeptStates) -> Tensor | None:
        """What the last layer is fed: (k, width); None for a model without such a layer."""
        import torch

        layer = self._output_layer
        layer.check(batch.inputs, batch.rows, batch.positions)
        if not layer.resumes_alone:
            return None
        parts = []
        for example, n in zip(batch.example, batch.n_predictions, strict=True):
            if not n:
                continue
            if (part := kept.get(example)) is None:
                found = self._hidden_of(kept.group_of(example))
                kept.put(found)
                part = found[example]
            parts.append(part)
        return torch.cat(parts)

    def _hidden_of(self, examples: IntArray) -> dict[int, Tensor]:
        """The same for each of some examples."""
        import torch

        # What is about as long goes in together, so that there is little padding where it must be.
        examples = examples[self.dataset.lengths[examples].argsort(kind="stable")]
        found: dict[int, Tensor] = {}
        for batch in map(self._asked, self.dataset.batches(_EXAMPLES_TOGETHER, examples)):
            for part, hidden in in_halves(batch, self._fed, KLBatch.halves, _described):
                each = torch.split(hidden, part.n_predictions)
                # Each with memory of its own, so that one does not keep the others.
                found |= {i: own.clone() for i, own in zip(part.example, each, strict=True)}
        return found

    def _fed(self, batch: KLBatch) -> Tensor:
        found = self._output_layer.hidden(batch.inputs, batch.rows, batch.positions)
        assert found is not None
        return found

    def _asked(self, batch: Batch) -> KLBatch:
        task = self._baseline.task
        rows, positions = task.predictions(batch.inputs["labels"])
        return KLBatch(
            task.without_labels(self._baseline.model, batch.inputs),
            rows,
            positions,
            rows.bincount(minlength=len(batch)).tolist(),
            batch.example.tolist(),
        )


def _read_hugging_face(source: KLSource, origin: Origin) -> Examples:
    """Read the examples of a data set of the ``datasets`` library.

    Args:
        source: Which, and how many of them.
        origin: Where the model is from, whose token serves for data sets too.

    Raises:
        UserError: If it is not there or has no texts.
    """
    rows = _rows_of_hugging_face(source, origin)
    columns = rows.column_names
    if "text" not in columns:
        raise UserError(f"dataset {source.path!r} must have a column 'text' but has {columns}.")
    texts = list(rows["text"][: source.max_samples])
    labels = list(rows["labels"][: source.max_samples]) if "labels" in columns else None
    check_texts(source.path, texts, labels)
    return Examples(Path(source.path).name, source.path, texts, labels, [{} for _ in texts])


def _rows_of_hugging_face(source: KLSource, origin: Origin) -> Any:
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    path = Path(source.path)
    try:
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(source.path)
            return saved[source.split_name] if isinstance(saved, datasets.DatasetDict) else saved
        return datasets.load_dataset(source.path, split=source.split_name, **origin.hub_options())
    except Exception as error:
        # Many kinds: of the network, of the file formats, of the split's name.
        raise UserError(
            f"dataset {source.path!r} (split {source.split_name!r}) cannot be loaded: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def load_baseline_data(
    settings: KLSettings, origin: Origin, baseline: LoadedModel, device: torch.device
) -> list[tuple[KLSource, BaselineData]]:
    """The data sets of a KL term, each shared by all that ask for the same of the same model.

    Args:
        settings: Which, and how they are prepared.
        origin: Where the model is from.
        baseline: The untouched model.
        device: Where it is to be.

    Raises:
        UserError: If the untouched model does not go with the data or the preprocessing.
    """
    import torch

    baseline.model.to(device)
    kwargs = dict(settings.data_preprocessing_fn_kwargs or {})
    place = "KLBaselineLoss.data_preprocessing_fn"
    given = Preprocessing(
        settings.data_preprocessing_fn, settings.data_preprocessing_fn_strategy, kwargs
    )
    preprocessing = in_mode(given, origin.mode, baseline.task)
    function, kwargs = preprocessing.function, preprocessing.kwargs
    tasks = [baseline.task] if origin.mode is None else list(TASKS_OF_MODES.values())
    if problems := [
        *kind_problems(place, given.function, baseline.name, tasks),
        *tokenizer_problems(place, function, kwargs, baseline),
    ]:
        raise UserError(*problems)
    options = origin.encoder_options or encoder_options(baseline)
    described: dict[str, Any] = {
        "baseline": [dict(settings.model_kwargs or {}), dict(settings.tokenizer_kwargs or {})],
        "encoder": options,
        "max_sample_length": settings.max_sample_length,
        "preprocessing": [function, preprocessing.strategy, kwargs],
        "cache_mb": settings.cache_mb,
        "fast": origin.fast,
        "mode": origin.mode,
        # What a function draws follows from the run's seed.
        "seed": None if function is identity else torch.initial_seed(),
    }

    found: list[tuple[KLSource, BaselineData]] = []
    for source in settings.sources:
        described["source"] = _described_source(source)
        data = origin.untouched.kept("KL data", described)
        if data is None:
            examples = (
                read_examples(source.path, source.max_samples)
                if source.is_data_file
                else _read_hugging_face(source, origin)
            )
            tell_of_masks(examples, baseline, origin.mode)
            examples = examples_in_mode(examples, origin.mode, baseline.task)
            encoder = TextEncoder(baseline.tokenizer, **options)
            if settings.max_sample_length is not None:
                examples = _not_longer(examples, encoder, settings.max_sample_length)
            with apart_from_the_run():
                dataset = Dataset(
                    examples,
                    encoder,
                    baseline.task,
                    preprocessing,
                    DatasetOptions(
                        num_workers=settings.preprocessing_num_workers,
                        overwrite_cache=settings.overwrite_cache,
                        model=baseline.model,
                    ),
                )
            n_bytes = settings.cache_mb * 2**20
            data = BaselineData(baseline, dataset, n_bytes, fast=origin.fast)
            origin.untouched.keep("KL data", described, data)
        found.append((source, data))
    return found


def _described(batch: KLBatch) -> str:
    return f"{len(batch.example)} examples of a KL term: they go through the untouched model"


def _described_source(source: KLSource) -> list[Any]:
    """Which examples a data set has, in plain types: those of a file as it is now."""
    status = Path(source.path).stat() if source.is_data_file else None
    now = [] if status is None else [status.st_ino, status.st_size, status.st_mtime_ns]
    return [source.path, source.split_name, source.max_samples, *now]


def _not_longer(examples: Examples, encoder: TextEncoder, length: int) -> Examples:
    """The examples whose texts have no more than so many tokens, start and end tokens included."""
    encodings = encoder(examples.texts)
    short = [i for i, e in enumerate(encodings) if len(e.input_ids) + e.n_cut <= length]
    if not short:
        raise UserError(
            f"max_sample_length must leave at least one example but no text of {examples.path} "
            f"has at most {length} tokens."
        )
    return examples.select(short)
