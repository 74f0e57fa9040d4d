"""The door to a model: the fast way comes to what the plain one does, or is not taken."""

from __future__ import annotations

import copy

import pytest
import torch

from families import MORE_TASKS, TASKS, family
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.scoring.fast import ragged_kinds
from finetune_lm.scoring.forward import Forward, Needs
from finetune_lm.scoring.joined_outputs import joined_outputs
from finetune_lm.scoring.scorer import Scorer
from helpers import (
    ACTIVE,
    assert_same_gradient,
    assert_same_logits,
    assert_same_numbers,
    dataset,
    examples,
    row_maker,
    rows_of,
)

CPU = torch.device("cpu")
TEXTS = [*ACTIVE, "The man has always broken the box.", "The man drank.", *ACTIVE]
NAMES = [*TASKS, *MORE_TASKS]


def data_of(fam, **kwargs):
    return dataset(fam, examples(TEXTS), **kwargs)


def forward_of(fam, data, size=3, *, fast=True, needs_logits=False):
    return Forward(Scorer(fam.model, data.task, fast=fast), data, size, needs=Needs(needs_logits))


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
    assert "its own loss differs" in capsys.readouterr().err


@pytest.mark.parametrize(("off_by", "is_fast"), [(9e-5, True), (-9e-5, True), (2e-3, False)])
def test_a_loss_may_be_as_inexact_as_torch_is_and_no_more(off_by, is_fast):
    """Its float32 cross-entropy is up to 4e-5 nats off where one of many entries is likely."""
    fam = family("gpt2")
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    usual = fam.model.loss_function
    fam.model.loss_function = lambda *args, **kwargs: usual(*args, **kwargs) + off_by
    forward = forward_of(fam, data)
    forward(batch, CPU)
    assert forward._is_fast == is_fast


def test_what_goes_in_together_does_not_depend_on_where_an_evaluation_begins():
    fam = family("gpt2")
    data = data_of(fam)
    make = row_maker(fam, data)

    def rows(batches):
        forward = forward_of(fam, data, size=2)
        with torch.no_grad():
            return [
                rows_of(make, batch, forward(batch, CPU, alone=False).score) for batch in batches
            ]

    batches = list(data.batches(2))
    for whole, resumed in zip(rows(batches)[2:], rows(batches[2:]), strict=True):
        assert whole.equals(resumed)


