"""Access tokens are used, and never shown: not in a file, a log, an error or a repr."""

from __future__ import annotations

from typing import Any

SECRET_KEYS = frozenset({"token", "use_auth_token", "hub_token"})


def without_secrets(value: Any) -> Any:
    """Return a copy of nested dictionaries and lists without the keys that hold a token."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items() if key not in SECRET_KEYS}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value
