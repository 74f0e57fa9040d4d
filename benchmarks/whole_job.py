"""A whole job, against how it is done otherwise: minutes for each row, so `run.py` leaves it out.

    python benchmarks/whole_job.py                      all rows, in a quarter of an hour
    python benchmarks/whole_job.py small-kl             some of them
    python benchmarks/whole_job.py small --against loop one of them: trainer, loop or floor
    python benchmarks/whole_job.py --part 0.1           a tenth of the epochs and of the test lines
    python benchmarks/whole_job.py --others 1           nothing of the other ways is worked out

A job is what people do: load a model, teach it 160 sentences for some epochs, measure every token
of these and of 160 validation sentences in each epoch, and of all test sentences in the end, all of
it in a table on disk. It is compared with transformers' Trainer and minicons, which are there for
it, and with the loop that one writes with care. The floor is the products of matrices alone.

Ours is done whole. The other ways take an hour: they do a fifth, and since each epoch and each line
costs them the same, the rest is worked out.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

import workload
from careful_loop import N_DRAWN, careful_loop
from fitted_model import smollm2
from measuring import Row, Worker, processor_time
from trainer_and_minicons import trainer_and_minicons

# One of so many test sentences is among those that the model of SmolLM2's shape has learned of.
_EVERY = 4


@dataclass(frozen=True)
class Job:
    """How large a job is, and how its times are to compare.

    Attributes:
        shape: That of the model: ``small`` or ``smollm2``.
        n_taught: How many sentences it is taught, and how many it is validated on.
        n_tests: The lines of each test file.
        epochs: How often it sees them.
        with_kl: Whether a KL term against the untouched model is added.
        targets: At most so much of the time of each other way.
    """

    shape: str
    n_taught: int
    n_tests: tuple[int, ...]
    epochs: int
    with_kl: bool
    targets: dict[str, float]

    def part(self, share: float) -> Job:
        """A smaller one."""
        n_tests = tuple(max(round(n * share), 1) for n in self.n_tests)
        epochs = max(round(self.epochs * share), 1)
        return replace(self, n_tests=n_tests, epochs=epochs)

    def shortest(self) -> Job:
        """One that goes through everything once."""
        return replace(self.part(0.0), n_taught=8)


TRAINER, LOOP, FLOOR = "Trainer and minicons", "a careful loop", "its matrix products"
JOBS = {
    "small": Job("small", 160, (1_536, 17_280), 10, False, {TRAINER: 0.18, LOOP: 0.14, FLOOR: 1.6}),
    "small-kl": Job("small", 160, (), 10, True, {TRAINER: 0.25, LOOP: 0.25, FLOOR: 1.6}),
    "smollm2": Job("smollm2", 64, (2_100,), 2, False, {TRAINER: 0.35, LOOP: 0.35, FLOOR: 1.6}),
    "smollm2-kl": Job("smollm2", 64, (), 2, True, {LOOP: 0.6}),
}
MAKERS = {TRAINER: "trainer", LOOP: "loop", FLOOR: "floor"}


def main() -> None:
    """Measure, and print a line for each row as soon as it is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="job", help=", ".join(JOBS))
    parser.add_argument(
        "--against", choices=list(MAKERS.values()), help="only this one of the other ways"
    )
    parser.add_argument("--part", type=float, default=1.0, help="how much of each job")
    parser.add_argument(
        "--others", type=float, default=0.2, help="how much of that the other ways really do"
    )
    parser.add_argument("--times", type=int, default=1, help="how often each is done")
    args = parser.parse_args()
    if unknown := set(args.jobs) - set(JOBS):
        parser.error(f"there is no job {', '.join(sorted(unknown))}")
    ways = [way for way, maker in MAKERS.items() if args.against in (None, maker)]
    for name in args.jobs or JOBS:
        for row in rows_of(name, ways, args.part, args.others, args.times):
            line = f"{row.what} | {row.against} | {row.value} | {row.target} | {row.met}"
            print(line, flush=True)


