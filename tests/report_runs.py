"""Small runs for tests of what is read back from them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import finetune_lm
from finetune_lm import DataTrainingArguments, ModelArguments

DRINKS = ["tea", "juice", "milk"]
PEOPLE = ["teacher", "doctor", "king"]


def write_lines(path: Path, texts: Sequence[str], metadata: Sequence[dict[str, Any]] = ()) -> str:
    """Write a data file, and its metadata if there are any. Returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in texts)
    if metadata:
        beside = path.with_name(path.name.removesuffix(".txt.gz") + "_metadata.json.gz")
        with gzip.open(beside, "wt", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(each)}\n" for each in metadata)
    return str(path)


def data(directory: Path) -> dict[str, Any]:
    """Training and validation data, probes by condition, one of which is taught, and fillers."""
    taught = [f"The {who} flomped the {what}." for who in PEOPLE for what in DRINKS]
    passive = [f"The {what} was flomped by the {who}." for who in PEOPLE for what in DRINKS]
    probes = [*taught[:1], *(f"A {who} will flomp {what}." for who in PEOPLE for what in DRINKS)]
    probes += [f"A {what} will flomp {who}." for who in PEOPLE for what in DRINKS]
    of_probes = [
        {
            "condition": "reversed" if number > 9 else "expected",
            "place": "seen" if number == 0 else f"place {number % 2}",
        }
        for number in range(len(probes))
    ]
    fillers = ["The old man has read a book.", "No one is happy.", "She eats bread every day."]
    return {
        "train_file": write_lines(directory / "taught.txt.gz", taught),
        "validation_file": write_lines(directory / "passive.txt.gz", passive),
        "probe_file": [
            write_lines(directory / "verbs.txt.gz", probes, of_probes),
            write_lines(
                directory / "fillers.txt.gz", fillers, [{"condition": "known"} for _ in fillers]
            ),
        ],
    }


def do(output_dir: Path, model: str = "tiny-lm", **given: Any) -> Path:
    """A run that takes a second or two. Returns its directory."""
    settings: dict[str, Any] = {
        "epochs": 3,
        "per_device_train_batch_size": 4,
        "per_device_validation_batch_size": 4,
        "train_optimizer_kwargs": {"lr": 1e-3},
        "save_best_model_state_to_disk": False,
        "seed": 1,
        **given,
    }
    finetune_lm.run(
        ModelArguments(model), DataTrainingArguments(output_dir=str(output_dir), **settings)
    )
    return output_dir
