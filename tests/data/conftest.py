"""A small model that several files share."""

from __future__ import annotations

import pytest

from families import family


@pytest.fixture(scope="session")
def gpt2():
    return family("gpt2")
