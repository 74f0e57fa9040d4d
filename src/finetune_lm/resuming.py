"""Go on with a run that was stopped, as if it had not been."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_lm.arguments import (
    DataTrainingArguments,
    ModelArguments,
    OptimizationArguments,
    config_dict,
    parse_arguments,
)
from finetune_lm.arguments.optimizer_settings import follows_length
from finetune_lm.errors import UserError
from finetune_lm.experiment import conduct
from finetune_lm.messages import say
from finetune_lm.runs.directory import CHECKPOINTS
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.run_result import RunResult
from finetune_lm.several_ranks import joined

if TYPE_CHECKING:
    from finetune_lm.runs.pack import Pack


@joined()
def resume(
    output_dir: str | Path,
    model_args: ModelArguments | None = None,
    data_args: DataTrainingArguments | None = None,
    optimization_args: OptimizationArguments | None = None,
) -> RunResult:
    """Go on with a run from its last checkpoint.

    Its finished tables are the same to the byte as if it had never been stopped. A run that is
    finished is left as it is.

    Args:
        output_dir: The run's output directory.
        model_args: The run's arguments. By default those in its ``config.yaml``; who has given
            objects in Python that no dotted name leads to, or needs a token, gives them again.
        data_args: Likewise. Those that make no difference to the results may be others, and
            ``epochs`` and ``patience`` larger.
        optimization_args: Likewise.

    Returns:
        What the whole run has found.

    Raises:
        UserError: If there is no such run, no checkpoint, or something on which the results depend
            is not what it was.

    Example:
        >>> finetune_lm.resume("outputs/mine").metrics  # doctest: +SKIP
    """
    directory = Path(output_dir)
    EarlierRun.read(directory)  # that there is one, before anything is put there
    with RunLock(directory):
        return go_on(directory, (model_args, data_args, optimization_args))


def go_on(
    directory: Path,
    given: tuple[ModelArguments | None, DataTrainingArguments | None, OptimizationArguments | None],
    pack: Pack | None = None,
) -> RunResult:
    """Do what is left of a run whose directory is locked.

    Args:
        directory: Its output directory.
        given: Its arguments, where they are not to be those in its ``config.yaml``.
        pack: What the process keeps from run to run, if it does several.
    """
    model_args, data_args, optimization_args = given
    earlier = EarlierRun.read(directory)
    earlier.warn_of_changed_files()
    if model_args is None or data_args is None:
        parsed = parse_arguments(["--resume", str(directory)])
        # Without a problem, which would have been raised, all of them are there.
        assert parsed.model is not None
        assert parsed.data is not None
        model_args, data_args = model_args or parsed.model, data_args or parsed.data
        optimization_args = optimization_args or parsed.optimization
    all_args = (model_args, data_args, optimization_args or OptimizationArguments())
    epochs = earlier.identity.get("epochs", data_args.epochs)
    if data_args.epochs != epochs and follows_length(
        data_args.lr_scheduler, data_args.lr_scheduler_kwargs
    ):
        raise UserError(
            f"epochs must stay {epochs} when the run is resumed, since its lr_scheduler depends "
            f"on their number, but is {data_args.epochs}: the learning rates so far would have "
            "been different. Start another run."
        )
    if earlier.is_finished:
        changes = earlier.given_anew(config_dict(*all_args))
        if changes:
            raise UserError(
                "a finished run cannot be resumed with other arguments, and that in "
                f"{earlier.directory} is finished, but {', '.join(changes)}. Start another run."
            )
        # What a process that was killed at its very end had not come to.
        shutil.rmtree(earlier.directory / CHECKPOINTS, ignore_errors=True)
        say(f"The run in {earlier.directory} is finished; there is nothing left to do.")
        return earlier.result()
    return conduct(all_args, earlier, pack)
