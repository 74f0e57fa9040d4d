"""What a callback is, and when it is called."""

from __future__ import annotations

from typing import Any, ClassVar

from finetune_lm.arguments.hooks import HOOKS


class ModelCallback:
    """A base for callbacks: it does nothing, and says what there is to do.

    A callback is a class. Any with this constructor and this ``__call__`` will do; what a subclass
    leaves out does nothing. For each point of a run at which the class is named, one instance is
    made before the run begins, and called whenever the run comes there.

    It may also have ``state_dict()``, which returns what it needs to go on later, in anything that
    `torch.save` takes, and ``load_state_dict(state)``. Then its state is saved with a run's
    checkpoints and given back to it on resuming.

    A class whose constructor has a parameter ``run`` is given what tells it, whenever it is called,
    what the run has come to: a `recording.run_so_far.RunSoFar`.

    A `UserError` raised in a callback ends the run with its message. What was measured before is
    kept, as after any other error. Random numbers drawn in a callback come from generators of its
    own, so that nothing else in the run depends on them.

    Args:
        model: The model, on its device. Its parameters may be changed in place.
        tokenizer: Its tokenizer.
        **kwargs: What ``model_callbacks_kwargs`` gives for the class, in a subclass.

    Attributes:
        hook_points: The points at which the class is of use; None for all.
        draws_random_numbers: Whether it may draw any. A class that says False is called without
            setting the run's generators aside, which takes a quarter of a millisecond.

    Example:
        >>> class Norms(ModelCallback):
        ...     def __call__(self, epoch, batch):
        ...         print(epoch, batch, float(self.model.get_input_embeddings().weight.norm()))
        >>> # finetune-lm ... --model_callbacks.end_epoch my_module.Norms
    """

    hook_points: ClassVar[tuple[str, ...] | None] = None
    draws_random_numbers: ClassVar[bool] = True

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @staticmethod
    def check(*args: Any, **kwargs: Any) -> None:
        """Look at the keyword arguments of the constructor when a command line is read.

        It is called with them before any model is loaded.

        Raises:
            UserError: If they will not do.
        """

    def __call__(self, epoch: int | None, batch: int | None) -> None:
        """Act at a point of the run.

        Args:
            epoch: The epoch, from 0; None where there is none.
            batch: The batch's number in the epoch or in the data set, from 0; None where there is
                none.
        """

    def after_step(self, epoch: int, batch: int) -> None:
        """Act on what the optimizer has done, for a callback at ``pre_train_step``.

        It is called right after the step, before the callbacks at ``post_train_step``. The
        gradients that the optimizer used are still there.

        Args:
            epoch: The epoch, from 0.
            batch: The batch's number in it, from 0.
        """


def _hook_lines() -> str:
    lines = []
    for name, hook in HOOKS.items():
        is_told = {"epoch": hook.has_epoch, "batch": hook.has_batch}
        told = [word for word, is_there in is_told.items() if is_there]
        lines.append(f"    {name} ({', '.join(told) or 'neither'}): {hook.when}")
    return "\n".join(lines)


ModelCallback.__doc__ = (
    f"{(ModelCallback.__doc__ or '').rstrip()}\n\n    The points of a run, in its order, and which "
    f"of epoch and batch a callback is told there:\n\n{_hook_lines()}\n    "
)
