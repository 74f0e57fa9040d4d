"""Where a study is kept: a journal in a file, or a database."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from finetune_lm.arguments.checking import show
from finetune_lm.arguments.redaction import without_secrets
from finetune_lm.arguments.references import describe
from finetune_lm.errors import UserError, first_line
from finetune_lm.study.objects import make_object
from finetune_lm.study.workers import queue_stale

HEARTBEAT_SECONDS = 60
GRACE_SECONDS = 600
"""A process that a database has not heard of for so long is taken for dead. It is long, so that one
which was only held up (a busy disk, a machine that slept) is not."""

_random = random.SystemRandom()
_MAKING_SECONDS = 60.0
_SECOND = ("already exists", "duplicate key", "UNIQUE constraint failed", "database is locked")
"""What PostgreSQL and SQLite say to whoever does what another process has just done."""


@dataclass(frozen=True)
class StoragePlace:
    """Where a study is kept, before anything is opened or made.

    Attributes:
        shown: What people call it; no password is in it.
        open: Opens it, making it if it is not there; what was opened before stays open.
        is_there: Whether it is there. Where it is not, nothing can be in it.
    """

    shown: str
    open: Callable[[], BaseStorage]
    is_there: Callable[[], bool]


def storage_place(study_kwargs: Mapping[str, Any], default: Path) -> StoragePlace:
    """The storage that ``study_kwargs`` names.

    Args:
        study_kwargs: With ``storage`` and ``storage_kwargs``: a class with its keyword arguments,
            an object, a URL, the path of a journal, or nothing.
        default: The journal that is used where nothing is named.

    Raises:
        UserError: If it is nothing that could be a storage.
    """
    storage, kwargs = study_kwargs.get("storage"), study_kwargs.get("storage_kwargs")
    if storage is None:
        return _journal_place(default)
    if isinstance(storage, os.PathLike):
        return _journal_place(Path(storage))
    if isinstance(storage, str) and "://" not in storage:
        return _journal_place(Path(storage))
    if isinstance(storage, str):
        return _url_place(storage, kwargs or {})
    if isinstance(storage, type) and issubclass(storage, RDBStorage):
        kwargs = _with_heartbeat(dict(kwargs or {}), str((kwargs or {}).get("url", "")))
    shown = describe(storage)
    url = (kwargs or {}).get("url")
    shown = f"{shown} {without_secrets(str(url))}" if url else shown

    def make() -> BaseStorage:
        # A class of another kind is not called: it could do anything.
        is_other = isinstance(storage, type) and not issubclass(storage, BaseStorage)
        where = "study_kwargs.storage"
        made = storage if is_other else make_object(storage, _with_whole_paths(kwargs), where)
        if not isinstance(made, BaseStorage):
            raise UserError(
                f"study_kwargs.storage must be a storage of Optuna, a database's URL or the path "
                f"of a journal, but got {show(storage)}."
            )
        return made

    return StoragePlace(shown, _opening(make, shown), lambda: True)


def _journal_place(path: Path) -> StoragePlace:
    path = path.absolute()

    def make() -> BaseStorage:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_is_journal(path)
        return JournalStorage(WholeLinesJournal(str(path)))

    return StoragePlace(str(path), _opening(make, str(path)), path.exists)


def _check_is_journal(path: Path) -> None:
    """See that a file is not something else, which would be written into.

    Raises:
        ValueError: If it is.
    """
    if path.exists():
        with path.open("rb") as file:
            first = file.readline()
        if first and not first.startswith(b'{"op_code":'):
            raise ValueError("it is no journal of Optuna.")


def _url_place(url: str, kwargs: Mapping[str, Any]) -> StoragePlace:
    if url.startswith("redis"):
        raise UserError(
            "study_kwargs.storage: a Redis server is named as a journal: --study_kwargs.storage "
            "optuna.storages.JournalStorage --study_kwargs.storage_kwargs.log_storage "
            "optuna.storages.journal.JournalRedisBackend "
            "--study_kwargs.storage_kwargs.log_storage_kwargs.url redis://..."
        )
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            # Which driver SQLAlchemy takes otherwise depends on its version.
            url = f"postgresql+psycopg://{url.removeprefix(scheme)}"
    shown = without_secrets(url)

    def make() -> BaseStorage:
        made: BaseStorage = make_object(
            RDBStorage, {"url": url, **_with_heartbeat(dict(kwargs), url)}, "study_kwargs.storage"
        )
        return made

    return StoragePlace(shown, _opening(make, shown), lambda: True)


def _with_heartbeat(kwargs: dict[str, Any], url: str) -> dict[str, Any]:
    """Let a database notice that a process has died on another machine."""
    # A database in memory is another one in each thread, and the heart beats in its own.
    if url not in ("sqlite://", "sqlite:///:memory:"):
        kwargs.setdefault("heartbeat_interval", HEARTBEAT_SECONDS)
        kwargs.setdefault("grace_period", GRACE_SECONDS)
        kwargs.setdefault("heartbeat_stale_trial_callback", queue_stale)
    return kwargs


def _with_whole_paths(kwargs: Any) -> Any:
    """Nested keyword arguments in which the paths of journals and their locks are absolute.

    A lock of Optuna is a link to the journal. With a relative path it leads nowhere, and is never
    taken away from a process that died with it (optuna 5.0.0, storages/journal/_file.py). A lock
    for which no path is given is that of the journal beside it.
    """
    if not isinstance(kwargs, Mapping):
        return kwargs
    whole = {key: _with_whole_paths(value) for key, value in kwargs.items()}
    for key in ("file_path", "filepath"):
        if isinstance(whole.get(key), str | os.PathLike):
            whole[key] = str(Path(whole[key]).absolute())
    if "file_path" in whole and isinstance(whole.get("lock_obj"), type):
        whole["lock_obj_kwargs"] = {
            "filepath": whole["file_path"],
            **(whole.get("lock_obj_kwargs") or {}),
        }
    return whole


def _opening(make: Callable[[], BaseStorage], shown: str) -> Callable[[], BaseStorage]:
    """Opening a storage, once, with errors that a user can understand."""

    @cache
    def opened() -> BaseStorage:
        import sqlalchemy.exc

        try:
            storage: BaseStorage = optuna.storages.get_storage(_made_despite_others(make))
        except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
            raise _lacks_driver(shown) from error
        except UserError as error:
            if isinstance(error.__cause__, ImportError | sqlalchemy.exc.NoSuchModuleError):
                raise _lacks_driver(shown) from error
            raise
        except (
            *(sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError),
            *(OSError, ValueError, KeyError, TypeError, RuntimeError, AssertionError),
        ) as error:
            raise UserError(
                f"study_kwargs.storage {shown} cannot be opened: {short_reason(error)}"
            ) from error
        return storage

    return opened


def _made_despite_others(make: Callable[[], BaseStorage]) -> BaseStorage:
    """A storage, also where several processes make the tables of a database at the same time.

    Whoever comes second to a table or to its first row is told so by the database, and finds it
    made when it looks again.
    """
    import sqlalchemy.exc

    until = time.monotonic() + _MAKING_SECONDS
    while True:
        try:
            return make()
        except sqlalchemy.exc.SQLAlchemyError as error:
            if time.monotonic() > until or not any(words in str(error) for words in _SECOND):
                raise
            # Not all at the same time again.
            time.sleep(_random.uniform(0.05, 0.5))


def _lacks_driver(shown: str) -> UserError:
    remedy = (
        "pip install 'finetune-lm[postgres]'"
        if shown.startswith("postgres")
        else "install the driver of SQLAlchemy for this database"
    )
    return UserError(f"study_kwargs.storage {shown} needs a driver that is not there: {remedy}.")


def short_reason(error: BaseException) -> str:
    """What an error says in its first line, or its class where it says nothing."""
    reason: str = without_secrets(first_line(error))
    return reason


class WholeLinesJournal(JournalFileBackend):  # type: ignore[misc]
    """A journal in a file that half a line at its end does not spoil.

    Half a line is what a process leaves whose disk is full. Whoever writes next would put a line
    behind it, and no process could read the two. Here it is taken away first.

    Args:
        file_path: The journal. It is one that Optuna and its dashboard read.
    """

    def __init__(self, file_path: str) -> None:
        super().__init__(file_path)
        self._path = Path(file_path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write entries at the end."""
        if not self._ends_whole():
            lock = JournalFileSymlinkLock(str(self._path))
            lock.acquire()
            try:
                # While the lock is held nobody writes, so half a line stays one.
                if not self._ends_whole():
                    content = self._path.read_bytes()
                    os.truncate(self._path, content.rfind(b"\n") + 1)
            finally:
                with suppress(RuntimeError):
                    lock.release()
        super().append_logs(logs)

    def _ends_whole(self) -> bool:
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
