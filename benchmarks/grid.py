"""What runs of a grid cost one after another in one process, beside a process for each.

Measured is all processor time of the processes, from their start to their end. A process for each
run is measured a few times, and the least of that counts as often as there are runs.

    python benchmarks/grid.py
"""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from measuring import Row

DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
N_ALONE = 3
KL = {
    "loss_classes.train": ["loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"],
    "loss_classes_kwargs.train.KLBaselineLoss.dataset": str(DATA / "sentences.txt.gz"),
}


def run(quick: bool) -> list[Row]:
    """The processor time of a worker, against that of a process for each run."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        usual = {
            "model_name_or_path": "tiny-lm",
            "train_file": str(DATA / "flomped_active.txt.gz"),
            "validation_file": str(DATA / "flomped_passive.txt.gz"),
            "test_file": str(DATA / "flomped_test.txt.gz"),
            "epochs": 5,
        }
        sentence = place / "sentence.txt.gz"
        sentence.write_bytes(gzip.compress(b"The girl has often blicked the boy.\n"))
        short = {
            "model_name_or_path": "tiny-lm",
            **dict.fromkeys(("train_file", "validation_file", "test_file"), str(sentence)),
            "epochs": 10,
            "model_modifier_fns": "model_modifiers.add_new_tokens",
            "model_modifier_fn_kwargs.add_new_tokens": {
                "added_tokens": "blicked",
                "init": "random",
            },
            "model_pre_train_step_callbacks": "model_modifiers.UnfreezeWordTokensCallback",
            "model_pre_train_step_callbacks_kwargs.UnfreezeWordTokensCallback.words_to_unfreeze": (
                "blicked"
            ),
        }
        n_short = 40 if quick else 200
        return [
            _row(place / "usual", usual, 12, "12 runs of tiny-lm", 0.25),
            _row(place / "kl", {**usual, **KL}, 12, "12 runs of tiny-lm with a KL term", None),
            _row(place / "short", short, n_short, f"{n_short} runs of one sentence", 0.2),
        ]


def _row(place: Path, base: dict[str, Any], n: int, what: str, target: float | None) -> Row:
    place.mkdir()
    (place / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    grid = {"output_dir": "out", "base": "base.yaml", "vary": {"seed": f"1..{n}"}}
    (place / "grid.yaml").write_text(yaml.safe_dump(grid), encoding="utf-8")
    alone = min(
        _seconds(place, ["--config", "base.yaml", "--seed", str(i), "--output_dir", f"alone{i}"])
        for i in range(N_ALONE)
    )
    together = _seconds(place, ["grid", "grid.yaml", "run"])
    ratio, row = together / (n * alone), f"{what} in one process"
    if target is None:
        return Row(row, "a process for each", f"{ratio:.3g}")
    return Row.at_most(row, "a process for each", ratio, target)


def _seconds(place: Path, words: Sequence[str]) -> float:
    """The processor time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "finetune_lm", *words],
        cwd=place,
        env={**os.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    for row in run(quick=False):
        print(f"{f'{row.what} / {row.against}':<70}  {row.value}")


if __name__ == "__main__":
    main()
