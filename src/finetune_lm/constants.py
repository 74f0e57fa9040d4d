"""Names of known models by task, and the few numbers that the whole package shares."""

from __future__ import annotations

IGNORED_LABEL = -100
"""The label that losses leave out (the convention of torch's cross-entropy and of transformers)."""

BOS_TOKEN = "token:"
"""Before the name of a token in ``bos_policy``."""

PROBE = "probe"
"""The type of data that are measured again and again while a model learns."""

DATASET_TYPES = ("train", "validation", "test", PROBE)
LOSS_DATASET_TYPES = ("train", "validation")
"""The types of data set of which losses are computed."""

MAX_SEED = 2**32 - 1
"""The largest seed that numpy takes."""

DEFAULT_MAX_LENGTH = 1024
"""The longest input in tokens, where the model's own limit is not lower."""

LM = "lm"
MLM = "mlm"
MNTP = "mntp"
SEQ2SEQ = "seq2seq"
LM_MLM = "lm+mlm"
TASK_NAMES = (LM, MLM, MNTP, SEQ2SEQ, LM_MLM)
"""The kinds of model, as ``model_task`` names them; the last is both modes of one model."""
MODES = (LM, MLM)
"""The modes of a model that has two, as ``train_mode`` and the column ``mode`` name them."""
SELECT_MODES = (*MODES, LM_MLM)
"""The modes whose validation may choose the best epoch."""

ONCE = "once"
PER_BATCH = "per_batch"
PREPROCESSING_STRATEGIES = (ONCE, PER_BATCH)
"""When a preprocessing function is applied: as the data is loaded, or anew for each batch."""

USER_PACKAGES = ("loss_classes", "measures", "data_preprocessing", "model_modifiers")
"""Packages whose documented names can be written without ``finetune_lm.`` before them."""

CONFIG_YAML = "config.yaml"
"""The file in an output directory that repeats its run."""

STOP = "stop"
SKIP = "skip"
ON_NAN = (STOP, SKIP)
"""What to do about a loss that is infinite or no number: end the run, or go on without the step."""

BY_LOSS = "loss"
BY_PAIR_ACCURACY, BY_PAIR_DIFFERENCE = "pair_accuracy", "pair_difference"
SELECT_BY = (BY_LOSS, BY_PAIR_ACCURACY, BY_PAIR_DIFFERENCE)
"""By which number of the validation data the best epoch may be chosen."""

TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    **{name: (name,) for name in ("trackio", "wandb", "mlflow", "comet_ml", "aim", "clearml")},
    **{name: (name,) for name in ("dvclive", "swanlab")},
}
"""Experiment trackers that a run may tell, each with the packages one of which it needs."""

RUN_JSON = "run.json"
"""The record of a run, in its directory."""

LEADING = "leading"
PAIR_SPACES = (LEADING, "none")
"""What is put before each sentence of a pair: a space, or nothing."""

FP32 = "fp32"
TF32 = "tf32"
BF16 = "bf16"
FP16 = "fp16"
PRECISIONS = (FP32, TF32, BF16, FP16)
"""In which precision a model computes."""

BUILTIN_MODELS = frozenset({"tiny-lm", "tiny-mlm", "tiny-seq2seq"})
"""Models that come with the package and need no download."""

LM_MODELS = frozenset(
    {
        "tiny-lm",
        *("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2"),
        *("openai-community/" + name for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")),
        "distilbert/distilgpt2",
        *(
            f"EleutherAI/pythia-{size}{variant}"
            for size in ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
            for variant in ("", "-deduped")
        ),
        *("allenai/OLMo-1B-hf", "allenai/OLMo-7B-hf", "allenai/OLMo-7B-0424-hf"),
        *("allenai/OLMo-2-0425-1B", "allenai/OLMo-2-1124-7B", "allenai/OLMo-2-1124-13B"),
        *("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-13b-hf", "meta-llama/Llama-2-70b-hf"),
        *("meta-llama/Meta-Llama-3-8B", "meta-llama/Llama-3.1-8B"),
        *("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-3B"),
        *("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-360M", "HuggingFaceTB/SmolLM2-1.7B"),
    }
)
"""Causal language models: each token is predicted from those before it."""

MLM_MODELS = frozenset(
    {
        "tiny-mlm",
        *(
            f"{organisation}bert-{size}-{casing}"
            for organisation in ("", "google-bert/")
            for size in ("base", "large")
            for casing in ("uncased", "cased")
        ),
        *("bert-base-multilingual-cased", "google-bert/bert-base-multilingual-cased"),
        *("roberta-base", "roberta-large", "FacebookAI/roberta-base", "FacebookAI/roberta-large"),
        *("distilroberta-base", "distilbert/distilroberta-base"),
        *(
            f"{organisation}distilbert-base-{casing}"
            for organisation in ("", "distilbert/")
            for casing in ("uncased", "cased")
        ),
        *(
            f"{organisation}albert-{size}-{version}"
            for organisation in ("", "albert/")
            for size in ("base", "large", "xlarge", "xxlarge")
            for version in ("v1", "v2")
        ),
        *(f"google/electra-{size}-generator" for size in ("small", "base", "large")),
    }
)
"""Masked language models: each masked token is predicted from both sides."""

SEQ2SEQ_MODELS = frozenset(
    {
        "tiny-seq2seq",
        *(
            f"{organisation}t5-{size}"
            for organisation in ("", "google-t5/")
            for size in ("small", "base", "large", "3b", "11b")
        ),
        *(
            f"google/{family}-{size}"
            for family in ("t5-v1_1", "flan-t5")
            for size in ("small", "base", "large", "xl", "xxl")
        ),
        *(f"google/t5-efficient-{size}" for size in ("tiny", "mini", "small", "base", "large")),
        *("facebook/bart-base", "facebook/bart-large"),
    }
)
"""Encoder-decoders: a label sequence is predicted from an input sequence."""

WAYS_OVER_RANKS = "labels", "examples", "sum", "own share"
BY_LABELS, BY_EXAMPLES, BY_SUM, OWN_SHARE = WAYS_OVER_RANKS
"""How the values of a loss that several processes have found come to that of their batch, its
``reduce_over_ranks``: means over the labels that count, means over examples, or numbers that add
up; the last is for losses that take their share themselves of what they draw, and add up."""
