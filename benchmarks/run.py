"""Measure speed, as ratios within one run, and keep them in RESULTS.md.

    make bench          (or: python benchmarks/run.py)

Each figure is the ratio of the smallest of several processor times of one thread, both sides taken
turn by turn, so that what else the machine does matters little. Absolute times would not: they are
not shown.
"""

from __future__ import annotations

import os

# One thread, before anything that has threads is loaded.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gzip
import importlib
import io
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"
N_TIMES = 5


def smallest(*functions: Callable[[], object], n_times: int = N_TIMES) -> list[float]:
    """The least processor time of each function, in seconds, all of them taken in turn."""
    best = [float("inf")] * len(functions)
    for _ in range(n_times):
        for i, function in enumerate(functions):
            begun = time.process_time()
            function()
            best[i] = min(best[i], time.process_time() - begun)
    return best


def recording() -> list[tuple[str, str]]:
    """An epoch of training and validation with every token recorded, against one without."""
    import torch
    import transformers

    from finetune_lm import DataTrainingArguments
    from finetune_lm.data.dataset import Dataset
    from finetune_lm.data.files import Examples
    from finetune_lm.data.tokenization import TextEncoder
    from finetune_lm.evaluation.evaluate import evaluate
    from finetune_lm.evaluation.losses import Losses
    from finetune_lm.evaluation.splits import Split
    from finetune_lm.evaluation.token_rows import RunColumns, TokenRows
    from finetune_lm.interruption import Interruption
    from finetune_lm.loss_classes import OutputsDefaultLoss
    from finetune_lm.models.loading import LoadedModel, model_path
    from finetune_lm.models.tasks import TASKS
    from finetune_lm.results.columns import MetadataColumns, table_columns
    from finetune_lm.results.loss_history import LossHistory
    from finetune_lm.results.tables import TableWriter
    from finetune_lm.training.learner import Learner, make_optimizer
    from finetune_lm.training.loop import train_epoch
    from finetune_lm.training.setup import make_accelerator

    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path("tiny-lm"))
    results = []
    for name, layers, width in (("2 x 64", 2, 64), ("4 x 256", 4, 256)):
        config = transformers.GPT2Config(
            n_layer=layers, n_embd=width, n_head=4, vocab_size=50_257, n_positions=128
        )
        model = transformers.GPT2LMHeadModel(config)
        model.loss_type = "ForCausalLM"
        loaded = LoadedModel(name, TASKS["lm"], model, tokenizer)
        texts = [f"The {noun} has always broken the {noun}." for noun in "abcdefgh" * 20]
        data = Dataset(
            Examples("data", "data.txt", texts, None, [{} for _ in texts]),
            TextEncoder(tokenizer, 64),
            TASKS["lm"],
        )
        losses = Losses([OutputsDefaultLoss], {}, torch.sum, model, tokenizer)
        columns = RunColumns.of(loaded, 1, MetadataColumns([], []), ["loss", "OutputsDefaultLoss"])
        args = DataTrainingArguments(seed=1)
        learner = Learner(model, make_optimizer(args, model), make_accelerator(False))
        split = Split("train", data, 32, TokenRows(data, "train", columns), losses)
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-6, weight_decay=0)
        generator = torch.Generator().manual_seed(1)

        def with_rows(learner=learner, split=split, args=args, generator=generator):
            names = table_columns(
                with_sequence_type=False, losses=split.rows.run.losses, metadata=[]
            )
            with (
                tempfile.TemporaryDirectory() as directory,
                TableWriter(Path(directory) / "metrics.csv.gz", names) as table,
            ):
                history = LossHistory()
                train_epoch(learner, split, args, table, history, 0, generator, Interruption())
                device = learner.accelerator.device
                evaluate(learner.model, split, table, history, epoch=0, device=device)
                table.end_piece()

        def bare(model=model, optimizer=optimizer, split=split):
            model.train()
            for batch in split.dataset.batches(32):
                model(**batch.inputs).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            model.eval()
            with torch.no_grad():
                for batch in split.dataset.batches(32):
                    model(**batch.inputs).loss.item()

        with_time, bare_time = smallest(with_rows, bare)
        what = f"an epoch with every token recorded / a bare loop, GPT-2 {name}, vocabulary 50,257"
        results.append((what, f"{with_time / bare_time:.2f}"))
    return results


def table_writer() -> list[tuple[str, str]]:
    """The table writer against pandas, the same rows to a gzipped CSV file."""
    import numpy as np
    import pyarrow as pa

    from finetune_lm.results.tables import TableWriter

    n = 50_000
    numbers = np.random.default_rng(1).random(n).astype(np.float32)
    words = [f"word{i % 300}" for i in range(n)]
    columns = {f"text{i}": pa.array(words) for i in range(10)}
    columns |= {f"integer{i}": pa.array(np.arange(n) % 977) for i in range(8)}
    columns |= {f"float{i}": pa.array(numbers) for i in range(4)}
    table = pa.table(columns)
    frame = table.to_pandas()

    def ours() -> None:
        with (
            tempfile.TemporaryDirectory() as directory,
            TableWriter(Path(directory) / "t.csv.gz", table.column_names) as writer,
        ):
            writer.write(table)
            writer.end_piece()

    def pandas() -> None:
        with gzip.open(io.BytesIO(), "wt") as file:
            frame.to_csv(file, index=False, na_rep="NA")

    our_time, pandas_time = smallest(ours, pandas)
    return [
        ("pandas to_csv.gz / the table writer, the same rows", f"{pandas_time / our_time:.1f}"),
    ]


def main() -> None:
    """Run every benchmark, print the table and keep it."""
    benchmarks = [recording, table_writer]
    # Other files of this folder, each with a function `run` like those above.
    files = sorted(Path(__file__).parent.glob("*.py"))
    benchmarks += [
        importlib.import_module(path.stem).run for path in files if path.name != "run.py"
    ]
    rows = []
    for benchmark in benchmarks:
        print((benchmark.__doc__ or "").splitlines()[0], file=sys.stderr)
        rows += benchmark()
    import torch
    import transformers

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, one thread used"
    lines = [
        "# Benchmarks",
        "",
        f"`make bench` on {machine}; Python {platform.python_version()}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}. Ratios of the least of "
        f"{N_TIMES} processor times, both sides measured in turn.",
        "",
        "| what | ratio |",
        "| --- | --- |",
        *(f"| {what} | {ratio} |" for what, ratio in rows),
        "",
    ]
    print("\n".join(lines))
    RESULTS.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
