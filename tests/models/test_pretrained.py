from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from families import family
from finetune_lm import ModelArguments, UserError
from finetune_lm.models.loading import load_model
from finetune_lm.models.pretrained import model_path, read_token


def test_hub_arguments_go_to_every_part(monkeypatch, tmp_path):
    seen = []
    (tmp_path / "token").write_text("hf_secret\n")

    def from_pretrained(auto_class, argument, name, standard, given):
        seen.append((argument, name, standard))
        if "dtype" in standard:
            raise UserError("stop")
        return transformers.GPT2Config()

    for module in ("loading", "pretrained"):
        monkeypatch.setattr(f"finetune_lm.models.{module}.from_pretrained", from_pretrained)
    args = ModelArguments(
        "gpt2",
        model_revision="v2",
        cache_dir="cache",
        token=str(tmp_path / "token"),
        use_fast_tokenizer=False,
    )
    with pytest.raises(UserError, match="stop"):
        load_model(args)
    assert [argument for argument, *_ in seen] == [
        "model_name_or_path", "tokenizer_name", "model_name_or_path",
    ]  # fmt: skip
    for _, name, standard in seen:
        assert name == "gpt2"
        assert standard["revision"] == "v2"
        assert standard["cache_dir"] == "cache"
        assert standard["token"] == "hf_secret"
    assert seen[1][2]["use_fast"] is False


def test_tokens(tmp_path):
    (tmp_path / "file").write_text(" hf_abc\n")
    assert read_token(str(tmp_path / "file")) == "hf_abc"
    assert read_token("hf_abc") == "hf_abc"
    assert read_token(False) is False
    assert read_token(None) is None
    assert read_token("x" * 1000) == "x" * 1000
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="token must be a"):
        read_token(str(tmp_path / "binary"))


@pytest.mark.parametrize("name", ["tiny-lm", "tiny-mlm", "tiny-seq2seq"])
def test_built_in_models_are_in_the_package(name):
    assert Path(model_path(name)).is_dir()
    assert model_path("other/name") == "other/name"


def test_a_tokenizer_beside_the_model_as_runs_save_it(tmp_path):
    fam = family("gpt2")
    fam.model.save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"has no tokenizer in it\. Give --tokenizer_name"):
        load_model(ModelArguments(str(tmp_path / "model")))
    fam.tokenizer.save_pretrained(tmp_path / "tokenizer")
    loaded = load_model(ModelArguments(str(tmp_path / "model")))
    assert loaded.tokenizer.get_vocab() == fam.tokenizer.get_vocab()


@pytest.mark.parametrize("name", ["./model", "/no/model", "a/b/model", "here/model", "~/model"])
def test_a_directory_that_is_not_there_is_told_at_once(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match="is not there: there is no such directory"):
        load_model(ModelArguments(name))
