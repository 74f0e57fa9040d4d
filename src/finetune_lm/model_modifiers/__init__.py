"""Functions that change a model before a run, and callbacks that act at points of a run.

A modifier is called with ``model``, ``tokenizer`` and perhaps keyword arguments of its own, and
changes them in place (or returns a new model). A callback class is made with the model, the
tokenizer and perhaps keyword arguments; its instances are called with ``epoch`` and ``batch`` at
the points of a run at which it is named, as in ``--model_callbacks.end_epoch my_module.Mine``.
`ModelCallback` tells what these are.
"""

from finetune_lm.model_modifiers.add_adapter import add_adapter
from finetune_lm.model_modifiers.add_new_tokens import add_new_tokens
from finetune_lm.model_modifiers.alternate_modes import AlternateModes
from finetune_lm.model_modifiers.freeze_word_tokens_callback import FreezeWordTokensCallback
from finetune_lm.model_modifiers.model_callback import ModelCallback
from finetune_lm.model_modifiers.partially_frozen_model_callback import (
    PartiallyFrozenModelCallback,
)
from finetune_lm.model_modifiers.unfreeze_word_tokens_callback import UnfreezeWordTokensCallback

__all__ = [
    "AlternateModes",
    "FreezeWordTokensCallback",
    "ModelCallback",
    "PartiallyFrozenModelCallback",
    "UnfreezeWordTokensCallback",
    "add_adapter",
    "add_new_tokens",
]
