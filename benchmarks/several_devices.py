"""How long a run takes two processes, one thread each, beside one process with one thread.

Measured is time by the clock, since the processes compute at the same time: two cores must be free.
Both sides have batches of the same size, in turn, and the shortest epoch or test of each counts.
What a process does once at its start is left out: epochs count from the second on.

    python benchmarks/several_devices.py
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import workload
from measuring import Row

N_TIMES = 3
BATCH = 32
N_EPOCHS = 5
N_TESTED = 9_000
_LONGEST = 300.0
"""How many seconds a run may take."""


@dataclass(frozen=True)
class Took:
    """How long the shortest of the parts of a run took that are looked at.

    Attributes:
        seconds: It.
        telling: How much of that went into messages between processes, and waiting for them.
    """

    seconds: float
    telling: float


def run(quick: bool) -> list[Row]:
    """The time of training and of testing, and what the messages between processes take."""
    if _n_cores() < 2:
        return [Row("two processes", "one process", "needs two cores")]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        workload.causal_model("tiny" if quick else "small").save_pretrained(place / "model")
        workload.built_in_tokenizer().save_pretrained(place / "model")
        taught, fillers = place / "taught.txt.gz", place / "fillers.txt.gz"
        _write(taught, workload.taught())
        _write(fillers, workload.fillers(1_000 if quick else N_TESTED))
        training = [
            *("--train_file", str(taught), "--validation_file", str(taught)),
            *("--epochs", str(N_EPOCHS), "--checkpoint_every", "0"),
            *("--save_best_model_state_to_disk", "False"),
        ]
        return [
            *_rows(place, training, ["end_epoch"], "an epoch of training and validation", 0.6),
            *_rows(
                place,
                ["--test_file", str(fillers)],
                ["pre_test", "post_test_dataset"],
                "a test",
                0.55,
            ),
        ]


def _n_cores() -> int:
    """How many cores this process may use, where the system says so; else how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _rows(place: Path, words: list[str], points: list[str], what: str, target: float) -> list[Row]:
    """What one part of a run takes two processes, and how much of it they tell each other things.

    Args:
        place: Where the model is.
        words: The arguments of the run.
        points: The points of the run between which it is measured.
        what: The part.
        target: What it is to take two processes at most, of what it takes one.
    """
    found = [[_took(place, words, points, n) for n in (1, 2)] for _ in range(N_TIMES)]
    one, two = (min(side, key=lambda took: took.seconds) for side in zip(*found, strict=True))
    times = f"{what}, two processes of one thread"
    share = f"{what}, messages between two processes"
    return [
        Row.at_most(times, "one process of one thread", two.seconds / one.seconds, target),
        Row(share, "the same in all", f"{two.telling / two.seconds:.3g}"),
    ]


def _took(place: Path, words: list[str], points: list[str], n: int) -> Took:
    """How long a part of a run of so many processes took, by the clock."""
    with tempfile.TemporaryDirectory(dir=place) as output:
        program = ["-m", "run_clock"]
        if n > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
            program = [*launcher, *program]
        sizes = [
            word
            for part in ("train", "validation", "test")
            for word in (f"--per_device_{part}_batch_size", str(BATCH // n))
        ]
        file = Path(output) / "times.jsonl"
        given = ["--model_name_or_path", str(place / "model"), "--seed", "1", *words, *sizes]
        clock = {"CLOCK_POINTS": " ".join(points), "CLOCK_FILE": str(file)}
        _do([sys.executable, *program, *given, "--output_dir", f"{output}/run"], clock)
        times = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        parts = [
            [after - before for before, after in zip(*pair, strict=True)]
            for pair in itertools.pairwise(times)
        ]
        return Took(*min(parts))


def _do(command: list[str], environment: dict[str, str]) -> None:
    """Do a command line to its end; whatever ends this, no process of it is left.

    Args:
        command: It.
        environment: What is in its environment besides.

    Raises:
        RuntimeError: If it fails, with the end of what it has said.
    """
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        command,
        env={
            **os.environ,
            **environment,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": path.rstrip(os.pathsep),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=_LONGEST)
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} has failed: {said[-2000:]}")


def _write(path: Path, texts: list[str]) -> None:
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in texts).encode()))


def main() -> None:
    """Print the table."""
    for row in run(quick=False):
        print(f"{f'{row.what} / {row.against}':<90}  {row.value}")


if __name__ == "__main__":
    main()
