"""Checkpoints on disk: each is whole or not there, and the one before it stays beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from finetune_lm.errors import UserError, first_line
from finetune_lm.messages import warn
from finetune_lm.ranks import world
from finetune_lm.runs.directory import MANIFEST
from finetune_lm.runs.requeueing import something_is_kept
from finetune_lm.whole_files import checksum, sealed, sync, unsealed

if TYPE_CHECKING:
    from torch import Tensor

BEGINNING, TRAINING, TRAINED = "beginning", "training", "trained"
"""What a checkpoint is of: before the first step, between two steps, after the last."""

FORMAT = 6
"""Goes up when what is in a checkpoint changes so that older programs cannot use it."""

STATE = "state.pt"
WEIGHTS = "model.safetensors"
BEST = "best.safetensors"
_ASIDE = ".new"
_KEPT = 2
_SHARE_OF_TIME = 1 / 50


@dataclass(frozen=True)
class Saved:
    """What a checkpoint keeps.

    Attributes:
        kind: `BEGINNING`, `TRAINING` or `TRAINED`.
        position: Where the run was, for people.
        state: Tensors, numbers and texts in dictionaries, lists and tuples.
        weights: The weights as they were; None where they are not needed any more, or not yet.
        best: The best weights by then; None where there are none yet.
        best_epoch: The epoch whose weights the best ones are.
    """

    kind: str
    position: str
    state: dict[str, Any]
    weights: Mapping[str, Tensor] | None = None
    best: Mapping[str, Tensor] | None = None
    best_epoch: int | None = None


@dataclass
class _Folder:
    """A checkpoint on disk that is known to be whole."""

    name: str
    best_epoch: int | None
    files: dict[str, dict[str, int]] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of a run, in a directory of their own.

    A checkpoint is written aside, seen safely on disk and renamed; only then is the oldest but one
    removed. The best weights are written only when they are new ones.

    Args:
        directory: Where they are. It is made when the first is written.
        every: After how many epochs to write one; 0 for never; None for as often as costs at most
            a fiftieth of the time.
        on_write: Called after each.
        identity: What the run is, which each checkpoint says.
    """

    def __init__(
        self,
        directory: Path,
        every: int | None = None,
        on_write: Callable[[], object] = lambda: None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = directory
        self.every = every
        self.identity = dict(identity or {})
        self._on_write = on_write
        self._whole: list[_Folder] = []
        self._last_ended = -float("inf")
        self._last_took = 0.0

    @property
    def are_kept(self) -> bool:
        """Whether there are any but those that a signal asks for."""
        return self.every != 0

    def is_due(self, n_epochs: int) -> bool:
        """Whether one is to be written now that so many epochs are finished."""
        if self.every is not None:
            return self.every > 0 and n_epochs % self.every == 0
        since = time.monotonic() - self._last_ended
        return since * _SHARE_OF_TIME >= self._last_took

    def write(self, saved: Saved) -> bool:
        """Keep a checkpoint. Of several ranks the first does.

        Returns:
            Whether it is kept. It is not, with a warning, if something of the user's own has a
            state that cannot be kept.

        Raises:
            OSError: If it cannot be written.
        """
        problem = unkept(saved.state)
        if problem is not None:
            warn(f"no checkpoints can be kept, so this run cannot be resumed: {problem}")
            self.every = 0
            return False
        if saved.kind == TRAINING:
            something_is_kept()
        if not world().is_first:
            return True
        begun = time.monotonic()
        aside = self.directory / _ASIDE
        self.directory.mkdir(parents=True, exist_ok=True)
        _remove(aside)
        try:
            folder = self._write_files(aside, saved)
            aside.rename(self.directory / folder.name)
        finally:
            with suppress(OSError):
                _remove(aside)
        sync(self.directory)
        self._whole = [*self._whole, folder][-_KEPT:]
        self._remove_others()
        self._last_ended = time.monotonic()
        self._last_took = self._last_ended - begun
        self._on_write()
        return True

    def newest(self) -> Saved | None:
        """The last checkpoint, or the one before it if that is damaged; None if there are none.

        Raises:
            UserError: If all are damaged, or were written by another version of the program.
        """
        names = self._names()
        for name in reversed(names):
            try:
                folder, saved = self._read(name)
            except UserError:
                raise
            except Exception as error:  # there is no end to what a damaged file may bring about
                said = f"is damaged ({first_line(error)}) and not used."
                warn(f"checkpoint {self.directory / name} {said}")
                continue
            self._whole = [folder]
            return saved
        if names:
            raise UserError(
                f"a run is resumed from a whole checkpoint but all in {self.directory} are damaged."
            )
        return None

    def remove(self) -> None:
        """Delete all of them, as far as that is possible."""
        if not world().is_first:
            return
        shutil.rmtree(self.directory, ignore_errors=True)

    def _names(self) -> list[str]:
        found = self.directory.iterdir() if self.directory.is_dir() else ()
        return sorted(path.name for path in found if path.name.isdecimal())

    def _remove_others(self) -> None:
        kept = {folder.name for folder in self._whole}
        for name in self._names():
            if name not in kept:
                _remove(self.directory / name)

    def _write_files(self, aside: Path, saved: Saved) -> _Folder:
        names = self._names()
        number = int(names[-1]) + 1 if names else 0
        folder = _Folder(f"{number:06d}", saved.best_epoch)
        aside.mkdir()
        try:
            _save_state(saved.state, aside / STATE)
            folder.files[STATE] = _finish(aside / STATE)
            if saved.weights is not None:
                _save_tensors(saved.weights, aside / WEIGHTS)
                folder.files[WEIGHTS] = _finish(aside / WEIGHTS)
            if saved.best is not None:
                self._write_best(aside, saved, folder)
        except OSError:
            raise
        except Exception as error:
            # safetensors tells of a full disk in its own way: "I/O error: ... (os error 28)".
            if (found := re.search(r"os error (\d+)", str(error))) is not None:
                raise OSError(int(found[1]), os.strerror(int(found[1])), str(aside)) from error
            raise
        manifest = {
            "format": FORMAT,
            "kind": saved.kind,
            "position": saved.position,
            "best_epoch": saved.best_epoch,
            "files": folder.files,
            "identity": self.identity,
        }
        (aside / MANIFEST).write_text(sealed(manifest), "utf-8")
        sync(aside / MANIFEST)
        sync(aside)
        return folder

    def _write_best(self, aside: Path, saved: Saved, folder: _Folder) -> None:
        """Write the best weights, or link to where they are already."""
        assert saved.best is not None
        same = [folder for folder in self._whole[-1:] if folder.best_epoch == saved.best_epoch]
        written = [path for last in same if (path := self.directory / last.name / BEST).exists()]
        if written:
            _link(written[0], aside / BEST)
            folder.files[BEST] = same[0].files[BEST]
        elif saved.weights is not None and _are_equal(saved.weights, saved.best):
            _link(aside / WEIGHTS, aside / BEST)
            folder.files[BEST] = folder.files[WEIGHTS]
        else:
            _save_tensors(saved.best, aside / BEST)
            folder.files[BEST] = _finish(aside / BEST)

    def _read(self, name: str) -> tuple[_Folder, Saved]:
        import torch
        from safetensors.torch import load_file

        place = self.directory / name
        _check_format(place)
        manifest = unsealed(place / MANIFEST)
        files = manifest["files"]
        for file, expected in files.items():
            if checksum(place / file) != expected:
                raise ValueError(f"{file} is not as it was written")
        tensors = {
            file: load_file(place / file) if file in files else None for file in (WEIGHTS, BEST)
        }
        # weights_only: nothing in a checkpoint is run.
        state = torch.load(place / STATE, map_location="cpu", weights_only=True)
        saved = Saved(
            manifest["kind"],
            manifest["position"],
            state,
            tensors[WEIGHTS],
            tensors[BEST],
            manifest["best_epoch"],
        )
        return _Folder(name, manifest["best_epoch"], files), saved


def _check_format(place: Path) -> None:
    """See that a checkpoint is of this version; one of another may have no checksum like this."""
    manifest = json.loads((place / MANIFEST).read_bytes())
    if isinstance(manifest["format"], int) and manifest["format"] != FORMAT:
        raise UserError(
            f"checkpoint {place} was written by another version of finetune-lm (its format is "
            f"{manifest['format']}, this one's {FORMAT}). Resume with that version."
        )


def unkept(value: Any, name: str = "") -> str | None:
    """What in a state cannot be kept, in words; None if all of it can.

    A checkpoint is read without running anything that is in it, so it holds plain types only.
    """
    import torch

    if type(value) in (torch.Tensor, torch.nn.Parameter, torch.dtype, torch.device, *_PLAIN):
        return None
    if type(value) is bytes and value:  # torch does not read empty ones back
        return None
    if type(value) in (dict, OrderedDict):
        pairs = [(f"{name}.{key}" if name else str(key), item) for key, item in value.items()]
        problems = (
            *(unkept(key, name) for key in value),
            *(unkept(i, where) for where, i in pairs),
        )
        return next(filter(None, problems), None)
    if type(value) in (list, tuple, set, torch.Size):
        return next(filter(None, (unkept(item, name) for item in value)), None)
    return (
        f"{name} is of the type {type(value).__name__}, but a state must be made of tensors, "
        f"numbers, texts, lists and dictionaries."
    )


_PLAIN = (type(None), bool, int, float, complex, str)


def _save_state(state: dict[str, Any], path: Path) -> None:
    import torch

    with path.open("wb") as file:
        writer = _Writer(file)
        try:
            torch.save(state, cast("IO[bytes]", writer))
        except RuntimeError:
            if writer.error is not None:
                raise writer.error from None
            raise


class _Writer:
    """A file that remembers why it could not be written, which torch does not say."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    # Views into one storage are refused, so all but the first of them are copied.
    apart: dict[str, Tensor] = {}
    storages = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if storage in storages else tensor.contiguous()
        storages.add(storage)
    save_file(apart, path)


def _are_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    import torch

    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _link(existing: Path, path: Path) -> None:
    """Give a file a second name; a copy where the file system knows no such thing."""
    try:
        os.link(existing, path)
    except OSError:
        shutil.copyfile(existing, path)
        _finish(path)


def _finish(path: Path) -> dict[str, int]:
    """See a file safely on disk, and say what it is like."""
    sync(path)
    return checksum(path)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
