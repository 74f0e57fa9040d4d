"""Adapters: what they leave alone, what is refused, what is saved, and what loads it."""

from __future__ import annotations

import copy
import json
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from families import TASKS, family
from finetune_lm import ModelArguments, UserError
from finetune_lm.cli import main
from finetune_lm.model_modifiers import add_adapter, add_new_tokens, model_callback
from finetune_lm.model_modifiers.unfreeze_word_tokens_callback import UnfreezeWordTokensCallback
from finetune_lm.models import saved_adapters
from finetune_lm.models.adapters import adapter_of
from finetune_lm.models.baseline import origin_of
from finetune_lm.models.loading import load_model
from finetune_lm.models.pretrained import load_tokenizer
from finetune_lm.models.untouched import keep_apart, part, untouched_of
from finetune_lm.training.best_state import weights_of
from helpers import predicted, save_family
from setups import DATA

ALL = {"target_modules": "all-linear"}
WORD = "flomped"


def with_biases(name: str) -> Any:
    """A family whose biases are not 0, as those of a model that has learned."""
    found = family(name)
    torch.manual_seed(5)
    with torch.no_grad():
        for each, weight in found.model.named_parameters():
            if each.endswith("bias"):
                weight.normal_(0.0, 0.3)
    return found._replace(tokenizer=copy.deepcopy(found.tokenizer))


def learn_anything(model: Any) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.1 * torch.randn(
                    weight.shape, generator=torch.Generator().manual_seed(1)
                )


@pytest.mark.parametrize("name", [*TASKS, "pythia", "albert"])
def test_the_model_stays_and_what_is_saved_is_what_was_learned(tmp_path, name):
    """Independent of our loading: PEFT puts what was saved onto an untouched model."""
    found, untouched = with_biases(name), with_biases(name).model
    model, before = found.model, predicted(found.model)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    kept = {id(weight): weight.clone() for weight in model.parameters()}
    add_adapter(model, found.tokenizer, r=2, **ALL)
    assert (predicted(model) - before).abs().max() <= 1e-6
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    learn_anything(model)
    learned = predicted(model)
    assert (learned - before).abs().max() > 0.1
    for weight in model.parameters():
        assert weight.requires_grad == (id(weight) not in kept)
        assert id(weight) not in kept or torch.equal(weight, kept[id(weight)])
    adapter = adapter_of(model)
    merged = adapter.merged()
    assert type(merged) is type(untouched)
    assert merged.state_dict().keys() == untouched.state_dict().keys()
    assert (predicted(merged) - learned).abs().max() <= 1e-4
    assert adapter_of(merged) is None
    assert (predicted(model) - learned).abs().max() == 0
    merged.save_pretrained(tmp_path / "merged")
    again = type(merged).from_pretrained(tmp_path / "merged").eval()
    assert (predicted(again) - learned).abs().max() <= 1e-4
    adapter.save_pretrained(tmp_path / "saved")
    around = peft.PeftModel.from_pretrained(untouched, tmp_path / "saved").eval()
    assert (predicted(around.base_model.model) - learned).abs().max() <= 1e-6


KINDS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True, **ALL},
    "pissa": {"init_lora_weights": "pissa", "r": 2, **ALL},
    "bias": {"bias": "all", **ALL},
    "words": {"trainable_token_indices": ["glass", "cold"], **ALL},
    "ia3": {"peft_type": "ia3", "target_modules": ["c_attn"], "feedforward_modules": []},
    "loha": {"peft_type": "LoHa", "r": 2, "target_modules": ["q_proj"]},
    "vera": {"peft_type": "vera", "r": 4, "target_modules": ["q_proj"]},
    "pattern": {"target_modules": [r".*\.0\..*c_attn"]},
}


def test_kin_of_lora_and_trainable_tokens():
    for name, settings in KINDS.items():
        found = with_biases("llama" if settings["target_modules"] == ["q_proj"] else "gpt2")
        before = predicted(found.model)
        add_adapter(found.model, found.tokenizer, **settings)
        assert (predicted(found.model) - before).abs().max() <= 1e-4, name
        learn_anything(found.model)
        learned = predicted(found.model)
        assert (learned - before).abs().max() > 1e-3, name
        merged = adapter_of(found.model).merged()
        assert (predicted(merged) - learned).abs().max() <= 1e-4, name
    # Input and output are one table, so what is learned of words shows in both.
    found = with_biases("gpt2")
    add_adapter(found.model, found.tokenizer, **KINDS["words"])
    [glass, cold] = found.tokenizer(" glass cold")["input_ids"]
    moved = before_after(found.model)
    assert moved[glass] > 1e-3
    assert moved[cold] > 1e-3
    # Beside them another word's row learns, which is in the table that they stand before.
    UnfreezeWordTokensCallback(found.model, found.tokenizer, words_to_unfreeze="the")
    assert found.model.get_input_embeddings().token_adapter.base_layer.weight.requires_grad


