"""What a process that does several runs keeps from one to the next, and what it puts back."""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from finetune_lm import messages
from finetune_lm.data.encoding import keeping_encoded
from finetune_lm.data.examples import Files
from finetune_lm.data.reading_examples import reading_once
from finetune_lm.models.kept_models import KeptModels
from finetune_lm.runs import preparing

if TYPE_CHECKING:
    import accelerate

    from finetune_lm.arguments import DataTrainingArguments, ModelArguments
    from finetune_lm.data.dataset import Dataset
    from finetune_lm.models.loading import LoadedModel


class Pack:
    """Several runs of one process, each as if it were the only one.

    Kept are the last model and its tokenizer as they were loaded, its baseline with what that has
    said, and data files as they were read and tokenized. What a run makes of these is its own, and
    what it sets in the process is put back. Only what a user's own modules keep in themselves stays
    there, since a module is imported once.

    Example:
        >>> with Pack() as pack:  # doctest: +SKIP
        ...     for all_args in many:
        ...         with pack.one_run():
        ...             conduct(all_args, pack=pack)
    """

    def __init__(self) -> None:
        self.models = KeptModels()
        self._around = ExitStack()
        self._n_modules = 0

    def __enter__(self) -> Self:
        # What these set when they are imported stays for all runs.
        import accelerate
        import torch
        import transformers

        del accelerate, torch, transformers
        self._around.enter_context(reading_once())
        self._around.enter_context(keeping_encoded())
        # What somebody around this passes over already is passed over afterwards, too.
        if not gc.get_freeze_count():
            self._around.callback(gc.unfreeze)
        return self

    def __exit__(self, *error: object) -> None:
        self._around.close()

    @contextmanager
    def one_run(self) -> Iterator[None]:
        """Let a run begin in a process like a new one, and put back what it has set."""
        # The model and the optimizer of the run before are free before there are others.
        gc.collect()
        self._pass_over_modules()
        # A seed that nobody chose must not follow from that of the run before.
        random.seed()
        messages.forget_what_was_said()
        with ExitStack() as stack:
            _put_back_environment(stack)
            _put_back_torch(stack)
            stack.enter_context(warnings.catch_warnings())
            yield

    def _pass_over_modules(self) -> None:
        """Let nobody look for garbage among what modules hold, which takes long and finds none.

        The first run imports as many objects again as are there at the beginning.
        """
        if len(sys.modules) != self._n_modules:
            self._n_modules = len(sys.modules)
            gc.freeze()

    def load(
        self, model_args: ModelArguments, data_args: DataTrainingArguments, files: Files
    ) -> tuple[accelerate.Accelerator, LoadedModel, dict[str, list[Dataset]]]:
        """What `preparing.load` returns."""
        return preparing.load(model_args, data_args, files, self.models)


def _put_back_environment(stack: ExitStack) -> None:
    """Put back variables and the current directory."""
    before, here = dict(os.environ), Path.cwd()

    def put_back() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        with suppress(OSError):
            os.chdir(here)

    stack.callback(put_back)


def _put_back_torch(stack: ExitStack) -> None:
    """Put back what decides how torch computes."""
    import torch

    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    stack.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
    stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
    stack.callback(torch.set_num_threads, torch.get_num_threads())
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    stack.callback(
        torch.use_deterministic_algorithms,
        torch.are_deterministic_algorithms_enabled(),
        warn_only=warn_only,
    )
    cudnn: Any = torch.backends.cudnn
    for name in ("benchmark", "deterministic", "enabled"):
        stack.callback(setattr, cudnn, name, getattr(cudnn, name))
    stack.callback(_forget_compiled)


def _forget_compiled() -> None:
    """After some compiled models of one class torch compiles no more of them."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()


def gpu_is_lost() -> bool:
    """Whether an error has left the GPU of this process of no more use to it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False
