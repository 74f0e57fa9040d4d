"""Short runs of the built-in models in which everything random takes part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PACKAGES = ("data_preprocessing.", "loss_classes.", "measures.", "model_modifiers.")
NAMED = ("stateful.", "studies.", *PACKAGES)
DATA = Path(__file__).parent.parent / "data" / "nonce_verb"
PROBES: dict[str, Any] = {
    "probe_file": [str(DATA / f"flomped_{name}.txt.gz") for name in ("test", "passive")],
    "max_probe_samples": 5,
    "per_device_probe_batch_size": 2,
}
"""What a run has that is to measure probes; of both files 3 batches."""

MEASURES: dict[str, Any] = {
    "measures": {
        "train": ["measures.Entropy"],
        "validation": ["measures.WordBoundary", "measures.Rank"],
        "probe": ["measures.BaselineKL", "measures.Candidates", "measures.WordBoundary"],
        "test": ["measures.BaselineKL", "measures.Entropy"],
    },
    "measures_kwargs": {"Candidates": {"words": ["glass", "man"]}},
}
"""What a run has that is to measure more than surprisals."""


def setup(kind: str, **changed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of ``ModelArguments`` and ``DataTrainingArguments``.

    Args:
        kind: ``lm``, ``mlm`` or ``seq2seq``.
        **changed: What is to be otherwise in the second.
    """
    model: dict[str, Any] = {
        "model_name_or_path": f"tiny-{kind}",
        "config_kwargs": {},
        "model_pre_train_step_callbacks": ["stateful.FreezeAndDamp"],
    }
    data: dict[str, Any] = {
        "train_file": str(DATA / "flomped_active.txt.gz"),
        "validation_file": str(DATA / "flomped_passive.txt.gz"),
        "test_file": [str(DATA / "flomped_test.txt.gz")],
        "max_train_samples": 12,
        "max_validation_samples": 8,
        "max_test_samples": 10,
        **dict.fromkeys(
            [f"per_device_{part}_batch_size" for part in ("train", "validation", "test")], 4
        ),
        "epochs": 3,
        "train_optimizer_kwargs": {"lr": 1e-3, "weight_decay": 0.01},
        "loss_classes": {"train": ["stateful.NoisyLoss"]},
        "seed": 3,
        "checkpoint_every": 1,
        "eval_before_training": True,
        "save_tmp_test_files": True,
        "word_tables": True,
    }
    function = {"mlm": "mask_random_tokens", "seq2seq": "mask_random_spans"}.get(kind)
    if function is not None:
        parts = ("train", "validation", "test", "probe")
        data["data_preprocessing_fn"] = dict.fromkeys(parts, f"data_preprocessing.{function}")
        data["data_preprocessing_fn_strategy"] = dict.fromkeys(parts, "per_batch")
        dropout = "hidden_dropout_prob" if kind == "mlm" else "dropout_rate"
        model["config_kwargs"][dropout] = 0.1
    data.update(changed)
    return model, data


def arguments(model: dict[str, Any], data: dict[str, Any]) -> tuple[Any, Any]:
    """The two dataclasses, with dotted names looked up as on the command line."""
    from finetune_lm import DataTrainingArguments, ModelArguments
    from finetune_lm.arguments.references import resolve_name

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [resolved(item) for item in value]
        return resolve_name(value) if isinstance(value, str) and value.startswith(NAMED) else value

    return ModelArguments(**resolved(model)), DataTrainingArguments(**resolved(data))
