"""From the arguments to the model and to what it will be fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.redaction import hides_secrets
from finetune_lm.data.examples import Files
from finetune_lm.data.feeding import check_kinds, load_datasets, used_types
from finetune_lm.data.files import read_files
from finetune_lm.data.preview import render
from finetune_lm.errors import UserError
from finetune_lm.full_collections import without_full_collections
from finetune_lm.messages import silent, warn
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.loading import Loader
from finetune_lm.models.sharding import is_to_be_split
from finetune_lm.models.tasks import Task
from finetune_lm.models.two_modes import arguments_by_mode, check_config, joined
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.randomness import generator_states, restore_generators
from finetune_lm.ranks import apart, world
from finetune_lm.runs.device import prepare_models, prepare_process
from finetune_lm.runs.earlier_run import warn_of_changed_model
from finetune_lm.runs.measure_checks import check_measures
from finetune_lm.runs.one_process import check_one_process
from finetune_lm.runs.same_for_all import check_identity, check_tokens, identity_of_model
from finetune_lm.scoring.mask_position import check_mask_position
from finetune_lm.scoring.visibility import check_order, is_exact, task_by_loss

if TYPE_CHECKING:
    import accelerate
    import torch

    from finetune_lm.arguments import DataTrainingArguments, ModelArguments
    from finetune_lm.data.dataset import Dataset
    from finetune_lm.models.loading import LoadedModel


@without_full_collections()
def load(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    files: Files,
    loader: Loader | None = None,
) -> tuple[accelerate.Accelerator, LoadedModel, dict[str, list[Dataset]]]:
    """Seed the generators, load the model, and make of the data what it will be fed.

    Args:
        model_args: Which model, and how it is loaded and changed.
        data_args: The seed, and what is done to the data.
        files: The data.
        loader: Loads the model; by default anew.

    Raises:
        UserError: If the model is not there, or does not go with the data or with what is to be
            done to them. Where that can be told by its config, nothing else is loaded.
    """
    accelerator, loaded = load_without_data(model_args, data_args, files, loader)
    datasets = load_datasets(files, loaded, data_args)
    check_tokens(datasets)
    return accelerator, loaded, datasets


def load_without_data(
    model_args: ModelArguments,
    data_args: DataTrainingArguments,
    files: Files,
    loader: Loader | None = None,
) -> tuple[accelerate.Accelerator, LoadedModel]:
    """Seed the generators and load the model, once it is known that the data are for its kind."""
    accelerator = prepare_process(data_args.seed, model_args, fast=data_args.fast)
    warn_of_changed_model(model_args.model_name_or_path)
    loader = loader or Loader()
    by_mode = arguments_by_mode(model_args)
    known = {mode: loader.identify(args) for mode, args in by_mode.items()}
    if model_args.has_two_modes:
        check_config(model_args.model_name_or_path, next(iter(known.values()))[0])
    tasks = [task for _, task in known.values()]
    check_kinds(files, model_args.model_name_or_path, tasks, data_args)
    for task in tasks:
        check_measures(model_args, data_args, task, used_types(files))

    identity: dict[str, Any] = {}

    def prepared() -> LoadedModel:
        loaded = joined(_loaded_in_modes(by_mode, known, loader), model_args.training_modes())
        # While it is whole.
        identity.update(identity_of_model(loaded, model_args))
        models = [each.model for each in loaded.modes]
        with _memory_watched(loaded.name, accelerator.device):
            prepare_models(models, model_args, accelerator, fast=data_args.fast)
        return loaded

    if is_to_be_split(model_args):
        loaded = _split(prepared, accelerator.device)
    else:
        if model_args.fsdp:
            warn("fsdp does nothing here, since there is only one process. Start it by torchrun.")
        loaded = prepared()
    check_identity(identity)
    for each in loaded.modes:
        with _memory_watched(each.name, accelerator.device):
            each.is_exact = is_exact(each.model, model_args.precision)
            check_order(each.name, each.task, each.model, is_exact=each.is_exact, mode=each.mode)
            check_mask_position(each, files)
            each.task = task_by_loss(each.name, each.task, each.model)
    return accelerator, loaded


def _split(prepared: Callable[[], LoadedModel], device: torch.device) -> LoadedModel:
    """A model that is split among ranks as it is prepared, and so is its untouched self."""
    world().mesh(device.type)
    # Each has the whole model in memory for a while.
    loaded = world().in_turns(prepared)
    for each in loaded.modes:
        origin_of(each.model).split(device)
    return loaded


@contextmanager
def _memory_watched(name: str, device: Any) -> Iterator[None]:
    """Turn want of memory into an error for users."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{name} must fit into the memory of {device} but does not. Take a smaller model, or "
            f"fewer bits for its weights (--model_kwargs.dtype)."
        ) from error


def _loaded_in_modes(
    by_mode: Mapping[str | None, ModelArguments],
    known: Mapping[str | None, tuple[Any, Task]],
    loader: Loader,
) -> dict[str | None, LoadedModel]:
    """A model in each of its modes. What is drawn is what the first alone draws."""
    (first, args), *others = by_mode.items()
    found = {first: loader.load(args, known[first])}
    states = generator_states()
    with silent():
        found |= {mode: loader.load(args, known[mode]) for mode, args in others}
    restore_generators(states)
    return found


@hides_secrets
def preview(model_args: ModelArguments, data_args: DataTrainingArguments, n: int) -> str:
    """Show what the model will be fed, for a person to look at. Nothing is trained or written.

    Of several ranks the first does that alone, and the others are told nothing.

    Args:
        model_args: Which model, and how it is loaded and changed.
        data_args: Which data, and what is done to them.
        n: How many examples of each file to show.

    Raises:
        UserError: If something is wrong that the user can put right.
    """
    problems = [*model_args.problems(), *data_args.problems()]
    if problems:
        raise UserError(*problems)
    check_one_process()
    if not world().is_first:
        return ""
    with apart():
        files = read_files(data_args)
        _, loaded, datasets = load(replace(model_args, fsdp=False), data_args, files)
    mode_of = {each.task: each.mode for each in loaded.modes}
    parts = [
        f"{dataset_type}: {render(dataset, n, mode_of[dataset.task])}"
        for dataset_type, group in datasets.items()
        for dataset in group
    ]
    return "\n".join(parts)
