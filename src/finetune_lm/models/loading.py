"""From the model's name to the model, its task and its tokenizer, with the modifiers applied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from finetune_lm.arguments.calls import check_call
from finetune_lm.arguments.references import short_name
from finetune_lm.constants import LM_MLM, MODES
from finetune_lm.errors import UserError, users_code
from finetune_lm.messages import warn
from finetune_lm.models.own_buffers import compute_buffers
from finetune_lm.models.pretrained import (
    from_pretrained,
    hub_arguments,
    load_tokenizer,
    tokenizer_place,
)
from finetune_lm.models.saved_adapters import SavedAdapter, quiet
from finetune_lm.models.tasks import Task, find_task
from finetune_lm.models.unknown_kwargs import check_config_kwargs
from finetune_lm.models.untouched import share, twin_of
from finetune_lm.models.vocabulary import n_embeddings
from finetune_lm.models.weights import check_weights, hash_of_config, hash_of_weights

if TYPE_CHECKING:
    from finetune_lm.arguments import ModelArguments


@dataclass
class LoadedModel:
    """A model with what belongs to it.

    Attributes:
        name: The model as named on the command line.
        task: What kind it is.
        model: The transformers model, in float32 unless asked otherwise, on the CPU.
        tokenizer: Its tokenizer.
        origin: Hashes of its weights and configuration, as they were before any modifier.
        is_exact: Whether it computes in float32 or better.
        cost_of_padding: By how many bits padding changes what it finds, 0 if that is no more than
            rounding; None as long as it was not asked.
        mode: Of a model in both of its modes, the one that this is; else None. The first is the
            one in which training begins.
        other: The same weights in the other mode.
        learns: Whether it is trained in this mode, if anything is trained.
    """

    name: str
    task: Task
    model: Any
    tokenizer: Any
    origin: dict[str, str] = field(default_factory=dict)
    is_exact: bool = True
    cost_of_padding: float | None = None
    mode: str | None = None
    other: LoadedModel | None = None
    learns: bool = True

    @property
    def kind(self) -> str:
        """What it is, as ``model_task`` names it."""
        return self.task.name if self.mode is None else LM_MLM

    @property
    def draws_apart(self) -> bool:
        """Whether what is drawn for it comes from random numbers of its own.

        That is so of the mode in which training does not begin, so that the other one is as if it
        were alone.
        """
        return self.mode is not None and self.other is None

    @property
    def modes(self) -> tuple[LoadedModel, ...]:
        """It in each of its modes, in the order of `constants.MODES`; itself if it has one."""
        if self.other is None:
            return (self,)
        return tuple(sorted((self, self.other), key=lambda each: MODES.index(str(each.mode))))

    @property
    def n_params(self) -> str:
        """The number of parameters, readable: ``0.4M``, ``135M``, ``2.8B``."""
        return readable_count(sum(parameter.numel() for parameter in self.model.parameters()))


_ARGUMENTS: WeakKeyDictionary[Any, ModelArguments] = WeakKeyDictionary()


def arguments_of(model: Any) -> ModelArguments | None:
    """The arguments that a model was loaded by; None if it was not loaded here."""
    return _ARGUMENTS.get(model)


def identify(args: ModelArguments) -> tuple[Any, Task]:
    """The config of the model that the arguments name, and what kind it is.

    Raises:
        UserError: If it is not there or is of no known kind.
    """
    import transformers

    name = args.model_name_or_path
    if (adapter := SavedAdapter.find(name)) is not None:
        return identify(_without_adapter(args, adapter))
    found = from_pretrained(
        transformers.AutoConfig,
        "config_name" if args.config_name not in (None, name) else "model_name_or_path",
        args.config_name or name,
        {**hub_arguments(args), "return_unused_kwargs": True},
        args.config_kwargs,
    )
    # A class that comes with a model may know nothing of what is left over.
    config, unused = found if isinstance(found, tuple) else (found, {})
    check_config_kwargs(args.config_name or name, config, unused, args.config_kwargs)
    task = find_task(name, config, args.model_task)
    _check_kind(name, task, config, getattr(transformers, task.auto_class))
    if getattr(config, "auto_map", None) and not args.trust_remote_code:
        # transformers has a class for it, else its configuration would not have been loaded.
        warn(
            f"{name} comes with Python code of its own, which is not run: the class that "
            f"transformers has for it is used instead. --trust_remote_code runs it."
        )
    return config, task


def load_model(
    args: ModelArguments, known: tuple[Any, Task] | None = None, *, hashed: bool = True
) -> LoadedModel:
    """Load the model that the arguments name, with its modifiers applied.

    Args:
        args: Which model, and how it is loaded and changed.
        known: What `identify` says of it, where that was asked before.
        hashed: Whether to say what it was before any modifier.

    Raises:
        UserError: If it is not there, cannot be loaded, or is of no known kind.
    """
    return modified(load_untouched(args, known, hashed=hashed), args)


def load_untouched(
    args: ModelArguments, known: tuple[Any, Task] | None = None, *, hashed: bool = True
) -> LoadedModel:
    """The same before any modifier.

    Of an adapter it is the model that the adapter makes of the one that it is for: a plain model,
    into whose weights it is merged.
    """
    import torch
    import transformers

    name = args.model_name_or_path
    if (adapter := SavedAdapter.find(name)) is not None:
        base = load_untouched(_without_adapter(args, adapter), known, hashed=False)
        return _with_adapter(replace(base, name=name), adapter, hashed=hashed)
    hub = hub_arguments(args)
    config, task = known or identify(args)
    tokenizer = load_tokenizer(args)
    # transformers takes the precision of the file, and small updates are lost in 16 bits.
    precision = (
        {} if {"dtype", "torch_dtype"} & args.model_kwargs.keys() else {"dtype": torch.float32}
    )
    # transformers prints long tables about what check_weights says in a line.
    report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with _less_verbose():
        model, loading_info = from_pretrained(
            getattr(transformers, task.auto_class),
            "model_name_or_path",
            name,
            {**hub, **precision, "config": config},
            {**args.model_kwargs, **report},
        )
    wanted = bool(args.model_kwargs.get("ignore_mismatched_sizes"))
    check_weights(name, task, model, loading_info, ignore_mismatched=wanted)
    compute_buffers(name, model)
    if "gguf_file" in args.model_kwargs:
        _forget_quantization(model)
    if hasattr(model, "loss_type") and model.loss_type is None and task.loss_type is not None:
        # transformers reads the loss off the class's name, which GPT-2's does not tell. It takes
        # this one then, with a warning in every run.
        model.loss_type = task.loss_type
    model.eval()
    # Modifiers may compute, and that differs in last digits from one processor to the next.
    return LoadedModel(name, task, model, tokenizer, _origin(model) if hashed else {})


def _origin(model: Any) -> dict[str, str]:
    return {"weights": hash_of_weights(model), "config": hash_of_config(model.config)}


def _without_adapter(args: ModelArguments, adapter: SavedAdapter) -> ModelArguments:
    """The arguments that load the model which an adapter is for, with the adapter's tokenizer."""
    name = args.model_name_or_path
    tokenizer = args.tokenizer_name if args.tokenizer_name != name else tokenizer_place(name)
    return replace(
        args,
        model_name_or_path=adapter.base,
        model_revision=adapter.revision,
        config_name=args.config_name if args.config_name != name else adapter.base,
        tokenizer_name=tokenizer or adapter.base,
    )


