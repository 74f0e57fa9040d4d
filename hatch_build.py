"""What the metadata of a built package say beside pyproject.toml: the README, as an index shows it.

On a package index there are no files beside the README. Links to such files become absolute if
``[project.urls]`` in pyproject.toml has a ``Source``, and plain text if it does not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?!\w+:|#)(?P<path>[^)\s]+)\)")


def shown_elsewhere(readme: str, source: str | None) -> str:
    """The README with no link that leads to a file beside it.

    Args:
        readme: Its Markdown.
        source: Where the files are to be seen, such as ``https://HOST/OWNER/finetune-lm/blob/v1``.
            Images are taken from the same place with ``raw`` for ``blob``.

    Returns:
        The same with absolute links; without a source with the text of links alone, and images as
        their description.
    """

    def instead(link: re.Match[str]) -> str:
        if source is None:
            return f"*({link['text']})*" if link["image"] else link["text"]
        base = source.replace("/blob/", "/raw/") if link["image"] else source
        return f"{link['image']}[{link['text']}]({base.rstrip('/')}/{link['path']})"

    return LINK.sub(instead, readme)


class CustomMetadataHook(MetadataHookInterface):
    """Puts the README into the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Add it to what ``[project]`` says."""
        readme = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": shown_elsewhere(readme, metadata.get("urls", {}).get("Source")),
        }
