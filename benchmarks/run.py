"""Measure speed, as ratios within one run, and keep them in RESULTS.md.

    python benchmarks/run.py                  all subjects (make bench)
    python benchmarks/run.py step kl          some of them, printed and not kept
    python benchmarks/run.py --quick          without the models of GPT-2's size
    python benchmarks/run.py gpu              what a CUDA GPU is needed for, printed and not kept

A subject is a file of this folder that has a function ``run(quick)``, whose rows become lines of
the table. Each runs in a process of its own. Absolute times would say more about the machine than
about the code, so there are next to none.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from measuring import Row

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
SUBJECTS = [
    "step",
    "other_kinds",
    "fast_ways",
    "recording",
    "kl",
    "scoring",
    "long_texts",
    "token_measures",
    "masking",
    "table",
    "snapshot",
    "synchronisations",
    "seq2seq",
    "startup",
    "study",
    "grid",
    "several_devices",
    "checkpoints",
    "long_run",
]
"""All of them, in the order of the table."""
ON_A_GPU = "gpu"
"""Is measured only if it is named."""


def main() -> None:
    """Measure, print the table, and keep it if nothing was left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "subjects", nargs="*", metavar="subject", help=", ".join([*SUBJECTS, ON_A_GPU])
    )
    parser.add_argument("--quick", action="store_true", help="no models of GPT-2's size")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.subjects) - {*SUBJECTS, ON_A_GPU}:
        parser.error(f"there is no subject {', '.join(sorted(unknown))}")
    if args.into is not None:
        _measure_here(args.subjects[0], args.quick, args.into)
        return
    rows = []
    for name in args.subjects or SUBJECTS:
        rows += measure(name, args.quick)
    lines = [*_heading(), *table(rows)]
    print("\n".join(lines))
    if not args.subjects:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(name: str, quick: bool) -> list[Row]:
    """The rows of one subject, from a process of its own."""
    print(name, end=" ", file=sys.stderr, flush=True)
    begun = time.perf_counter()
    # One thread, before anything that has threads is loaded.
    settings = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as directory:
        into = Path(directory) / "rows.json"
        command = [sys.executable, __file__, name, "--into", str(into)]
        command += ["--quick"] if quick else []
        ended = subprocess.run(command, env=os.environ | settings, stdout=sys.stderr, check=False)
        print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)
        if ended.returncode or not into.exists():
            return [Row(name, "–", f"failed with exit status {ended.returncode}", met=False)]
        return [Row(**row) for row in json.loads(into.read_text(encoding="utf-8"))]


def _measure_here(name: str, quick: bool, into: Path) -> None:
    rows = importlib.import_module(name).run(quick)
    into.write_text(json.dumps([dataclasses.asdict(row) for row in rows]), encoding="utf-8")


def table(rows: list[Row]) -> list[str]:
    """The rows as a table in Markdown."""
    verdict = {True: "yes", False: "no", None: ""}
    cells = [["what", "against", "ratio", "target", "met"]]
    cells += [[r.what, r.against, r.value, r.target, verdict[r.met]] for r in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]


def _heading() -> list[str]:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "pyarrow"))
    command = "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    return [
        "# Benchmarks",
        "",
        f"`{command}` on {datetime.date.today()}: {platform.system()}, {_processor()}, "
        f"{os.cpu_count()} cores of which one thread computes; Python "
        f"{platform.python_version()}, {packages}.",
        "",
        "Ratios of processor times, each the least of five or more, both sides taken in turn. "
        "Shapes: tiny 2 × 64, small 4 × 256, gpt2 12 × 768, vocabulary 50,257.",
        "",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    name = facts.get("model name", platform.machine())
    kinds = ("amx_tile", "avx512_bf16", "avx512f", "avx2")
    found = next((kind for kind in kinds if kind in facts.get("flags", "")), "")
    return f"{name} ({found})" if found else name


if __name__ == "__main__":
    main()
