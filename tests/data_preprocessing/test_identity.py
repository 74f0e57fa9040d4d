from __future__ import annotations

import torch

from finetune_lm.data_preprocessing import identity


def test_labels_are_a_copy_of_the_inputs():
    inputs = {"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.tensor([[1, 1]])}
    made = identity(inputs, None)
    assert made["labels"].tolist() == [[1, 2]]
    assert made["labels"] is not inputs["input_ids"]
    assert set(inputs) == {"input_ids", "attention_mask"}


def test_given_labels_are_kept():
    inputs = {"input_ids": torch.tensor([[1]]), "labels": torch.tensor([[5]])}
    assert identity(inputs, None)["labels"].tolist() == [[5]]
