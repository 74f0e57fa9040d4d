"""Run one target under atheris: `under_atheris.py TARGET LIBFUZZER_OPTION ... CORPUS_DIRECTORY`.

libFuzzer's own options are listed by `-help=1`. With a file in place of the directory, the target
is run once with what is in that file, which is how a finding is looked at.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["finetune_lm.arguments", "finetune_lm.data", "finetune_lm.recording.columns", "yaml"],
    enable_loader_override=False,
):
    import targets


def main() -> None:
    target = targets.TARGETS[sys.argv.pop(1)]
    # Now, and not with the first command line that is well-formed.
    import torch  # noqa: F401

    atheris.Setup(sys.argv, target)
    with targets.few_imports():
        atheris.Fuzz()


if __name__ == "__main__":
    main()
