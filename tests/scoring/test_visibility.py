"""Models that see what they must not see: later tokens, and padding. Asked, not looked up."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import finetune_lm
from families import (
    _SMALL,
    LEAKY_TASKS,
    MORE_TASKS,
    PAIR_TASKS,
    TASKS,
    bert_tokenizer,
    family,
)
from finetune_lm import DataTrainingArguments, ModelArguments, UserError
from finetune_lm.models import tasks
from finetune_lm.scoring import visibility
from finetune_lm.scoring.visibility import check_order, cost_of_padding
from helpers import write_lines

V = 120
# Built from configs, each the way that --model_task lm would take.
SEE_ALL = {
    "bert": lambda: transformers.BertConfig(vocab_size=V, **_SMALL),
    "roberta": lambda: transformers.RobertaConfig(vocab_size=V, **_SMALL),
    "electra": lambda: transformers.ElectraConfig(vocab_size=V, embedding_size=8, **_SMALL),
    "big_bird": lambda: transformers.BigBirdConfig(
        vocab_size=V, block_size=4, num_random_blocks=1, **_SMALL
    ),
    "xlnet": lambda: transformers.XLNetConfig(
        vocab_size=V, d_model=16, n_layer=2, n_head=2, d_inner=32
    ),
    "xlm": lambda: transformers.XLMConfig(vocab_size=V, emb_dim=16, n_layers=2, n_heads=2),
}
SEE_WHAT_PRECEDES = {
    **{
        f"{name}, is_decoder": lambda name=name: SEE_ALL[name]()
        for name in ("bert", "roberta", "electra", "big_bird")
    },
    "xlm, causal": lambda: transformers.XLMConfig(
        vocab_size=V, emb_dim=16, n_layers=2, n_heads=2, causal=True
    ),
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=V, hidden_size=16, state_size=4, num_hidden_layers=2
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=V, hidden_size=16, n_layer=2, n_head=2),
    "bart": lambda: transformers.BartConfig(
        vocab_size=V, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
    ),
}  # fmt: skip
LM = tasks.TASKS["lm"]


def lm_of(config, is_decoder=False):
    if is_decoder:
        config.is_decoder = True
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", SEE_ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_the_answer_is_refused_whatever_its_name(name, dtype):
    model = lm_of(SEE_ALL[name]())
    if dtype != torch.float32:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.5)
        model.to(dtype)
    with pytest.raises(UserError, match="'my model' predicts changes with later tokens"):
        check_order("my model", LM, model, is_exact=dtype == torch.float32)


@pytest.mark.parametrize("name", SEE_WHAT_PRECEDES)
def test_a_decoder_is_not(name, capsys):
    check_order("my model", LM, lm_of(SEE_WHAT_PRECEDES[name](), is_decoder="is_dec" in name))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [*TASKS, *MORE_TASKS, *LEAKY_TASKS, *PAIR_TASKS])
def test_all_families_are_taken_for_what_they_are(name, capsys):
    fam = family(name)
    check_order(name, tasks.TASKS[fam.task], fam.model)
    assert capsys.readouterr().err == ""


def test_a_decoder_of_labels_that_sees_later_ones_is_refused():
    fam = family("bart")
    usual = fam.model.forward

    def seeing(**inputs):
        outputs = usual(**inputs)
        outputs.logits = outputs.logits + outputs.logits.mean(dim=1, keepdim=True)
        return outputs

    fam.model.forward = seeing
    with pytest.raises(UserError, match="changes with later tokens"):
        check_order("bart", tasks.TASKS["seq2seq"], fam.model)


def test_what_cannot_be_asked_is_told_and_goes_on(capsys):
    fam = family("gpt2")

    def fails(**inputs):
        raise ValueError("only in multiples of 64")

    fam.model.forward = fails
    check_order("gpt2", LM, fam.model)
    said = capsys.readouterr().err
    assert "it could not be tested whether gpt2 sees later tokens: only in multiples of 64" in said


def test_asking_changes_nothing():
    """Neither the model, also one that changes with short texts, nor what is drawn afterwards."""
    config = SEE_ALL["big_bird"]()
    torch.manual_seed(0)
    model = transformers.AutoModelForMaskedLM.from_config(config).train()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    expected = torch.rand(3).tolist()
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    draws = random.getstate(), np.random.get_state()[1].tolist()
    cost_of_padding(tasks.TASKS["mlm"], model, [5, 6, 7], 0, 60)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == draws
    assert torch.rand(3).tolist() == expected
    assert model.training
    assert model.bert.attention_type == "block_sparse"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", [*TASKS, *MORE_TASKS, *LEAKY_TASKS, *PAIR_TASKS])
def test_padding_costs_something_in_some_families_only(name, monkeypatch):
    fam = family(name)
    ids, sizes = fam.tokenizer("The man drank.")["input_ids"], []
    layer = fam.model.get_output_embeddings()
    if name not in LEAKY_TASKS:
        layer.register_forward_hook(lambda _, args, logits: sizes.append(logits.shape[1]))
    asked = tasks.TASKS[fam.task], fam.model, ids, 0, len(ids) + 9
    cost = cost_of_padding(*asked)
    assert cost > 0.01 if name in LEAKY_TASKS else cost == 0.0
    # Where all logits of the padded text would be too many, only those of the text are made.
    monkeypatch.setattr(visibility, "_MOST_LOGITS", 0)
    whole, its_sizes = len(sizes), sizes.copy()
    assert cost_of_padding(*asked) == pytest.approx(cost, abs=1e-5)
    if name not in LEAKY_TASKS:
        assert its_sizes == [len(ids), len(ids) + 9]
        assert sizes[whole:] == [len(ids)] * 2


def test_a_run_with_an_encoder_as_a_causal_model_ends_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lm_of(transformers.BertConfig(vocab_size=V, **_SMALL)).save_pretrained("encoder")
    bert_tokenizer().save_pretrained("encoder")
    test = write_lines(Path("test.txt.gz"), ["The man drank."])

    def run(**config):
        return finetune_lm.run(
            ModelArguments("encoder", model_task="lm", config_kwargs=config),
            DataTrainingArguments(test_file=[test], output_dir="out"),
        )

    with pytest.raises(UserError) as caught:
        run()
    assert str(caught.value) == (
        "model_task lm needs a model that does not see the tokens it is to predict, but what "
        "'encoder' predicts changes with later tokens. Give --model_task mlm, or, if it was "
        "trained as a decoder, --config_kwargs.is_decoder True."
    )
    assert not Path("out").exists()
    assert run(is_decoder=True).test_results["surprisal"].notna().all()
