"""See that a change of the inside changes nothing that a run leaves behind.

    python scripts/same_results.py keep HASHES.json [--only NAME ...]   # before the change
    python scripts/same_results.py compare HASHES.json [--only NAME ...]  # after it

Runs of every kind are done in a fresh directory through the command line, and the content of every
file that they leave is hashed, messages included. What tells time, place or machine is taken out
first. ``compare`` names each file that differs, is missing or is new, and exits with 1 if there is
one. Hashes are only comparable on one machine, with one version of each package.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "nonce_verb"
COMMAND = [sys.executable, "-m", "finetune_lm"]

# What differs between two runs of the same command, or says where a run was done.
TELLS_TIME = [
    (re.compile(r"\d{4}-\d\d-\d\d[T_ ]\d\d[:_]\d\d[:_]\d\d(\.\d+)?([+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"\d+\.\d+ s\b"), "<seconds>"),
    (re.compile(r",? ?\d+:\d\d(:\d\d)? left"), ""),
    (re.compile(r"\d+:\d\d(:\d\d)?<[\d:?]+, *[\d.?]+ ?(s/\w+|\w+/s)"), "<speed>"),
]
NOT_COMPARED = ("run.json", "journal.log", ".lock")
PICTURES = (".pdf", ".html", ".png")


def trained(kind: str, *more: str, epochs: int = 3) -> list[str]:
    """The arguments of a short run of a built-in model with everything random in it."""
    args = ["--model_name_or_path", f"tiny-{kind}", "--seed", "3", "--epochs", str(epochs)]
    args += ["--train_file", f"{DATA}/flomped_active.txt.gz"]
    args += ["--validation_file", f"{DATA}/flomped_passive.txt.gz"]
    args += ["--test_file", f"{DATA}/flomped_test.txt.gz", f"{DATA}/fillers.txt.gz"]
    args += ["--max_train_samples", "30", "--max_validation_samples", "20"]
    args += ["--max_test_samples", "40", "--eval_before_training", "--checkpoint_every", "1"]
    for part in ("train", "validation", "test"):
        args += [f"--per_device_{part}_batch_size", "8"]
    args += ["--train_optimizer_kwargs.lr", "1e-3", "--shuffle_train"]
    function = {"mlm": "mask_random_tokens", "seq2seq": "mask_random_spans"}.get(kind)
    for part in ("train", "validation", "test") if function else ():
        args += [f"--data_preprocessing_fn.{part}", f"data_preprocessing.{function}"]
        args += [f"--data_preprocessing_fn_strategy.{part}", "per_batch"]
    return [*args, *more]


def kl(weight: float) -> list[str]:
    """A KL term in training and validation, on filler sentences."""
    args = []
    for part in ("train", "validation"):
        args += [f"--loss_classes.{part}", "loss_classes.OutputsDefaultLoss"]
        args += ["loss_classes.KLBaselineLoss"]
        name = f"--loss_classes_kwargs.{part}.KLBaselineLoss"
        args += [f"{name}.dataset", f"{DATA}/fillers.txt.gz", f"{name}.scaleby", str(weight)]
        args += [f"{name}.n_examples_per_batch", "6"]
    return args


NEW_WORD = [
    *("--model_modifier_fns", "model_modifiers.add_new_tokens"),
    *("--model_modifier_fn_kwargs.add_new_tokens.added_tokens", "flomped"),
    *("--model_pre_train_step_callbacks", "model_modifiers.UnfreezeWordTokensCallback"),
    "--model_pre_train_step_callbacks_kwargs.UnfreezeWordTokensCallback.words_to_unfreeze",
    "flomped",
]
SCHEDULE = [
    *("--gradient_accumulation_steps", "2", "--max_grad_norm", "0.5"),
    *("--lr_scheduler", "linear", "--lr_scheduler_kwargs.num_warmup_steps", "2"),
]
STUDY = [
    *("--do_optimize", "--params.lr.values", "1e-5", "1e-3", "--params.lr.suggest_kwargs.log"),
    *("--params.train_KLBaselineLoss_scaleby.values", "0.5", "5.0"),
    *("--study_kwargs.sampler", "optuna.samplers.TPESampler"),
    *("--study_kwargs.sampler_kwargs", "__delete_field__"),
    *("--optimize_kwargs.n_trials", "4", "--keep_best_trial", "--study_kwargs.study_name", "s"),
]


def command(*args: str) -> Callable[[Path], list[str]]:
    """A run of the command line."""

    def do(directory: Path) -> list[str]:
        return [call([*COMMAND, *args, "--output_dir", str(directory)])]

    return do


def example(name: str) -> Callable[[Path], list[str]]:
    """An example as its user runs it."""

    def do(directory: Path) -> list[str]:
        runner = [sys.executable] if name.endswith(".py") else ["sh"]
        return [call([*runner, str(ROOT / "examples" / name), str(directory)])]

    return do


def killed(*args: str) -> Callable[[Path], list[str]]:
    """A run that is killed after its first checkpoint, resumed, stopped and resumed again."""

    def do(directory: Path) -> list[str]:
        first = [*COMMAND, *args, "--output_dir", str(directory)]
        stop(first, directory, signal.SIGKILL)
        again = [*COMMAND, "--resume", str(directory)]
        stop(again, directory, signal.SIGTERM)
        # Where a signal comes is up to the machine: only what comes of it in the end is compared.
        call(again, fails=None)
        return []

    return do


def stop(args: list[str], directory: Path, with_signal: int) -> None:
    """Start a process and stop it as soon as there is a newer checkpoint than before."""
    before = newest(directory)
    process = subprocess.Popen(args, env=environment(), stderr=subprocess.DEVNULL)
    while process.poll() is None and newest(directory) == before:
        time.sleep(0.02)
    process.send_signal(with_signal)
    process.wait()


def newest(directory: Path) -> float:
    """When the last checkpoint of a run was written."""
    times = [0.0]
    for path in directory.glob("checkpoint*/**/*"):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def runs() -> dict[str, Callable[[Path], list[str]]]:
    """All runs by name."""
    found = {
        "lm": command(*trained("lm")),
        "lm-plain": command(*trained("lm", "--fast", "False")),
        "lm-kl": command(*trained("lm", *kl(2.5))),
        "lm-new-word": command(*trained("lm", *NEW_WORD)),
        "lm-schedule": command(*trained("lm", *SCHEDULE)),
        "lm-killed": killed(*trained("lm", *kl(2.5), *SCHEDULE, epochs=12)),
        "mlm": command(*trained("mlm", *kl(1.0))),
        "seq2seq": command(*trained("seq2seq")),
        "study": command(*trained("lm", *kl(2.5), *STUDY)),
        "test-only": command(
            *("--model_name_or_path", "tiny-mlm", "--test_file", f"{DATA}/fillers.txt.gz"),
            *("--data_preprocessing_fn.test", "data_preprocessing.expand_with_masks"),
            *("--max_test_samples", "40", "--seed", "3"),
        ),
        "wrong": lambda _: [call([*COMMAND, *trained("lm", "--epoch", "3")], fails=2)],
        "help": lambda _: [call([*COMMAND, "--help"])],
    }
    for path in sorted((ROOT / "examples").glob("*")):
        if path.name in ("demo.py", "lm.sh", "masked.sh", "seq2seq.sh", "study.sh"):
            found[f"example-{path.name}"] = example(path.name)
    return found


def environment() -> dict[str, str]:
    """That of a run, so that its numbers do not depend on how this script was started."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "80", "PATH": path}
    return {**os.environ, **settings, "TOKENIZERS_PARALLELISM": "false"}