def before_after(model: Any) -> Any:
    """By how much the embedding of each token moves as the adapter learns."""
    before = adapter_of(model).merged().lm_head.weight
    learn_anything(model)
    merged = adapter_of(model).merged()
    assert torch.equal(merged.lm_head.weight, merged.transformer.wte.weight)
    return (merged.lm_head.weight - before).abs().amax(dim=1)


def refusal(name: str, **settings: Any) -> str:
    found = with_biases(name)
    with pytest.raises(UserError) as caught:
        add_adapter(found.model, found.tokenizer, **settings)
    return str(caught.value)


def test_adapters_that_cannot_be_merged_are_refused():
    for kind in ("beft", "lily"):
        said = refusal("t5", peft_type=kind, **ALL)
        assert f"merged into the model, but {kind.upper()} cannot" in said
    assert "but SHADOW cannot: ShadowPEFT" in refusal("llama", peft_type="shadow")


def test_adapters_that_move_what_they_should_not_are_refused():
    for name in ("bert", "roberta"):
        said = refusal(name, peft_type="trainable_tokens", token_indices=[50, 51])
        assert "leave every prediction as it is" in said
        assert "nats" in said
        assert "leave out the bias of the output layer" in said
        assert "UnfreezeWordTokensCallback" in said
    said = refusal("gpt2", init_lora_weights=False, **ALL)
    assert "init_lora_weights False" in said
    # One table that would become two: what is merged, saved and loaded would be another model.
    embeddings = {"gpt2": "wte", "bert": "word_embeddings", "t5": "shared", "bart": "shared"}
    for name, layer in embeddings.items():
        assert "embeddings one" in refusal(name, target_modules=[layer])
        if name != "gpt2":
            assert "embeddings one" in refusal(name, modules_to_save=[layer], **ALL)
    found = with_biases("llama")  # where they are two
    add_adapter(found.model, found.tokenizer, target_modules=["embed_tokens", "lm_head"])
    with pytest.raises(UserError, match="an adapter already"):
        add_adapter(found.model, found.tokenizer, **ALL)
    assert "which layers" in refusal("olmo")
    assert "not found" in refusal("gpt2", target_modules=["q_proj"])
    assert "falls into" in refusal("bert", trainable_token_indices=["unbelievable"], **ALL)


def test_mistakes_are_told_before_a_model_is_loaded(capsys, monkeypatch):
    def said(*argv: str, functions: tuple[str, ...] = ("model_modifiers.add_adapter",)) -> str:
        files = ("--test_file", str(DATA / "flomped_test.txt.gz"))
        named = ("--model_name_or_path", "no/such/model", "--model_modifier_fns", *functions)
        assert main([*named, *files, *argv]) == 2
        return capsys.readouterr().err

    place = "--model_modifier_fn_kwargs.add_adapter."
    cases: dict[tuple[str, ...], str] = {
        ("ranks", "4"): "add_adapter: ranks is no argument of PEFT's LoraConfig.",
        ("lora_alpa", "4"): "Did you mean lora_alpha?",
        ("r", "0"): "r must be at least 1 but got 0.",
        ("r", "2.5"): "r must be a whole number but got 2.5",
        ("lora_dropout", "1"): "lora_dropout must be from 0 to below 1 but got 1.",
        ("use_dora", "3"): "use_dora must be True or False but got 3",
        ("bias", "some"): "bias must be none, all or lora_only but got 'some'",
        ("init_lora_weights", "gausian"): "init_lora_weights must be True, False, gaussian",
        ("merge", "2"): "merge must be True or False but got 2.",
        ("peft_type", "lorra"): "Did you mean LORA?",
        ("peft_type", "prefix_tuning"): "that lies on layers of the model",
        ("peft_type", "adalora"): "must be told of each step",
        ("task_type", "CAUSAL_LM"): "task_type is no argument of PEFT's LoraConfig",
    }
    for (name, *values), message in cases.items():
        assert message in said(f"{place}{name}", *values), name
    both = said(f"{place}r", "0", f"{place}bias", "some")
    assert "r must be" in both
    assert "bias must be" in both
    order = said(
        *("--model_modifier_fn_kwargs.add_new_tokens.added_tokens", WORD),
        functions=("model_modifiers.add_adapter", "model_modifiers.add_new_tokens"),
    )
    assert "model_modifier_fns must have add_new_tokens before add_adapter." in order
    monkeypatch.setattr(saved_adapters, "find_spec", lambda name: None)
    assert "pip install 'finetune-lm[peft]'" in said()


