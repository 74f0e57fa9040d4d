"""Processes that make a run together find each other anew when something has gone wrong."""

from __future__ import annotations

import importlib
import sys

from torch.distributed import HashStore

from finetune_lm.several_ranks import _SeveralRanks


def test_no_module_of_torch_holds_on_to_messages(monkeypatch):
    """Otherwise the others would wait for those of a rank that has gone wrong.

    The functions of one have the group that there is when it is imported as a default, and a split
    model imports it.
    """
    name = "torch.distributed.nn"
    for module in [each for each in sys.modules if each.startswith(name)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("torch.distributed.nn", raising=False)
    ranks = _SeveralRanks(HashStore(), 0, 1)
    try:
        assert ranks.gather("here") == ["here"]
        importlib.import_module(f"{name}.functional")
        assert ranks._hang_up()
    finally:
        ranks.close()
