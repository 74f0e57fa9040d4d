"""A callback that keeps the model at steps that lie further and further apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_lm.model_modifiers import ModelCallback


class KeepAtSteps(ModelCallback):
    """Save model and tokenizer before the first step, and after those that are named.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        run: What the run has come to.
        steps: After how many steps.
        directory: Where ``step0``, ``step1``, ... go, as Pythia's checkpoints are called.
    """

    def __init__(
        self, model: Any, tokenizer: Any, run: Any, steps: list[int], directory: str
    ) -> None:
        super().__init__(model, tokenizer)
        self._run = run
        self._steps = set(steps)
        self._directory = Path(directory)
        self._keep(0)

    def __call__(self, epoch: int | None, batch: Any) -> None:
        """Save the model if this is one of the steps."""
        if self._run.step in self._steps:
            self._keep(self._run.step)

    def _keep(self, step: int) -> None:
        self.model.save_pretrained(self._directory / f"step{step}")
        self.tokenizer.save_pretrained(self._directory / f"step{step}")