def rows_of(
    name: str, ways: Sequence[str], part: float, others: float, n_times: int
) -> Iterator[Row]:
    """The rows of one job: its time as part of each other way's, all taken in turn.

    Args:
        name: The job's.
        ways: Which other ways, as far as the job has targets for them.
        part: How much of it is done.
        others: How much of that the other ways do.
        n_times: How often each way is measured. The least counts.
    """
    job, what = JOBS[name], f"whole job {name}"
    targets = {way: target for way, target in job.targets.items() if way in ways}
    if TRAINER in targets and not _has_minicons():
        target = targets.pop(TRAINER)
        yield Row(what, TRAINER, "not measured: not installed", f"≤ {target:g}")
    model = model_of(job.shape)
    shares = dict.fromkeys(["ours", *(MAKERS[way] for way in targets)], others) | {"ours": 1.0}
    times: dict[str, float] = {}
    for _ in range(n_times):
        for maker, share in shares.items():
            with Worker("whole_job", maker, name=name, model=model, part=part, share=share) as side:
                times[maker] = min(side.measure(), times.get(maker, float("inf")))
    print(name, {maker: round(time, 1) for maker, time in times.items()}, file=sys.stderr)
    for way, target in targets.items():
        yield Row.at_most(what, way, times["ours"] / times[MAKERS[way]], target)


def _has_minicons() -> bool:
    return importlib.util.find_spec("minicons") is not None


# Each side, in a process of its own. What is imported and found out once per process is done before
# it is measured.


def ours(name: str, model: str, part: float, share: float) -> Callable[[], object]:
    """The job as a run of the product."""
    from finetune_lm.cli import main as finetune_lm

    workload.one_thread()
    out = workload.scratch_directory() / "out"

    def run(job: Job) -> None:
        shutil.rmtree(out, ignore_errors=True)
        # Tokenized data that an earlier run has left would be a head start.
        assert finetune_lm([*arguments_of(job, model), "--overwrite_cache", "True"]) == 0

    job = JOBS[name].part(part)
    run(job.shortest())
    return lambda: run(job.part(share))


def arguments_of(job: Job, model: str) -> list[str]:
    """The command line of a job's run."""
    files, out = _files(job), workload.scratch_directory() / "out"
    args = ["--model_name_or_path", model, "--epochs", str(job.epochs), "--seed", "1"]
    args += ["--train_file", files["train"], "--validation_file", files["validation"]]
    args += ["--output_dir", str(out), "--save_best_model_state_to_disk", "False"]
    if job.n_tests:
        args += ["--test_file", f"json:{json.dumps(files['tests'])}"]
    if job.with_kl:
        kwargs = "--loss_classes_kwargs.train.KLBaselineLoss"
        args += ["--loss_classes.train", "loss_classes.OutputsDefaultLoss"]
        args += ["loss_classes.KLBaselineLoss", f"{kwargs}.dataset", files["kl"]]
    return args


def trainer(name: str, model: str, part: float, share: float) -> Callable[[], float]:
    """The job by transformers' Trainer, and by minicons for what tokens cost."""
    workload.one_thread()
    return worked_out(
        lambda job: trainer_and_minicons(model, texts_of(job), job), JOBS[name].part(part), share
    )


def loop(name: str, model: str, part: float, share: float) -> Callable[[], float]:
    """The job by a loop written with care."""
    workload.one_thread()
    return worked_out(
        lambda job: careful_loop(model, texts_of(job), job), JOBS[name].part(part), share
    )


def floor(name: str, model: str, part: float, share: float) -> Callable[[], float]:
    """The products of matrices that the job takes, each token and shared beginning once."""
    workload.one_thread(tuned=True)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    return worked_out(lambda job: products_of(loaded, job), JOBS[name].part(part), share)


