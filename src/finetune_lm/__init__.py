"""Controlled fine-tuning experiments on language models, every token's surprisal on record.

``run`` runs an experiment, `ModelArguments` and `DataTrainingArguments` say which; ``grid`` does
many that are in a file; `load_metrics`, `load_probes` and `load_grid` read tables of results back.
Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from finetune_lm.errors import UserError

if TYPE_CHECKING:
    from finetune_lm.analysis.frames_of_words import words
    from finetune_lm.analysis.pairs import pairs
    from finetune_lm.analysis.report import report
    from finetune_lm.arguments import (
        DataTrainingArguments,
        ModelArguments,
        OptimizationArguments,
    )
    from finetune_lm.experiment import run
    from finetune_lm.grids.collecting import load_grid
    from finetune_lm.grids.grid_result import GridResult, grid
    from finetune_lm.recording.tables import load_metrics, load_probes
    from finetune_lm.resuming import resume
    from finetune_lm.runs.run_result import RunResult

__version__ = "0.1.0"

# torch's threads spin while they wait for each other, which on a machine that is busy with other
# work made testing tiny-lm 17 times slower than letting them sleep (two cores, load 5). torch reads
# this when it is loaded, so it is set before; who has set it keeps their choice.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PLACES = {
    "DataTrainingArguments": "finetune_lm.arguments",
    "ModelArguments": "finetune_lm.arguments",
    "OptimizationArguments": "finetune_lm.arguments",
    "GridResult": "finetune_lm.grids.grid_result",
    "RunResult": "finetune_lm.runs.run_result",
    "grid": "finetune_lm.grids.grid_result",
    "load_grid": "finetune_lm.grids.collecting",
    "load_metrics": "finetune_lm.recording.tables",
    "load_probes": "finetune_lm.recording.tables",
    "pairs": "finetune_lm.analysis.pairs",
    "report": "finetune_lm.analysis.report",
    "resume": "finetune_lm.resuming",
    "run": "finetune_lm.experiment",
    "words": "finetune_lm.analysis.frames_of_words",
}

__all__ = [
    "DataTrainingArguments",
    "GridResult",
    "ModelArguments",
    "OptimizationArguments",
    "RunResult",
    "UserError",
    "grid",
    "load_grid",
    "load_metrics",
    "load_probes",
    "pairs",
    "report",
    "resume",
    "run",
    "words",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
