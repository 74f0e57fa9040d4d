"""Losses, for users to pick from and add to.

A loss class is made with the model, the tokenizer and perhaps keyword arguments of its own, and
called with the model's outputs and the labels of one batch; it returns a tensor of one value. It is
named on the command line, as in ``--loss_classes.train loss_classes.OutputsDefaultLoss``.

Some more methods are optional. ``check(**kwargs)``, a static method, raises a `UserError` for
keyword arguments that will not do, before anything is loaded. ``read_files(**kwargs)``, likewise
static, reads the data files that they name and returns their examples. ``state_dict()`` and
``load_state_dict(state)`` save and restore what a checkpoint must have. ``rewind()`` is called
before each validation, so that random draws can be the same in each. An attribute ``epoch_weight``
says what the last value counts by in an epoch's mean, if not by the batch's labels.
"""

from finetune_lm.loss_classes.kl_baseline_loss import KLBaselineLoss
from finetune_lm.loss_classes.outputs_default_loss import OutputsDefaultLoss

__all__ = ["KLBaselineLoss", "OutputsDefaultLoss"]
