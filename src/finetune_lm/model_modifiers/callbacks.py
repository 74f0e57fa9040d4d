"""All callbacks of a run, called when the run comes to their points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments.calls import taken_by
from finetune_lm.arguments.hooks import (
    HOOKS,
    PRE_TRAIN_STEP,
    RUN,
    asks_for_run,
    takes_epoch_and_batch,
)
from finetune_lm.arguments.references import short_name
from finetune_lm.errors import UserError, users_code
from finetune_lm.model_modifiers._freezing import FreezingCallback
from finetune_lm.model_modifiers.model_callback import ModelCallback
from finetune_lm.randomness import OwnRandomness

if TYPE_CHECKING:
    from finetune_lm.arguments.hooks import CallbackEntry
    from finetune_lm.recording.run_so_far import RunSoFar

Call = Callable[[int | None, int | None], object]
"""Takes epoch and batch."""


class Callbacks:
    """Callbacks by the point of a run at which they are called.

    What they draw from random generators comes from generators of their own, which follow from the
    seed: masks and dropout of a run are the same with and without them.

    Args:
        rows: The callbacks of each point, in order.
        randomness: Where their random numbers come from.

    Raises:
        UserError: If one of them cannot be called with ``epoch`` and ``batch``.

    Example:
        >>> callbacks = Callbacks({"end_epoch": [lambda epoch, batch: print(epoch, batch)]})
        >>> callbacks.run("end_epoch", 3)
        3 None
        >>> callbacks.run("begin_epoch", 3)
    """

    def __init__(
        self,
        rows: Mapping[str, Sequence[Any]] | None = None,
        randomness: OwnRandomness | None = None,
    ) -> None:
        self._rows = {hook: list(callbacks) for hook, callbacks in (rows or {}).items()}
        self._calls = {
            hook: [(_named(callback, hook), _draws(callback)) for callback in callbacks]
            for hook, callbacks in self._rows.items()
        }
        self._after_step = [
            (_named(callback, "after_step", callback.after_step), _draws(callback))
            for callback in self._rows.get(PRE_TRAIN_STEP, [])
            if _has_after_step(callback)
        ]
        self._randomness = randomness or OwnRandomness(0)

    def run(self, hook: str, epoch: int | None = None, batch: int | None = None) -> None:
        """Call the callbacks of a point of the run.

        Args:
            hook: The point, a name of `finetune_lm.arguments.hooks.HOOKS`.
            epoch: The epoch; None where there is none.
            batch: The batch's number in the epoch or in the data set; None where there is none.
        """
        if hook not in HOOKS:
            raise ValueError(f"there is no point {hook!r}.")
        self._run(self._calls.get(hook, ()), epoch, batch)

    def act_at(self, *hooks: str) -> bool:
        """Whether a callback is called at one of these points."""
        return any(self._rows.get(hook) for hook in hooks)

    def classes(self) -> list[type]:
        """The classes of all callbacks."""
        return [type(callback) for callbacks in self._rows.values() for callback in callbacks]

    def after_step(self, epoch: int, batch: int) -> None:
        """Let the callbacks of ``pre_train_step`` act on what the optimizer has done.

        The loop calls it right after ``optimizer.step()``, before ``post_train_step``.
        """
        self._run(self._after_step, epoch, batch)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, what callbacks of ``pre_train_step`` freeze may be moved; it is put back then."""
        freezing = [
            callback
            for callback in self._rows.get(PRE_TRAIN_STEP, [])
            if isinstance(callback, FreezingCallback)
        ]
        for callback in freezing:
            callback.keep()
        yield
        for callback in freezing:
            callback.put_back()

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on later needs: of each callback that has a ``state_dict``, that."""
        return {
            "random_numbers": self._randomness.state_dict(),
            "callbacks": {
                hook: [_state(callback) for callback in callbacks]
                for hook, callbacks in self._rows.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where another run's callbacks were.

        Args:
            state: What `state_dict` returned there.

        Raises:
            UserError: If they were other callbacks.
        """
        states = state["callbacks"]
        counts = {hook: len(callbacks) for hook, callbacks in self._rows.items()}
        if {hook: len(each) for hook, each in states.items()} != counts:
            raise UserError(
                "model_callbacks must be those that the run began with, but there are "
                f"{_counted(counts)} and there were "
                f"{_counted({hook: len(each) for hook, each in states.items()})}."
            )
        self._randomness.load_state_dict(state["random_numbers"])
        for hook, callbacks in self._rows.items():
            for callback, of_callback in zip(callbacks, states[hook], strict=True):
                if of_callback is not None:
                    with users_code(f"callback {_name(callback)}"):
                        callback.load_state_dict(of_callback)

    def _run(
        self, calls: Sequence[tuple[Call, bool]], epoch: int | None, batch: int | None
    ) -> None:
        for call, draws in calls:
            with self._randomness if draws else nullcontext():
                call(epoch, batch)


