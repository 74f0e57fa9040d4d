"""A callback that ends one of several processes."""

from __future__ import annotations

import os
import resource
import signal

from finetune_lm.model_modifiers.model_callback import ModelCallback


class Ends(ModelCallback):
    """Ends the process of a rank, in the second epoch."""

    def __init__(self, model, tokenizer, rank, how):
        super().__init__(model, tokenizer)
        self.is_it, self.how = os.environ.get("RANK") == str(rank), how

    def __call__(self, epoch, batch):
        if not self.is_it or (epoch, batch) != (1, 1):
            return
        if self.how == "raise":
            raise ValueError("there is a mistake")
        if self.how == "full":
            # Whatever is written from now on finds no room.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        else:
            os.kill(os.getpid(), getattr(signal, self.how))


class OwnEnds(Ends):
    """The same as if it were one of the package's own, which leave weights and gradients alone."""

    __module__ = "finetune_lm.endings"
