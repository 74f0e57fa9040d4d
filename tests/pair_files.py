"""Files of pairs in all shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PAIRS = [
    ("The man drank.", "The man drinked."),
    ("The man drank.", "The man drank drank."),
    ("The women drank the water.", "The women the water drank."),
]


def lines(path: Path, *objects: dict[str, Any]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in objects))
    return path


@pytest.fixture(scope="session")
def pair_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of files of pairs in all shapes."""
    directory = tmp_path_factory.mktemp("data")
    blimp = directory / "blimp"
    for name in ("order", "agree [1]"):
        lines(
            blimp / f"{name}.jsonl",
            *[
                {"sentence_good": g, "sentence_bad": b, "linguistics_term": "term", "UID": name}
                for g, b in PAIRS
            ],
        )
    own = [
        {"text": text, "labels": text}
        for text in ("The man drank.", "The water drank.", "A man ate.", "A cake ate.")
    ]
    lines(directory / "own.jsonl", *own)
    lines(
        directory / "own_metadata.jsonl",
        *[
            {
                "item": i // 2,
                "condition": ("plausible", "im-plausible")[i % 2],
                "expected": i % 2 == 0,
                "rating": 1.5 + i // 2,
            }
            for i in range(4)
        ],
    )
    return directory
