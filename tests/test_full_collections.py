from __future__ import annotations

import gc

import pytest

from finetune_lm.full_collections import without_full_collections


def n_full() -> int:
    return gc.get_stats()[2]["collections"]


def test_full_collections_wait_and_come_again():
    before = gc.get_threshold()

    @without_full_collections()
    def build():
        made = n_full()
        kept = [[i] for i in range(300_000)]
        assert n_full() == made
        raise ValueError(len(kept))

    @without_full_collections()
    def outer():
        with pytest.raises(ValueError, match="300000"):
            build()
        assert gc.get_threshold() != before

    outer()
    assert gc.get_threshold() == before
    # The test would say nothing if as many objects did not bring one about.
    made = n_full()
    kept = [[i] for i in range(1_000_000)]
    assert n_full() > made
    del kept
