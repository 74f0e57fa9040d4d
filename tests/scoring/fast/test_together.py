"""Several ranks share out what goes in together."""

from __future__ import annotations

import zlib

import numpy as np
import torch

from families import family
from finetune_lm.scoring.fast import together
from finetune_lm.scoring.fast.together import BatchesTogether
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.scorer import Scorer
from helpers import dataset, examples

CPU = torch.device("cpu")
SIZE = 2


class Ranks:
    """Stand in for two of them, one after the other."""

    size = 2

    def __init__(self):
        self.rank = 0
        self.told = []

    def gather(self, value):
        self.told.append(value)
        return self.told


def test_each_has_as_much_to_do_and_all_comes_out_as_that_of_one(monkeypatch):
    fam = family("gpt2")
    # Texts that begin alike cost little beside others, and are scattered among these.
    alike = [f"The man has always broken the {word}." for word in ("box", "cup", "glass") * 12]
    other = [f"{number} people drank what the man had made." for number in range(24)]
    mixed = sorted([*alike, *other], key=lambda text: zlib.crc32(text.encode()))
    data = dataset(fam, examples(mixed))
    scorer = Scorer(fam.model, data.task, fast=True)
    forward = Forward(scorer, data, SIZE, needs=Needs(logits=False))
    batches = list(data.batches(SIZE))
    with torch.no_grad():
        expected = [forward(batch, CPU, alone=False) for batch in batches]
        made = BatchesTogether(scorer, forward._layer, data, SIZE)
        ranks = Ranks()
        monkeypatch.setattr(together, "world", lambda: ranks)
        shares = [np.concatenate(share) for share in made._shares(0)]
        again = [np.concatenate(share) for share in made._shares(37)]
        assert [share.tolist() for share in again] == [share.tolist() for share in shares]
        assert sorted(np.concatenate(shares)) == [*range(len(data))]
        texts = [row.tolist() for row in data.input_ids]

        def n_beginnings(share):
            return len({tuple(texts[i][:n]) for i in share for n in range(1, len(texts[i]))})

        n_asked = [n_beginnings(share) for share in shares]
        assert sorted(map(len, shares)) == [12, 48]
        assert abs(n_asked[0] - n_asked[1]) <= 2 * max(map(len, texts))
        # Of what is said more than once all is said on one of them, but for one text at the border.
        assert sum(n_asked) <= n_beginnings(range(len(texts))) + max(map(len, texts))
        # Groups of 14 as a rule: a share of 44 is three of 15 at most, and not four.
        monkeypatch.setattr(together, "_BATCHES_TOGETHER", 7)
        n_groups = {sum(map(len, share)): len(share) for share in made._shares(0)}
        assert n_groups == {44: 3, 12: 1}
        monkeypatch.undo()
        monkeypatch.setattr(together, "world", lambda: ranks)
        for ranks.rank in (0, 1):
            scored = made._scored_around(0, CPU)
        for batch, one in zip(batches, expected, strict=True):
            rows, positions = data.task.predictions(batch.inputs["labels"])
            asked = rows, positions, batch.inputs["labels"][rows, positions + 1]
            found = scored.of_examples(int(batch.example[0]), len(batch))
            bits = torch.from_numpy(one.score(*asked)().surprisal)
            torch.testing.assert_close(found.nll / np.log(2), bits)
            torch.testing.assert_close(found.loss, one.for_losses.loss)
