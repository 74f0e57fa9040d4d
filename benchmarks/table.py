"""Writing rows to a gzipped CSV file, against pandas."""

from __future__ import annotations

import itertools

import pyarrow as pa

import workload
from finetune_lm.recording.columns import table_columns
from finetune_lm.recording.tables import TableWriter
from measuring import Row, smallest

TARGET = 8.0
ROWS_A_SECOND = 300.0
N_EPOCHS = 10


def run(quick: bool = False) -> list[Row]:
    """The table writer, against pandas' to_csv of the same rows."""
    del quick
    workload.one_thread()
    tokenizer = workload.small_tokenizer()
    model = workload.causal_model("tiny", workload.SMALL_VOCABULARY)
    made = workload.experiment(model, tokenizer, workload.taught())
    tables = []
    rows = made.training.rows
    assert rows is not None
    columns = table_columns(losses=rows.run.losses, metadata=rows.run.metadata.names)
    for number, batch in enumerate(made.batches):
        measured = made.learn(batch, number)
        tables.append(rows.of_batches([measured]).select(columns))
    tables *= N_EPOCHS
    n_rows = sum(map(len, tables))
    frame = pa.concat_tables([each.table for each in tables]).to_pandas()
    directory, numbers = workload.scratch_directory(), itertools.count()

    def ours() -> None:
        path = directory / f"table{next(numbers)}.csv.gz"
        with TableWriter(path, columns) as writer:
            for number, rows in enumerate(tables, start=1):
                writer.write(rows)
                if number % (len(tables) // N_EPOCHS) == 0:
                    writer.end_piece()

    def pandas() -> None:
        frame.to_csv(directory / "pandas.csv.gz", index=False, na_rep="NA")

    our_time, pandas_time = smallest(ours, pandas)
    what, against = "table writer to csv.gz, batch by batch", "pandas to_csv of the same rows"
    rate = n_rows / our_time / 1000
    return [
        Row.at_least(f"{what}, speed", against, pandas_time / our_time, TARGET),
        Row.at_least(f"{what}, thousand rows a second", "–", rate, ROWS_A_SECOND),
    ]