@pytest.mark.parametrize("ignore_padding", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_batches_that_go_in_together_come_out_as_alone(name, ignore_padding):
    """Whatever their lengths; padding that counts in a batch's loss is that batch's own."""
    fam = family(name)
    data = data_of(fam, ignore_padding=ignore_padding)
    together, alone = (forward_of(fam, data, size=2, fast=fast) for fast in (True, False))
    with torch.no_grad():
        for batch in data.batches(2):
            found, expected = (f(batch, CPU, alone=False) for f in (together, alone))
            torch.testing.assert_close(found.for_losses.loss, expected.for_losses.loss)
            rows, positions = data.task.predictions(batch.inputs["labels"])
            targets = batch.inputs["labels"][rows, positions + data.task.label_offset]
            asked = rows, positions, targets
            torch.testing.assert_close(
                torch.as_tensor(found.score(*asked)().surprisal),
                torch.as_tensor(expected.score(*asked)().surprisal),
                rtol=0,
                atol=1e-4,
            )
    assert (together._together is not None) == ignore_padding


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_no_more_goes_in_together_than_a_number_of_tokens(name, monkeypatch):
    """However large batches are: memory is for that many, padding included."""
    from finetune_lm.scoring.fast import together

    fam = family(name)
    data = data_of(fam)
    forwards = [forward_of(fam, data, size=6, fast=fast) for fast in (True, False)]
    batches, usual, sizes = list(data.batches(6)), fam.model.forward, []

    def watched(**inputs):
        sizes.append(inputs["input_ids"].numel())
        return usual(**inputs)

    with torch.no_grad():
        forwards[0](batches[0], CPU)  # is compared with the plain way
        monkeypatch.setattr(together, "_TOKENS_TOGETHER", 2 * data.longest)
        monkeypatch.setattr(fam.model, "forward", watched)
        found = [float(forwards[0](b, CPU, alone=False).for_losses.loss) for b in batches]
        assert len(sizes) > len(batches)
        assert max(sizes) <= 2 * data.longest
        expected = [float(forwards[1](b, CPU, alone=False).for_losses.loss) for b in batches]
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_is_about_as_long_goes_in_together_where_padding_stays(monkeypatch):
    """Here each batch has the longest sentence or the shortest, so that all would be padded."""
    monkeypatch.setattr(ragged_kinds, "PAIR_TYPES", frozenset())
    fam = family("t5")
    data = dataset(fam, examples(["Long " * 9, "Short"] * 4))
    lengths = []
    forward = forward_of(fam, data, size=2)
    usual = fam.model.forward

    def watched(**inputs):
        lengths.append(inputs["input_ids"].shape[1])
        return usual(**inputs)

    fam.model.forward = watched
    with torch.no_grad():
        batches = list(data.batches(2))
        forward(batches[0], CPU)  # is compared with the plain way
        lengths.clear()
        for batch in batches:
            forward(batch, CPU, alone=False)
    long, short = data.lengths.max() // 2, data.lengths.min() // 2
    assert lengths == [short, short, long, long]


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
        rows = rows_of(make, batch, outputs.score)
        return rows.to_pandas(), float(outputs.for_losses.loss)

    expected, loss = table(forward_of(fam, data, size=len(TEXTS), fast=False))
    limited = TooLarge(fam.model, most=batch.inputs["input_ids"].shape[1])
    found, its_loss = table(forward_of(fam, data, size=len(TEXTS), fast=fast))
    assert_same_numbers(expected, found)
    assert len(found) >= len(TEXTS)
    assert its_loss == pytest.approx(loss, rel=1e-5)
    assert min(limited.calls) < batch.inputs["input_ids"].numel() / 2
    assert "go through the model in halves" in capsys.readouterr().err


def test_comparing_takes_a_part_of_a_batch_if_memory_does_not_do_for_all(monkeypatch, capsys):
    """The plain way's logits may be too many where the fast way's are not."""
    from finetune_lm import messages

    monkeypatch.setattr(messages, "_said", set())
    fam = family("gpt2")
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    expected = fam.model(**batch.inputs).loss.item()
    TooLarge(fam.model, most=int(batch.inputs["attention_mask"].sum()))
    forward = forward_of(fam, data)
    loss = forward(batch, CPU).for_losses.loss
    assert forward._is_fast
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert capsys.readouterr().err == ""


def test_a_model_too_large_for_comparing_is_called_as_usual(monkeypatch, capsys):
    from finetune_lm import messages

    monkeypatch.setattr(messages, "_said", set())
    fam = family("gpt2")
    data = data_of(fam)
    TooLarge(fam.model, most=2)
    forward = forward_of(fam, data)
    with pytest.raises(torch.OutOfMemoryError):
        forward(next(data.batches(3)), CPU)
    assert not forward._is_fast
    said = capsys.readouterr().err
    assert "there is too little memory to compare" in said
    assert "halves" not in said


def test_halves_have_all_that_the_model_returns():
    fam = family("gpt2")
    fam.model.config.output_hidden_states = True
    data = data_of(fam)
    [batch] = data.batches(len(TEXTS))
    with torch.no_grad():
        whole = forward_of(fam, data, needs_logits=True)(batch, CPU).for_losses
        TooLarge(fam.model, most=3 * batch.inputs["input_ids"].shape[1])
        halves = forward_of(fam, data, needs_logits=True)(batch, CPU).for_losses
    assert len(halves.hidden_states) == len(whole.hidden_states) > 1
    for one, other in zip(halves.hidden_states, whole.hidden_states, strict=True):
        torch.testing.assert_close(one, other)
    assert_same_logits(halves.logits, whole.logits)


def test_single_values_beside_the_loss_are_left_out_of_halves():
    """Such as a mixture of experts' own loss, which is no mean over examples."""
    from transformers.modeling_outputs import MoeCausalLMOutputWithPast

    halves = [
        MoeCausalLMOutputWithPast(
            loss=torch.tensor(float(i)), aux_loss=torch.tensor(1.0), logits=torch.full((2, 3), i)
        )
        for i in range(2)
    ]
    joined = joined_outputs(halves, [3, 1])
    assert joined.loss.item() == 0.25
    assert joined.logits.tolist() == [[0] * 3] * 2 + [[1] * 3] * 2
    assert joined.aux_loss is None


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


def test_a_batch_that_shows_more_than_those_before_is_looked_at_again(monkeypatch):
    """A mean over sentences' means is that over labels as long as there is one sentence."""
    fam = family("gpt2")
    usual = fam.model.forward

    def of_sentences(*args, labels=None, **kwargs):
        outputs = usual(*args, labels=labels, **kwargs)
        if labels is not None:
            targets = labels[:, 1:]
            counts = targets != -100
            costs = -outputs.logits[:, :-1].log_softmax(-1)
            costs = costs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
            outputs.loss = ((costs * counts).sum(1) / counts.sum(1)).mean()
        return outputs

    monkeypatch.setattr(fam.model, "forward", of_sentences)
    data, cpu = dataset(fam), torch.device("cpu")
    forward = Forward(Scorer(fam.model.eval(), data.task, fast=True), data, 1, needs=Needs(False))
    with torch.no_grad():
        for batch in data.batches(1):
            assert not hasattr(forward(batch, cpu).for_losses, "logits")
        [batch] = data.batches(3)
        own = fam.model(**batch.inputs).loss
        torch.testing.assert_close(forward(batch, cpu).for_losses.loss, own)