def _with_adapter(loaded: LoadedModel, adapter: SavedAdapter, *, hashed: bool) -> LoadedModel:
    """A model with its adapter merged into it.

    Raises:
        UserError: If that is not for this model.
    """
    around = adapter.put_into(loaded.model)
    # Merging computes, too.
    origin = _origin(loaded.model) if hashed else {}
    with quiet():
        model = around.merge_and_unload()
    model.requires_grad_(True).name_or_path = loaded.name
    return replace(loaded, model=model, origin=origin)


def modified(loaded: LoadedModel, args: ModelArguments) -> LoadedModel:
    """A model with its modifiers applied, which change it in place.

    Raises:
        UserError: If one of them cannot do so, or the tokenizer has tokens that the model lacks.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    twin = _twin(loaded, args)
    for modify in args.model_modifier_fns:
        kwargs = args.model_modifier_fn_kwargs.get(short_name(modify), {})
        check_call(modify, "model_modifier_fn_kwargs", kwargs, "model, tokenizer")
        with users_code(f"model_modifier_fn {short_name(modify)}"):
            returned = modify(model=model, tokenizer=tokenizer, **kwargs)
        if returned is not None and not hasattr(returned, "get_input_embeddings"):
            raise UserError(
                f"model_modifier_fn {short_name(modify)} must return a model, or nothing if it "
                f"changes the one it is given, but returned {type(returned).__name__}."
            )
        model = model if returned is None else returned
    _check_vocabulary(loaded.name, model, tokenizer)
    _ARGUMENTS[model] = args
    if twin is not None:
        share(model, twin)
    return replace(loaded, model=model)


def _twin(loaded: LoadedModel, args: ModelArguments) -> LoadedModel | None:
    """The model as it is now, if a modifier says that it leaves the weights alone.

    Not where callbacks of the user's own are there, which may do anything to the weights.
    """
    functions, own = args.model_modifier_fns, "finetune_lm."
    leaves_weights = any(getattr(each, "leaves_weights", False) for each in functions)
    if not leaves_weights or not all(e.cls.__module__.startswith(own) for e in args.callbacks()):
        return None
    return twin_of(loaded, with_own_embeddings=len(functions) > 1)


class Loader:
    """Loads models, each anew."""

    def identify(self, args: ModelArguments) -> tuple[Any, Task]:
        """What `identify` says."""
        return identify(args)

    def load(self, args: ModelArguments, known: tuple[Any, Task]) -> LoadedModel:
        """What `load_model` returns."""
        return load_model(args, known)


def length_limit(model: Any, tokenizer: Any) -> int | None:
    """The longest input that the model can take, in tokens; None if it states no limit."""
    limits = [getattr(model.config, "max_position_embeddings", None)]
    for module_name, module in model.named_modules():
        # RoBERTa's positions start behind the padding index, so two of them are never used.
        padding_idx = getattr(module, "padding_idx", None)
        if module_name.endswith("position_embeddings") and padding_idx is not None:
            limits.append(module.num_embeddings - padding_idx - 1)
    # Tokenizers that know no limit say 1e30.
    limits.append(tokenizer.model_max_length if tokenizer.model_max_length < 1e9 else None)
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    return min(known, default=None)


def readable_count(n: int) -> str:
    """A number of parameters in at most four characters or so.

    Example:
        >>> [readable_count(n) for n in (43_000, 420_000, 134_515_008, 2_775_208_960)]
        ['43K', '0.4M', '135M', '2.8B']
    """
    for size, unit, least in ((1e9, "B", 0.9995e9), (1e6, "M", 1e5), (1e3, "K", 1e3)):
        if n >= least:
            decimals = 1 if n < 9.95 * size and unit != "K" else 0
            return f"{n / size:.{decimals}f}{unit}"
    return str(n)


def _check_kind(name: str, task: Task, config: Any, auto_model: Any) -> None:
    own_classes = getattr(config, "auto_map", None) or {}
    if type(config) in auto_model._model_mapping or task.auto_class in own_classes:
        return
    raise UserError(
        f"model_task must fit the model, but {name!r} (of type {config.model_type!r}) is not a "
        f"{task.description}."
    )


@contextmanager
def _less_verbose() -> Iterator[None]:
    """Leave out what transformers says that is no error."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity(max(before, logging.ERROR))
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _forget_quantization(model: Any) -> None:
    """Make a model from a GGUF file savable: its weights are dequantized as they are loaded."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    model.is_quantized = False


def _check_vocabulary(name: str, model: Any, tokenizer: Any) -> None:
    """A token beyond the embeddings would crash the model in the middle of a run."""
    rows = n_embeddings(model)
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and highest >= rows:
        raise UserError(
            f"the tokenizer must not have tokens that the model lacks, but {name!r} has embeddings "
            f"for ids below {rows} and a token with id {highest}. Give the model's own "
            f"--tokenizer_name, and no --tokenizer_kwargs that add tokens (padding needs none)."
        )
