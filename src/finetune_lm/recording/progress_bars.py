"""How far a run is: a bar on a terminal, plain lines in a file or a pipe."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from finetune_lm.constants import BY_LOSS
from finetune_lm.messages import say
from finetune_lm.recording.recorder import EpochResult, Measured, ProbePass, Recorder
from finetune_lm.streams import BROKEN, lossy

_USUAL_WIDTH = 80
_SHORTEST_BAR, _LONGEST_BAR = 10, 40
_AT = "at epoch "


class EpochBar(Recorder):
    """The epochs of a training, with its losses.

    On a terminal it is one line that is written anew after each epoch and holds what there is room
    for, and nothing that is cut; while probes are measured it says how far they are. Elsewhere each
    epoch has a line, and each tenth of the probes before the training.

    Args:
        n_epochs: How many epochs there are at most.
        unit: The unit of the losses; None if it is not known.
        in_passing: Whether this is one of many trainings, whose progress is shown only on a
            terminal and wiped away at the end.
    """

    def __init__(self, n_epochs: int, unit: str | None = None, *, in_passing: bool = False) -> None:
        self._n_epochs, self._unit, self._in_passing = n_epochs, unit, in_passing
        self._n_before, self._begun = 0, 0.0
        self._bar: Any = None
        self._line = ""
        self._tenths = 0

    def begin(self, n_epochs_done: int) -> None:
        """Show the bar; from now on time counts."""
        self._n_before, self._begun = n_epochs_done, time.monotonic()
        if _is_terminal():
            from tqdm import tqdm

            self._line = f"epoch {n_epochs_done} ({n_epochs_done}/{self._n_epochs})"
            self._bar = tqdm(
                initial=n_epochs_done,
                total=self._n_epochs,
                bar_format=self._line,
                leave=not self._in_passing,
            )

    def probe(self, measured: Measured, at: ProbePass, share: float) -> None:
        """Show how far a pass over the probes is."""
        when = f"epoch {at.epoch} ({at.epoch + 1}/{self._n_epochs})"
        if at.is_first:
            when = "before the training"
        if self._bar is not None:
            pieces = [(1, f"{when}:", ""), (0, f"probes {share:.0%}", "")]
            self._show(bar_line(pieces, _width() - 1))
        elif at.is_first and not self._in_passing and int(share * 10) > self._tenths:
            self._tenths = int(share * 10)
            say(f"probes {when}: {share:.0%}")

    def probes_over(self, at: ProbePass) -> None:
        """Show again what was there before."""
        if self._bar is not None:
            self._show(self._line)

    def _show(self, line: str) -> None:
        self._bar.bar_format = line
        self._bar.refresh()

    def epoch(self, result: EpochResult) -> None:
        """Show how it went."""
        n_done = result.number + 1
        since = time.monotonic() - self._begun
        left = since / max(n_done - self._n_before, 1) * (self._n_epochs - n_done)
        time_left = f"{_clock(left)} left" if n_done < self._n_epochs else ""
        pieces = _pieces(result, self._n_epochs, self._unit or "", time_left)
        if self._bar is not None:
            self._line = bar_line(pieces, _width() - 1)
            self._bar.bar_format = self._line
            self._bar.update(n_done - self._bar.n)
            self._bar.refresh()
        elif not self._in_passing:
            say(_plain_line(pieces))

    def end(self) -> None:
        """Leave the bar as it is, or wipe it away."""
        if self._bar is not None:
            self._bar.close()


class TestBar:
    """The batches of a test: a bar on a terminal, elsewhere a line for each tenth.

    Args:
        n_batches: How many there are.
    """

    __test__ = False  # pytest is not meant

    def __init__(self, n_batches: int) -> None:
        self._n_batches, self._n_done = n_batches, 0
        self._bar = None
        if _is_terminal():
            from tqdm import tqdm

            self._bar = tqdm(total=n_batches, desc="testing", unit="batch", dynamic_ncols=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def batch_is_over(self) -> None:
        """Show a batch."""
        tenths = self._n_done * 10 // self._n_batches
        self._n_done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._n_done * 10 // self._n_batches > tenths:
            share = self._n_done * 100 // self._n_batches
            say(f"testing: batch {self._n_done} of {self._n_batches} ({share} %)")


Piece = tuple[int, str, str]
"""How much it matters (0 most), a text, and what stands behind that in brackets."""


def _pieces(result: EpochResult, n_epochs: int, unit: str, time_left: str) -> list[Piece]:
    """What there is to show of an epoch."""
    train, validation = result.train, result.validation
    several = any(len(means) > 2 for means in (train, validation, *result.by_mode.values()))

    def parts(means: Mapping[str, float]) -> str:
        shown = [f"{name} {_number(value)}" for name, value in list(means.items())[1:]]
        return ", ".join(shown) if several else ""

    def total(means: Mapping[str, float]) -> str:
        return _number(next(iter(means.values())))

    if result.by_mode:
        # Numbers of two modes are no one number.
        shown = [(name.replace("_", " "), means) for name, means in result.by_mode.items()]
        losses = [
            (3 if name.startswith("train") else 1, f"{name} {total(means)}", parts(means))
            for name, means in shown
        ]
    else:
        losses = [
            (3, f"train {total(train)}", parts(train)),
            (1, f"validation {total(validation)}", parts(validation)),
        ]
    best_epoch, best = result.best
    by = "" if result.select_by == BY_LOSS else f"{result.select_by} "
    pieces = [
        (0, f"epoch {result.number} ({result.number + 1}/{n_epochs})", ""),
        *losses,
        *([(2, f"best {by}{_number(best)}", "")] if best_epoch is not None else []),
        *([(6, f"{_AT}{best_epoch}", "")] if best_epoch is not None else []),
        (4, unit, ""),
        (5, time_left, ""),
        (7, "" if result.patience_left is None else f"patience {result.patience_left}", ""),
    ]
    return [piece for piece in pieces if piece[1]]


def bar_line(pieces: Sequence[Piece], width: int) -> str:
    """What a terminal shows in one line, as a format for tqdm.

    Args:
        pieces: What there is to show, in order. The first is shown in any case.
        width: How many characters there is room for.
    """
    whole = " ".join(f"{text} ({more})" if more else text for _, text, more in pieces)
    if len(whole) > width:
        kept: list[Piece] = []
        for piece in sorted(pieces):
            if sum(len(text) + 1 for _, text, _ in [*kept, piece]) - 1 <= width:
                kept.append(piece)
        whole = " ".join(text for rank, text, more in pieces if (rank, text, more) in kept)
    line = whole.replace("{", "{{").replace("}", "}}")
    room = min(width - len(whole) - 1, _LONGEST_BAR)
    return f"{line} {{bar:{room}}}" if room >= _SHORTEST_BAR else line


def _plain_line(pieces: Sequence[Piece]) -> str:
    (_, line, _), *others = pieces
    for number, (_, text, more) in enumerate(others):
        comma = ":" if not number else "" if text.startswith(_AT) else ","
        line += f"{comma} {text} ({more})" if more else f"{comma} {text}"
    return line


def _number(value: float) -> str:
    """A loss in five characters, as far as that goes."""
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{digits}f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _is_terminal() -> bool:
    return lossy(sys.stderr).isatty()


def _width() -> int:
    stream: Any = sys.stderr
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    except (*BROKEN, AttributeError):
        return _USUAL_WIDTH