def make_callbacks(entries: Sequence[CallbackEntry], so_far: RunSoFar, seed: int) -> Callbacks:
    """Make the callbacks of a run: one instance for each entry, in order.

    Args:
        entries: The classes, as `arguments.hooks.of_a_run` has them.
        so_far: What the run has come to, for those that ask for it, with the model, on the device
            where it will be, and the tokenizer, which all of them get.
        seed: The run's seed.

    Raises:
        UserError: If one of them says that it cannot do with this model.
    """
    rows: dict[str, list[Any]] = {}
    randomness = OwnRandomness(seed)
    for entry in entries:
        given = {RUN: so_far} if asks_for_run(entry.cls) else {}
        so_far.is_asked_for |= bool(given)
        with randomness, users_code(f"callback {short_name(entry.cls)}"):
            made = entry.cls(so_far.model, so_far.tokenizer, **given, **entry.kwargs)
        rows.setdefault(entry.hook, []).append(made)
    return Callbacks(rows, randomness)


def _named(callback: Any, hook: str, method: Any = None) -> Call:
    """How to call a callback, or a method of it, whose errors say whose they are."""
    call = _call(callback if method is None else method, hook)
    name = f"callback {_name(callback)} at {hook}"

    def named(epoch: int | None, batch: int | None) -> None:
        with users_code(name):
            call(epoch, batch)

    return named


def _name(callback: Any) -> str:
    return getattr(callback, "__qualname__", None) or type(callback).__name__


def _call(callback: Any, hook: str) -> Call:
    """How to call a callback with epoch and batch: by these names, or in this order."""
    name = _name(callback)
    if not callable(callback):
        raise UserError(f"{hook}: {name} must have a method __call__(self, epoch, batch).")
    takes = taken_by(callback)
    if takes is None:
        return lambda epoch, batch: callback(epoch, batch)
    way = takes_epoch_and_batch(takes)
    if way is None:
        shown = ", ".join(map(str, takes.parameters.values()))
        raise UserError(f"{hook}: {name} must accept epoch and batch but is called ({shown}).")
    if way == "keyword":
        return lambda epoch, batch: callback(epoch=epoch, batch=batch)
    return lambda epoch, batch: callback(epoch, batch)


def _has_after_step(callback: Any) -> bool:
    inherited = getattr(type(callback), "after_step", None) is ModelCallback.after_step
    return callable(getattr(callback, "after_step", None)) and not inherited


def _draws(callback: Any) -> bool:
    """Whether a callback may draw random numbers: what it draws is to be kept from the run's."""
    return bool(getattr(callback, "draws_random_numbers", True))


def _state(callback: Any) -> Any:
    find = getattr(callback, "state_dict", None)
    can_load = callable(getattr(callback, "load_state_dict", None))
    if not callable(find) or not can_load:
        return None
    with users_code(f"callback {_name(callback)}"):
        return find()


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} of {hook}" for hook, n in counts.items()) or "none"
