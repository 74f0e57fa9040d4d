"""The names that were probably meant, for error messages.

What other trainers and evaluation tools call the arguments is taken from transformers'
`TrainingArguments` and example scripts, lm-eval, PyTorch Lightning and PEFT, and from what people
write from memory.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import types
from collections.abc import Iterable, Mapping

from finetune_lm.constants import USER_PACKAGES


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that is most like `name`, or None where none is like it.

    Example:
        >>> nearest("epoch", ["patience", "epochs"])
        'epochs'
    """
    by_lower_case = {str(candidate).lower(): str(candidate) for candidate in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Return `" Did you mean ...?"` with the nearest name, or an empty text."""
    close = nearest(name, names)
    return f" Did you mean {prefix}{close}?" if close is not None else ""


def choices(names: Iterable[str]) -> str:
    """Return names as a person would list them: `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


_PLACES = (
    *(f"finetune_lm.{package}" for package in USER_PACKAGES),
    *("torch.optim", "torch.optim.lr_scheduler", "torch"),
    *("optuna.samplers", "optuna.pruners", "optuna.storages", "optuna.storages.journal"),
)
"""Where what can be named is looked for, in this order."""

_OURS: Mapping[str, str] = {
    # The model
    "model_name_or_path": "model model_name model_path model_id base_model pretrained checkpoint "
    "pretrained_model pretrained_model_name_or_path lm model_checkpoint",
    "tokenizer_name": "tokenizer tokenizer_path tokenizer_name_or_path",
    "config_name": "config_path config_name_or_path",
    "model_revision": "revision branch commit",
    "model_task": "task model_type task_type model_class",
    "model_kwargs": "model_args model_init_kwargs",
    "model_kwargs.attn_implementation": "attn_implementation attention_implementation",
    "cache_dir": "cache hf_home hf_cache_dir cache_directory",
    "token": "use_auth_token hub_token hf_token access_token auth_token",
    "use_fast_tokenizer": "use_fast fast_tokenizer",
    "model_modifier_fns model_modifiers.add_new_tokens": "add_tokens new_tokens added_tokens",
    "model_callbacks": "callbacks trainer_callbacks",
    # The machine
    "use_gpu": "gpu gpus cuda n_gpu num_gpus devices device accelerator",
    "use_gpu False": "no_cuda use_cpu cpu",
    "precision": "dtype torch_dtype mixed_precision",
    "precision fp16": "fp16 half float16 use_fp16 fp16_full_eval",
    "precision bf16": "bf16 bfloat16 use_bf16 bf16_full_eval",
    "precision tf32": "tf32",
    "compile": "torch_compile",
    "compile_kwargs.mode": "torch_compile_mode",
    "compile_kwargs.backend": "torch_compile_backend",
    "preprocessing_num_workers": "num_workers num_proc n_proc n_jobs dataset_num_proc "
    "num_preprocessing_workers",
    # The data
    "train_file": "train_data train_dataset train_path training_file training_data train dataset "
    "dataset_name dataset_path data data_path data_file data_files input input_file",
    "validation_file": "eval_file eval_data eval_dataset eval_data_file valid_file valid_data "
    "val_file val_data dev_file dev_data validation_data validation_dataset validation "
    "train_eval_file",
    "test_file": "test_data test_dataset predict_file prediction_file test tasks test_files",
    "probe_file": "probe_data probe_dataset probes probe monitor_file monitoring_file probing_file",
    "contrasts": "contrast comparisons comparison hypotheses predictions",
    "pair_space": "leading_space add_prefix_space prefix_space pair_leading_space",
    "max_length": "max_seq_length max_seq_len max_len seq_length seq_len block_size "
    "model_max_length context_length max_source_length max_target_length sequence_length",
    "max_train_samples": "max_train_examples num_train_samples n_train",
    "max_validation_samples": "max_eval_samples max_val_samples max_valid_samples "
    "max_dev_samples max_eval_examples",
    "max_test_samples": "max_predict_samples limit",
    "max_probe_samples": "max_probe_examples",
    "probe_every": "probe_every_epochs probe_every_n_epochs probe_interval probe_epochs",
    "probe_every_steps": "probe_every_n_steps probe_steps probe_every_updates",
    "overwrite_cache": "overwrite_data_cache rebuild_cache",
    "data_preprocessing_fn": "preprocessing_fn preprocess_fn preprocessing data_collator",
    "data_preprocessing_fn_kwargs.train.mask_prop": "mlm_probability mask_prob mask_probability "
    "masking_prob mask_ratio noise_density",
    "data_preprocessing_fn_kwargs.train.mean_noise_span_length": "mean_span_length",
    "bos_policy": "add_bos add_bos_token bos add_special_tokens bos_token",
    "append_eos": "add_eos add_eos_token eos eos_token",
    "shuffle_train": "shuffle shuffle_data shuffle_train_data",
    # Training
    "epochs": "num_train_epochs num_epochs n_epochs max_epochs train_epochs nb_epochs "
    "num_training_epochs",
    "per_device_train_batch_size": "batch_size train_batch_size per_device_batch_size "
    "per_gpu_train_batch_size per_gpu_batch_size micro_batch_size bs batch mini_batch_size",
    "per_device_validation_batch_size": "per_device_eval_batch_size eval_batch_size "
    "per_gpu_eval_batch_size validation_batch_size val_batch_size valid_batch_size "
    "dev_batch_size",
    "per_device_test_batch_size": "test_batch_size predict_batch_size "
    "per_device_predict_batch_size",
    "per_device_probe_batch_size": "probe_batch_size",
    "gradient_accumulation_steps": "accumulate_grad_batches grad_accum grad_accum_steps "
    "grad_accumulation_steps accumulation_steps gradient_accumulation",
    "max_grad_norm": "gradient_clip_val grad_clip clip_grad clip_grad_norm gradient_clipping "
    "max_norm clip",
    "train_optimizer": "optim optimizer optimiser optimizer_class optim_type optimizer_type "
    "optimizer_name",
    "train_optimizer_kwargs": "optim_args optimizer_args optim_kwargs optimizer_kwargs",
    "train_optimizer_kwargs.lr": "learning_rate lr_rate base_lr max_lr init_lr step_size",
    "train_optimizer_kwargs.weight_decay": "wd decay l2",
    "train_optimizer_kwargs.betas": "adam_beta1 adam_beta2 betas beta1 beta2",
    "train_optimizer_kwargs.eps": "adam_epsilon adam_eps epsilon eps",
    "train_optimizer_kwargs.momentum": "momentum",
    "lr_scheduler": "lr_scheduler_type scheduler scheduler_type lr_schedule schedule "
    "learning_rate_scheduler lr_schedule_type",
    "lr_scheduler_kwargs": "scheduler_kwargs lr_scheduler_args",
    "lr_scheduler_kwargs.num_warmup_steps": "warmup_steps num_warmup_steps n_warmup_steps warmup",
    "lr_scheduler_kwargs.warmup_ratio": "warmup_ratio warmup_proportion warmup_fraction",
    "gradient_checkpointing": "use_gradient_checkpointing grad_checkpointing "
    "activation_checkpointing",
    "select_by": "monitor selection_metric early_stopping_metric select_metric best_metric",
    "patience": "early_stopping_patience early_stopping early_stop",
    "delta": "early_stopping_threshold min_delta early_stopping_delta",
    "loss_classes.train": "loss losses loss_fn loss_function criterion objective",
    "loss_reduction_fns.train": "loss_reduction reduction",
    "seed": "data_seed random_seed manual_seed rng_seed random_state",
    "eval_before_training": "eval_on_start evaluate_first validate_before_training",
    # Results
    "output_dir": "output out out_dir output_path output_directory save_dir save_path "
    "results_dir logging_dir log_dir default_root_dir run_name",
    "save_best_model_state_to_disk": "load_best_model_at_end save_best save_model "
    "save_only_model save_best_model save_total_limit metric_for_best_model",
    "checkpoint_every": "save_steps save_strategy save_every save_freq checkpoint_steps "
    "checkpointing_steps save_interval",
    "resume": "resume_from_checkpoint resume_from ckpt_path continue_from",
    # Studies
    "do_optimize": "optimize hyperparameter_search hp_search do_hyperparameter_search sweep",
}
_NOTES: Mapping[str, str] = {
    "Every batch is on record; there is nothing to set.": "logging_steps logging_strategy "
    "logging_first_step log_every log_every_n_steps log_interval log_steps logging_frequency",
    "The model is validated after every epoch; --eval_before_training does so before the first "
    "as well.": "eval_steps eval_strategy evaluation_strategy eval_every val_check_interval "
    "eval_delay evaluate_during_training eval_interval validation_steps",
    "A run is counted in epochs: --epochs.": "max_steps max_train_steps num_train_steps "
    "num_training_steps total_steps train_steps n_steps num_steps",
    "A run trains if --train_file and --validation_file are given.": "do_train do_eval "
    "do_training do_validation",
    "A run tests if --test_file is given.": "do_predict do_test do_testing test_only predict",
    "Results are never overwritten: give another --output_dir.": "overwrite_output_dir "
    "overwrite_output overwrite",
}

_BY_NAME: Mapping[str, str] = types.MappingProxyType(
    {
        **{
            theirs: f"Did you mean --{ours}?"
            for ours, all_ in _OURS.items()
            for theirs in all_.split()
        },
        **{theirs: note for note, all_ in _NOTES.items() for theirs in all_.split()},
    }
)


def known_elsewhere(name: str) -> str | None:
    """Return what to say of a name that another program has for an argument, or None.

    Example:
        >>> known_elsewhere("num_train_epochs")
        'Did you mean --epochs?'
    """
    return _BY_NAME.get(name.lower().replace("-", "_"))


def names_elsewhere() -> list[str]:
    """Return all names that `known_elsewhere` knows."""
    return list(_BY_NAME)


def dotted_name(name: str) -> str | None:
    """Return the dotted name of a class or function that users may mean by its last part alone.

    Upper and lower case do not matter. Optuna is searched only where it is loaded: a run without a
    study has no use for it.

    Example:
        >>> dotted_name("klbaselineloss")
        'loss_classes.KLBaselineLoss'
    """
    last = name.rpartition(".")[2].lower()
    if not last.isidentifier():
        return None
    for place in _PLACES:
        if place.startswith("optuna") and place not in sys.modules:
            continue
        for key, value in list(vars(importlib.import_module(place)).items()):
            if key.lower() == last and not key.startswith("_") and callable(value):
                return f"{place.removeprefix('finetune_lm.')}.{key}"
    return None


def meant_by(name: object) -> str:
    """Return `" Did you mean ...?"` with the dotted name, or an empty text.

    Args:
        name: What was given, of any type.
    """
    found = dotted_name(name) if isinstance(name, str) else None
    return f" Did you mean {found}?" if found is not None and found != name else ""
