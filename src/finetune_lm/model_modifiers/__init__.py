"""Functions that change a model before a run, and callbacks that act before each step.

A modifier is called with ``model``, ``tokenizer`` and perhaps keyword arguments of its own, and
changes them in place (or returns a new model). A callback class is made with the model, the
tokenizer and perhaps keyword arguments; its instances are called with ``epoch`` and ``batch`` after
the gradients are computed and before the optimizer uses them.
"""

from finetune_lm.model_modifiers.add_new_tokens import add_new_tokens

__all__ = ["add_new_tokens"]
