"""What a run has left in its directory, read without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from finetune_lm.constants import CONFIG_YAML, RUN_JSON
from finetune_lm.errors import UserError
from finetune_lm.whole_files import unsealed

_METRICS = "metrics.csv.gz"
_PROBES = "probe_results.csv.gz"
_TESTS = "*-test_results.csv.gz"
_PAIRS = "probe_summary.csv", "validation_summary.csv", "*-test_summary.csv"


@dataclass(frozen=True)
class RunFiles:
    """A run's directory.

    Attributes:
        directory: Where it is.
        record: What ``run.json`` says.
        config: What ``config.yaml`` says.
        config_text: The same as it was written.
    """

    directory: Path
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    config_text: str

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Read what a run has on record.

        Raises:
            UserError: If the directory is not one of a run.
        """
        import yaml

        if not directory.is_dir():
            what = "is no directory" if directory.exists() else "is not there"
            raise UserError(
                f"RUN_DIR must be the output directory of a run, but {directory} {what}."
            )
        if (series := directory / "revisions").is_dir():
            raise UserError(
                f"RUN_DIR must be the output directory of a run, but {directory} is one of a "
                f"series of checkpoints: name the directories in {series}."
            )
        try:
            record = unsealed(directory / RUN_JSON)
            text = (directory / CONFIG_YAML).read_text("utf-8")
            # The loader in C takes a tenth of the time where it is installed.
            config = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except FileNotFoundError as error:
            missing = Path(str(error.filename)).name
            raise UserError(
                f"RUN_DIR must be the output directory of a run, but {directory} has no {missing}."
                f"{_runs_below(directory)}"
            ) from None
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from None
        except (ValueError, yaml.YAMLError) as error:
            first = str(error).partition("\n")[0]
            raise UserError(f"the record of {directory} cannot be read: {first}.") from None
        return cls(directory, record, config if isinstance(config, dict) else {}, text)

    @property
    def name(self) -> str:
        """What it is called in a report."""
        return self.directory.as_posix()

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the model that was kept; None if nothing was trained."""
        found = self.record.get("best_epoch")
        return found if isinstance(found, int) else None

    @property
    def seed(self) -> Any:
        """Its seed."""
        return self.config.get("seed")

    @property
    def model_name(self) -> str:
        """The model as named on the command line."""
        return str(self.config.get("model_name_or_path"))

    @property
    def was_trained(self) -> bool:
        """Whether anything was learned, rather than only tested."""
        return self.config.get("train_file") is not None

    @property
    def metrics(self) -> Path | None:
        """Its table of training and validation data."""
        return self._table(_METRICS)

    @property
    def probes(self) -> Path | None:
        """Its table of probes."""
        return self._table(_PROBES)

    @property
    def token_tables(self) -> list[Path]:
        """Its tables of tokens, of those that have anything in them."""
        tests = [self._table(path.name) for path in sorted(self.directory.glob(_TESTS))]
        return [path for path in (self.metrics, self.probes, *tests) if path is not None]

    def _table(self, name: str) -> Path | None:
        path = self.directory / name
        return path if path.is_file() and path.stat().st_size > 0 else None

    @property
    def pair_summaries(self) -> list[Path]:
        """Its summaries of minimal pairs."""
        found = [path for pattern in _PAIRS for path in sorted(self.directory.glob(pattern))]
        return [path for path in found if path.stat().st_size > 0]


def read_runs(directories: Sequence[str | Path]) -> list[RunFiles]:
    """Read what several runs have on record.

    Raises:
        UserError: About all that are none, or are named twice.
    """
    runs, problems = [], []
    seen: dict[Path, str | Path] = {}
    for each in directories:
        path = Path(each)
        if path.resolve() in seen:
            problems.append(f"RUN_DIR {each} is given twice.")
            continue
        seen[path.resolve()] = each
        try:
            runs.append(RunFiles.read(path))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return runs


def _runs_below(directory: Path) -> str:
    """A hint, if there are runs further down."""
    below = sorted(path.parent for path in directory.glob(f"*/{RUN_JSON}"))
    if not below:
        return ""
    shown = " ".join(str(path) for path in below[:3])
    return f" There are runs in it, such as {shown}."
