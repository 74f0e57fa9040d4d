"""Which parameters are frozen and which are not; that they stay is tested elsewhere."""

from __future__ import annotations

import pytest

from families import family
from finetune_lm.errors import UserError
from finetune_lm.model_modifiers import PartiallyFrozenModelCallback, UnfreezeWordTokensCallback


def trained(**kwargs):
    """Names of the parameters that are not frozen as a whole."""
    fam = family("gpt2")
    PartiallyFrozenModelCallback(fam.model, fam.tokenizer, **kwargs)
    return [name for name, p in fam.model.named_parameters() if p.requires_grad]


ALL = [name for name, _ in family("gpt2").model.named_parameters()]


def test_whole_parameters():
    attention = [name for name in ALL if ".attn." in name]
    assert trained(frozen_params="*.attn.*") == [name for name in ALL if name not in attention]
    assert trained(unfrozen_params="*.attn.*") == attention
    # Two names leave two parameters.
    two = ["transformer.wpe.weight", "transformer.ln_f.bias"]
    assert trained(unfrozen_params=two) == two
    assert trained(unfrozen_params="lm_head.weight") == ["transformer.wte.weight"]  # tied
    assert trained(unfrozen_params="*") == ALL


def test_parts_that_make_a_whole_are_frozen_as_one():
    rest = [name for name in ALL if name != "transformer.wpe.weight"]
    for names in (
        ["transformer.wpe.weight[0:30]", "transformer.wpe.weight[30:]"],
        ["transformer.wpe.weight[...]"],
        ["transformer.wpe.weight[0:64, :]"],
    ):
        assert trained(frozen_params=names) == rest
    assert trained(frozen_params=["transformer.wpe.weight[0:30]"]) == ALL
    assert trained(unfrozen_params=["transformer.wpe.weight[0:30]"]) == ["transformer.wpe.weight"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "either frozen_params or unfrozen_params must be given but got neither."),
        (
            {"frozen_params": "x", "unfrozen_params": "y"},
            "either frozen_params or unfrozen_params must be given but got both.",
        ),
        ({"frozen_params": []}, "frozen_params must be a list of names of parameters but got []."),
        (
            {"frozen_params": "*"},
            "PartiallyFrozenModelCallback must leave something of the model to train, but all of "
            "its parameters are frozen.",
        ),
        (
            {"unfrozen_params": ["transformer.wte.weight", "transformer.wte.bias"]},
            "unfrozen_params: no parameter of the model is called 'transformer.wte.bias'.",
        ),
    ],
)
def test_what_cannot_be(kwargs, message):
    with pytest.raises(UserError) as caught:
        trained(**kwargs)
    assert message in str(caught.value)


def test_two_callbacks_that_leave_nothing():
    fam = family("gpt2")
    UnfreezeWordTokensCallback(fam.model, fam.tokenizer, "the")
    with pytest.raises(UserError, match="must leave something of the model to train"):
        PartiallyFrozenModelCallback(fam.model, fam.tokenizer, frozen_params="lm_head.weight")
