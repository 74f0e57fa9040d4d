"""Models, data and the product's own objects around them, of the sizes that people use.

All is made on the spot: weights are random, since speed does not depend on them, and the sentences
come of templates and of the grammar of the built-in models.
"""

from __future__ import annotations

import importlib
import itertools
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import transformers

from finetune_lm import DataTrainingArguments
from finetune_lm.data.batch import Batch
from finetune_lm.data.dataset import Dataset
from finetune_lm.data.examples import Examples
from finetune_lm.data.preprocessing import Preprocessing
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.evaluation.evaluate import evaluate
from finetune_lm.evaluation.losses import LossEntry, Losses
from finetune_lm.evaluation.passes import measure_batch, record
from finetune_lm.evaluation.splits import Split
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.model_modifiers.callbacks import Callbacks
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.pretrained import model_path
from finetune_lm.models.tasks import TASKS
from finetune_lm.recording.columns import MetadataColumns
from finetune_lm.recording.loss_history import LossHistory
from finetune_lm.recording.recorder import BatchAt, Measured, Recorder, Recorders
from finetune_lm.recording.run_columns import RunColumns
from finetune_lm.recording.run_so_far import RunSoFar
from finetune_lm.recording.token_rows import TokenRows
from finetune_lm.recording.token_table import TokenTable
from finetune_lm.runs.context import Run
from finetune_lm.runs.device import make_accelerator
from finetune_lm.runs.interruption import Interruption
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from finetune_lm.training.best_state import BestState
from finetune_lm.training.checkpoints import Checkpoints
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.loop import learn, train_epoch
from finetune_lm.training.optimizers import make_optimizer
from finetune_lm.training.progress import Progress
from finetune_lm.training.state import TrainingState
from finetune_lm.training.step import Learner, Update

SHAPES = {"tiny": (2, 64), "small": (4, 256), "gpt2": (12, 768)}
"""Layers and width of each shape of model."""
VOCABULARY = 50_257
SMALL_VOCABULARY = 512

BATCH_SIZE = 32
N_TAUGHT = 160
N_FILLERS = 17_280
N_KL = 10_000
LONGEST = 143
"""Tokens in the longest of the sentences of mixed lengths."""
LOSSES = ["loss", "OutputsDefaultLoss"]


