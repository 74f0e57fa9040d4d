"""Kill runs of every kind again and again, and compare what comes of them: ``make soak``.

    python tests/soak.py --kills 50 --seed 0

Each process of a run gets SIGKILL at an event (a step, a part of a file, a name), SIGKILL at a
moment, or SIGTERM, SIGINT, SIGUSR1 at an event, all drawn from the seed, and the next one resumes.
After some kills the run is left to finish, and must be the same to the byte as one that was never
stopped. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from crashing import difference, do_run, in_a_process, n_events, start_process
from setups import DATA, PROBES, setup

KILLS_OF_A_RUN = (3, 7)
WAYS = {
    "SIGKILL at an event": (None, 5),
    "SIGKILL at a moment": (None, 2),
    "SIGTERM": (signal.SIGTERM, 1),
    "SIGINT": (signal.SIGINT, 1),
    "SIGUSR1": (signal.SIGUSR1, 1),
}
"""Ways to stop a process: the signal that is sent at an event, and how often each is taken."""


def kinds() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The runs: every kind of model, with what is there of losses and callbacks."""
    import finetune_lm.loss_classes as losses
    import finetune_lm.model_modifiers as modifiers

    found = {
        "lm": setup("lm"),
        "lm, never a checkpoint but at signals": setup("lm", checkpoint_every=0),
        "mlm, masks for each batch": setup("mlm"),
        "seq2seq, spans for each batch": setup("seq2seq"),
        "lm, checkpoints by time": setup("lm", checkpoint_every=None, patience=2),
        "lm, probes": setup("lm", **PROBES, probe_every=2),
        "mlm, probes within epochs, masks for each batch": setup(
            "mlm", **PROBES, probe_every_steps=2
        ),
        "seq2seq, probes within epochs": setup("seq2seq", **PROBES, probe_every_steps=2),
        "lm, probes, never a checkpoint but at signals": setup("lm", **PROBES, checkpoint_every=0),
    }
    if hasattr(losses, "KLBaselineLoss"):
        for kind in ("lm", "mlm", "seq2seq"):
            found[f"{kind}, KL"] = setup(kind, **_kl(kind))
    if hasattr(modifiers, "UnfreezeWordTokensCallback"):
        model, data = found.get("lm, KL", setup("lm"))
        frozen = {
            **model,
            "model_pre_train_step_callbacks": ["model_modifiers.UnfreezeWordTokensCallback"],
            "model_pre_train_step_callbacks_kwargs": {
                "UnfreezeWordTokensCallback": {"words_to_unfreeze": ["the", "has"]}
            },
        }
        found["lm, KL, all but two words frozen"] = (frozen, data)
    return found


def _kl(kind: str) -> dict[str, Any]:
    classes = ["loss_classes.OutputsDefaultLoss", "loss_classes.KLBaselineLoss"]
    kwargs: dict[str, Any] = {
        "dataset": str(DATA / "fillers.txt.gz"),
        "n_examples_per_batch": 5,
        "max_samples_per_dataset": 40,
    }
    if kind != "lm":
        function = "mask_random_tokens" if kind == "mlm" else "mask_random_spans"
        kwargs["data_preprocessing_fn"] = f"data_preprocessing.{function}"
        kwargs["data_preprocessing_fn_strategy"] = "per_batch"
    parts = ("train", "validation")
    return {
        "loss_classes": dict.fromkeys(parts, classes),
        "loss_classes_kwargs": {part: {"KLBaselineLoss": dict(kwargs)} for part in parts},
    }


def soak(place: Path, n_kills: int, seed: int, only: str = "") -> int:
    """Kill runs so many times in all. Returns how many runs ended up different.

    Args:
        place: Where they are.
        n_kills: How many times.
        seed: What is drawn follows from it.
        only: What is in the names of those that are killed.
    """
    draw = random.Random(seed)
    runs = {name: run for name, run in kinds().items() if only in name}
    begun = time.monotonic()
    tally: Counter[str] = Counter()
    n_wrong = n_runs = 0
    whole: dict[str, tuple[int, float]] = {}
    while tally.total() < n_kills:
        name = list(runs)[n_runs % len(runs)]
        model, data = runs[name]
        directory = place / f"{n_runs % len(runs)}"
        if name not in whole:
            directory.mkdir()
            started = time.monotonic()
            events = n_events(directory, model, {**data, "output_dir": "whole"})
            whole[name] = (events, time.monotonic() - started)
        data = {**data, "output_dir": f"parts{n_runs}"}
        wanted = min(draw.randint(*KILLS_OF_A_RUN), n_kills - tally.total())
        killed, n_processes = stop_and_resume(draw, directory, model, data, whole[name], wanted)
        different = difference(directory / "whole", directory / data["output_dir"])
        tally.update(killed)
        n_runs += 1
        n_wrong += bool(different)
        print(
            f"{name}: {sum(killed.values())} stops in {n_processes} processes, "
            f"{', '.join(different) + ' DIFFERENT' if different else 'the same to the byte'}",
            flush=True,
        )
    print(f"\n{n_runs} runs of {len(whole)} kinds, {n_wrong} of them different.")
    print(f"{tally.total()} stops: {', '.join(f'{n} {way}' for way, n in sorted(tally.items()))}.")
    print(f"{time.monotonic() - begun:.0f} s.")
    return n_wrong


def stop_and_resume(
    draw: random.Random,
    directory: Path,
    model: dict[str, Any],
    data: dict[str, Any],
    whole: tuple[int, float],
    wanted: int,
) -> tuple[Counter[str], int]:
    """Do a run whose processes are stopped so many times in all, and then one that finishes it.

    Args:
        draw: Where chance comes from.
        directory: Where the run is started.
        model: Its arguments.
        data: Its arguments.
        whole: How many events an unbroken run has, and how many seconds it takes.
        wanted: How often to stop it.

    Returns:
        How often each way of stopping came about, and how many processes there were.
    """
    killed: Counter[str] = Counter()
    n_processes = 0
    while True:
        n_processes += 1
        way = None
        if sum(killed.values()) < wanted:
            # Without checkpoints only a signal that can be heeded leaves something to go on from.
            ways = {w: x for w, (n, x) in WAYS.items() if n or data["checkpoint_every"] != 0}
            way = draw.choices(list(ways), list(ways.values()))[0]
        if way == "SIGKILL at a moment":
            process = start_process(do_run, str(directory), model, data, None, None)
            process.join(draw.uniform(0, whole[1]))
            process.kill()
            process.join()
            status = process.exitcode
        else:
            fatal = draw.randint(1, whole[0] // 2) if way else None
            number = WAYS[way][0] if way else None
            args = (str(directory), model, data, fatal, None, number or signal.SIGKILL)
            status = in_a_process(do_run, *args)
        if status == 0:
            return killed, n_processes
        # Before a run begins, a signal just ends the process.
        if way is None or not (status < 0 or status > 128):
            said = Path(os.environ["CRASHING_LOG"]).read_text()[-3000:]
            raise SystemExit(f"{said}\n{directory / data['output_dir']}: exit status {status}")
        killed[way] += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="runs with this in their name")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finetune_lm_soak_") as temporary:
        os.environ["CRASHING_LOG"] = f"{temporary}/log"
        sys.exit(1 if soak(Path(temporary), given.kills, given.seed, given.only) else 0)
