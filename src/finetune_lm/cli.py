"""The command `finetune-lm`: argv -> arguments -> one run; users' mistakes without a traceback."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from finetune_lm.arguments import (
    USAGE,
    ParsedArguments,
    config_yaml,
    parse_arguments,
    without_token,
)
from finetune_lm.errors import UserError

SUCCESS = 0
USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Do what a command line asks for.

    Args:
        argv: The command line without the program's own name. By default that of this process.

    Returns:
        The exit status: 0, 2 after a mistake that the user can put right, 128 and the signal after
        Ctrl-C or SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv:
        sys.stderr.write(f"{USAGE}\nfinetune-lm --help shows all arguments.\n")
        return USER_ERROR
    parsed: ParsedArguments | None = None
    try:
        parsed = parse_arguments(argv)
        _do(parsed)
    except UserError as error:
        wants_traceback = parsed.debug if parsed is not None else "--debug" in argv
        lines = [f"finetune-lm: error: {problem}" for problem in error.problems]
        if wants_traceback:
            lines.insert(0, traceback.format_exc())
        sys.stderr.write(without_token("\n".join(lines), parsed.model if parsed else None) + "\n")
        return USER_ERROR
    except KeyboardInterrupt as interrupt:
        is_study = parsed is not None and parsed.optimization and parsed.optimization.do_optimize
        kept = "trials" if is_study else "batches of training"
        sys.stderr.write(f"finetune-lm: interrupted. Finished {kept} are kept.\n")
        # As shells have it: 128 and the signal. Ctrl-C outside of a run is SIGINT, which is 2.
        return 128 + getattr(interrupt, "signal_number", 2)
    return SUCCESS


def _do(parsed: ParsedArguments) -> None:
    if parsed.help is not None:
        sys.stdout.write(parsed.help)
        return
    if parsed.version:
        from importlib.metadata import version

        sys.stdout.write(f"finetune-lm {version('finetune-lm')}\n")
        return
    model, data, optimization = parsed.model, parsed.data, parsed.optimization
    # Without help or version there are arguments: parse_arguments raises where they are wrong.
    assert model is not None
    assert data is not None
    assert optimization is not None
    if parsed.print_config:
        sys.stdout.write(config_yaml(model, data, optimization))
        return
    if parsed.preview is not None:
        from finetune_lm import experiment

        sys.stdout.write(experiment.preview(model, data, parsed.preview))
        return
    from finetune_lm import experiment

    result = experiment.run(model, data, optimization)
    sys.stderr.write(f"Results are in {result.output_dir}\n")
