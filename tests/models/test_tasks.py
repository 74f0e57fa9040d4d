from __future__ import annotations

import pytest
import torch
import transformers

from finetune_lm import constants
from finetune_lm.errors import UserError
from finetune_lm.models.tasks import TASKS, find_task


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("gpt2", "lm"),
        ("EleutherAI/pythia-70m", "lm"),
        ("allenai/OLMo-1B-hf", "lm"),
        ("meta-llama/Llama-3.2-1B", "lm"),
        ("bert-base-uncased", "mlm"),
        ("roberta-base", "mlm"),
        ("distilbert-base-uncased", "mlm"),
        ("albert-base-v2", "mlm"),
        ("google/electra-small-generator", "mlm"),
        ("t5-small", "seq2seq"),
        ("google/flan-t5-base", "seq2seq"),
        ("facebook/bart-base", "seq2seq"),
    ],
)
def test_known_names(name, task):
    assert find_task(name, config=None).name == task


def test_names_are_of_one_kind_each():
    sets = [constants.LM_MODELS, constants.MLM_MODELS, constants.SEQ2SEQ_MODELS]
    assert sum(map(len, sets)) == len(frozenset().union(*sets))


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (transformers.GPT2Config(), "lm"),
        (transformers.LlamaConfig(), "lm"),
        (transformers.GPTNeoXConfig(), "lm"),
        (transformers.AlbertConfig(), "mlm"),
        (transformers.DistilBertConfig(), "mlm"),
        (transformers.T5Config(), "seq2seq"),
        (transformers.BartConfig(), "seq2seq"),
        (transformers.BertConfig(architectures=["BertForMaskedLM"]), "mlm"),
        (transformers.BertConfig(architectures=["BertLMHeadModel"]), "lm"),
        (transformers.ElectraConfig(architectures=["ElectraForMaskedLM"]), "mlm"),
        (transformers.BartConfig(architectures=["BartModel"]), "seq2seq"),
    ],
)
def test_local_models_by_their_config(config, task):
    assert find_task("models/mine", config).name == task


def test_what_the_user_says_goes_first():
    assert find_task("gpt2", transformers.GPT2Config(), "mlm").name == "mlm"


@pytest.mark.parametrize("architectures", [None, ["BertModel"]])
def test_an_ambiguous_config(architectures):
    config = transformers.BertConfig(architectures=architectures)
    with pytest.raises(UserError) as caught:
        find_task("mine", config)
    assert "model_task must be given for 'mine'" in str(caught.value)
    assert "may be any of these: lm, mlm" in str(caught.value)


def test_an_unknown_config():
    with pytest.raises(UserError, match="is of no kind known here"):
        find_task("mine", transformers.ViTConfig())


def test_the_first_token_of_a_lm_does_not_count():
    labels = torch.tensor([[5, 6, -100], [5, -100, -100]])
    assert TASKS["lm"].counted(labels).tolist() == [[False, True, False], [False, False, False]]
    assert TASKS["mlm"].counted(labels).sum() == 3
    assert labels.tolist() == [[5, 6, -100], [5, -100, -100]]


def test_mlm_rows_where_labels_single_positions_out():
    inputs = {
        "input_ids": torch.tensor([[2, 9, 4, 8, 3]]),
        "labels": torch.tensor([[-100, 9, 7, -100, -100]]),
    }
    everywhere = torch.ones(1, 5, dtype=torch.bool)
    reported = TASKS["mlm"].reported(inputs, torch.tensor([False]), everywhere)
    assert reported.tolist() == [[False, True, True, False, False]]


def test_mlm_rows_where_everything_is_a_label():
    inputs = {"input_ids": torch.tensor([[2, 9, 4, 3]]), "labels": torch.tensor([[2, 9, 7, 3]])}
    everywhere = torch.ones(1, 4, dtype=torch.bool)
    reported = TASKS["mlm"].reported(inputs, torch.tensor([False]), everywhere)
    assert reported.tolist() == [[False, False, True, False]]
