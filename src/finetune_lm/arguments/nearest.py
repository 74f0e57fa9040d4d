"""The name that was probably meant, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is most like `name`, or None where none is like it.

    Example:
        >>> nearest("epoch", ["patience", "epochs"])
        'epochs'
    """
    by_lower_case = {str(candidate).lower(): str(candidate) for candidate in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return `" Did you mean ...?"` with the nearest name, or an empty text."""
    close = nearest(name, names)
    return f" Did you mean {prefix}{close}?" if close is not None else ""


def choices(names: Iterable[str]) -> str:
    """Return names as a person would list them: `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last
