"""The arguments of a run: dataclasses, read from a command line and from config files.

A command line becomes names with raw texts (`command_line`), the texts become values (`reading`,
`values`, `references`), the values are put over the defaults (`merging`) and checked (`checking`,
`base`), and the dataclasses hold the result (`parser`). `config` writes them out again.
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
