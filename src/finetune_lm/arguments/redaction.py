"""Access tokens and passwords are used, and never shown: in no file, log, error or repr."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune_lm.arguments.model_arguments import ModelArguments

SECRET_KEYS = frozenset({"token", "use_auth_token", "hub_token", "password"})

_PASSWORD_IN_URL = re.compile(r"(?<=://)([^\s/@:]*):[^\s/]*@")
_PASSWORD_IN_QUERY = re.compile(r"([?&]password=)[^\s&]*", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """Return a copy of nested dictionaries and lists without the keys that hold a token.

    The password in the URL of a database becomes three stars.
    """
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items() if key not in SECRET_KEYS}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return without_passwords(value) if isinstance(value, str) else value


def without_passwords(text: str) -> str:
    """Return a text with stars for the passwords of the URLs in it.

    Example:
        >>> without_passwords("postgresql://me:secret@host/studies")
        'postgresql://me:***@host/studies'
    """
    return _PASSWORD_IN_QUERY.sub(r"\1***", _PASSWORD_IN_URL.sub(r"\1:***@", text))


def without_token(text: str, model: ModelArguments | None) -> str:
    """Return a text without access token and passwords, should a library have put them into it.

    Args:
        text: A message.
        model: The arguments with the token, or with the name of the file that holds it.
    """
    token = model.token if model is not None else False
    if isinstance(token, str) and os.path.isfile(token):  # noqa: PTH113
        token = Path(token).read_text(encoding="utf-8", errors="ignore").strip()
    text = without_passwords(text)
    return text.replace(token, "<token>") if isinstance(token, str) and token else text
