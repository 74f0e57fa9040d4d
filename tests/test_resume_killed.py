"""Runs killed in the middle of whatever they do end up the same to the byte as unbroken ones."""

from __future__ import annotations

import json

import pytest

from crashing import difference, n_events, run_with_kills
from setups import DATA, MEASURES, PROBES, setup

FATAL = {
    # Events of each process, one after another: steps, parts of files, names of files.
    "lm": [3, 21, 30, 26, 34],
    "mlm": [45, 17, 38],
    "seq2seq": [28, 33, 37],
}


@pytest.mark.parametrize("kind", FATAL)
def test_a_run_that_is_killed_again_and_again(tmp_path, kind):
    """With a KL term its untouched model's predictions are computed anew, for other draws."""
    when = {} if kind == "lm" else {"probe_every_steps": 2}
    model, data = setup(kind, **PROBES, **MEASURES, **when)
    if kind != "mlm":
        kl = {"dataset": str(DATA / "fillers.txt.gz"), "n_examples_per_batch": 5, "batch_size": 8}
        if kind == "seq2seq":
            kl["data_preprocessing_fn"] = "data_preprocessing.mask_random_spans"
        data["loss_classes"]["train"].append("loss_classes.KLBaselineLoss")
        data["loss_classes_kwargs"] = {"train": {"KLBaselineLoss": kl}}
    assert n_events(tmp_path, model, {**data, "output_dir": "whole"}) > 70
    data["output_dir"] = "parts"
    assert run_with_kills(tmp_path, model, data, FATAL[kind]) == len(FATAL[kind])
    assert difference(tmp_path / "whole", tmp_path / "parts") == []
    record = json.loads((tmp_path / "parts" / "run.json").read_text())
    assert record["state"] == "finished"
    states = [session["state"] for session in record["sessions"]]
    assert states == ["killed"] * (len(states) - 1) + ["finished"]


def test_a_run_that_is_killed_at_its_very_end(tmp_path):
    """When the last checkpoint is removed, the run must be on record as finished.

    It is killed before these are removed, before that is on record, and before the whole test table
    gets its name. Between these only the record is written, and before only rows are.
    """
    model, data = setup("lm", epochs=1)
    n_events(tmp_path, model, {**data, "output_dir": "whole"})
    # The first run has also put tokenized data into the cache.
    n = n_events(tmp_path, model, {**data, "output_dir": "again"})
    for number in (0, 1, 4):
        data["output_dir"] = f"parts{number}"
        assert run_with_kills(tmp_path, model, data, [n - number]) == 1
        assert difference(tmp_path / "whole", tmp_path / data["output_dir"]) == []