def test_words_learn_beside_an_adapter_and_all_else_is_frozen():
    """Exactly, also where PEFT's own way moves an untrained model."""
    for name in ("bert", "gpt2", "llama"):
        found = with_biases(name)
        add_new_tokens(found.model, found.tokenizer, [WORD])
        before = predicted(found.model)
        add_adapter(found.model, found.tokenizer, r=2, **ALL)
        kept = {key: weight.clone() for key, weight in found.model.named_parameters()}
        callback = UnfreezeWordTokensCallback(found.model, found.tokenizer, WORD)
        assert (predicted(found.model) - before).abs().max() <= 1e-6
        optimizer = torch.optim.AdamW(found.model.parameters(), lr=0.1, weight_decay=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            ids = torch.tensor([found.tokenizer(f"The {WORD} broke.")["input_ids"]])
            found.model(input_ids=ids, labels=ids).loss.backward()
            callback(0, 0)
            optimizer.step()
            callback.after_step(0, 0)
        embeddings = found.model.get_input_embeddings().weight
        for key, weight in found.model.named_parameters():
            if weight is embeddings:
                rows = (weight != kept[key]).any(dim=1).nonzero().ravel()
                assert len(rows) == 1, name
            elif "lora_B" in key:
                assert not torch.equal(weight, kept[key]), key
            elif "lora_" not in key:
                assert torch.equal(weight, kept[key]), key


def test_what_may_move_the_weights_takes_no_part_in_sharing(tmp_path):
    def sharing(*functions: Any, **more: Any) -> Any:
        kwargs = {"add_adapter": ALL}
        args = ModelArguments(
            "tiny-lm", model_modifier_fns=[*functions], model_modifier_fn_kwargs=kwargs, **more
        )
        return load_model(args).model

    shared = sharing(add_adapter)
    baseline = origin_of(shared).baseline().model
    assert baseline.lm_head.weight is shared.lm_head.weight
    # What learns is the model's alone from then on.
    shared.lm_head.weight.requires_grad_(True)
    keep_apart(shared)
    assert baseline.lm_head.weight is not shared.lm_head.weight
    assert baseline.lm_head.weight is baseline.transformer.wte.weight
    assert torch.equal(baseline.lm_head.weight, shared.lm_head.weight)
    assert "transformer.wte.weight" in weights_of(shared)
    assert "transformer.wpe.weight" not in weights_of(shared)
    # One that is to be split among ranks has no weights in common with its untouched self, but it
    # is known which nothing moves.
    parted = sharing(add_adapter)
    part(parted)
    assert untouched_of(parted) is None
    parted.lm_head.weight.requires_grad_(True)
    keep_apart(parted)
    assert weights_of(parted).keys() == weights_of(shared).keys()
    mine = {"end_epoch": [Mine]}
    for model in (sharing(spoil, add_adapter), sharing(add_adapter, model_callbacks=mine)):
        assert untouched_of(model) is None
        assert "transformer.wpe.weight" in weights_of(model)
        baseline = origin_of(model).baseline().model
        assert torch.equal(baseline.transformer.wpe.weight, shared.transformer.wpe.weight)
    # Then all that is the model's own is saved with the adapter.
    spoiled = sharing(spoil, add_adapter)
    adapter_of(spoiled).save_pretrained(tmp_path / "model")
    load_tokenizer(ModelArguments("tiny-lm")).save_pretrained(tmp_path / "tokenizer")
    again = load_model(ModelArguments(str(tmp_path / "model"))).model
    assert (predicted(again) - predicted(spoiled)).abs().max() < 1e-5


def spoil(model: Any, tokenizer: Any) -> None:
    model.transformer.wpe.weight.data.add_(0.5)


class Mine(model_callback.ModelCallback):
    pass


def test_adapters_that_do_not_fit_their_model_are_told(tmp_path):
    found = family("gpt2")
    save_family(found, tmp_path / "base")
    add_adapter(found.model, found.tokenizer, r=2, **ALL)
    place = tmp_path / "one" / "model"
    adapter_of(found.model).save_pretrained(place)
    args = ModelArguments(str(place))

    def told(**changed: Any) -> str:
        config = json.loads((place / "adapter_config.json").read_text())
        (place / "adapter_config.json").write_text(json.dumps({**config, **changed}))
        with pytest.raises(UserError) as caught:
            load_model(args)
        return str(caught.value)

    assert "must say under base_model_name_or_path" in told(base_model_name_or_path=None)
    assert "there is no such directory" in told(base_model_name_or_path=str(tmp_path / "gone"))
    # A built-in model is found wherever this program is installed, and its own tokenizer is taken.
    said = told(base_model_name_or_path="/elsewhere/builtin/tiny-lm")
    assert "does not go with 'tiny-lm'" in said
    base = str(tmp_path / "base")
    weights = load_file(place / "adapter_model.safetensors")
    lacking = dict(weights)
    del lacking[next(key for key in weights if "lora_B" in key)]
    save_file(lacking, place / "adapter_model.safetensors")
    assert "do not have the same weights" in told(base_model_name_or_path=base)
    save_file(weights, place / "adapter_model.safetensors")
    told_nothing = json.loads((place / "adapter_config.json").read_text())
    assert told_nothing["base_model_name_or_path"] == base
    loaded = load_model(args)
    assert loaded.name == str(place)
    assert loaded.task.name == "lm"
    assert len(loaded.tokenizer) == len(found.tokenizer)
