"""The processes that make one run together, and what they tell each other.

Most runs are one process. Where a launcher has started several (the *ranks*), each has all data and
puts together the same batches from the same random numbers, deals with its share of each batch, and
tells the others what came of it: all then know what one process would, and decide the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from finetune_lm.attempts import Attempt
from finetune_lm.errors import GivenUpError, UserError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    IntArray = npt.NDArray[np.int64]

T = TypeVar("T")


class World:
    """The ranks of a run: here the only one, which has nobody to tell anything.

    Attributes:
        rank: Which one this process is, from 0.
        size: How many there are.
    """

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def dealt(self, costs: IntArray) -> IntArray:
        """Which rank is to have each of some things: all as many, and about as much.

        Args:
            costs: What each takes: (n,).
        """
        import numpy as np

        ranks = np.empty(len(costs), dtype=np.int64)
        so_far = np.zeros(self.size, dtype=np.int64)
        order = np.argsort(-costs, kind="stable")
        for begin in range(0, len(order), self.size):
            # Of the next, the largest goes to whoever has least.
            some = order[begin : begin + self.size]
            ranks[some] = lightest = so_far.argsort(kind="stable")[: len(some)]
            so_far[lightest] += costs[some]
        return ranks

    def randomness(self) -> AbstractContextManager[object]:
        """Inside, random numbers are this rank's own, as those of dropout are.

        Those outside are the same on all ranks.
        """
        return nullcontext()

    def seed(self, seed: int) -> None:
        """Let the numbers of `randomness` follow from the run's seed."""

    def gather(self, value: T) -> list[T]:
        """What each rank gives, in their order, told to all."""
        return [value]

    def begin(self) -> Attempt:
        """Begin with all ranks something that does not end them if it goes wrong.

        They leave it together: what is an error on some of them is a `GivenUpError` on the others.
        Signals end all, as elsewhere.
        """
        return Attempt()

    def attempt(self, do: Callable[[], T]) -> T:
        """Do something in this way.

        Raises:
            OtherRankError: If another rank has ended.
        """
        this = self.begin()
        try:
            result = do()
            this.through()
            return result
        except Exception as error:
            failed = this.given_up(error)
        raise failed

    def in_turns(self, do: Callable[[], T]) -> T:
        """Do what takes much memory for a while: ranks on the same machine one after the other.

        Args:
            do: What each does. It may not wait for the others.
        """
        return do()

    def ends_more(self, error: BaseException) -> bool:
        """Whether an error that came out of an attempt is of more than that attempt.

        Another rank has ended, or given up something around it.
        """
        return False

    def pass_over(self, error: GivenUpError) -> None:
        """Go on where another rank has given up an attempt that this one is not in, or not yet.

        Raises:
            GivenUpError: If it is in it.
        """
        raise error

    def all(self, holds: bool) -> bool:
        """Whether something holds on all ranks."""
        return all(self.gather(holds))

    def decided(self, decide: Callable[..., T], *args: Any) -> T:
        """What a function returns on the first rank, which alone calls it; the others are told."""
        return decide(*args)

    def add_up(self, gradients: Iterable[Any]) -> None:
        """Let the gradients of parameters be their sums over all ranks.

        Args:
            gradients: The parameters. One that has a gradient on some ranks has one on all
                afterwards.
        """

    def common_memory(self, n_bytes: int) -> Tensor | None:
        """Memory that all ranks see: (n_bytes,); None if they are on several machines.

        All of them ask for it. What they write into it the others see when they have told each
        other something.
        """
        return None

    def mesh(self, device_type: str) -> Any:
        """What a model is split by among all ranks, of which there are several.

        All of them ask for it before any splits a model.
        """
        raise AssertionError("there is only one rank.")

    def saying_why(self) -> AbstractContextManager[object]:
        """Inside, it is an `OtherRankError` that a message of a split model has failed."""
        return nullcontext()

    def all_have_stopped(self) -> bool:
        """Whether no rank goes on with what has ended here by an error, nor is gone already.

        Otherwise a message to the others could be taken for another one.
        """
        return True

    def agreed(self, signal: int | None) -> int | None:
        """The signal that all ranks know of; every rank that asks knows of the same one.

        Args:
            signal: The one that came to this process, if one did.
        """
        return signal

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of all ranks."""
        return {"size": self.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            UserError: If there were more or fewer ranks.
        """
        if state["size"] != self.size:
            raise UserError(
                f"a run must be resumed by as many processes as it had, which is {state['size']}, "
                f"but there {'is' if self.size == 1 else 'are'} {self.size}."
            )


_alone = World()
_joined: World | None = None
_is_apart = False


def world() -> World:
    """The ranks of the run that this process is doing."""
    return _alone if _is_apart else _joined or _alone


def is_joined() -> bool:
    """Whether this process is one of several that make the run, or is just `apart` from them."""
    return _joined is not None


@contextmanager
def apart() -> Iterator[None]:
    """Inside, this process does something by itself, while the others do not wait for its word."""
    global _is_apart
    before, _is_apart = _is_apart, True
    try:
        yield
    finally:
        _is_apart = before


@contextmanager
def being(ranks: World) -> Iterator[None]:
    """Inside, these are the ranks of the run."""
    global _joined
    before, _joined = _joined, ranks
    try:
        yield
    finally:
        _joined = before
