from __future__ import annotations

import random

import pytest

from finetune_lm.series.checkpoint_names import Progress, in_order


@pytest.mark.parametrize(
    ("name", "step", "tokens_seen"),
    [
        ("step0", 0, None),
        ("step143000", 143_000, None),
        ("step1000-seed2", 1000, None),
        ("stage1-step1000-tokens5B", 1000, 5_000_000_000),
        ("stage2-ingredient1-step23852-tokens51B", 23_852, 51_000_000_000),
        ("step738020-unsharded", 738_020, None),
        ("step1000-tokens4.5B", 1000, 4_500_000_000),
        ("tokens-2T", None, 2_000_000_000_000),
        ("300B-tokens", None, 300_000_000_000),
        ("chck_1M", None, 1_000_000),
        ("chck_900M", None, 900_000_000),
        ("checkpoint-500", 500, None),
        ("ckpt_20k", 20_000, None),
        ("global_step_64", 64, None),
        ("iter_0000100", 100, None),
        ("500", 500, None),
        ("main", None, None),
        ("seed1", None, None),
        ("v1.0", None, None),
        ("footstep7", None, None),
        ("step1000abc", None, None),
    ],
)
def test_what_a_name_says(name, step, tokens_seen):
    assert Progress.of(name) == Progress(step, tokens_seen)


@pytest.mark.parametrize(
    "names",
    [
        ["step0", "step1", "step2", "step16", "step1000", "step143000"],
        ["chck_1M", "chck_10M", "chck_100M", "chck_1B"],
        [
            *("stage1-step1000-tokens5B", "stage1-step20000-tokens84B"),
            *("stage2-step1000-tokens3B", "stage2-step2000-tokens9B"),
        ],
        ["a2", "a10", "b1"],
        ["checkpoint-500", "checkpoint-1000", "final"],
    ],
)
def test_the_order_of_training(names):
    shuffled = names.copy()
    random.Random(1).shuffle(shuffled)
    assert in_order(shuffled) == names