def worked_out(do: Callable[[Job], object], job: Job, share: float) -> Callable[[], float]:
    """Measures a way to do jobs by a share of one, and tells what all of it would take.

    Args:
        do: Does a job.
        job: The whole one.
        share: How much of its epochs and of its test lines is done.
    """
    small, start = job.part(share), replace(job, epochs=0, n_tests=())
    do(job.shortest())

    def seconds() -> float:
        to_start = processor_time(lambda: do(start))
        training = processor_time(lambda: do(replace(small, n_tests=()))) - to_start
        total = to_start + training * job.epochs / small.epochs
        if job.n_tests:
            testing = processor_time(lambda: do(replace(small, epochs=0))) - to_start
            total += testing * sum(job.n_tests) / sum(small.n_tests)
        return total

    return seconds


def products_of(model: Any, job: Job) -> None:
    """The products of matrices of a job."""
    tokenizer, texts = workload.built_in_tokenizer(), texts_of(job)
    head = model.get_output_embeddings()
    body = [m.weight.data for m in model.modules() if _multiplies(m) and m is not head]

    def products(n: int, *, learns: bool) -> None:
        """Those of n tokens: forward, and for what is learned backward to inputs and weights."""
        for weight in (*body, head.weight.data):
            # GPT-2's layers hold their weights the other way round.
            matrix = weight if weight.shape[0] >= weight.shape[1] else weight.T
            inputs = torch.empty(n, matrix.shape[1]).normal_()
            outputs = inputs @ matrix.T
            if learns:
                torch.mm(outputs, matrix)
                torch.mm(outputs.T, inputs)

    def n_tokens(lines: Sequence[str]) -> int:
        return sum(len(ids) for ids in tokenizer(list(lines))["input_ids"])

    def n_distinct(lines: Sequence[str]) -> int:
        """How many beginnings there are, each counted once."""
        found = tokenizer(list(lines))["input_ids"]
        return len({tuple(ids[:n]) for ids in found for n in range(1, len(ids) + 1)})

    size = workload.BATCH_SIZE
    for _ in range(job.epochs):
        for begin in range(0, len(texts["train"]), size):
            products(n_tokens(texts["train"][begin : begin + size]), learns=True)
            if job.with_kl:
                n = n_tokens(texts["kl"][:: len(texts["kl"]) // N_DRAWN][:N_DRAWN])
                products(n, learns=True)
                products(n, learns=False)
        products(n_distinct(texts["validation"]), learns=False)
    for lines in texts["tests"]:
        # Sixteen batches at a time, as the product does it.
        for begin in range(0, len(lines), 16 * size):
            products(n_distinct(lines[begin : begin + 16 * size]), learns=False)


def _multiplies(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear | transformers.pytorch_utils.Conv1D)


# What they work on


def texts_of(job: Job) -> dict[str, Any]:
    """The sentences of a job: ``train``, ``validation``, ``tests`` (lists of them), ``kl``."""
    taught = workload.taught()[: job.n_taught]
    return {
        "train": taught,
        "validation": [text.replace("blorked", "been blorking") for text in taught],
        "tests": [workload.fillers()[-n:] for n in job.n_tests],
        "kl": workload.mixed(),
    }


def _files(job: Job) -> dict[str, Any]:
    directory = workload.scratch_directory()

    def write(name: str, lines: Sequence[str]) -> str:
        path = directory / f"{name}.txt.gz"
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
        metadata = [{"item": i // 6, "condition": "ab"[i % 2]} for i in range(len(lines))]
        text = "".join(f"{json.dumps(each)}\n" for each in metadata)
        (directory / f"{name}_metadata.json.gz").write_bytes(gzip.compress(text.encode()))
        return str(path)

    texts = texts_of(job)
    return {
        **{kind: write(kind, texts[kind]) for kind in ("train", "validation", "kl")},
        "tests": [write(f"test_{i}", lines) for i, lines in enumerate(texts["tests"])],
    }


@cache
def model_of(shape: str) -> str:
    """A directory with a model, made on the spot."""
    directory = workload.scratch_directory() / shape
    tokenizer = workload.built_in_tokenizer()
    if shape == "small":
        model = workload.causal_model(shape)
    else:
        texts = texts_of(JOBS["smollm2"])
        some = [*texts["train"], *texts["validation"], *texts["tests"][0][::_EVERY]]
        model = smollm2(some, tokenizer)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return str(directory)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
