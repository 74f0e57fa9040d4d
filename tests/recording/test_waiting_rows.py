"""Rows of many batches that are made together are those of one batch after another."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pyarrow as pa
import pytest
import torch

from families import family
from finetune_lm import UserError
from finetune_lm.data_preprocessing import expand_with_masks, mask_random_spans
from finetune_lm.measures import Entropy, Rank, WordBoundary
from finetune_lm.recording import csv_text as csv_text_module
from finetune_lm.recording.csv_text import csv_parts, csv_text
from finetune_lm.recording.recorder import Measured, Recorder, Recorders
from finetune_lm.recording.scored_tokens import ScoredTokens
from finetune_lm.recording.token_rows import TokenRows
from finetune_lm.recording.waiting_rows import WaitingRows
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from helpers import dataset, examples, row_maker

TEXTS = ["So.", "The man has always broken the glass.", "They drank it.", "Did you see the women?"]
REGIONS = [["object", TEXTS[1].index("glass"), len(TEXTS[1]) - 1]]
METADATA = [{}, {"regions": REGIONS}, {}, {}]
WAYS = {
    "gpt2": {},
    "qwen": {"pad_to_length": 20},
    "bert": {"function": expand_with_masks, "strategy": "per_batch"},
    "t5": {"function": mask_random_spans, "strategy": "per_batch"},
}


def measured_batches(name):
    """Batches of different widths, some with losses, and what makes their rows."""
    fam = family(name)
    losses = ["loss", "lr_like"]
    data = dataset(fam, examples(TEXTS, metadata=METADATA), **WAYS[name])
    made = [Entropy(fam.model, fam.tokenizer), Rank(fam.model, fam.tokenizer)]
    made.append(WordBoundary(fam.model, fam.tokenizer))
    names = {name: pa.float32() for measure in made for name in measure.columns}
    names["rank"] = pa.int64()
    columns = dataclasses.replace(
        row_maker(fam, data, losses).run, measures=names, has_baseline=True, losses=losses
    )
    forward = Forward(Scorer(fam.model, data.task, fast=False), data, 1, Needs(measures=made))
    found = []
    with torch.no_grad():
        for number, batch in enumerate(data.batches(2)):
            score = forward(batch, torch.device("cpu")).score
            of_losses = {"loss": number / 3, "lr_like": 0.5} if number else None
            tokens = ScoredTokens.of(batch, data.task, score)
            found.append(Measured(None, batch, 4, number, tokens, of_losses, 0.1, step=7))
    return data, columns, made, found


@pytest.mark.parametrize("name", WAYS)
def test_rows_of_batches_together_are_those_of_each(name, monkeypatch):
    data, columns, made, found = measured_batches(name)
    assert len({batch.batch.inputs["input_ids"].shape[1] for batch in found}) > 1 or name == "qwen"
    one, all_ = (TokenRows(data, "validation", columns, measures=made) for _ in range(2))
    # A pass before the training, and one after it in another order of the examples.
    before = [dataclasses.replace(each, epoch=-1) for each in found]
    alone = [one.of_batches([each]).table for each in [*before, *found[::-1]]]
    together = [all_.of_batches(before).table, all_.of_batches(found[::-1]).table]
    expected = pa.concat_tables(alone).select(columns.names(with_step=True))
    assert pa.concat_tables(together).select(columns.names(with_step=True)).equals(expected)
    # Of a test, whose text is not kept for the next time, they are the same. Their text is that of
    # the table, also if it is made in parts.
    names = columns.names(with_step=True)
    names.remove("dataset_type")
    for maker in (TokenRows(data, "test", columns, measures=made), one):
        for batches in (before, found[::-1]):
            rows = maker.of_batches(batches).select(names)
            assert rows.table.equals(all_.of_batches(batches).table.select(names))
            plain = csv_text(rows.table)
            assert csv_text(rows) == plain
            monkeypatch.setattr(csv_text_module, "_AT_ONCE", 2_000)
            assert len(list(csv_parts(rows))) > 3
            assert csv_text(rows) == plain
            monkeypatch.undo()
    assert expected["baseline_surprisal"].null_count == expected["surprisal"].null_count + (
        expected["sequence_type"].to_pylist().count("generated_sequence") if name == "t5" else 0
    )


def split_of(rows):
    return SimpleNamespace(rows=rows)


class Rows:
    """Makes of batches a list of what they are called."""

    def __init__(self, fails=()):
        self.fails = list(fails)

    def of_batches(self, measured):
        if self.fails:
            raise self.fails.pop()
        return [each.name for each in measured]


def batch(name, n_rows, split):
    return SimpleNamespace(name=name, tokens=range(n_rows), split=split)


def test_batches_wait_until_there_are_so_many_rows():
    written, split = [], split_of(Rows())
    waiting = WaitingRows([written.append, lambda rows: written.append(len(rows))], at_most=10)
    for name, n_rows in (("a", 4), ("b", 5), ("c", 1), ("d", 30), ("e", 0), ("f", 9)):
        waiting.add(batch(name, n_rows, split))
    assert written == [["a", "b", "c"], 3, ["d"], 1]
    # Of another data set rows are made by themselves.
    waiting.add(batch("g", 0, split_of(Rows())))
    assert len(written) == 4
    waiting.write()
    waiting.write()
    assert written[4:] == [["e", "f"], 2, ["g"], 1]


def test_none_wait_where_each_batch_is_kept_or_there_is_no_table():
    written = []
    waiting = WaitingRows([written.append], at_most=0)
    waiting.add(batch("a", 0, split_of(Rows())))
    assert written == [["a"]]
    waiting.add(batch("b", 3, split_of(None)))
    waiting.write()
    assert written == [["a"]]


def test_a_second_ctrl_c_while_rows_are_made_loses_none():
    written, split = [], split_of(Rows(fails=[KeyboardInterrupt()]))
    waiting = WaitingRows([written.append])
    waiting.add(batch("a", 3, split))
    waiting.add(batch("b", 3, split_of(Rows())))
    with pytest.raises(KeyboardInterrupt):
        waiting.write()
    waiting.write()  # at the end of the table
    assert written == [["a"], ["b"]]


def test_what_cannot_be_made_does_not_come_again():
    written, split = [], split_of(Rows(fails=[MemoryError()]))
    waiting = WaitingRows([written.append])
    waiting.add(batch("a", 3, split))
    waiting.add(batch("b", 3, split_of(Rows())))
    with pytest.raises(MemoryError):
        waiting.write()
    waiting.write()  # at the end of the table
    assert written == [["b"]]


def test_rows_of_training_wait_for_those_of_validation():
    """They are in one piece of the table, and made in one go they cost less."""
    told = []

    class Listener(Recorder):
        def token_rows(self, rows):
            told.append(rows)

        def pass_over(self, dataset_type, epoch, means, mode=None):
            told.append(dataset_type)

    recorders = Recorders(Listener())
    recorders.batch(batch("a", 1, split_of(Rows())))
    recorders.pass_over("train", 0, {})
    recorders.batch(batch("b", 1, split_of(Rows())))
    recorders.pass_over("validation", 0, {})
    recorders.batch(batch("c", 1, split_of(Rows())))
    recorders.write_rows()
    assert told == ["train", ["a"], ["b"], "validation", ["c"]]


def test_rows_of_earlier_batches_are_kept_if_the_last_has_gone_wrong():
    """As on a GPU, where that may show only at the end."""
    told = []

    class Listener(Recorder):
        def token_rows(self, rows):
            told.append(rows)

        def end(self):
            told.append("end")

    def take_in(measured):
        if measured.name == "b":
            raise UserError("losses must be finite")

    recorders = Recorders(Listener())
    split = split_of(Rows())
    for name in ("a", "b"):
        recorders.batch_to_come(batch(name, 1, split), take_in, at_once=False)
    with pytest.raises(UserError):
        recorders.end()
    assert told == [["a"], "end"]
