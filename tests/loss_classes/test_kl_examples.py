"""Which examples a KL term takes, and what is wrong with the data that it is given."""

from __future__ import annotations

import inspect

import datasets
import pytest
import torch

from finetune_lm import UserError
from finetune_lm.data_preprocessing import mask_random_tokens
from finetune_lm.loss_classes import KLBaselineLoss
from finetune_lm.loss_classes._kl_data import BaselineData
from finetune_lm.loss_classes._kl_settings import KLSettings
from helpers import write_lines
from kl_terms import SENTENCES, brute_force, lm_examples, load, make, value

pytest_plugins = ["kl_terms"]


def drawn(monkeypatch):
    """The examples of each call."""
    calls = []
    batches = BaselineData.batches

    def record(self, example, batch_size):
        calls.append(example.tolist())
        return batches(self, example, batch_size)

    monkeypatch.setattr(BaselineData, "batches", record)
    return calls


def test_examples_are_drawn_without_replacement_from_the_runs_seed(
    directories, sentences, monkeypatch
):
    loaded = load(directories["gpt2"])
    calls = drawn(monkeypatch)
    first, again = (make(loaded, sentences, n_examples_per_batch=4) for _ in range(2))
    before = torch.get_rng_state()
    for loss in (first, first, first, again, again, again):
        value(loss)
    assert torch.equal(torch.get_rng_state(), before)  # the run's own draws are not disturbed
    assert all(len(set(call)) == len(call) == 4 for call in calls)
    assert calls[:3] == calls[3:]
    assert len({tuple(sorted(call)) for call in calls}) > 1
    torch.manual_seed(4)
    value(KLBaselineLoss(loaded.model, loaded.tokenizer, sentences, n_examples_per_batch=4))
    assert calls[-1] != calls[0]


def test_draws_go_on_from_a_checkpoint(directories, sentences, monkeypatch):
    loaded = load(directories["gpt2"])
    calls = drawn(monkeypatch)
    loss = make(loaded, sentences, n_examples_per_batch=3)
    value(loss)
    state = loss.state_dict()
    value(loss)
    resumed = make(loaded, sentences, n_examples_per_batch=3)
    resumed.load_state_dict(state)
    value(resumed)
    assert calls[2] == calls[1] != calls[0]


def test_how_many_are_drawn_of_each(directories, tmp_path, monkeypatch):
    loaded = load(directories["gpt2"])
    paths = [write_lines(tmp_path / f"{name}.txt.gz", SENTENCES) for name in "abc"]
    calls = drawn(monkeypatch)
    value(make(loaded, paths, n_examples_per_batch=[2, None, 100]))
    assert list(map(len, calls)) == [2, 6, 6]
    value(make(loaded, paths, max_samples_per_dataset=[3, None, 100]))
    assert list(map(len, calls[3:])) == [3, 6, 6]
    assert set(calls[3]) == {0, 1, 2}


def test_longer_examples_are_left_out(directories, sentences, monkeypatch):
    loaded = load(directories["gpt2"])
    lengths = [len(loaded.tokenizer(text)["input_ids"]) + 1 for text in SENTENCES]
    limit = sorted(lengths)[2]
    calls = drawn(monkeypatch)
    loss = make(loaded, sentences, max_sample_length=limit, scaleby=1.0)
    short = [text for text, n in zip(SENTENCES, lengths, strict=True) if n <= limit]
    expected = brute_force(directories["gpt2"], loaded, lm_examples(loaded.tokenizer, short))
    assert value(loss) == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert len(calls[0]) == len(short) == 3
    with pytest.raises(UserError, match="max_sample_length must leave at least one example"):
        make(loaded, sentences, max_sample_length=1)


def test_data_sets_of_the_datasets_library_with_their_splits(directories, tmp_path, monkeypatch):
    loaded = load(directories["gpt2"])
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"text": SENTENCES[:2]}),
        held_out=datasets.Dataset.from_dict({"text": SENTENCES[2:]}),
    )
    splits.save_to_disk(tmp_path / "both")
    splits["train"].save_to_disk(tmp_path / "one")
    calls = drawn(monkeypatch)
    paths = [str(tmp_path / "both"), str(tmp_path / "both"), str(tmp_path / "one")]
    value(make(loaded, paths, split_name=["train", "held_out", "train"]))
    assert list(map(len, calls)) == [2, 4, 2]
    with pytest.raises(UserError, match=r"split 'dev'.*cannot be loaded"):
        make(loaded, paths[0], split_name="dev")
    datasets.Dataset.from_dict({"sentence": SENTENCES}).save_to_disk(tmp_path / "other")
    with pytest.raises(UserError, match="must have a column 'text' but has"):
        make(loaded, str(tmp_path / "other"))


MASKING = {"data_preprocessing_fn": mask_random_tokens}
BAD = [
    ({"dataset": "nowhere.txt.gz"}, "there is no file nowhere.txt.gz."),
    ({"dataset": []}, r"dataset must be one or more files or names but got \[\]."),
    ({"scaleby": [1.0, 2.0]}, r"scaleby must have one value, or one for each dataset \(1\)"),
    ({"n_examples_per_batch": 0}, "an integer of at least 1, or None for all but got 0."),
    ({"n_examples_per_batch": 2.5}, "n_examples_per_batch must be an integer"),
    ({"batch_size": -1}, "batch_size must be an integer of at least 1 but got -1."),
    ({"scaleby": -1}, "scaleby must be a number of at least 0 but got -1."),
    ({"scaleby": "much"}, "scaleby must be a number of at least 0 but got 'much'."),
    ({"scaleby": float("nan")}, "scaleby must be a number of at least 0 but got nan."),
    ({"reduction": "median"}, "must be none, mean, batchmean or sum but got 'median'."),
    ({"return_all": "yes"}, "return_all must be True or False but got 'yes'."),
    ({"data_preprocessing_fn_strategy": "twice"}, "must be once or per_batch but got 'twice'."),
    ({"data_preprocessing_fn_kwargs": {"p": 1}}, "_kwargs.p is not an argument of identity"),
    ({**MASKING, "data_preprocessing_fn_kwargs": {"mask_prop": 7}}, "from 0 to 1 but got 7."),
    ({"scale_by": 1.0}, "scale_by is not an argument of KLBaselineLoss.*scaleby"),
    ({"model_kwargs": 3}, "model_kwargs must be a dictionary but got 3."),
]


@pytest.mark.parametrize(("kwargs", "message"), BAD)
def test_what_is_given_is_checked_without_a_model(sentences, kwargs, message):
    with pytest.raises(UserError, match=message):
        KLBaselineLoss.check(**{"dataset": sentences, **kwargs})


def test_a_function_for_another_kind_of_model_is_refused(directories, sentences):
    loaded = load(directories["gpt2"])
    with pytest.raises(UserError, match="mask_random_tokens is for masked language models"):
        make(loaded, sentences, data_preprocessing_fn=mask_random_tokens)


def test_a_data_set_must_be_given():
    with pytest.raises(UserError, match="dataset must be given"):
        KLBaselineLoss.check()


def test_what_is_checked_early_has_the_defaults_of_the_loss():
    def defaults(function, *but):
        parameters = inspect.signature(function).parameters
        return {name: p.default for name, p in parameters.items() if name not in but}

    assert defaults(KLSettings) == defaults(KLBaselineLoss, "model", "tokenizer")
