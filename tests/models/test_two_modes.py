"""A model that is causal and masked in one, with code of its own, as GPT-BERT comes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import transformers

import finetune_lm
from families import TEXTS, bert_tokenizer
from finetune_lm import DataTrainingArguments, ModelArguments, UserError, measures
from finetune_lm.data_preprocessing import expand_with_masks, mask_random_tokens
from finetune_lm.loss_classes import KLBaselineLoss, OutputsDefaultLoss
from finetune_lm.models.loading import load_model
from finetune_lm.models.tasks import TASKS
from helpers import write_lines

# One stack of weights, two classes. The masked one sees both sides and does not shift its labels;
# the causal one does. Positions are told by distance, so that padding is nothing.
CODE = """
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutput, MaskedLMOutput


class TwoModesConfig(transformers.PretrainedConfig):
    model_type = "two_modes"

    def __init__(self, vocab_size=100, hidden_size=16, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**kwargs)


class Masked(transformers.PreTrainedModel):
    config_class = TwoModesConfig
    base_model_prefix = "stack"

    def __init__(self, config):
        super().__init__(config)
        width = config.hidden_size
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.near = nn.Parameter(torch.zeros(129))
        self.classifier = nn.Linear(width, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def set_input_embeddings(self, value):
        self.embedding = value

    def get_output_embeddings(self):
        return self.classifier

    def seen(self, attention_mask):
        return attention_mask[:, None, :].bool().expand(-1, attention_mask.shape[1], -1)

    def logits(self, input_ids, attention_mask):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        states = self.embedding(input_ids)
        q, k, v = self.qkv(states).chunk(3, dim=-1)
        n = input_ids.shape[1]
        places = torch.arange(n, device=states.device)
        bias = self.near[(places[:, None] - places[None]).clamp(-64, 64) + 64]
        bias = bias[None].masked_fill(~self.seen(attention_mask), -1e9)
        states = states + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
        return self.classifier(torch.tanh(states))

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.logits(input_ids, attention_mask)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return MaskedLMOutput(loss=loss, logits=logits)


class Causal(Masked):
    def seen(self, attention_mask):
        return super().seen(attention_mask).tril()

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.logits(input_ids, attention_mask)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)
"""
AUTO_MAP = {
    "AutoConfig": "two_modes.TwoModesConfig",
    "AutoModelForCausalLM": "two_modes.Causal",
    "AutoModelForMaskedLM": "two_modes.Masked",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("two_modes")
    (directory / "two_modes.py").write_text(CODE)
    tokenizer = bert_tokenizer()
    config = {"model_type": "two_modes", "vocab_size": len(tokenizer), "auto_map": AUTO_MAP}
    (directory / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    auto = transformers.AutoModelForMaskedLM
    config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=True)
    model = auto.from_config(config, trust_remote_code=True)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0.0, 0.5)
    model.save_pretrained(directory)
    (directory / "two_modes.py").write_text(CODE)
    saved = json.loads((directory / "config.json").read_text())
    saved = {**saved, "auto_map": AUTO_MAP, "architectures": ["Causal", "Masked"]}
    (directory / "config.json").write_text(json.dumps(saved))
    return directory


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def arguments(place: Path, mode: str, **data) -> tuple[ModelArguments, DataTrainingArguments]:
    model = ModelArguments(str(place), model_task=mode, trust_remote_code=True)
    data = {"seed": 4, "test_output_file_prefix": "x", **data}
    return model, DataTrainingArguments(**data)


def test_the_mode_must_be_given_and_the_code_trusted(place):
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(str(place), trust_remote_code=True))
    assert "may be any of these: lm, mlm." in str(caught.value)
    assert "Give --model_task lm or mlm or mntp or seq2seq." in str(caught.value)
    with pytest.raises(UserError, match="give --trust_remote_code"):
        load_model(ModelArguments(str(place), model_task="mntp"))
    modes = {mode: load_model(arguments(place, mode, test_file="x")[0]) for mode in ("lm", "mntp")}
    assert [type(modes[mode].model).__name__ for mode in modes] == ["Causal", "Masked"]
    states = [modes[mode].model.state_dict() for mode in modes]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


@pytest.mark.parametrize("fast", [True, False])
def test_each_mode_by_brute_force(place, fast):
    """One text at a time, by the definition: from what precedes; from both sides, one before."""
    file = write_lines(Path("texts.txt.gz"), TEXTS[:4])
    tested = {
        mode: finetune_lm.run(*arguments(place, mode, test_file=file, fast=fast, **more))
        for mode, more in {
            "lm": {"output_dir": "lm"},
            "mntp": {
                "output_dir": "mntp",
                "data_preprocessing_fn": {"test": expand_with_masks},
                "per_device_test_batch_size": 2,
            },
        }.items()
    }
    for mode, result in tested.items():
        rows = result.test_results
        assert set(rows["task"]) == {mode}
        rows = rows[rows["is_target"]]
        loaded = load_model(arguments(place, mode, test_file="x")[0])
        expected = []
        for text in TEXTS[:4]:
            ids = torch.tensor(loaded.tokenizer(text)["input_ids"])
            for position in range(1, len(ids) - 1):
                given = ids.clone()
                if mode == "mntp":
                    given[position] = loaded.tokenizer.mask_token_id
                with torch.no_grad():
                    logits = loaded.model(given[None]).logits[0, position - 1].double()
                expected.append(-float(logits.log_softmax(-1)[ids[position]]) / math.log(2))
        assert len(rows) == len(expected)
        assert rows["surprisal"].tolist() == pytest.approx(expected, abs=1e-4)


def test_what_is_learned_in_one_mode_is_measured_in_the_other(place):
    teach, check = (
        write_lines(Path("teach.txt.gz"), TEXTS[:4]),
        write_lines(Path("check.txt.gz"), TEXTS[4:]),
    )
    masks = {"data_preprocessing_fn": dict.fromkeys(("train", "validation"), mask_random_tokens)}
    kl = {"dataset": check, "data_preprocessing_fn": mask_random_tokens, "scaleby": 0.1}
    shared = {
        "train_file": teach,
        "validation_file": check,
        "epochs": 6,
        "train_optimizer_kwargs": {"lr": 3e-2},
        "per_device_train_batch_size": 2,
        "loss_classes": {"train": [OutputsDefaultLoss, KLBaselineLoss]},
        "loss_classes_kwargs": {"train": {"KLBaselineLoss": kl}},
        "measures": {"validation": [measures.BaselineKL]},
    }
    runs = {}
    for fast in (True, False):
        args = arguments(place, "mntp", output_dir=f"mntp-{fast}", fast=fast, **shared, **masks)
        runs[fast] = finetune_lm.run(*args).metrics
    metrics = runs[True]
    name = "OutputsDefaultLoss"
    # The loss is that of the rows, though the model's own would be that of other positions.
    for _, batch in metrics.groupby(["dataset_type", "epoch", "batch_number"]):
        mean = batch["surprisal"].mean() * math.log(2)
        assert batch[name].iloc[0] == pytest.approx(mean, abs=1e-4)
    by_epoch = metrics[metrics["dataset_type"] == "train"].groupby("epoch")[name].mean()
    assert by_epoch.iloc[-1] < by_epoch.iloc[0] - 0.5
    assert runs[False]["loss"].tolist() == pytest.approx(metrics["loss"].tolist(), abs=1e-3)
    assert metrics["kl_from_baseline"].max() > 0.01
    for start, name in ((str(place), "before"), ("mntp-True/model", "after")):
        args = arguments(Path(start), "lm", test_file=teach, output_dir=name)
        runs[name] = finetune_lm.run(*args).test_results["surprisal"]
    assert (runs["before"] - runs["after"]).abs().max() > 0.1


def test_which_labels_count():
    labels = torch.tensor([[5, -100, 7, -100], [-100, 6, -100, -100]])
    task = TASKS["mntp"]
    assert task.counted(labels).tolist() == [
        [False, False, True, False],
        [False, True, False, False],
    ]
    rows, positions = task.predictions(labels)
    assert (rows.tolist(), positions.tolist()) == ([0, 1], [1, 0])
