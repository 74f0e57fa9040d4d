"""The arguments of a run: dataclasses, read from a command line and from config files.

A command line becomes names with raw texts (`command_line`), and so does a config file
(`config_files`, which writes them too). The texts become values (`values`, `references`), the
values are put over the defaults (`nested`) and checked (`base`, `checking`), and the dataclasses
hold the result; `parser` goes through all of this. What a dataclass says about each of its fields
is read in `declared`. Whether classes and functions can be called with what they are given is asked
in `calls`: for functions in `given_functions`, for losses in `given_losses`, for callbacks in
`hooks`, for optimizers and schedules in `optimizer_settings`.
"""

from finetune_lm.arguments.config_files import config_dict, config_text, config_yaml
from finetune_lm.arguments.data_training_arguments import DataTrainingArguments
from finetune_lm.arguments.help import USAGE
from finetune_lm.arguments.model_arguments import ModelArguments
from finetune_lm.arguments.nested import DELETE_FIELD
from finetune_lm.arguments.optimization_arguments import OptimizationArguments
from finetune_lm.arguments.parser import ParsedArguments, parse_arguments
from finetune_lm.arguments.redaction import without_token
from finetune_lm.arguments.references import Reference

__all__ = [
    "DELETE_FIELD",
    "USAGE",
    "DataTrainingArguments",
    "ModelArguments",
    "OptimizationArguments",
    "ParsedArguments",
    "Reference",
    "config_dict",
    "config_text",
    "config_yaml",
    "parse_arguments",
    "without_token",
]
