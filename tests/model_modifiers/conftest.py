"""Models and files for runs with callbacks."""

from __future__ import annotations

import pytest

from callback_runs import heard
from families import TEXTS, family
from helpers import save_family, write_lines


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Small models in directories; `gpt2` has dropout, as it comes."""
    names = ("gpt2", "bert")
    return {name: save_family(family(name), tmp_path_factory.mktemp(name)) for name in names}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    heard.clear()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path):
    return {
        "train": write_lines(tmp_path / "teach.txt.gz", TEXTS[:4]),
        "validation": write_lines(tmp_path / "check.txt.gz", TEXTS[4:]),
        "test": write_lines(tmp_path / "probe.txt.gz", TEXTS[:3]),
    }
