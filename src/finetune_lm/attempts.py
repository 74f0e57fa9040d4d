"""What several processes do together and may give up without ending: a trial, a run of a grid.

One of them may go wrong anywhere, while the others wait for its part of some message. It says so in
the store that all reach and hangs up, so that their messages fail; then all call each other again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass

from finetune_lm.ends import Ends, told_as
from finetune_lm.errors import GivenUpError, OtherRankError, UserError


class Attempt:
    """One of them; here of a process that is alone."""

    def through(self) -> None:
        """Say that this rank has come to its end, and wait until all have.

        Raises:
            GivenUpError: If another one has given it up.
            OtherRankError: If another one has ended.
        """

    def given_up(self, error: Exception) -> Exception:
        """Leave it together with all others, by an error that has arisen in it.

        It is not known any more where the error arose. Whatever of a split model is still in use
        must be let go of before.

        Returns:
            What to raise: the error, or why another rank has ended or given up something around it.
        """
        return error


class Attempts:
    """Those of one of several ranks. They may be nested, as the trials of a study in a grid are.

    Args:
        ends: Tells the other ranks.
        gather: What each rank gives, told to all.
        hang_up: Makes messages of the others fail, wherever they wait; returns whether it does.
        call_again: Lets messages come through again.
    """

    def __init__(
        self,
        ends: Ends,
        gather: Callable[[int], list[int]],
        hang_up: Callable[[], bool],
        call_again: Callable[[], None],
    ) -> None:
        self._ends = ends
        self.gather = gather
        self._hang_up = hang_up
        self._call_again = call_again
        self.depth = 0
        """In how many this rank is."""
        self._is_over = False

    def begin(self) -> Attempt:
        """Begin one."""
        self.depth += 1
        return _Together(self, self.depth)

    def ends_more(self, error: BaseException) -> bool:
        """See `World.ends_more`."""
        is_of_outer = isinstance(error, GivenUpError) and error.depth <= self.depth
        return self._is_over or is_of_outer or isinstance(error, OtherRankError)

    def pass_over(self, error: GivenUpError) -> None:
        """See `World.pass_over`."""
        if error.is_settled or error.depth <= self.depth:
            raise error
        self.settle(error, error.depth)

    def settle(self, error: Exception, depth: int) -> Exception:
        """Find each other again behind an error in the attempt of this depth.

        Returns:
            The error, or that another rank has ended or given up what is around that attempt.
        """
        _let_go(error)
        error = self._ends.explained(error)
        if isinstance(error, OtherRankError):
            return error
        if not isinstance(error, GivenUpError):
            outermost = self._give_up(depth, told_as(error))
            if outermost == depth:
                return error
            return GivenUpError(str(error), outermost, is_settled=True)
        if not error.is_settled:
            error.depth = self._give_up(min(depth, error.depth), None)
            error.is_settled = True
        return error

    def _give_up(self, depth: int, reason: str | None) -> int:
        """Give up and begin anew. Returns the depth of the outermost attempt that is given up."""
        self._ends.give_up(depth, reason)
        others_notice = self._hang_up()
        if not self._ends.meet(is_heard=others_notice):
            self._is_over = True
            raise UserError(f"{reason}. The others wait for something else, so all must end.")
        self._call_again()
        return min(self.gather(depth))


@dataclass(frozen=True)
class _Together(Attempt):
    """An attempt of several ranks."""

    attempts: Attempts
    depth: int

    def through(self) -> None:
        self.attempts.gather(self.depth)  # nobody goes on while another may still go wrong
        self.attempts.depth = self.depth - 1

    def given_up(self, error: Exception) -> Exception:
        try:
            return self.attempts.settle(error, self.depth)
        except UserError as more:
            return more
        finally:
            self.attempts.depth = self.depth - 1


def _let_go(error: BaseException | None) -> None:
    """Free what is left in the calls that an error came out of, such as a model.

    One that is split among ranks holds on to what they call each other by.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
    for _ in range(2):  # a model that goes lets go of its untouched self, which goes then
        gc.collect()
