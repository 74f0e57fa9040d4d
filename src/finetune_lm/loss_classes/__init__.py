"""Losses, for users to pick from and add to.

A loss class is made with the model, the tokenizer and perhaps keyword arguments of its own, and
called with the model's outputs and the labels of one batch; it returns a tensor of one value. It is
named on the command line, as in ``--loss_classes.train loss_classes.OutputsDefaultLoss``.
"""

from finetune_lm.loss_classes.outputs_default_loss import OutputsDefaultLoss

__all__ = ["OutputsDefaultLoss"]
