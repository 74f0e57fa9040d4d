"""The door to a model: the fast way comes to what the plain one does, or is not taken."""

from __future__ import annotations

import copy

import pytest
import torch

from families import MORE_TASKS, TASKS, family
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.evaluation.forward import Forward
from helpers import ACTIVE, assert_same_gradient, assert_same_numbers, dataset, examples, row_maker

CPU = torch.device("cpu")
TEXTS = [*ACTIVE, "The man has always broken the box.", "The man drank.", *ACTIVE]
NAMES = [*TASKS, *MORE_TASKS]


def data_of(fam, **kwargs):
    return dataset(fam, examples(TEXTS), **kwargs)


def forward_of(fam, data, size=3, **kwargs):
    return Forward(fam.model, data, size, **{"needs_logits": False, "fast": True, **kwargs})


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_of_the_plain_way(name):
    fam = family(name)
    data = data_of(fam)
    plain = copy.deepcopy(fam.model)
    [batch] = data.batches(len(TEXTS))
    forward = forward_of(fam, data)
    fast = forward(batch, CPU).for_losses.loss
    assert forward._is_fast
    expected = plain(**batch.inputs).loss
    torch.testing.assert_close(fast, expected)
    fast.backward()
    expected.backward()
    for (parameter, found), other in zip(
        fam.model.named_parameters(), plain.parameters(), strict=True
    ):
        if other.grad is None:
            assert found.grad is None or not found.grad.any(), parameter
        else:
            assert_same_gradient(found.grad, other.grad)


def test_a_loss_that_needs_logits_gets_all_that_the_model_returns():
    fam = family("gpt2")
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    outputs = forward_of(fam, data, needs_logits=True)(batch, CPU).for_losses
    assert outputs.logits.shape[:2] == batch.inputs["input_ids"].shape


def test_a_model_whose_loss_is_another_is_called_as_usual(capsys):
    fam = family("gpt2")
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    usual = fam.model.loss_function
    fam.model.loss_function = lambda *args, **kwargs: usual(*args, **kwargs) + 0.5
    forward = forward_of(fam, data)
    outputs = forward(batch, CPU).for_losses
    assert not forward._is_fast
    torch.testing.assert_close(outputs.loss, fam.model(**batch.inputs).loss)
    assert "its own loss is another" in capsys.readouterr().err


def test_what_goes_in_together_does_not_depend_on_where_an_evaluation_begins():
    fam = family("gpt2")
    data = data_of(fam)
    make = row_maker(fam, data)

    def rows(batches):
        forward = forward_of(fam, data, size=2)
        with torch.no_grad():
            return [
                make.of_batch(
                    batch, forward(batch, CPU, alone=False).score, epoch=None, batch_number=0
                )
                for batch in batches
            ]

    batches = list(data.batches(2))
    for whole, resumed in zip(rows(batches)[2:], rows(batches[2:]), strict=True):
        assert whole.equals(resumed)


def test_a_model_that_has_changed_is_asked_again():
    fam = family("gpt2")
    data = data_of(fam)
    forward = forward_of(fam, data, size=2)
    batches = list(data.batches(2))
    with torch.no_grad():
        before = forward(batches[0], CPU, alone=False).for_losses.loss
        fam.model.transformer.wte.weight.mul_(2)
        forward.forget()
        after = forward(batches[0], CPU, alone=False).for_losses.loss
        expected = fam.model(**batches[0].inputs).loss
    assert abs(before - after) > 1e-2
    torch.testing.assert_close(after, expected)


class TooLarge:
    """A model that runs out of memory above a number of tokens, padding included."""

    def __init__(self, model, most):
        self.calls = []
        forward = model.forward

        def limited(*args, **kwargs):
            ids = kwargs["input_ids"]
            self.calls.append(ids.numel())
            if ids.numel() > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
            return forward(*args, **kwargs)

        model.forward = limited


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_batch_that_is_too_large_goes_through_in_halves(name, fast, capsys, monkeypatch):
    from finetune_lm import messages

    monkeypatch.setattr(messages, "_said", set())
    fam = family(name)
    torch.manual_seed(0)
    masks = {"function": mask_random_tokens, "kwargs": {"mask_prop": 0.3}} if name == "bert" else {}
    data = data_of(fam, **masks)
    make = row_maker(fam, data)
    [batch] = data.batches(len(TEXTS))

    def table(forward):
        with torch.no_grad():
            outputs = forward(batch, CPU, alone=False)
        rows = make.of_batch(batch, outputs.score, epoch=None, batch_number=0)
        return rows.to_pandas(), float(outputs.for_losses.loss)

    expected, loss = table(forward_of(fam, data, size=len(TEXTS), fast=False))
    limited = TooLarge(fam.model, most=3 * batch.inputs["input_ids"].shape[1])
    found, its_loss = table(forward_of(fam, data, size=len(TEXTS), fast=fast))
    assert_same_numbers(expected, found)
    assert len(found) >= len(TEXTS)
    assert its_loss == pytest.approx(loss, rel=1e-5)
    assert min(limited.calls) < batch.inputs["input_ids"].numel() / 2
    assert "go through the model in halves" in capsys.readouterr().err


def test_a_step_that_is_too_large_is_not_halved():
    fam = family("gpt2")
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    TooLarge(fam.model, most=10)
    with pytest.raises(torch.OutOfMemoryError):
        forward_of(fam, data, fast=False)(batch, CPU)


def test_one_example_that_is_too_large_is_told():
    fam = family("gpt2")
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    TooLarge(fam.model, most=3)
    with torch.no_grad(), pytest.raises(torch.OutOfMemoryError):
        forward_of(fam, data, fast=False)(batch, CPU)
