"""How far the runs of a grid are, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from finetune_lm.errors import UserError
from finetune_lm.grids.grid_runs import GridRun
from finetune_lm.grids.run_states import RunState, State, state_of

_MOST_SHOWN = 10
"""Failed runs that are named for each reason."""


class RunsFailedError(UserError):
    """Some runs of a grid have failed; the others are done, or can be."""

    exit_status = 1


def summary(runs: Sequence[GridRun]) -> str:
    """Counts, what failed and why, and a guess of the time that is left."""
    states = [(run, state_of(run.directory)) for run in runs]
    counts = Counter(state.state for _, state in states)
    said = [f"{counts[state]} {state.value}" for state in State if counts[state]]
    lines = [f"{len(runs)} run{'s' * (len(runs) > 1)}: {', '.join(said)}"]
    by_reason: dict[str, list[str]] = {}
    for run, state in states:
        if state.state is State.FAILED:
            by_reason.setdefault(state.reason, []).append(run.name)
    for reason, names in by_reason.items():
        lines.append(f"failed: {reason}")
        lines += [f"  {name}" for name in names[:_MOST_SHOWN]]
        if len(names) > _MOST_SHOWN:
            lines.append(f"  and {len(names) - _MOST_SHOWN} more")
    seconds = _seconds_left([state for _, state in states])
    if seconds is not None:
        n = max(counts[State.RUNNING], 1)
        lines.append(f"about {_duration(seconds / n)} left with {n} at work")
    return "\n".join(lines)


def check_none_failed(runs: Sequence[GridRun]) -> None:
    """See that no run of a grid has failed.

    Raises:
        RunsFailedError: If one has.
    """
    n = sum(state_of(run.directory).state is State.FAILED for run in runs)
    if n:
        raise RunsFailedError(
            f"{n} of {len(runs)} runs failed. What they said is in log.txt in their directories; "
            f"run --retry tries them again."
        )


def _seconds_left(states: Sequence[RunState]) -> float | None:
    """How long the runs that are left take one after another, by those that are finished."""
    taken = [s.seconds for s in states if s.state is State.FINISHED and s.seconds is not None]
    left = [s for s in states if not s.is_final]
    if not taken or not left:
        return None
    mean = sum(taken) / len(taken)
    # What was begun has some of its time behind it.
    return sum(max(mean - (state.seconds or 0.0), 0.0) for state in left)


def _duration(seconds: float) -> str:
    """A time in words.

    Example:
        >>> [_duration(seconds) for seconds in (8, 250, 9000, 400_000)]
        ['8 s', '4 min', '2.5 h', '4.6 days']
    """
    for size, unit in ((86_400, "days"), (3_600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
