"""``python -m finetune_lm`` is ``finetune-lm``."""

import sys

from finetune_lm.cli import main

sys.exit(main())
