"""Measures, for users to pick from and add to: columns of the tables beside the surprisal.

A measure is made with the model, the tokenizer and perhaps keyword arguments of its own. It is
called with a block of logits in float32, (n, vocabulary), and the token that each row predicts,
(n,), and returns its columns by name, (n,) each. ``columns`` names them, in order, and
``over_word`` says what a table of words takes: the ``sum`` over the word's tokens, the value of the
``first`` one, or nothing (None). It is named on the command line, as in ``--measures
measures.Rank my_module.MyMeasure``.

``check(**kwargs)``, a static method, is optional, and raises a `UserError` for keyword arguments
that will not do, before anything is loaded.
"""

from finetune_lm.measures.baseline_kl import BaselineKL
from finetune_lm.measures.candidates import Candidates
from finetune_lm.measures.entropy import Entropy
from finetune_lm.measures.rank import Rank
from finetune_lm.measures.word_boundary import WordBoundary

__all__ = ["BaselineKL", "Candidates", "Entropy", "Rank", "WordBoundary"]
