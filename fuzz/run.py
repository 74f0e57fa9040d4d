"""Feed the command line and the readers with anything, and see that they only say so.

For each target as many seconds as asked for, under atheris; what took a new way through the code is
kept in `corpus/`, so that the next time goes on from there. Ends with status 1 if a target ended in
an exception that is no user error, took longer than anybody would wait, or used up the memory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import targets

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FINDINGS = HERE / "findings"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(targets.TARGETS))
    args = parser.parse_args()
    unknown = set(args.targets) - targets.TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    words = CORPUS / "dictionary"
    CORPUS.mkdir(exist_ok=True)
    FINDINGS.mkdir(exist_ok=True)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in targets.dictionary()))
    failed = []
    print("| target | executions | edges | inputs kept | finding |")
    print("| --- | ---: | ---: | ---: | --- |")
    for name in args.targets or targets.TARGETS:
        line, output = run_target(name, args.seconds, words)
        print(line, flush=True)
        if output is not None:
            failed.append(name)
            print(output, file=sys.stderr)
    return 1 if failed else 0


def run_target(name: str, seconds: int, words: Path) -> tuple[str, str | None]:
    """Run one target; returns its line of the table, and what went wrong if something did."""
    corpus = CORPUS / name
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(targets.SEEDS[name]):
        (corpus / f"seed_{number}").write_bytes(seed)
    result = subprocess.run(
        [
            sys.executable,
            str(HERE / "under_atheris.py"),
            name,
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-timeout=30",
            "-rss_limit_mb=4096",
            f"-dict={words}",
            f"-artifact_prefix={FINDINGS}/{name}-",
            "-print_final_stats=1",
            "-verbosity=1",
            str(corpus),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    output = result.stdout + result.stderr
    executions = re.findall(r"stat::number_of_executed_units:\s*(\d+)", output)
    edges = re.findall(r"\bcov: (\d+)", output)
    artifact = re.findall(r"Test unit written to (\S+)", output)
    is_finding = result.returncode != 0
    finding = (artifact[-1] if artifact else f"status {result.returncode}") if is_finding else ""
    n_kept = sum(1 for _ in corpus.iterdir())
    cells = [name, (executions or ["?"])[-1], (edges or ["?"])[-1], str(n_kept), finding]
    return f"| {' | '.join(cells)} |", output[-8000:] if is_finding else None


def _escaped(word: bytes) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\x{byte:02x}"
        for byte in word
    )


if __name__ == "__main__":
    sys.exit(main())
