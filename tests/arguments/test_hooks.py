"""Callbacks on the command line: which class at which point with what, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_lm.arguments import ModelArguments, parse_arguments
from finetune_lm.arguments.help import help_for
from finetune_lm.arguments.hooks import HOOKS
from finetune_lm.cli import main
from finetune_lm.model_modifiers import (
    FreezeWordTokensCallback,
    ModelCallback,
    PartiallyFrozenModelCallback,
    UnfreezeWordTokensCallback,
)

POINTS = """
    pre_training begin_epoch pre_train_batch pre_train_step post_train_step post_train_batch
    pre_validation pre_validation_batch post_validation_batch end_epoch post_training
    pre_test pre_test_dataset pre_test_batch post_test_batch post_test_dataset
"""


class Mine(ModelCallback):
    def __init__(self, model, tokenizer, word, n=1): ...


class TakesAnything(ModelCallback):
    def __init__(self, model, tokenizer, **kwargs): ...


class AsksForRun(ModelCallback):
    """Looks at the run."""

    def __init__(self, model, tokenizer, word, run=None): ...


class TakesNothing:
    def __init__(self): ...

    def __call__(self, epoch, batch): ...


class IsNotCalled:
    def __init__(self, model, tokenizer): ...


class WantsMore:
    def __init__(self, model, tokenizer): ...

    def __call__(self, epoch, batch, loss): ...


class HasACheckOfItsOwn:
    """That is no check of arguments."""

    def __init__(self, model, tokenizer): ...

    def __call__(self, epoch, batch): ...

    def check(self): ...


def parse(*argv):
    return parse_arguments(["--model_name_or_path", "gpt2", "--test_file", "x.txt.gz", *argv]).model


def test_every_point_is_there():
    assert list(HOOKS) == POINTS.split()


def test_a_class_and_its_arguments_at_a_point():
    args = parse(
        *("--model_callbacks.end_epoch", "model_modifiers.ModelCallback"),
        *("--model_callbacks.pre_train_step", "model_modifiers.FreezeWordTokensCallback"),
        *(
            "--model_callbacks_kwargs.pre_train_step.FreezeWordTokensCallback.words_to_freeze",
            "man",
            "woman",
        ),
    )
    entries = [(e.hook, e.cls, e.kwargs) for e in args.callbacks()]
    assert entries == [
        ("pre_train_step", FreezeWordTokensCallback, {"words_to_freeze": ["man", "woman"]}),
        ("end_epoch", ModelCallback, {}),
    ]


def test_a_class_may_be_at_two_points_with_different_arguments():
    given = {"pre_training": {"Mine": {"word": "a"}}, "end_epoch": {"Mine": {"word": "b", "n": 2}}}
    args = ModelArguments(
        "gpt2", model_callbacks=dict.fromkeys(given, Mine), model_callbacks_kwargs=given
    )
    assert args.problems() == []
    assert [(e.hook, e.kwargs) for e in args.callbacks()] == [
        ("pre_training", {"word": "a"}),
        ("end_epoch", {"word": "b", "n": 2}),
    ]


def test_one_of_several_of_a_class_by_its_number():
    args = ModelArguments(
        "gpt2",
        model_callbacks={"end_epoch": [Mine, ModelCallback, Mine]},
        model_callbacks_kwargs={"end_epoch": {"Mine": {"word": "a"}, "Mine_2": {"n": 3}}},
    )
    assert args.problems() == []
    assert [e.kwargs for e in args.callbacks()] == [{"word": "a"}, {}, {"word": "a", "n": 3}]


STEP = "model_callbacks_kwargs.pre_train_step"


def at(hook, cls, **kwargs):
    given = {"model_callbacks": {hook: cls}}
    if kwargs:
        given["model_callbacks_kwargs"] = {hook: {cls.__name__: kwargs}}
    return given


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        (
            at("end_epoch", Mine),
            "model_callbacks_kwargs.end_epoch.Mine.word must be given, because Mine needs it.",
        ),
        (
            at("end_epoch", Mine, word="a", words=1),
            "model_callbacks_kwargs.end_epoch.Mine.words is not an argument of Mine, which "
            "takes word, n. Did you mean model_callbacks_kwargs.end_epoch.Mine.word?",
        ),
        (
            at("end_epoch", TakesAnything, model=1),
            "model_callbacks_kwargs.end_epoch.TakesAnything.model is not an argument of "
            "TakesAnything, which takes none.",
        ),
        (
            at("end_epoch", TakesNothing),
            "model_callbacks.end_epoch: TakesNothing must be made with model and tokenizer but "
            "takes nothing.",
        ),
        (
            at("end_epoch", IsNotCalled),
            "model_callbacks.end_epoch: IsNotCalled must have a method __call__(self, epoch, "
            "batch).",
        ),
        (
            at("end_epoch", WantsMore),
            "model_callbacks.end_epoch: WantsMore.__call__ must accept epoch and batch but is "
            "(self, epoch, batch, loss).",
        ),
        (
            {"model_callbacks_kwargs": {"end_epoch": {"Mine": {"word": 1}}}},
            "model_callbacks_kwargs.end_epoch.Mine has no use because model_callbacks.end_epoch is "
            "empty.",
        ),
        (
            {
                "model_pre_train_step_callbacks": [ModelCallback],
                "model_callbacks_kwargs": {"pre_train_step": {"ModelCallback": {"word": 1}}},
            },
            f"{STEP}.ModelCallback has no use because model_callbacks.pre_train_step is empty. Did "
            "you mean model_pre_train_step_callbacks_kwargs.ModelCallback?",
        ),
        (
            {
                **at("end_epoch", ModelCallback),
                "model_callbacks_kwargs": {"end_epoch": {"ModelCalback": {"word": 1}}},
            },
            "model_callbacks_kwargs.end_epoch.ModelCalback has no use because "
            "model_callbacks.end_epoch holds ModelCallback. Did you mean "
            "model_callbacks_kwargs.end_epoch.ModelCallback?",
        ),
        (
            {
                "model_pre_train_step_callbacks": [Mine],
                "model_pre_train_step_callbacks_kwargs": {"Mine": {"wrd": "a", "word": "a"}},
            },
            "model_pre_train_step_callbacks_kwargs.Mine.wrd is not an argument of Mine, which "
            "takes word, n. Did you mean model_pre_train_step_callbacks_kwargs.Mine.word?",
        ),
        (
            at("post_train_step", FreezeWordTokensCallback, words_to_freeze="a"),
            "FreezeWordTokensCallback must be given as model_callbacks.pre_train_step but came as "
            "model_callbacks.post_train_step.",
        ),
        (
            at("pre_train_step", PartiallyFrozenModelCallback),
            f"{STEP}.PartiallyFrozenModelCallback: either frozen_params or unfrozen_params must be "
            "given but got neither.",
        ),
        (
            at(
                "pre_train_step",
                PartiallyFrozenModelCallback,
                frozen_params="a",
                unfrozen_params=["b"],
            ),
            f"{STEP}.PartiallyFrozenModelCallback: either frozen_params or unfrozen_params must be "
            "given but got both.",
        ),
        (
            at("pre_train_step", PartiallyFrozenModelCallback, frozen_params="a[x]"),
            f"{STEP}.PartiallyFrozenModelCallback: frozen_params: 'a[x]': [x] is not an index: 'x' "
            "cannot stand there. Indices are like 5, -1, 0:100, (1,5,9), 3,: and ...,0.",
        ),
        (
            at("pre_train_step", UnfreezeWordTokensCallback, words_to_unfreeze=[]),
            f"{STEP}.UnfreezeWordTokensCallback: words_to_unfreeze must be a list of words but got "
            "[].",
        ),
        (
            at("pre_train_step", UnfreezeWordTokensCallback, words_to_unfreeze=3),
            f"{STEP}.UnfreezeWordTokensCallback: words_to_unfreeze must be a list of words but has "
            "3 in it. Put quotes around a number that is meant as a word: '\"3\"'.",
        ),
        (
            at(
                "pre_train_step",
                FreezeWordTokensCallback,
                words_to_freeze="a",
                word_embeddings_name=[1],
            ),
            f"{STEP}.FreezeWordTokensCallback: word_embeddings_name must be the name of a "
            "parameter but got [1].",
        ),
        (
            at("pre_train_step", UnfreezeWordTokensCallback, words_to_freeze="a"),
            f"{STEP}.UnfreezeWordTokensCallback.words_to_freeze is not an argument of "
            "UnfreezeWordTokensCallback, which takes words_to_unfreeze, word_embeddings_name. Did "
            f"you mean {STEP}.UnfreezeWordTokensCallback.words_to_unfreeze?",
        ),
    ],
)
def test_what_cannot_be(kwargs, problem):
    assert ModelArguments("gpt2", **kwargs).problems()[0] == problem


@pytest.mark.parametrize("cls", [TakesAnything, HasACheckOfItsOwn])
def test_what_can_be(cls):
    kwargs = {"x": 1, "y": 2} if cls is TakesAnything else {}
    assert ModelArguments("gpt2", **at("end_epoch", cls, **kwargs)).problems() == []


def told(capsys, *argv):
    path = Path("x.txt.gz")
    assert main(["--model_name_or_path", "no/model", "--test_file", str(path), *argv]) == 2
    return capsys.readouterr().err


def test_a_point_that_does_not_exist(capsys):
    callback = "model_modifiers.ModelCallback"
    shown = told(capsys, "--model_callbacks.pre_trian_step", callback)
    assert "model_callbacks.pre_trian_step does not exist; the keys of model_callbacks" in shown
    assert "Did you mean model_callbacks.pre_train_step?" in shown
    shown = told(capsys, "--model_callbacks_kwargs.end_epok.X.y", "1")
    assert "Did you mean model_callbacks_kwargs.end_epoch?" in shown
    shown = told(capsys, "--post_train_step", callback)
    assert "Did you mean --model_callbacks.post_train_step?" in shown


def test_all_of_it_is_told_before_anything_is_looked_for(capsys):
    shown = told(
        capsys,
        *("--model_callbacks.begin_epoch", "model_modifiers.PartiallyFrozenModelCallback"),
        *("--model_pre_train_step_callbacks", "model_modifiers.UnfreezeWordTokensCallback"),
        *("--model_callbacks_kwargs.end_epoch.X.y", "1"),
    )
    lines = shown.strip().splitlines()
    assert len(lines) == 3
    assert "UnfreezeWordTokensCallback.words_to_unfreeze must be given, because" in lines[0]
    assert "must be given as model_callbacks.pre_train_step but came as" in lines[1]
    assert "model_callbacks_kwargs.end_epoch.X has no use" in lines[2]


def test_names_of_parameters_and_words_need_no_quotes():
    """They are text: dots in them are not imported, and 3 is a word."""
    callback = "PartiallyFrozenModelCallback"
    args = parse(
        *("--model_pre_train_step_callbacks", f"model_modifiers.{callback}"),
        *("model_modifiers.UnfreezeWordTokensCallback",),
        f"--model_pre_train_step_callbacks_kwargs.{callback}.frozen_params",
        *("transformer.wte.weight", "a.b[0:100]", "'quoted.too'", "h.*.attn*"),
        "--model_pre_train_step_callbacks_kwargs.UnfreezeWordTokensCallback.words_to_unfreeze",
        *("3", "None", "Dr."),
        "--model_pre_train_step_callbacks_kwargs.UnfreezeWordTokensCallback.word_embeddings_name",
        "json.dumps",
    )
    first, second = args.callbacks()
    assert first.kwargs == {
        "frozen_params": ["transformer.wte.weight", "a.b[0:100]", "quoted.too", "h.*.attn*"]
    }
    assert second.kwargs["words_to_unfreeze"] == ["3", "None", "Dr."]
    assert second.kwargs["word_embeddings_name"] == "json.dumps"


def test_a_config_file_repeats_them(tmp_path):
    from finetune_lm.arguments import (
        DataTrainingArguments,
        OptimizationArguments,
        config_text,
        config_yaml,
    )

    callback = "PartiallyFrozenModelCallback"
    args = parse(
        *("--model_callbacks.pre_train_step", f"model_modifiers.{callback}"),
        *(f"--{STEP}.{callback}.unfrozen_params", "transformer.wte.weight[3,:]", "b.c"),
    )
    others = DataTrainingArguments(test_file="x.txt.gz"), OptimizationArguments()
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml(args, *others))
    again = parse_arguments(["--config", str(path)]).model
    assert again.callbacks() == args.callbacks()
    assert again.callbacks()[0].kwargs == {
        "unfrozen_params": ["transformer.wte.weight[3,:]", "b.c"]
    }
    assert " at 0x" not in config_text(args, *others)
    plain = ModelArguments("gpt2")
    assert "model_callbacks: {}" in config_yaml(plain, *others)


def test_the_help_tells_of_every_point():
    text = " ".join(help_for(["model_callbacks"]).split())
    for name, hook in HOOKS.items():
        assert f"{name}: {hook.when}" in text
        assert hook.when in " ".join(help_for([f"model_callbacks.{name}"]).split())
    assert " ".join(help_for([]).split()).count("pre_test_dataset: Before each test set.") == 1


def test_what_a_run_has_come_to_is_no_argument():
    place = "model_callbacks_kwargs.end_epoch.AsksForRun"
    assert ModelArguments("gpt2", **at("end_epoch", AsksForRun, word="a")).problems() == []
    assert ModelArguments("gpt2", **at("end_epoch", AsksForRun)).problems() == [
        f"{place}.word must be given, because AsksForRun needs it."
    ]
    assert ModelArguments("gpt2", **at("end_epoch", AsksForRun, word="a", n=1)).problems() == [
        f"{place}.n is not an argument of AsksForRun, which takes word."
    ]
    text = help_for([f"{__name__}.AsksForRun"])
    assert "AsksForRun.word" in text or " word" in text
    assert "AsksForRun.run" not in text
    # Who takes anything may take something of that name, and gets nothing in its place.
    assert ModelArguments("gpt2", **at("end_epoch", TakesAnything, run=1)).problems() == []
