"""Keep ``run.json`` while a run is under way, and tell how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import config_text, config_yaml, without_token
from finetune_lm.arguments.given_measures import columns_of_measures
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.data.examples import Files, distinct_names, file_hashes
from finetune_lm.errors import UserError
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.ranks import world
from finetune_lm.runs import directory as place
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.runs.record import RunRecord
from finetune_lm.runs.run_plan import Plan
from finetune_lm.whole_files import checksums, write_whole

if TYPE_CHECKING:
    import torch

    from finetune_lm.data.dataset import Dataset
    from finetune_lm.models.loading import LoadedModel


@contextmanager
def on_record(
    plan: Plan,
    loaded: LoadedModel,
    device: torch.device,
    datasets: Mapping[str, Sequence[Dataset]],
) -> Iterator[RunRecord]:
    """Leave the configuration, keep ``run.json`` while a run is under way, and say how it ended.

    Args:
        plan: The run. The tokens and passwords in its arguments are to be on no record.
        loaded: The model.
        device: Where it runs.
        datasets: The data by what they are for.

    Raises:
        UserError: Instead of an error of the operating system about writing there.
    """
    output_dir, all_args, files, earlier = plan.directory, plan.all_args, plan.used, plan.earlier
    start_tokens = next(each.start_tokens for group in datasets.values() for each in group)
    try:
        record = RunRecord(
            output_dir / place.RUN_JSON,
            earlier.record if earlier else None,
            model=facts_of(loaded),
            device=str(device),
            data={kind: {f.path: len(f) for f in group} for kind, group in files.items() if group},
            data_sha256=file_hashes(files),
            identity=plan.identity,
            start_tokens=start_tokens,
            pairs=_compared(plan.files),
            words=_of_words(plan, loaded, datasets),
        )
    except OSError as error:
        raise cannot_write(output_dir, error) from error

    def problem(error: BaseException) -> str | None:
        if not is_out_of_memory(error):
            return None
        return (
            f"memory ran out on {device}, between two batches. What was recorded is kept. Take a "
            f"smaller model, or fewer bits for its weights (--model_kwargs.dtype)."
        )

    with end_on_record(record, output_dir, all_args, problem), world().saying_why():
        try:
            if world().is_first:
                _write_config(plan, start_tokens)
                record.add(files=checksums(output_dir, *place.SEALED))
            yield record
        except Interrupted as error:
            if _resumable(output_dir) or not files["train"]:
                error.output_dir = output_dir
            raise


@contextmanager
def end_on_record(
    record: RunRecord,
    directory: Path,
    all_args: Sequence[Any],
    problem: Callable[[BaseException], str | None],
) -> Iterator[None]:
    """Put down in ``run.json`` how that ends which is done inside, a run or a study.

    Args:
        record: The record.
        directory: Where all of it is written.
        all_args: All arguments, whose tokens and passwords are to be on no record.
        problem: What an error means for the user; None if it says so itself.

    Raises:
        UserError: Instead of an error of which that is known, and of one about writing there.
    """
    try:
        yield
    except KeyboardInterrupt:
        record.end("interrupted")
        raise
    except BaseException as error:
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        record.end("failed", without_token(f"{kind}{error}", *all_args))
        if isinstance(error, OSError) and place.is_about_writing(error, directory):
            raise cannot_write(directory, error) from error
        if (message := problem(error)) is not None:
            raise UserError(message) from error
        raise
    record.end("finished")


def _compared(files: Files) -> dict[str, dict[str, list[str]]]:
    """The data sets whose texts are compared, by type and name, and the predictions of each."""
    return {
        kind: {
            name: list(examples.predictions)
            for examples, name in zip(
                group, distinct_names([each.path for each in group]), strict=True
            )
            if examples.has_pairs
        }
        for kind, group in files.items()
        if any(examples.has_pairs for examples in group)
    }


def _of_words(
    plan: Plan, loaded: LoadedModel, datasets: Mapping[str, Sequence[Dataset]]
) -> dict[str, Any]:
    """What the tables of tokens do not say and tables of words are made by.

    Which columns are added up over a word, and, of a masked model, which pseudo-log-likelihood the
    words of each data set have.
    """
    args = plan.all_args[1]
    measures = columns_of_measures(args, args.measures)
    found: dict[str, Any] = {
        "over_word": {name: measure.over_word for name, measure in measures.items()}
    }
    masked = {
        kind: [dataset for dataset in group if not dataset.task.predicts_in_order]
        for kind, group in datasets.items()
    }
    if any(masked.values()):
        found["pll"] = {
            kind: {
                name: dataset.preprocessing.pll
                for name, dataset in zip(
                    distinct_names([each.path for each in group]), group, strict=True
                )
            }
            for kind, group in masked.items()
            if group
        }
    return found


def facts_of(loaded: LoadedModel) -> dict[str, str]:
    """What is put down about a model."""
    return {"name": loaded.name, "task": loaded.kind, "n_params": loaded.n_params}


def cannot_write(output_dir: Path, error: OSError) -> UserError:
    """What to say of an error about writing into a directory."""
    then = f" When that is fixed: --resume {output_dir}" if _resumable(output_dir) else ""
    return UserError(
        f"{output_dir} cannot be written to: {error.strerror or error}. What was written before "
        f"is kept.{then}"
    )


def _resumable(output_dir: Path) -> bool:
    return (output_dir / place.CHECKPOINTS).is_dir()


def _write_config(plan: Plan, start_tokens: list[str]) -> None:
    """Leave the configuration: for people, and for a run that repeats this one."""
    shown = " ".join(start_tokens) or "nothing"
    text = f"{config_text(*plan.all_args)}\nWhat stood before each text\n  start_tokens: {shown}\n"
    if (n := world().size) > 1:
        text += f"\nProcesses, each with the batch sizes above\n  processes: {n}\n"
    for name, content in (
        (CONFIG_YAML, config_yaml(*plan.all_args)),
        (place.CONFIG_TEXT, text),
    ):
        with write_whole(plan.directory / name) as aside:
            aside.write_text(content, encoding="utf-8")
