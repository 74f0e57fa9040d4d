"""Models with Python code of their own: it runs when that is asked for, and never before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import run_command
from families import family
from finetune_lm import ModelArguments, UserError
from finetune_lm.models.loading import identify, load_model
from helpers import save_family, write_lines

# Says that it ran, and is otherwise a GPT-2 of another name whose logits are all the same, so that
# every token of a vocabulary of V costs log2 V bits.
CODE = """
from pathlib import Path
import transformers

Path({ran!r}).touch()


class OwnConfig(transformers.GPT2Config):
    model_type = "own_gpt2"


class OwnModel(transformers.GPT2LMHeadModel):
    config_class = OwnConfig

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits * 0
        return outputs


class OwnTokenizer(transformers.PreTrainedTokenizerFast):
    pass
"""
AUTO_MAP = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnModel"}
REFUSED = (
    "needs Python code that comes with it, which is not run unless you trust it. Read it, and then "
    "give --trust_remote_code."
)


@pytest.fixture
def ran(tmp_path):
    """Is there once the model's code has run."""
    return tmp_path / "ran"


@pytest.fixture
def own_model(tmp_path, ran):
    """A model of a kind that transformers does not know."""
    directory = tmp_path / "own_model"
    save_family(family("gpt2"), directory)
    (directory / "own_code.py").write_text(CODE.format(ran=str(ran)))
    edit(directory / "config.json", model_type="own_gpt2", architectures=None, auto_map=AUTO_MAP)
    return directory


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch):
    def asked(*_):
        pytest.exit("somebody was asked on the terminal")

    monkeypatch.setattr("builtins.input", asked)


def test_code_of_a_model_is_not_run_unless_it_is_trusted(own_model, ran):
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(str(own_model)))
    assert caught.value.problems == (f"model_name_or_path {str(own_model)!r} {REFUSED}",)
    assert not ran.exists()


def test_code_of_a_tokenizer_is_not_run_unless_it_is_trusted(tmp_path, ran):
    directory = tmp_path / "model"
    save_family(family("gpt2"), directory)
    (directory / "own_code.py").write_text(CODE.format(ran=str(ran)))
    edit(
        directory / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "own_code.OwnTokenizer"]},
    )
    # transformers has a tokenizer for this kind of model, and takes that one.
    load_model(ModelArguments(str(directory)))
    assert not ran.exists()
    loaded = load_model(ModelArguments(str(directory), trust_remote_code=True))
    assert type(loaded.tokenizer).__name__ == "OwnTokenizer"
    assert ran.exists()


def test_code_of_a_model_that_transformers_knows_is_not_needed(own_model, ran, capsys):
    edit(own_model / "config.json", model_type="gpt2")
    load_model(ModelArguments(str(own_model)))
    assert not ran.exists()
    assert (
        f"warning: {own_model} comes with Python code of its own, which is not run: the class that "
        "transformers has for it is used instead. --trust_remote_code runs it.\n"
    ) in capsys.readouterr().err


def test_nobody_is_asked_whether_standard_input_is_closed_or_open(own_model, ran, tmp_path):
    """Asked, transformers would wait for fifteen seconds, and take a y for an answer."""
    write_lines(tmp_path / "x.txt.gz", ["The man."])
    argv = ["--model_name_or_path", own_model, "--test_file", "x.txt.gz"]
    for standard_input in (None, "y\ny\ny\n"):
        result = run_command(*argv, cwd=tmp_path, input=standard_input)
        assert result.returncode == 2
        assert result.stderr.splitlines()[-1] == (
            f"finetune-lm: error: model_name_or_path {str(own_model)!r} {REFUSED}"
        )
        assert "[y/N]" not in result.stdout + result.stderr
        assert not ran.exists()
        assert not (tmp_path / "outputs").exists()


def test_trusted_code_runs_and_what_it_computes_is_on_record(own_model, ran, tmp_path):
    """In a process of its own: what is trusted stays known to transformers."""
    write_lines(tmp_path / "x.txt.gz", ["The man has always broken the glass."])
    argv = ["--model_name_or_path", own_model, "--trust_remote_code"]
    argv += ["--train_file", "x.txt.gz", "--validation_file", "x.txt.gz", "--epochs", 1]
    result = run_command(*argv, "--output_dir", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert ran.exists()

    import math

    from finetune_lm import load_metrics

    surprisal = load_metrics(tmp_path / "out")["surprisal"]
    assert surprisal.tolist() == pytest.approx([math.log2(380)] * len(surprisal))

    # What a run has saved needs the same trust again, and then is the same model.
    again = ["--model_name_or_path", "out/model", "--test_file", "x.txt.gz"]
    refused = run_command(*again, cwd=tmp_path)
    assert refused.returncode == 2
    assert "give --trust_remote_code" in refused.stderr
    trusted = run_command(*again, "--trust_remote_code", "--output_dir", "again", cwd=tmp_path)
    assert trusted.returncode == 0, trusted.stderr
    [table] = (tmp_path / "again").glob("*-test_results.csv.gz")
    surprisal = load_metrics(table)["surprisal"]
    assert surprisal.tolist() == pytest.approx([math.log2(380)] * len(surprisal))


def test_trust_goes_to_every_part(monkeypatch):
    import transformers

    seen = []

    def from_pretrained(auto_class, argument, name, standard, given):
        seen.append(standard["trust_remote_code"])
        if "dtype" in standard:
            raise UserError("stop")
        return transformers.GPT2Config()

    for module in ("loading", "pretrained"):
        monkeypatch.setattr(f"finetune_lm.models.{module}.from_pretrained", from_pretrained)
    for trusted in (False, True):
        with pytest.raises(UserError, match="stop"):
            load_model(ModelArguments("gpt2", trust_remote_code=trusted))
    assert seen == [False] * 3 + [True] * 3


def test_the_kind_of_a_model_with_its_own_code_is_found(own_model, monkeypatch):
    """By what its code is for, where nothing else tells."""
    import transformers

    config = transformers.GPT2Config(auto_map={"AutoModelForMaskedLM": "own_code.OwnModel"})
    config.model_type = "own_gpt2"
    monkeypatch.setattr("finetune_lm.models.loading.from_pretrained", lambda *_: config)
    _, task = identify(ModelArguments(str(own_model), trust_remote_code=True))
    assert task.name == "mlm"


def test_code_that_fails_is_told_in_a_line(own_model, tmp_path):
    (own_model / "own_code.py").write_text("raise ZeroDivisionError('on purpose')\n")
    with pytest.raises(UserError) as caught:
        load_model(ModelArguments(str(own_model), trust_remote_code=True))
    assert caught.value.problems == (
        f"model_name_or_path {str(own_model)!r} is a directory that cannot be loaded as "
        "configuration: ZeroDivisionError: on purpose",
    )
    (own_model / "own_code.py").write_text("import no_such_package\n")
    with pytest.raises(UserError, match=r"needs a package: .*no_such_package"):
        load_model(ModelArguments(str(own_model), trust_remote_code=True))
    assert Path(own_model).is_dir()
