from __future__ import annotations

import pytest

from finetune_lm.arguments import OptimizationArguments, config_dict, config_text, config_yaml
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.redaction import without_secrets, without_token


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql+psycopg://me:se:cr@et@host/db", "postgresql+psycopg://me@host/db"),
        ("mysql://:secret@host/db", "mysql://host/db"),
        ("postgresql://host/db?user=a&password=secret&x=1", "postgresql://host/db?user=a&password=&x=1"),
        ("cannot reach x://a:secret@h/ and y://b:secret@h/", "cannot reach x://a@h/ and y://b@h/"),
        # No passwords.
        ("sqlite:///study.db", "sqlite:///study.db"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("a: b@c", "a: b@c"),
    ],
)  # fmt: skip
def test_passwords_in_urls(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


def test_no_password_is_written() -> None:
    study = OptimizationArguments(
        study_kwargs={
            "storage": "postgresql://me:secret@host/db",
            "storage_kwargs": {
                "url": "postgresql://me:secret@host/db",
                "engine_kwargs": {"connect_args": {"password": "secret", "port": 3}},
            },
        }
    )
    arguments = ModelArguments("gpt2"), DataTrainingArguments(test_file="x"), study
    for written in (config_yaml, config_text, config_dict):
        text = str(written(*arguments))
        assert "secret" not in text
        assert "port" in text
    assert "secret" not in repr(study)
    assert "secret" not in without_token("no postgresql://me:secret@host/db", arguments[0])
