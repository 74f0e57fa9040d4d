"""How long a run takes two processes, one thread each, beside one process with one thread.

Measured is time by the clock, since the processes compute at the same time: two cores must be free.
Both sides have batches of the same size, in turn, and the least of each counts.

    python benchmarks/several_devices.py
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import workload
from measuring import Row

N_TIMES = 3
BATCH = 32


def run(quick: bool) -> list[Row]:
    """The time of training and of testing, and what the messages between processes take."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        workload.causal_model("tiny" if quick else "small").save_pretrained(place / "model")
        workload.built_in_tokenizer().save_pretrained(place / "model")
        _write(place / "taught.txt.gz", workload.taught())
        _write(place / "fillers.txt.gz", workload.fillers(2_000))
        taught = str(place / "taught.txt.gz")
        training = [
            *("--train_file", taught, "--validation_file", taught, "--epochs", "3"),
            *("--save_best_model_state_to_disk", "False", "--checkpoint_every", "0"),
        ]
        testing = ["--test_file", str(place / "fillers.txt.gz")]
        return [
            _row(place, training, "training", "epochs of training and validation", 0.6),
            _row(place, testing, "testing", "a test", 0.55),
        ]


def _row(place: Path, words: list[str], what: str, shown: str, target: float) -> Row:
    found = [[_seconds(place, words, what, n) for n in (1, 2)] for _ in range(N_TIMES)]
    one, two = map(min, zip(*found, strict=True))
    row = f"{shown}, two processes of one thread"
    return Row.at_most(row, "one process of one thread", two / one, target)


def _seconds(place: Path, words: list[str], what: str, n: int) -> float:
    """How long a part of a run of so many processes took, by the clock."""
    with tempfile.TemporaryDirectory(dir=place) as output:
        program = ["-m", "finetune_lm"]
        if n > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
            program = [*launcher, *program]
        sizes = [
            word
            for part in ("train", "validation", "test")
            for word in (f"--per_device_{part}_batch_size", str(BATCH // n))
        ]
        given = ["--model_name_or_path", str(place / "model"), "--seed", "1", *words, *sizes]
        subprocess.run(
            [sys.executable, *program, *given, "--output_dir", f"{output}/run"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        record = json.loads(Path(output, "run", "run.json").read_text(encoding="utf-8"))
        return float(record["seconds"][what])


def _write(path: Path, texts: list[str]) -> None:
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts).encode()))


def main() -> None:
    """Print the table."""
    for row in run(quick=False):
        print(f"{f'{row.what} / {row.against}':<90}  {row.value}")


if __name__ == "__main__":
    main()