def call(args: list[str], fails: int | None = 0) -> str:
    """Run a command and return what it said; stop if its exit status is another one."""
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, check=False)
    if fails is not None and done.returncode != fails:
        sys.exit(f"{' '.join(args)}\nended with {done.returncode}:\n{done.stderr}")
    # Of a bar that is drawn again and again the last state of each line is a message.
    lines = [line.split("\r")[-1] for line in (done.stdout + done.stderr).split("\n")]
    return "\n".join(lines)


def hashes(name: str, do: Callable[[Path], list[str]]) -> dict[str, str]:
    """The hash of each file that a run leaves, and of its messages."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary) / "out"
        said = do(directory)
        found = {f"{name}: messages": digest("\n".join(said).encode(), temporary)}
        for path in sorted(directory.rglob("*")):
            if not path.is_file() or path.name.endswith(NOT_COMPARED):
                continue
            key = f"{name}: {path.relative_to(directory)}"
            key = TELLS_TIME[0][0].sub("<time>", key)
            content = path.read_bytes()
            if path.suffix in PICTURES:
                found[key] = "there" if content else "empty"
                continue
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            if path.name == "optimization_results.csv.gz":
                content = without_columns(content, "seconds", "pid", "host")
            found[key] = digest(content, temporary)
    return found


def without_columns(table: bytes, *names: str) -> bytes:
    """A CSV table without some of its columns."""
    header, *rows = csv.reader(table.decode().splitlines())
    kept = [i for i, name in enumerate(header) if name not in names]
    return json.dumps([[row[i] for i in kept] for row in [header, *rows]]).encode()


def digest(content: bytes, place: str) -> str:
    """The hash of what a file holds, without times and places."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return hashlib.sha256(content).hexdigest()
    text = text.replace(place, "<place>").replace(str(ROOT), "<root>")
    for pattern, instead in TELLS_TIME:
        text = pattern.sub(instead, text)
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    """Keep hashes, or compare with those that were kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["keep", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", nargs="+", default=list(runs()), choices=list(runs()))
    args = parser.parse_args()
    found: dict[str, str] = {}
    for name in args.only:
        begun = time.monotonic()
        found |= hashes(name, runs()[name])
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    if args.what == "keep":
        kept = json.loads(args.file.read_text()) if args.file.exists() else {}
        args.file.write_text(json.dumps({**kept, **found}, indent=1, sort_keys=True) + "\n")
        return
    kept = json.loads(args.file.read_text())
    kept = {key: value for key, value in kept.items() if key.split(":")[0] in args.only}
    others = [key for key in sorted(kept.keys() | found.keys()) if kept.get(key) != found.get(key)]
    for key in others:
        state = "differs" if key in kept and key in found else "missing" if key in kept else "new"
        print(f"{state}: {key}")
    print(f"{len(found)} files, {len(others)} of them not as they were")
    sys.exit(bool(others))


if __name__ == "__main__":
    main()
