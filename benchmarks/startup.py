"""What ``finetune-lm --help`` takes, and a run until it learns."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys

import whole_job
import workload
from measuring import N_TIMES, Row

OF_HELP, OF_START = 0.4, 1.5

_UNTIL_IT_LEARNS = """
import os, sys
import finetune_lm.training.loop as loop
from finetune_lm.cli import main
loop.train_epoch = lambda *args: os._exit(0)
main(sys.argv[1:])
"""
# Neither side clears away what it has made, which is no part of a start.
_BARE = """
import os, sys
from transformers import AutoModelForCausalLM, AutoTokenizer
AutoTokenizer.from_pretrained(sys.argv[1])
AutoModelForCausalLM.from_pretrained(sys.argv[1])
os._exit(0)
"""


def run(quick: bool = False) -> list[Row]:
    """The processor time of --help, and of the start of a run against loading its model."""
    del quick
    of_help = min(_seconds("-m", "finetune_lm", "--help") for _ in range(N_TIMES))
    job = whole_job.JOBS["small"]
    model = whole_job.model_of(job.shape)
    args = whole_job.arguments_of(job, model)
    starts, bare = [], []
    for _ in range(N_TIMES):
        shutil.rmtree(workload.scratch_directory() / "out", ignore_errors=True)
        starts.append(_seconds("-c", _UNTIL_IT_LEARNS, *args))
        bare.append(_seconds("-c", _BARE, model))
    what, against = "run until it learns, 19,000 sentences, small", "loading model and tokenizer"
    return [
        Row.at_most("--help", "–", of_help, OF_HELP, " s"),
        # The texts are tokenized the first time only.
        Row.at_most(what, against, min(starts) / min(bare), OF_START),
    ]


def _seconds(*args: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    quiet = subprocess.DEVNULL
    subprocess.run([sys.executable, *args], stdout=quiet, stderr=quiet, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
