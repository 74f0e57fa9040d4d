from __future__ import annotations

import gc
import weakref

import pytest
import torch
import transformers

from families import family
from finetune_lm import ModelArguments
from finetune_lm.models.loading import load_model
from finetune_lm.models.tasks import TASKS
from finetune_lm.runs.device import make_accelerator
from finetune_lm.scoring.fast.cross_entropy import CrossEntropy
from finetune_lm.scoring.fast.output_layer import OutputLayer
from finetune_lm.scoring.scorer import scorer_of
from helpers import assert_same_logits, dataset, save_family

FAMILIES = ["gpt2", "llama", "pythia", "bert", "roberta", "distilbert", "albert", "electra", "t5",
            "flan-t5", "bart"]  # fmt: skip


def batch_of(fam):
    [batch] = dataset(fam).batches(8)
    task = TASKS[fam.task]
    rows, positions = task.predictions(batch.inputs["labels"])
    return task.without_labels(fam.model, batch.inputs), rows, positions, batch


def assert_right_but_not_resumed(fam, layer=None):
    """The logits are the model's, but cannot be made of what its last layer is fed."""
    inputs, rows, positions, _ = batch_of(fam)
    layer = layer or OutputLayer(fam.model)
    with torch.no_grad():
        plain = fam.model(**inputs).logits[rows, positions]
        assert_same_logits(layer.logits(inputs, rows, positions), plain)
        assert layer.hidden(inputs, rows, positions) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_selected_logits_are_those_of_the_model(name):
    fam = family(name)
    inputs, rows, positions, batch = batch_of(fam)
    layer = OutputLayer(fam.model)
    with torch.no_grad():
        plain = fam.model(**batch.inputs).logits[rows, positions]
        assert_same_logits(layer.logits(inputs, rows, positions), plain)
        hidden = layer.hidden(inputs, rows, positions)
        assert hidden.shape[0] == len(rows)
        with layer.of_hidden(hidden) as logits:
            assert_same_logits(logits, plain)
    assert layer.selects
    assert layer.resumes


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_little_padding_stays_where_each_operation_must_be_worth_launching(name):
    """As on a GPU: by the number of places that a batch's padding takes."""
    fam = family(name)
    inputs, rows, positions, batch = batch_of(fam)
    layer = OutputLayer(fam.model)
    fed = []
    hook = fam.model.register_forward_pre_hook(
        lambda _, args, kwargs: fed.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    n, width = inputs["input_ids"].shape
    spared = n * width - int(inputs["attention_mask"].sum())
    assert spared > 0
    with torch.no_grad():
        plain = fam.model(**batch.inputs).logits[rows, positions]
        layer.check(inputs, rows, positions)
        for worth_packing, shape in ((spared, (1, n * width - spared)), (spared + 1, (n, width))):
            layer._call.worth_packing = worth_packing
            assert_same_logits(layer.logits(inputs, rows, positions), plain)
            assert fed[-1] == shape
    hook.remove()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layer_is_called_in_the_precision_that_it_has_within_the_model(name):
    """Which is bfloat16 while the weights are in float32, and only during the model's own call."""
    fam = family(name)
    make_accelerator(False, "bf16").prepare_model(fam.model.eval())
    inputs, rows, positions, _ = batch_of(fam)
    layer = OutputLayer(fam.model)
    with torch.no_grad():
        plain = fam.model(**inputs).logits[rows, positions]
        hidden = layer.hidden(inputs, rows, positions)
        assert layer.autocast_to == torch.bfloat16
        with layer.of_hidden(hidden) as logits:
            assert logits.dtype == torch.bfloat16
            # The largest rounding errors are a 256th of the largest logits.
            torch.testing.assert_close(logits.float(), plain, rtol=0, atol=plain.abs().max() / 100)
        torch.testing.assert_close(
            layer.logits(inputs, rows, positions), plain, rtol=0, atol=plain.abs().max() / 100
        )


def test_gradients_are_those_of_the_model():
    fam = family("gpt2")
    inputs, rows, positions, _ = batch_of(fam)

    def gradients(logits):
        return torch.autograd.grad((logits**2).mean(), list(fam.model.parameters()))

    found = gradients(OutputLayer(fam.model).logits(inputs, rows, positions))
    for a, b in zip(found, gradients(fam.model(**inputs).logits[rows, positions]), strict=True):
        torch.testing.assert_close(a, b)


def test_the_labels_are_seen_before_each_by_the_decoder():
    """The logits without labels are those that the model gives with them."""
    fam = family("t5")
    inputs, rows, positions, batch = batch_of(fam)
    assert "labels" not in inputs
    found, expected = (fam.model(**given).logits for given in (inputs, batch.inputs))
    assert_same_logits(found[rows, positions], expected[rows, positions])


def test_a_model_that_changes_its_logits_behind_the_layer_cannot_be_resumed():
    fam = family("bart")
    fam.model.final_logits_bias += torch.randn(fam.model.final_logits_bias.shape)
    assert_right_but_not_resumed(fam)


def test_hooks_on_the_layer_are_called_also_if_they_come_later():
    """Callbacks may hang them on a model while it is trained."""
    fam = family("gpt2")
    inputs, rows, positions, batch = batch_of(fam)
    targets = batch.inputs["labels"][rows, positions + 1]
    layer, gradients = OutputLayer(fam.model), []
    layer.check(inputs, rows, positions)
    head = fam.model.get_output_embeddings()
    head.register_full_backward_hook(lambda _, given, came: gradients.append(came[0].shape))
    head.register_forward_hook(lambda _, args, logits: logits / 2)
    loss = layer.judged(CrossEntropy(targets), inputs, rows, positions)[0]
    plain = fam.model(**batch.inputs).loss
    torch.testing.assert_close(loss, plain)
    loss.backward()
    assert gradients == [(len(rows), head.out_features)]
    with torch.no_grad():
        logits = fam.model(**inputs).logits[rows, positions]
        with layer.of_hidden(layer.hidden(inputs, rows, positions)) as found:
            assert_same_logits(found, logits)


def test_a_bound_on_logits_is_seen_also_where_they_are_small():
    """As in a model that has learned nothing yet, and will."""
    fam = family("gemma2")
    with torch.no_grad():
        fam.model.lm_head.weight.mul_(0.01)
    fam.model.config.final_logit_softcapping = 30.0
    layer = OutputLayer(fam.model)
    assert_right_and_resumed(fam, layer)
    # The configuration says one thing, and the model does another.
    fam.model.config.final_logit_softcapping = 40.0
    layer = OutputLayer(fam.model)
    fam.model.config.final_logit_softcapping = 30.0
    assert_right_but_not_resumed(fam, layer)


def assert_right_and_resumed(fam, layer):
    """The logits are the model's, and can be made of what its last layer is fed."""
    inputs, rows, positions, _ = batch_of(fam)
    with torch.no_grad():
        plain = fam.model(**inputs).logits[rows, positions]
        assert_same_logits(layer.logits(inputs, rows, positions), plain)
        with layer.of_hidden(layer.hidden(inputs, rows, positions)) as logits:
            assert_same_logits(logits, plain)


@pytest.mark.parametrize("name", ["Cohere", "Granite"])
def test_logits_that_a_model_scales_are_scaled(name):
    fam = family("llama")
    more = {"logit_scale": 0.25} if name == "Cohere" else {"logits_scaling": 4.0}
    config = getattr(transformers, f"{name}Config")(
        **{key: getattr(fam.model.config, key) for key in (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "max_position_embeddings")},
        bos_token_id=0, eos_token_id=0, pad_token_id=None, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    scaled = fam._replace(model=getattr(transformers, f"{name}ForCausalLM")(config).eval())
    assert_right_and_resumed(scaled, OutputLayer(scaled.model))


def test_a_model_whose_logits_mix_positions_is_called_as_usual():
    fam = family("gpt2")
    forward = fam.model.forward

    def mixed(*args, **kwargs):
        outputs = forward(*args, **kwargs)
        outputs.logits = outputs.logits - outputs.logits.mean(dim=-2, keepdim=True)
        return outputs

    fam.model.forward = mixed
    assert_right_but_not_resumed(fam)


def test_looking_leaves_the_model_in_its_mode():
    fam = family("gpt2")
    fam.model.train()
    inputs, rows, positions, _ = batch_of(fam)
    OutputLayer(fam.model).logits(inputs, rows, positions)
    assert fam.model.training
    assert all(module.training for module in fam.model.modules())


def test_a_layer_that_all_share_keeps_no_model_alive(tmp_path):
    path = save_family(family("gpt2"), tmp_path)
    loaded = load_model(ModelArguments(path, model_task="lm"))
    scorer = scorer_of(loaded.model, loaded.task)
    assert scorer_of(loaded.model, loaded.task) is scorer
    assert scorer.layer() is scorer.layer()
    model = weakref.ref(loaded.model)
    del loaded
    gc.collect()
    assert model() is None


def test_nothing_is_decided_while_a_model_finds_no_numbers():
    fam = family("gpt2")
    inputs, rows, positions, _ = batch_of(fam)
    layer = OutputLayer(fam.model)
    weight = fam.model.get_input_embeddings().weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
        assert layer.logits(inputs, rows, positions).isnan().all()
        assert not layer.selects
        weight.copy_(kept)
        layer.check(inputs, rows, positions)
    assert layer.selects