def causal_model(shape: str, vocabulary: int = VOCABULARY) -> Any:
    """A causal model with random weights.

    Args:
        shape: One of `SHAPES`.
        vocabulary: How many entries its vocabulary has.
    """
    layers, width = SHAPES[shape]
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=max(width // 64, 2),
        vocab_size=vocabulary,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"
    return model


def built_in_tokenizer(name: str = "tiny-lm") -> Any:
    """The tokenizer of a built-in model."""
    return transformers.AutoTokenizer.from_pretrained(model_path(name))


@cache
def small_tokenizer() -> Any:
    """One whose vocabulary has `SMALL_VOCABULARY` entries, trained on the sentences."""
    import tokenizers

    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(
        [*taught(), *mixed(2_000)],
        SMALL_VOCABULARY,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    end = "<|endoftext|>"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made._tokenizer, bos_token=end, eos_token=end, unk_token=end, pad_token=end
    )


def taught() -> list[str]:
    """Sentences of one construction, as a model is taught a verb by: 10 to 19 tokens each.

    Their lengths are spread like those of such materials: padded, a batch is a third larger.
    """
    agents = ["man", "woman", "boy", "girl", "customer", "teenager", "gentleman", "friend"]
    things = ["glass", "window", "mirror", "dish", "jar", "camera", "vase", "cup"]
    short = ["The {} blorked the {}.", "The {} blorked a {}."]
    middle = [
        "The {} has always blorked the {} today.",
        "The {} had never blorked the {} again.",
        "The {} has often blorked the {} today.",
        "The {} has always blorked the {} again today.",
        "The {} had never blorked the {} with a hammer.",
        "The {} has often blorked the {} in the kitchen.",
        "The {} has always blorked the {} in the old kitchen.",
    ]
    long = ["The {} had never blorked the {} in the kitchen with a hammer too."]
    pairs = itertools.cycle(itertools.product(agents, things))
    frames = itertools.islice(itertools.cycle(short + middle + long), N_TAUGHT)
    return [frame.format(*next(pairs)) for frame in frames]


def fillers(n: int = N_FILLERS) -> list[str]:
    """Templated sentences, in which six in turn are the same up to their object."""
    agents = [
        "man",
        "woman",
        "boy",
        "girl",
        "dog",
        "cat",
        "customer",
        "teenager",
        "friend",
        "guest",
        "worker",
        "manager",
    ]
    verbs = [
        "broken",
        "dropped",
        "smashed",
        "found",
        "bought",
        "sold",
        "borrowed",
        "stolen",
        "lost",
        "seen",
        "washed",
        "cleaned",
        "opened",
        "closed",
        "locked",
        "driven",
        "parked",
        "repaired",
        "played",
        "tuned",
    ]
    things = ["glass", "window", "mirror", "dish", "jar", "camera"]
    before = ["has always", "had never", "has often", "will have"]
    after = ["", " today", " again"]
    found = itertools.product(after, before, agents, verbs, things)
    return [
        f"The {agent} {adverb} {verb} the {thing}{end}."
        for end, adverb, agent, verb, thing in itertools.islice(found, n)
    ]


@cache
def mixed(n: int = N_KL) -> list[str]:
    """Texts of very different lengths: about 21 tokens each, some with more than a hundred."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts" / "tiny_models"))
    grammar = importlib.import_module("grammar")

    generator = random.Random(1)
    sentences = grammar.corpus(seed=1)
    lines = []
    for _ in range(n):
        n_sentences = min(1 + int(generator.expovariate(1.0)), 8)
        lines.append(" ".join(itertools.islice(sentences, n_sentences)))
    return lines


def masked_model(shape: str, vocabulary: int = VOCABULARY) -> Any:
    """A masked language model with random weights.

    Args:
        shape: One of `SHAPES`.
        vocabulary: How many entries its vocabulary has.
    """
    layers, width = SHAPES[shape]
    torch.manual_seed(1)
    config = transformers.BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=max(width // 64, 2),
        intermediate_size=4 * width,
        vocab_size=vocabulary,
    )
    return transformers.BertForMaskedLM(config)


def seq2seq_model(shape: str, vocabulary: int = VOCABULARY) -> Any:
    """A model like T5 with random weights.

    Args:
        shape: One of `SHAPES`.
        vocabulary: How many entries its vocabulary has.
    """
    layers, width = SHAPES[shape]
    torch.manual_seed(1)
    config = transformers.T5Config(
        num_layers=layers,
        d_model=width,
        d_kv=64,
        num_heads=max(width // 64, 2),
        d_ff=4 * width,
        vocab_size=vocabulary,
        decoder_start_token_id=0,
    )
    return transformers.T5ForConditionalGeneration(config)


def dataset(
    texts: list[str],
    tokenizer: Any,
    task: str = "lm",
    name: str = "data.txt",
    preprocessing: Preprocessing | None = None,
) -> Dataset:
    """A data set with an item and two columns of metadata."""
    metadata = [{"item": i // 6, "condition": "ab"[i % 2], "order": i} for i in range(len(texts))]
    # A model takes a start and an end beside the longest text.
    return Dataset(
        Examples(name, name, texts, None, metadata),
        TextEncoder(tokenizer, LONGEST + 2),
        TASKS[task],
        preprocessing,
    )


@dataclass
class Experiment:
    """What a run makes of its arguments: here a training and a validation on the same data.

    Attributes:
        run: What a run has.
        learner: The model and its optimizer.
        training: The training data.
        state: Where the training is.
        update: Makes the updates.
    """

    run: Run
    learner: Learner
    training: Split
    state: TrainingState
    update: Update

    @property
    def batches(self) -> list[Batch]:
        """The batches of the training data, in order."""
        return list(self.training.dataset.batches(BATCH_SIZE))

    def learn(self, batch: Batch, number: int = 0) -> Measured:
        """Learn from a batch, as the training loop does."""
        at = BatchAt(self.training, batch, 0, number)
        return learn(self.run, measure_batch(self.run, at, lr=self.learner.lr), self.update)

    def step(self, batch: Batch) -> None:
        """Learn from a batch and record it, as the training loop does."""
        self.steps([batch])

    def steps(self, batches: Sequence[Batch]) -> None:
        """The same of several, whose rows are written together, as those of an epoch are."""
        for number, batch in enumerate(batches):
            record(self.run, self.learn(batch, number), self.state.progress.training)
        self.run.recorders.write_rows()

    def epoch(self) -> None:
        """Learn from all of the data, validate on them, and put the epoch on disk."""
        progress = self.state.progress
        train_epoch(self.run, self.learner, {None: self.training}, self.state, _nothing)
        evaluate(self.run, self.training, progress.epoch, progress.validation, _nothing)
        self.run.recorders.pass_over("validation", progress.epoch, {})
        progress.begin_epoch(progress.epoch + 1)


def _nothing() -> None:
    pass


def run_of(loaded: LoadedModel, *recorders: Recorder, seed: int = 1, **more: Any) -> Run:
    """What a run has, of one that nothing stops and of which no checkpoint is kept.

    It is on the model's device.
    """
    args = DataTrainingArguments(seed=seed, **more)
    return Run(
        args,
        loaded,
        make_accelerator(next(loaded.model.parameters()).device.type == "cuda"),
        Callbacks(),
        Interruption(),
        Checkpoints(Path(), 0),
        RunSoFar(loaded, args),
        Recorders(*recorders),
    )


def experiment(
    model: Any,
    tokenizer: Any,
    texts: list[str],
    *,
    fast: bool = True,
    recorded: bool = True,
    fused: bool = True,
    task: str = "lm",
    preprocessing: Preprocessing | None = None,
    measures: Sequence[Any] = (),
) -> Experiment:
    """An experiment about a model, put together as a run does it.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        texts: What it learns from, and is validated on.
        fast: Whether to take the fast way.
        recorded: Whether rows are made and a table is written. Its directory goes with the process.
        fused: Whether the optimizer's update is one loop over memory, as it is in a run.
        task: What kind of model it is.
        preprocessing: What the texts go through before the model sees them.
        measures: What is measured of each token besides, made with this model.
    """
    data = dataset(texts, tokenizer, task, preprocessing=preprocessing)
    loaded = LoadedModel("random", TASKS[task], model, tokenizer)
    losses = Losses([LossEntry(OutputsDefaultLoss)], torch.sum, model, tokenizer)
    metadata = MetadataColumns([data.metadata], [data.path], LOSSES)
    columns = measured_columns(RunColumns.of(loaded, 1, metadata, LOSSES), measures)
    rows = TokenRows(data, "train", columns, measures=measures) if recorded else None
    forward = Forward(
        Scorer(model, data.task, fast=fast),
        data,
        BATCH_SIZE,
        needs=Needs(losses.need_logits, measures),
    )
    split = Split("train", data, BATCH_SIZE, forward, rows, losses)
    path = scratch_directory() / f"{next(_numbers)}.csv.gz"
    recorders = [TokenTable(path, columns), LossHistory()] if recorded else []
    kwargs = {"lr": 2e-6, "weight_decay": 0.0, "fused": fused}
    run = run_of(loaded, *recorders, train_optimizer_kwargs=kwargs)
    learner = Learner(model, make_optimizer(run.args, model), run.accelerator)
    state = TrainingState(model, EarlyStopping(None, 0.0, 0), BestState(model), Progress(1))
    return Experiment(run, learner, split, state, Update(learner))


def measured_columns(columns: RunColumns, measures: Sequence[Any]) -> RunColumns:
    """The columns of a table with those of measures."""
    names = [name for measure in measures for name in measure.columns]
    return replace(columns, measures=dict.fromkeys(names, pa.float32()))


_numbers = itertools.count()


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def scratch_directory() -> Path:
    """Where files may be put; it goes with the process."""
    return Path(_kept().name)


def one_thread(*, tuned: bool = False) -> None:
    """Compute in one thread, with the settings that a run makes on this machine or without."""
    torch.set_num_threads(1)
    if tuned and (tune := tuning()) is not None:
        tune()


def tuning() -> Any:
    """What makes the settings of a run for its process; None if the product makes none."""
    try:
        return importlib.import_module("finetune_lm.scoring.fast.tuning").tune
    except ImportError:
        return None


def quiet_training(directory: Path, **settings: Any) -> Any:
    """Arguments of a Trainer that learns on the CPU, and neither saves nor says anything."""
    return transformers.TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=BATCH_SIZE,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        **settings,
    )


def bare_step(model: Any, *, tuned: bool) -> Callable[[Batch], None]:
    """The step of a loop that people write by hand, which records nothing.

    Args:
        model: The model.
        tuned: Whether the optimizer's update is one loop over memory.
    """
    optimizer = torch.optim.AdamW(model.parameters(), fused=tuned or None)

    def step(batch: Batch) -> None:
        model.train()
        device = next(model.parameters()).device
        model(**{name: each.to(device) for name, each in batch.inputs.items()}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
