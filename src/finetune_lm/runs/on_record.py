"""Keep ``run.json`` while a run is under way, and tell how it ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import without_token
from finetune_lm.data.files import file_hashes
from finetune_lm.errors import UserError
from finetune_lm.out_of_memory import is_out_of_memory
from finetune_lm.runs import directory as place
from finetune_lm.runs.interruption import Interrupted
from finetune_lm.runs.plan import Plan
from finetune_lm.runs.record import RunRecord

if TYPE_CHECKING:
    import torch

    from finetune_lm.models.loading import LoadedModel


@contextmanager
def on_record(
    plan: Plan, loaded: LoadedModel, device: torch.device, **facts: Any
) -> Iterator[RunRecord]:
    """Keep ``run.json`` while a run is under way, and say in it how the run ended.

    Args:
        plan: The run. The tokens and passwords in its arguments are to be on no record.
        loaded: The model.
        device: Where it runs.
        **facts: What else is known at the start.

    Raises:
        UserError: Instead of an error of the operating system about writing there.
    """
    output_dir, all_args, files, earlier = plan.directory, plan.all_args, plan.used, plan.earlier
    try:
        record = RunRecord(
            output_dir / place.RUN_JSON,
            earlier.record if earlier else None,
            model={"name": loaded.name, "task": loaded.task.name, "n_params": loaded.n_params},
            device=str(device),
            data={kind: {f.path: len(f) for f in group} for kind, group in files.items() if group},
            data_sha256=file_hashes(files),
            identity=plan.identity,
            **facts,
        )
    except OSError as error:
        raise _cannot_write(output_dir, error) from error
    try:
        yield record
    except OSError as error:
        record.end("failed", without_token(str(error), *all_args))
        if not place.is_about_writing(error, output_dir):
            raise
        raise _cannot_write(output_dir, error) from error
    except KeyboardInterrupt as error:
        if isinstance(error, Interrupted) and (_resumable(output_dir) or not files["train"]):
            error.output_dir = output_dir
        record.end("interrupted")
        raise
    except BaseException as error:
        record.end("failed", without_token(f"{type(error).__name__}: {error}", *all_args))
        if is_out_of_memory(error):
            raise UserError(
                f"memory ran out on {device}, between two batches. What was recorded is kept. Take "
                f"a smaller model, or fewer bits for its weights (--model_kwargs.dtype)."
            ) from error
        raise
    record.end("finished")


def _cannot_write(output_dir: Path, error: OSError) -> UserError:
    then = f" When that is mended: --resume {output_dir}" if _resumable(output_dir) else ""
    return UserError(
        f"{output_dir} cannot be written into: {error.strerror or error}. What was written "
        f"before is kept.{then}"
    )


def _resumable(output_dir: Path) -> bool:
    return (output_dir / place.CHECKPOINTS).is_dir()
