"""Access tokens and passwords are used, and never shown: in no file, log, error or repr."""

from __future__ import annotations

import functools
import os
import re
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_SECRET_NAMES = frozenset(
    {
        # Not all that end in "token": a tokenizer has a bos_token and others.
        *("token", "accesstoken", "apitoken", "authtoken", "bearertoken", "hftoken", "hubtoken"),
        *("refreshtoken", "sessiontoken", "useauthtoken"),
        *("authorization", "credential", "credentials", "pwd"),
    }
)
_SECRET_ENDINGS = (
    *("password", "passwd", "passphrase", "secret"),
    *("apikey", "accesskey", "privatekey", "secretkey"),
)

_IN_ENVIRONMENT = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")

# scheme://user:password@host. A number behind the colon and a slash behind that is a port.
_URL_PASSWORD = re.compile(
    r"""([A-Za-z][A-Za-z0-9+.-]*://)([^\s'"/:]*):(?!\d+(?:/|$))([^\s'"]*)@"""
)
# Of a web page the user may be a token too.
_WEB_USER = re.compile(r"""(https?://)([^\s'"/@]+)@""")
# postgresql://host/db?password=secret, what PostgreSQL takes instead (host=... password=secret),
# and what ODBC does (UID=me;PWD=secret), as it is or as part of a URL.
_PASSWORD_IN_QUERY = re.compile(
    r"""((?:[?&;\s]|^|%3B)(?:[a-z0-9]+_)?(?:password|passwd|pwd|passphrase|secret)(?:=|%3D))"""
    r"""((?:(?!%3B)[^\s'"&;])+)""",
    re.IGNORECASE,
)
_TOKEN_IN_QUERY = re.compile(
    r"""([?&](?:(?:access_|api_|auth_|hf_|hub_|refresh_|session_)?token"""
    r"""|(?:[a-z0-9]+_)?(?:api|access|secret|private)_?key)=)([^\s'"&;]+)""",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}")
_HIDDEN = "<token>"

_REMEMBERED: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def is_secret(name: object) -> bool:
    """Tell whether what has this name, as an argument or as a key of a dictionary, is a secret.

    Example:
        >>> [is_secret(name) for name in ("Token", "api-key", "db_password", "bos_token")]
        [True, True, True, False]
    """
    letters = re.sub(r"[^a-z]", "", str(name).lower())
    return letters in _SECRET_NAMES or letters.endswith(_SECRET_ENDINGS)


def remember(holder: Any) -> None:
    """Hide the secrets of an instance of arguments for as long as there is one.

    Whoever has something to say then need not know where secrets may be.
    """
    _REMEMBERED[id(holder)] = holder


def without_secrets(value: Any) -> Any:
    """Return a copy of nested dictionaries and lists without what is secret in them.

    Keys that hold a token or password are left out. Of a URL, the password is: what is left can
    still be used where the password is known otherwise.

    Example:
        >>> without_secrets({"token": "hf_abc", "storage": "postgresql://me:secret@host/db"})
        {'storage': 'postgresql://me@host/db'}
    """
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items() if not is_secret(key)}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return _without_known_forms(value) if isinstance(value, str) else value


def without_token(text: str, *holders: Any) -> str:
    """Return a text without secrets, should a library have put one into a message.

    Args:
        text: A message.
        *holders: What may hold secrets besides the arguments that there are and the environment:
            nested dictionaries, lists. None holds none.
    """
    return _hide(text, secrets_of(*holders))


def secrets_of(*holders: Any) -> list[str]:
    """Return the secrets of all arguments that there are and of the environment, longest first.

    Args:
        *holders: More of what may hold some: nested dictionaries and lists.
    """
    everything = [*_REMEMBERED.values(), *holders]
    found = [value for holder in everything for value in _secrets_in(holder, secret=False)]
    found += [os.environ.get(name, "") for name in _IN_ENVIRONMENT]
    found += [_content(path) or "" for path in _login_files()]
    return sorted({secret.strip() for secret in found} - {""}, key=len, reverse=True)


def hides_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Keep the secrets in a function's arguments out of the exceptions that leave it.

    What a library put into its message is taken out of it, along the whole chain of causes.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            secrets = secrets_of(*args, *kwargs.values())
            for each in _chain(error):
                _clean(each, secrets)
                if _shows(each, secrets):
                    # An exception that makes its message anew each time.
                    raise RuntimeError(_hide(f"{type(error).__name__}: {error}", secrets)) from None
            raise

    return wrapper


def _hide(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    return _without_known_forms(text)


def _without_known_forms(text: str) -> str:
    """Take out what is a secret by its form, whoever gave it."""
    if "://" in text:
        text = _WEB_USER.sub(r"\1", text)
        text = _URL_PASSWORD.sub(lambda found: found[1] + (found[2] and f"{found[2]}@"), text)
    if "=" in text:
        text = _TOKEN_IN_QUERY.sub(r"\1", _PASSWORD_IN_QUERY.sub(r"\1", text))
    return _TOKEN.sub(_HIDDEN, text) if "hf_" in text else text


def _secrets_in(holder: Any, *, secret: bool) -> Iterator[str]:
    if isinstance(holder, str):
        if secret:
            content = _content(holder)
            yield holder if content is None else content
        for pattern in (_WEB_USER, _URL_PASSWORD, _PASSWORD_IN_QUERY, _TOKEN_IN_QUERY):
            for found in pattern.finditer(holder):
                yield found[found.lastindex or 0]
    elif isinstance(holder, list | tuple):
        for item in holder:
            yield from _secrets_in(item, secret=secret)
    else:
        items = holder if isinstance(holder, dict) else getattr(holder, "__dict__", {})
        for key, item in items.items():
            if isinstance(item, str | list | tuple | dict):
                yield from _secrets_in(item, secret=secret or is_secret(key))


def _content(path: str) -> str | None:
    """Return what a file holds that holds a token; None if it is no file."""
    # Not Path.is_file, which fails on what is too long for the name of a file.
    if "\0" in path or not os.path.isfile(path):  # noqa: PTH113
        return None
    try:
        with Path(path).open(encoding="utf-8", errors="ignore") as file:
            return file.read(10_000)
    except OSError:
        return None


def _login_files() -> list[str]:
    """Return where `hf auth login` may have left a token."""
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")  # noqa: PTH111
    return [os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")]  # noqa: PTH118


def _chain(error: BaseException) -> list[BaseException]:
    """Return an exception and all that it came of."""
    chain: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and not any(each is earlier for earlier in chain):
            chain.append(each)
            waiting += [each.__cause__, each.__context__]
    return chain


def _clean(error: BaseException, secrets: list[str]) -> None:
    if not _shows(error, secrets):
        return

    def hidden(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(hidden, value))
        return _hide(value, secrets) if isinstance(value, str) else value

    error.args = hidden(error.args)
    for name in ("strerror", "filename", "problems", "__notes__", "msg"):
        if (value := getattr(error, name, None)) is not None:
            hidden_value = list(map(hidden, value)) if isinstance(value, list) else hidden(value)
            setattr(error, name, hidden_value)


def _shows(error: BaseException, secrets: list[str]) -> bool:
    notes = getattr(error, "__notes__", [])
    text = "\n".join([str(error), repr(error), *map(str, notes)])
    return _hide(text, secrets) != text
