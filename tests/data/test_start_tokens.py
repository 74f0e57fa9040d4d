"""What stands before a text, for every tokenizer class of transformers."""

from __future__ import annotations

import pytest

import finetune_lm.messages
from families import family, gpt2_tokenizer, llama_tokenizer, qwen_tokenizer
from finetune_lm import DataTrainingArguments
from finetune_lm.data.feeding import load_datasets
from finetune_lm.data.files import read_files
from finetune_lm.data.tokenization import TextEncoder
from finetune_lm.errors import UserError
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.tasks import TASKS
from helpers import dataset, examples, score, write_lines
from tokenizer_classes import BUILT, build
from tokenizer_kinds import KINDS, tokenizer_of_kind

TEXT = "the man has always"
ALL = [*((build, name) for name in BUILT), *((tokenizer_of_kind, name) for name in KINDS)]


def own(tokenizer):
    """What a tokenizer puts before and behind a text, by what it makes of one with and without."""
    whole = list(tokenizer(TEXT, verbose=False)["input_ids"])
    text = list(tokenizer(TEXT, add_special_tokens=False, verbose=False)["input_ids"])
    before = next(i for i in range(len(whole)) if whole[i : i + len(text)] == text)
    return whole, whole[:before], whole[before + len(text) :]


def test_nearly_all_classes_are_here():
    assert len(BUILT) >= 70
    assert {"XGLMTokenizer", "ByT5Tokenizer", "NllbTokenizer", "WhisperTokenizer"} <= set(BUILT)


@pytest.mark.parametrize(("make", "name"), ALL, ids=[name for _, name in ALL])
def test_what_the_tokenizer_puts_there_stays_and_else_its_bos_or_cls_comes(make, name):
    tokenizer = make(name)
    whole, front, behind = own(tokenizer)
    put = [i for i in (tokenizer.bos_token_id, tokenizer.cls_token_id) if i is not None][:1]
    start = front or put
    encoder = TextEncoder(tokenizer, 64)
    [encoding] = encoder([TEXT])
    assert encoding.input_ids == [*start, *whole[len(front) :]]
    assert list(encoder.start_ids) == start
    assert (encoder.put_id is None) == (start == front)
    # Only what is around the text is not of it.
    is_of_text = [place >= 0 for place in encoding.char_start]
    n_text = len(whole) - len(front) - len(behind)
    assert is_of_text == [False] * len(start) + [True] * n_text + [False] * len(behind)
    # What is not asked for is not put there, and what the tokenizer puts there is.
    for options in ({"bos_policy": "none"}, {"add_start": False}):
        plain = TextEncoder(tokenizer, 64, **options)
        assert plain([TEXT])[0].input_ids == whole
        assert list(plain.start_ids) == front
    cut = TextEncoder(tokenizer, len(start) + len(behind) + 1)([TEXT])[0]
    assert cut.input_ids == [*start, whole[len(front)], *behind]


@pytest.mark.parametrize(
    ("make", "name"),
    # Canine's vocabulary is all of Unicode.
    [case for case in ALL if case[1] != "CanineTokenizer"],
    ids=[name for _, name in ALL if name != "CanineTokenizer"],
)
def test_a_token_that_is_named(make, name):
    tokenizer = make(name)
    whole, front, _ = own(tokenizer)
    number = len(tokenizer) - 2
    named = tokenizer.convert_ids_to_tokens(number)
    encoder = TextEncoder(tokenizer, 64, bos_policy=f"token:{named}")
    assert encoder([TEXT])[0].input_ids == [*(front or [number]), *whole[len(front) :]]
    with pytest.raises(UserError, match=r"bos_policy names the token '<\|begin"):
        TextEncoder(tokenizer, 64, bos_policy="token:<|beginoftext|>")


def test_the_nearest_name_is_said():
    with pytest.raises(UserError) as caught:
        TextEncoder(gpt2_tokenizer(), 64, bos_policy="token:<|endoftxt|>")
    assert str(caught.value) == (
        "bos_policy names the token '<|endoftxt|>', but the tokenizer has no such token. "
        "Did you mean token:<|endoftext|>?"
    )


def test_eos_where_the_tokenizer_puts_a_token_of_another_name():
    """XGLM's texts begin with its end token, though it has a BOS."""
    tokenizer = build("XGLMTokenizer")
    assert tokenizer.bos_token != "</s>"
    [encoding] = TextEncoder(tokenizer, 64, bos_policy="eos")([TEXT])
    assert encoding.input_ids == tokenizer(TEXT)["input_ids"]
    assert encoding.input_ids[0] == tokenizer.eos_token_id


def test_a_row_for_each_token_of_the_text_whatever_stands_before_it():
    """Several start tokens have no rows either."""
    fam = family("gpt2")
    whisper = build("WhisperTokenizer")
    _, front, behind = own(whisper)
    assert len(front) > 1
    fam.model.resize_token_embeddings(len(whisper))
    lines = examples([TEXT])
    fam = fam._replace(tokenizer=whisper)
    frame, _ = score(fam, dataset(fam, lines))
    n_text = len(whisper(TEXT, add_special_tokens=False)["input_ids"])
    assert frame["word_num"].isna().tolist() == [False] * n_text + [True] * len(behind)
    assert frame["surprisal"].notna().all()


def load(tmp_path, tokenizer, **kwargs):
    fam = family("gpt2")
    fam.model.resize_token_embeddings(len(tokenizer))
    loaded = LoadedModel("some-model", TASKS["lm"], fam.model, tokenizer)
    path = write_lines(tmp_path / "data.txt.gz", [TEXT])
    args = DataTrainingArguments(test_file=path, **kwargs)
    fam.model.name_or_path = "some-model"
    return load_datasets(read_files(args), loaded, args)


@pytest.mark.parametrize(
    ("make", "policy", "said"),
    [
        (gpt2_tokenizer, "auto", "some-model: '<|endoftext|>' is put before each text"),
        (gpt2_tokenizer, "token:!", "some-model: '!' is put before each text"),
        (qwen_tokenizer, "eos", "some-model: '<|endoftext|>' is put before each text"),
        (llama_tokenizer, "auto", ""),
        (gpt2_tokenizer, "none", ""),
        (qwen_tokenizer, "auto", ""),
        (llama_tokenizer, "token:</s>", "warning: bos_policy token:</s> changes nothing"),
    ],
)
def test_what_is_put_in_is_told_in_a_line(tmp_path, capsys, monkeypatch, make, policy, said):
    monkeypatch.setattr(finetune_lm.messages, "_said", set())
    load(tmp_path, make(), bos_policy=policy)
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == bool(said)
