"""Access tokens are used, and never shown: not in a file, a log, an error or a repr."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune_lm.arguments.model_arguments import ModelArguments

SECRET_KEYS = frozenset({"token", "use_auth_token", "hub_token"})


def without_secrets(value: Any) -> Any:
    """Return a copy of nested dictionaries and lists without the keys that hold a token."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items() if key not in SECRET_KEYS}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def without_token(text: str, model: ModelArguments | None) -> str:
    """Return a text without the access token, should a library have put it into a message.

    Args:
        text: A message.
        model: The arguments with the token, or with the name of the file that holds it.
    """
    token = model.token if model is not None else False
    if isinstance(token, str) and os.path.isfile(token):  # noqa: PTH113
        token = Path(token).read_text(encoding="utf-8", errors="ignore").strip()
    return text.replace(token, "<token>") if isinstance(token, str) and token else text
