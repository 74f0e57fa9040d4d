from __future__ import annotations

import gc

import pytest

from finetune_lm.full_collections import passing_over_packages, without_full_collections


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


def is_passed_over(thing) -> bool:
    return not any(each is thing for each in gc.get_objects())


def test_packages_are_passed_over_unless_somebody_does_so():
    gc.freeze()
    try:
        kept = [[i] for i in range(1000)]
        with passing_over_packages():
            assert not is_passed_over(kept)
        gc.unfreeze()
        with passing_over_packages():
            assert is_passed_over(kept)
            assert gc.get_freeze_count() > len(kept)
        assert gc.get_freeze_count() == 0
    finally:
        gc.freeze()
