"""What a Python user gets back from a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.analysis.pair_tables import PAIRS_SUFFIX, RESULTS_SUFFIX, SUMMARY_SUFFIX
from finetune_lm.recording.tables import load_metrics, load_probes
from finetune_lm.runs.directory import METRICS, PROBE_RESULTS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunResult:
    """What a run has found, and where it is.

    Attributes:
        output_dir: The directory with all that the run has written.
        best_loss: The validation loss of the best epoch; None if nothing was trained.
        best_epoch: The epoch that reached it.
        test_results_path: The table of test results; None if nothing was tested.
    """

    output_dir: Path
    best_loss: float | None = None
    best_epoch: int | None = None
    test_results_path: Path | None = None

    @cached_property
    def metrics(self) -> pd.DataFrame | None:
        """The table of training and validation, read when first asked for; None without one."""
        path = self.output_dir / METRICS
        return load_metrics(path) if path.exists() else None

    @cached_property
    def probe_results(self) -> pd.DataFrame | None:
        """The table of probes, read when first asked for; None without one."""
        path = self.output_dir / PROBE_RESULTS
        return load_probes(path) if path.exists() else None

    @cached_property
    def test_results(self) -> pd.DataFrame | None:
        """The table of test results, read when first asked for; None without one."""
        return load_metrics(self.test_results_path) if self.test_results_path else None

    @cached_property
    def probe_pairs(self) -> pd.DataFrame | None:
        """What was compared in probes, read when first asked for; None without pairs."""
        return _read_beside(self.output_dir / PROBE_RESULTS, PAIRS_SUFFIX)

    @cached_property
    def probe_summary(self) -> pd.DataFrame | None:
        """The summary of what was compared in probes, likewise."""
        return _read_beside(self.output_dir / PROBE_RESULTS, SUMMARY_SUFFIX)

    @cached_property
    def test_pairs(self) -> pd.DataFrame | None:
        """What was compared in test data, read when first asked for; None without pairs."""
        return _read_beside(self.test_results_path, PAIRS_SUFFIX)

    @cached_property
    def test_summary(self) -> pd.DataFrame | None:
        """The summary of what was compared in test data, likewise."""
        return _read_beside(self.test_results_path, SUMMARY_SUFFIX)


def _read_beside(table: Path | None, suffix: str) -> pd.DataFrame | None:
    """A table of pairs or a summary that belongs to a table of tokens; None without one."""
    import pandas as pd

    path = None if table is None else Path(str(table).removesuffix(RESULTS_SUFFIX) + suffix)
    if path is None or not path.exists():
        return None
    return load_metrics(path) if suffix == PAIRS_SUFFIX else pd.read_csv(path)
