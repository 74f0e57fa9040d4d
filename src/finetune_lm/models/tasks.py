"""Everything that differs between the kinds of model.

No other file asks what kind a model is. Another kind is one more subclass of `Task` here, an entry
in `TASKS`, and its names in ``constants.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from finetune_lm import constants
from finetune_lm.constants import IGNORED_LABEL
from finetune_lm.errors import UserError
from finetune_lm.models.model_calls import called

if TYPE_CHECKING:
    from torch import Tensor

    from finetune_lm.models.vocabulary import Vocabulary


class Task(ABC):
    """What a kind of model is asked to do.

    In all methods a batch has ``n`` examples, its inputs are at most ``length`` tokens long and its
    labels at most ``label_length``. A *position* is an index into the labels of an example.
    """

    name: str
    """The value of ``model_task`` and of the ``task`` column."""

    description: str
    """The kind of model, in words, for messages."""

    auto_class: str
    """The class of transformers that loads such a model."""

    model_names: frozenset[str]
    """Models known by name."""

    mapping_name: str
    """The table in transformers that lists the architectures of this kind."""

    starts_texts: bool
    """Whether a text needs a start token, so that its first token is predicted from something."""

    label_offset: int = 0
    """How many positions before a label the logits are that predict it."""

    labels_from_file: bool = True
    """Whether labels given in a data file are the targets."""

    labels_parallel_inputs: bool = True
    """Whether label ``i`` belongs to input token ``i``."""

    learns_from_masks: bool = False
    """Whether it can learn only where its inputs do not show what the labels are."""

    is_encoder_decoder: bool = False
    """Whether such a model has an encoder and a decoder."""

    predicts_in_order: bool = True
    """Whether a label is predicted without those behind it."""

    loss_type: str | None = None
    """The loss that transformers takes where the name of a model's class does not tell it."""

    is_told_by_config: bool = True
    """Whether a model's configuration tells that it is of this kind."""

    prepared_as: str = ""
    """The kind whose preprocessing functions are for it besides its own; empty if none."""

    reports_greedy_rows: bool = False
    """Whether a table also has rows for the model's own best token at each position."""

    def counted(self, labels: Tensor) -> Tensor:
        """Which positions count in the loss.

        Args:
            labels: Token ids, `IGNORED_LABEL` where nothing is to be predicted; (n, label_length).

        Returns:
            A boolean tensor of the same shape.
        """
        return labels != IGNORED_LABEL

    def predictions(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Where the logits are that predict the labels which count.

        Args:
            labels: Token ids, `IGNORED_LABEL` where nothing is to be predicted; (n, label_length).

        Returns:
            The example of each, and its position in the logits: (k,) each, example by example.
        """
        rows, positions = self.counted(labels).nonzero(as_tuple=True)
        return rows, positions - self.label_offset

    def without_labels(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What to call a model with for the logits that it gives for a batch, but no loss.

        Args:
            model: The model.
            inputs: What it is called with for both.
        """
        return {name: tensor for name, tensor in inputs.items() if name != "labels"}

    def outputs(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        """What a model returns for a batch, with the loss of its labels.

        Args:
            model: The model.
            inputs: What it is called with, on its device.
        """
        return called(model, inputs)

    @abstractmethod
    def masking_problem(self, vocabulary: Vocabulary) -> str | None:
        """What a tokenizer lacks for the functions that mask tokens, None if nothing.

        Args:
            vocabulary: Its entries.
        """

    @abstractmethod
    def reported(self, inputs: dict[str, Tensor], n_start: Tensor, is_label: Tensor) -> Tensor:
        """Which positions get a row in the tables.

        Args:
            inputs: What the model was called with, with ``input_ids``, ``attention_mask``,
                ``labels``.
            n_start: How many of an example's first labels are start tokens, not of its text; (n,).
            is_label: False for padding; (n, label_length).

        Returns:
            A boolean tensor, (n, label_length).
        """


class CausalLM(Task):
    """GPT-2, Pythia, OLMo, Llama: each token is predicted from those before it."""

    name = constants.LM
    description = "causal language model"
    auto_class = "AutoModelForCausalLM"
    model_names = constants.LM_MODELS
    mapping_name = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
    starts_texts = True
    label_offset = 1
    labels_from_file = False
    loss_type = "ForCausalLM"

    def counted(self, labels: Tensor) -> Tensor:
        """The first token of a row is predicted by nothing, so it cannot count."""
        counted = super().counted(labels)
        counted[:, 0] = False
        return counted

    def masking_problem(self, vocabulary: Vocabulary) -> str | None:
        """Nothing is masked in what such a model reads, so nothing is lacking."""
        return None

    def reported(self, inputs: dict[str, Tensor], n_start: Tensor, is_label: Tensor) -> Tensor:
        """Every token of the text.

        Start tokens are not of the text. A first token that is has a row, though nothing predicts
        it: its surprisal is missing.
        """
        number = is_label.long().cumsum(dim=1)
        return is_label & (inputs["labels"] != IGNORED_LABEL) & (number > n_start[:, None])


class CausalLMWithoutLoss(CausalLM):
    """A decoder of the BART family by itself, whose own loss is not about the next token.

    It takes each token for what is predicted in its own place, and whoever calls such a model is to
    shift the labels before.
    """

    def outputs(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        """The mean over all labels that count is the loss."""
        return _with_mean_loss(self, model, inputs)


class MaskedLM(Task):
    """BERT, RoBERTa, ALBERT, ELECTRA: each masked token is predicted from both sides."""

    name = constants.MLM
    description = "masked language model"
    auto_class = "AutoModelForMaskedLM"
    model_names = constants.MLM_MODELS
    mapping_name = "MODEL_FOR_MASKED_LM_MAPPING_NAMES"
    starts_texts = True
    learns_from_masks = True
    predicts_in_order = False

    def masking_problem(self, vocabulary: Vocabulary) -> str | None:
        """A mask token stands for each masked token."""
        return None if vocabulary.mask_id is not None else "a tokenizer with a mask token"

    def reported(self, inputs: dict[str, Tensor], n_start: Tensor, is_label: Tensor) -> Tensor:
        """Every masked position.

        Where labels single positions out (the others are ignored), these are the masked ones, also
        those that masking left as they were or replaced by another word. Where all positions of an
        example are labels, the masked ones are those whose input differs from the label: of the
        others the model sees the answer.
        """
        labels = inputs["labels"]
        counted = is_label & (labels != IGNORED_LABEL)
        singled_out = (is_label & ~counted).any(dim=1, keepdim=True)
        return counted & (singled_out | (inputs["input_ids"] != labels))


class MaskedNextTokenLM(MaskedLM):
    """GPT-BERT in its masked mode: a masked token is predicted by the output before its own.

    Such a model learns masked tokens as the same model learns the next token (*masked next-token
    prediction*, Charpentier & Samuel 2024, arXiv 2410.24159): it sees both sides, and what stands
    before a token predicts it. Models disagree about whether they shift labels themselves, so their
    loss is computed here.
    """

    name = constants.MNTP
    description = "masked next-token language model"
    model_names = frozenset()
    label_offset = 1
    is_told_by_config = False
    prepared_as = constants.MLM

    def counted(self, labels: Tensor) -> Tensor:
        """Nothing stands before the first token of a row, so it cannot count."""
        counted = super().counted(labels)
        counted[:, 0] = False
        return counted

    def outputs(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        """The mean over all labels that count is the loss, whatever the model's own would be."""
        return _with_mean_loss(self, model, inputs)


class Seq2SeqLM(Task):
    """T5, Flan-T5, BART: a label sequence is predicted from an input sequence, token by token."""

    name = constants.SEQ2SEQ
    description = "sequence-to-sequence model"
    auto_class = "AutoModelForSeq2SeqLM"
    model_names = constants.SEQ2SEQ_MODELS
    mapping_name = "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"
    # The decoder has a start token of its own, and the encoder was trained on what its tokenizer
    # makes: putting a start token before its input would change every number.
    starts_texts = False
    labels_parallel_inputs = False
    is_encoder_decoder = True
    reports_greedy_rows = True

    def without_labels(self, model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The decoder is fed with the labels before each one, which the model makes of them."""
        shift = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        # FSMT's changes what it is given.
        labels = inputs["labels"].clone()
        decoded = shift(labels=labels) if shift else _shifted(labels, model.config)
        return {**super().without_labels(model, inputs), "decoder_input_ids": decoded}

    def outputs(self, model: Any, inputs: dict[str, Tensor]) -> Any:
        """The decoder is fed in the same way: FSMT's would see the inputs shifted, not the labels.

        A model that does not say how labels are shifted may not take what its decoder is fed.
        """
        if hasattr(model, "prepare_decoder_input_ids_from_labels"):
            inputs = {**self.without_labels(model, inputs), "labels": inputs["labels"]}
        return called(model, inputs)

    def masking_problem(self, vocabulary: Vocabulary) -> str | None:
        """A sentinel stands for each masked span, as in T5; BART has none."""
        if vocabulary.mask_id is None and len(vocabulary.sentinel_ids) >= 2:
            return None
        return "a tokenizer with sentinels (<extra_id_0>, <extra_id_1>, ...) and no mask token"

    def reported(self, inputs: dict[str, Tensor], n_start: Tensor, is_label: Tensor) -> Tensor:
        """Every token of the label sequence, each predicted from the ones before it."""
        return is_label & (inputs["labels"] != IGNORED_LABEL)


def _with_mean_loss(task: Task, model: Any, inputs: dict[str, Tensor]) -> Any:
    """What a model returns for a batch, with the mean over all labels that count as its loss."""
    from torch.nn.functional import cross_entropy

    labels = inputs["labels"]
    outputs = called(model, task.without_labels(model, inputs))
    rows, positions = task.predictions(labels)
    targets = labels[rows, positions + task.label_offset]
    outputs.loss = cross_entropy(outputs.logits[rows, positions].float(), targets)
    return outputs


def _shifted(labels: Tensor, config: Any) -> Tensor:
    """Labels as a decoder is fed with them: behind its start, the last one left out."""
    decoded = labels.roll(1, dims=-1)
    decoded[:, 0] = config.decoder_start_token_id
    return decoded.masked_fill(decoded == IGNORED_LABEL, config.pad_token_id)


TASKS: dict[str, Task] = {
    task.name: task for task in (CausalLM(), MaskedLM(), MaskedNextTokenLM(), Seq2SeqLM())
}
"""Every kind of model by its name."""

TASKS_OF_MODES: dict[str, Task] = {
    constants.LM: TASKS[constants.LM],
    constants.MLM: TASKS[constants.MNTP],
}
"""What a model that is causal and masked in one is asked to do in each of its modes."""


def sample_inputs(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """What a model of any kind is called with for what it predicts in sequences without padding.

    Args:
        model: The model.
        ids: Token ids: (n, length).
    """
    inputs = {"input_ids": ids, "attention_mask": ids.new_ones(ids.shape)}
    has_decoder = getattr(model.config, "is_encoder_decoder", False)
    return {**inputs, "decoder_input_ids": ids} if has_decoder else inputs


def find_task(model_name: str, config: Any, model_task: str | None = None) -> Task:
    """Tell what kind a model is: as the user says, else by its name, else by its own config.

    Args:
        model_name: The model as named on the command line.
        config: Its transformers config.
        model_task: What the user says it is.

    Raises:
        UserError: If the config fits several kinds or none.
    """
    if model_task is not None:
        return TASKS[model_task]
    for task in TASKS.values():
        if model_name in task.model_names:
            return task
    candidates = _tasks_of_config(config)
    if len(candidates) == 1:
        return candidates[0]
    kinds = (
        "may be any of these: " + ", ".join(task.name for task in candidates)
        if candidates
        else "is of no kind known here"
    )
    raise UserError(
        f"model_task must be given for {model_name!r}: its config "
        f"(model_type {getattr(config, 'model_type', None)!r}, architectures "
        f"{getattr(config, 'architectures', None)!r}) {kinds}. "
        f"Give --model_task {' or '.join(constants.TASK_NAMES)}."
    )


def _tasks_of_config(config: Any) -> list[Task]:
    """The kinds that a config fits: by the architecture it was saved from, else by its family."""
    from transformers.models.auto import modeling_auto

    told = [task for task in TASKS.values() if task.is_told_by_config]
    families = {task: getattr(modeling_auto, task.mapping_name) for task in told}
    if getattr(config, "is_encoder_decoder", False):
        # BART is listed as a masked LM too; whatever has a decoder is used as seq2seq.
        families = {task: table for task, table in families.items() if task.is_encoder_decoder}
    architectures = set(getattr(config, "architectures", None) or ())
    by_architecture = [
        task
        for task, table in families.items()
        if any(architectures & set(_as_tuple(names)) for names in table.values())
    ]
    if by_architecture:
        return by_architecture
    # Of a model that brings its own code this says what the code is for.
    own_code = getattr(config, "auto_map", None) or {}
    by_own_code = [task for task in told if task.auto_class in own_code]
    if by_own_code:
        return by_own_code
    return [task for task, table in families.items() if config.model_type in table]


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
