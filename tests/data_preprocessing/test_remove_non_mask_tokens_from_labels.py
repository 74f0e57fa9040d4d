from __future__ import annotations

import pytest
import torch

from families import bert_tokenizer, gpt2_tokenizer
from finetune_lm.data_preprocessing import remove_non_mask_tokens_from_labels
from finetune_lm.errors import UserError


def test_only_masks_keep_their_labels():
    tokenizer = bert_tokenizer()
    mask = tokenizer.mask_token_id
    inputs = {
        "input_ids": torch.tensor([[2, mask, 9, mask, 3], [2, 9, 9, 9, 3]]),
        "labels": torch.tensor([[2, 20, 9, 21, 3], [2, 9, 9, 9, 3]]),
    }
    before = {key: tensor.clone() for key, tensor in inputs.items()}
    labels = remove_non_mask_tokens_from_labels(inputs, tokenizer)["labels"]
    assert labels.tolist() == [[-100, 20, -100, 21, -100], [-100] * 5]
    assert all(torch.equal(inputs[key], before[key]) for key in inputs)


def test_a_tokenizer_without_masks():
    with pytest.raises(UserError, match="needs a tokenizer with a mask token"):
        remove_non_mask_tokens_from_labels({}, gpt2_tokenizer())


def test_no_labels():
    with pytest.raises(UserError, match="needs labels but the data file gives none"):
        remove_non_mask_tokens_from_labels({"input_ids": torch.ones(1, 1)}, bert_tokenizer())


def test_labels_of_another_shape():
    inputs = {"input_ids": torch.ones(1, 3), "labels": torch.ones(1, 2)}
    with pytest.raises(UserError, match=r"\(1, 3\) and labels of shape \(1, 2\)"):
        remove_non_mask_tokens_from_labels(inputs, bert_tokenizer())
