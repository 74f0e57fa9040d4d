from __future__ import annotations

import pytest

from finetune_lm.arguments import OptimizationArguments, config_dict, config_text, config_yaml
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.redaction import without_secrets, without_token
from finetune_lm.cli import main


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me@host:5432/db"),
        ("postgresql+psycopg://me:se:cr@et@host/db", "postgresql+psycopg://me@host/db"),
        ("mysql://:secret@host/db", "mysql://host/db"),
        ("postgresql://host/db?user=a&password=secret&x=1", "postgresql://host/db?user=a&password=&x=1"),
        ("cannot reach x://a:secret@h/ and y://b:secret@h/", "cannot reach x://a@h/ and y://b@h/"),
        ("mysql://me@firm.org:secret@host/db", "mysql://me@firm.org@host/db"),
        ("sqlite+pysqlcipher://:secret@/x.db", "sqlite+pysqlcipher:///x.db"),
        ("s3://KEY:se/cr+et@bucket", "s3://KEY@bucket"),
        ("mongodb://me:secret@h1,h2:27017/db", "mongodb://me@h1,h2:27017/db"),
        ("redis://:1234secret@host:6379/0", "redis://host:6379/0"),
        ("x://h/db?passwd=secret", "x://h/db?passwd="),
        ("x://h/db?Password=secret&y=1", "x://h/db?Password=&y=1"),
        ("x://h/db?access_token=secret", "x://h/db?access_token="),
        ("x://h/db?api_key=secret", "x://h/db?api_key="),
        ("x://h/db?ssl_password=secret", "x://h/db?ssl_password="),
        ("DRIVER=x;UID=me;PWD=secret;P=1", "DRIVER=x;UID=me;PWD=;P=1"),
        ("mssql:///?odbc_connect=UID%3Dme%3BPWD%3Dsecret%3BP%3D1",
         "mssql:///?odbc_connect=UID%3Dme%3BPWD%3D%3BP%3D1"),
        # No passwords.
        ("x://h/db?bos_token=a&keyed=b", "x://h/db?bos_token=a&keyed=b"),
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


SECRET_NAMES = [
    *("token", "Token", "TOKEN", "hf_token", "HF-Token", "use_auth_token", "accessToken"),
    *("api_key", "apikey", "apiKey", "API_KEY", "openai_api_key", "x-api-key"),
    *("secret", "Secret", "client_secret", "secret_key", "aws_secret_access_key"),
    *("password", "Password", "passwd", "pwd", "passphrase", "db_password", "credentials"),
]
NO_SECRETS = ["bos_token", "pad_token", "added_tokens", "words_to_mask", "key", "keys", "secretary"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_secrets_are_known_by_their_names(name, capsys):
    nested = {"a": [{name: "sesame", "port": 3}]}
    arguments = (
        ModelArguments("gpt2", model_kwargs=nested),
        DataTrainingArguments(
            test_file="x", loss_classes_kwargs={"train": {"OutputsDefaultLoss": dict(nested)}}
        ),
        OptimizationArguments(study_kwargs={"storage_kwargs": nested}),
    )
    for written in (config_yaml, config_text, config_dict):
        assert "sesame" not in str(written(*arguments))
        assert "port" in str(written(*arguments))
    assert "sesame" not in "".join(map(repr, arguments))
    assert without_token("401 for sesame") == "401 for <token>"
    base = ["--model_name_or_path", "gpt2", "--test_file", "x"]
    for argv in (
        [f"--model_kwargs.a.{name}", "sesame", "--print_config"],
        [f"--model_kwargs.a.{name}", "sesame", "--epochs", "sesame", "--debug"],
        [f"--{name}.x", "sesame", "--epochs", "x", "--debug"],
        ["--epochs", f'json:{{"{name}": "sesame"}}'],
        ["--model_kwargs", f'json:{{"{name}": "sesame"}}', "--print_config"],
    ):
        main([*base, *argv])
        captured = capsys.readouterr()
        assert "sesame" not in captured.out + captured.err


@pytest.mark.parametrize("name", NO_SECRETS)
def test_what_only_sounds_like_a_secret_is_kept(name):
    assert without_secrets({name: "x"}) == {name: "x"}
