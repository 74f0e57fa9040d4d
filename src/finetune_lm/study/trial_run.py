"""The run of one trial: it begins from the same state as all others, and shares what they can."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import DataTrainingArguments, ModelArguments
from finetune_lm.arguments.declared import Affects, what_affects
from finetune_lm.arguments.hooks import of_a_run
from finetune_lm.constants import PROBE
from finetune_lm.data.feeding import check_kinds, load_datasets
from finetune_lm.data.files import read_files
from finetune_lm.evaluation.loss_units import loss_units
from finetune_lm.evaluation.splits import TrainingSplits, by_mode, make_splits
from finetune_lm.model_modifiers.callbacks import make_callbacks
from finetune_lm.models.kept_models import KeptModels
from finetune_lm.models.sharding import is_sharded
from finetune_lm.randomness import generator_states, restore_generators
from finetune_lm.ranks import world
from finetune_lm.recording.columns import LOSS
from finetune_lm.recording.progress_bars import EpochBar
from finetune_lm.recording.recorder import Recorder
from finetune_lm.recording.run_so_far import RunSoFar
from finetune_lm.runs.context import Run
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.preparing import load_without_data
from finetune_lm.runs.same_for_all import check_files, check_tokens
from finetune_lm.study.parameters import MODIFIER_KWARGS
from finetune_lm.training.best_state import BestState
from finetune_lm.training.checkpoints import Checkpoints, Saved
from finetune_lm.training.early_stopping import EarlyStopping
from finetune_lm.training.progress import BEFORE_TRAINING, Progress
from finetune_lm.training.state import TrainingState
from finetune_lm.training.step import Learner, make_learner

if TYPE_CHECKING:
    import accelerate

    from finetune_lm.data.dataset import Dataset
    from finetune_lm.models.loading import LoadedModel, Loader


# What a callback or a loss may hang onto a module, and forget.
_HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks"),
)
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")

# A trial that differs in none of these is fed the same tensors.
_FED = frozenset(what_affects({Affects.INPUTS}, DataTrainingArguments))


@dataclass
class _ModuleState:
    """One module: its own tensors and flags, without those of the modules in it."""

    module: Any
    parameters: dict[str, Any]
    buffers: dict[str, Any]
    submodules: dict[str, Any]
    hooks: dict[str, dict[Any, Any]]
    is_training: bool


class InitialState:
    """A model's weights, buffers, flags and hooks, to be put back in place.

    The copy is on the device where the model is, and takes as much memory as the model. Weights
    that are tied are kept once.

    Args:
        model: The model, as a trial is to find it.

    Example:
        >>> state = InitialState(model)  # doctest: +SKIP
        >>> train(model)  # doctest: +SKIP
        >>> state.restore()  # doctest: +SKIP
    """

    def __init__(self, model: Any) -> None:
        self._modules = [
            _ModuleState(
                module,
                dict(module._parameters),
                dict(module._buffers),
                dict(module._modules),
                {name: dict(getattr(module, name, {})) for name in _HOOKS},
                module.training,
            )
            for module in model.modules()
        ]
        self._parameters = [(p, p.requires_grad, _tensor_hooks(p)) for p in model.parameters()]
        self._weights = BestState(model, moving=False)
        self._weights.keep()

    def restore(self) -> None:
        """Put everything back, bit for bit."""
        for state in self._modules:
            module = state.module
            # Also those that were replaced, added or taken away.
            _refill(module._parameters, state.parameters)
            _refill(module._buffers, state.buffers)
            _refill(module._modules, state.submodules)
            for name, kept in state.hooks.items():
                _refill(getattr(module, name, None), kept)
            module.training = state.is_training
        for parameter, requires_grad, hooks in self._parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = None
            for name in _TENSOR_HOOKS:
                _refill(getattr(parameter, name, None), hooks[name])
        self._weights.restore()


def _refill(dictionary: dict[Any, Any] | None, kept: dict[Any, Any]) -> None:
    """Make a dictionary what it was, also where others hold on to it."""
    if dictionary is not None:
        dictionary.clear()
        dictionary.update(kept)


def _tensor_hooks(tensor: Any) -> dict[str, dict[Any, Any]]:
    return {name: dict(getattr(tensor, name, None) or {}) for name in _TENSOR_HOOKS}


@dataclass(frozen=True)
class _Shared:
    """What trials share.

    Attributes:
        accelerator: Says on which device and in which precision.
        loaded: The model.
        initial: What the model was when it was loaded, in each of its modes.
        before_data: Where the generators were then.
        datasets: The data as the model is fed them.
        after_data: Where the generators were when these were made.
    """

    accelerator: accelerate.Accelerator
    loaded: LoadedModel
    initial: list[InitialState]
    before_data: Mapping[str, Any]
    datasets: dict[str, list[Dataset]]
    after_data: Mapping[str, Any]


class TrialRunner:
    """Does the runs of trials, one after another, each as if it were the only one.

    A trial comes out exactly as a single run with its arguments does: it begins from the same
    weights and the same state of all generators, and optimizer, callbacks and losses are made for
    it. Shared are the model itself, its initial weights, the tokenized data as far as no parameter
    changes them, and whatever a loss keeps with the model, such as a baseline.

    Args:
        model_args: Which model, and how it is loaded and changed.
        data_args: The arguments without a study.
        searched: The arguments that trials differ in.
        loader: Loads the model; by default anew.

    Raises:
        UserError: If the model is not there, or something does not go with something else.
    """

    def __init__(
        self,
        model_args: ModelArguments,
        data_args: DataTrainingArguments,
        searched: Iterable[str],
        loader: Loader | None = None,
    ) -> None:
        self._model_args = model_args
        searched = set(searched)
        self._loads_anew = bool({"seed", MODIFIER_KWARGS} & searched)
        # Where trials change the model in other ways, it is read once all the same.
        self._loader = loader or (KeptModels() if MODIFIER_KWARGS in searched else None)
        self._feeds_anew = bool(searched & _FED)
        self._shared: _Shared | None = self._load(data_args)
        # What can be found wrong with losses and callbacks is found before there is a study. And
        # what a loss keeps with the model is made now, so that the first trial finds it as the
        # others do.
        self._prepare(data_args)
        self._release()

    @property
    def loaded(self) -> LoadedModel:
        """The model."""
        assert self._shared is not None
        return self._shared.loaded

    @property
    def accelerator(self) -> accelerate.Accelerator:
        """What knows the device."""
        assert self._shared is not None
        return self._shared.accelerator

    @contextmanager
    def prepared(
        self,
        args: DataTrainingArguments,
        stopping: EarlyStopping,
        recorder: Recorder,
        interruption: Interruption,
        model_args: ModelArguments | None = None,
    ) -> Iterator[tuple[Run, Learner, TrainingSplits, TrainingState]]:
        """Bring everything to where a trial begins, and let go of it afterwards.

        Args:
            args: The trial's arguments.
            stopping: Judges the validation losses, and knows the best afterwards.
            recorder: Listens to the training. What it raises ends the trial.
            interruption: Says at the end of each step whether to stop.
            model_args: The trial's arguments of the model, where trials differ in these.

        Yields:
            What `training.loop.train` is called with.

        Raises:
            UserError: If something does not go with something else.
        """
        if model_args is not None and self._loads_anew:
            self._model_args = model_args
        learner, splits, so_far = self._prepare(args)
        run = Run(
            args,
            self.loaded,
            self.accelerator,
            learner.callbacks,
            interruption,
            _NoCheckpoints(),
            so_far,
        )
        shown: list[Recorder] = []
        if run.world.is_first:
            shown = [EpochBar(args.epochs, loss_units(args)[LOSS], in_passing=True)]
        run = run.with_recorders(so_far, *shown, recorder)
        progress = Progress(args.seed, BEFORE_TRAINING if args.eval_before_training else 0)
        state = TrainingState(self.loaded.model, stopping, best=None, progress=progress)
        try:
            with run.recorders.listening(0):
                yield run, learner, splits, state
        finally:
            del learner, run, splits, state, so_far
            self._release()

    @contextmanager
    def letting_go(self) -> Iterator[None]:
        """Let go of a model that is split among ranks behind an error in what is done inside.

        The ranks find each other anew then, and so the model is loaded anew.
        """
        try:
            yield
        except Exception:
            if is_sharded(self.loaded.model):
                self._shared = None
            raise

    def _prepare(self, args: DataTrainingArguments) -> tuple[Learner, TrainingSplits, RunSoFar]:
        """Bring everything to where a single run is before its first step."""
        if self._loads_anew or self._shared is None:
            self._shared = self._load(args)
        shared = self._shared
        world().seed(args.seed)
        for state in shared.initial:
            state.restore()
        datasets = shared.datasets
        if self._feeds_anew:
            restore_generators(shared.before_data)
            files = read_files(args)
            tasks = [each.task for each in shared.loaded.modes]
            check_kinds(files, shared.loaded.name, tasks, args)
            datasets = load_datasets({**files, PROBE: []}, shared.loaded, args)
        else:
            restore_generators(shared.after_data)
        modes = shared.loaded.modes
        learned = [make_splits("train", datasets, m, args, None) for m in modes if m.learns]
        judged = [make_splits("validation", datasets, m, args, None) for m in modes]
        selecting = self._model_args.selecting_modes()
        splits = TrainingSplits(by_mode(learned), by_mode(judged), selecting=selecting)
        so_far = RunSoFar(shared.loaded, args)
        entries = of_a_run(self._model_args.callbacks(), trains=True, tests=False)
        callbacks = make_callbacks(entries, so_far, args.seed)
        learner = make_learner(args, shared.loaded, shared.accelerator, callbacks, splits.first)
        return learner, splits, so_far

    def _load(self, args: DataTrainingArguments) -> _Shared:
        files = read_files(args)
        check_files(files)
        accelerator, loaded = load_without_data(self._model_args, args, files, self._loader)
        initial = [InitialState(each.model) for each in loaded.modes]
        before_data = generator_states()
        datasets = load_datasets(files, loaded, args)
        check_tokens(datasets)
        # What is wrong with probes has shown. Trials measure none, only the run of the best does.
        datasets[PROBE] = []
        return _Shared(accelerator, loaded, initial, before_data, datasets, generator_states())

    def _release(self) -> None:
        """Let go of what a trial leaves: gradients, and the optimizer that accelerate keeps."""
        self.loaded.model.zero_grad(set_to_none=True)
        self.accelerator.free_memory()


class _NoCheckpoints(Checkpoints):
    """A trial that is stopped is done again from its beginning."""

    def __init__(self) -> None:
        super().__init__(Path(), every=0)

    def write(self, saved: Saved) -> bool:
        """Do nothing."""
        return False
