"""What tests of whole studies share."""

from __future__ import annotations

import pytest

from families import family
from helpers import save_family
from studies import Interrupt, ListLoss


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A directory with a small random model, which has dropout."""
    return save_family(family("gpt2"), tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch, request):
    """Work in an empty directory, without plots unless the test asks for them."""
    from finetune_lm.study import search

    monkeypatch.chdir(tmp_path)
    if "plots" not in request.fixturenames:
        # They take longer than all the rest, and have tests of their own.
        monkeypatch.setattr(search, "save_plots", lambda *_: None)
    ListLoss.given = []
    Interrupt.n_made = 0


@pytest.fixture
def plots():
    """For a test in which the plots are made."""
