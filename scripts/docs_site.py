"""A hook of mkdocs: files of the repository that the pages link to are on the site too.

The README is its first page. Markdown becomes pages, with links as they are right from docs/;
other files are there as they are.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
FIRST = "README.md"


def place_on_site(path: str) -> str:
    """Where a file of the repository is on the site.

    Args:
        path: From the root of the repository, with slashes.
    """
    if path == FIRST:
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    # As a page of its own: mkdocs would take README.md for an index.
    return path.replace("/README.md", "_README.md")


def linked_from(path: str, text: str) -> dict[str, str]:
    """Links of a file to others of the repository: as written, and from the root."""
    targets = (link[1] for link in LINK.finditer(text))
    return {
        each: posixpath.normpath(posixpath.join(posixpath.dirname(path), each)) for each in targets
    }


def with_links_of_site(path: str, text: str) -> str:
    """A page with its links as they are on the site.

    Links to directories, and to files that are not there, stay: mkdocs tells of them.
    """
    targets = linked_from(path, text)
    here = posixpath.dirname(place_on_site(path)) or "."

    def instead(link: re.Match[str]) -> str:
        target = targets[link[1]]
        if not (ROOT / target).is_file():
            return link[0]
        return f"]({posixpath.relpath(place_on_site(target), here)}{link[2] or ''})"

    return LINK.sub(instead, text)


def on_files(files: Files, config: Any) -> Files:
    """Add what docs/ does not have: the README, and what it and the pages lead to."""
    ahead = [FIRST, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen: set[str] = set()
    while ahead:
        path = ahead.pop()
        if path in seen or not (ROOT / path).is_file():
            continue
        seen.add(path)
        is_page = path.endswith(".md")
        if not path.startswith("docs/"):
            content = (ROOT / path).read_bytes()
            files.append(File.generated(config, place_on_site(path), content=content))
        if is_page:
            ahead += linked_from(path, (ROOT / path).read_text("utf-8")).values()
    _paths.update({place_on_site(path): path for path in seen})
    return files


_paths: dict[str, str] = {}
"""Pages by their place on the site: where they are in the repository."""


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Mend a page's links."""
    return with_links_of_site(_paths[page.file.src_uri], markdown)
