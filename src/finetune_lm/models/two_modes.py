"""A model that is causal and masked in one: two classes, each a mode, with the same weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from finetune_lm.arguments import ModelArguments
from finetune_lm.constants import LM, LM_MLM, MLM
from finetune_lm.errors import UserError
from finetune_lm.models.loading import LoadedModel
from finetune_lm.models.tasks import TASKS_OF_MODES


def arguments_by_mode(args: ModelArguments) -> dict[str | None, ModelArguments]:
    """The arguments that load a model in each mode, the one of training first.

    Returns:
        Those of a model that has one mode by None.
    """
    first = args.first_mode
    if first is None:
        return {None: args}
    modes = sorted(TASKS_OF_MODES, key=lambda mode: mode != first)
    names = {mode: TASKS_OF_MODES[mode].name for mode in modes}
    return {
        mode: replace(args, model_task=name, train_mode=None, select_mode=None)
        for mode, name in names.items()
    }


def check_config(name: str, config: Any) -> None:
    """See that a model may have two modes, as far as its configuration tells.

    Where transformers has classes of its own of both kinds, the configuration says for both whether
    a token sees later ones.

    Raises:
        UserError: If it has one.
    """
    import transformers

    classes = [getattr(transformers, task.auto_class) for task in TASKS_OF_MODES.values()]
    is_theirs = type(config).__module__.partition(".")[0] == transformers.__name__
    if not is_theirs or not all(type(config) in each._model_mapping for each in classes):
        return
    is_causal = getattr(config, "is_decoder", False) or getattr(config, "causal", False)
    lacking, other = ("masked", LM) if is_causal else ("causal", MLM)
    raise UserError(
        f"model_task {LM_MLM} needs a model that is causal and masked in one, but {name!r} (of "
        f"type {config.model_type!r}) has no {lacking} mode. Give --model_task {other}."
    )


def joined(
    by_mode: Mapping[str | None, LoadedModel], training_modes: Collection[str | None]
) -> LoadedModel:
    """A model in all of its modes, which have the same weights from now on.

    Args:
        by_mode: It in each mode, the one of training first.
        training_modes: The modes in which it is trained.

    Raises:
        UserError: If one mode has weights that another has not.
    """
    (mode, first), *others = by_mode.items()
    if mode is None:
        return first
    [(other_mode, other)] = others
    _share_weights(first, other)
    learns = other_mode in training_modes
    return replace(first, mode=mode, other=replace(other, mode=other_mode, learns=learns))


def _share_weights(one: LoadedModel, other: LoadedModel) -> None:
    """Let a model have the weights of another: the same parameters, not equal ones."""
    weights, others = _weights(one.model), _weights(other.model)
    if alone := sorted(weights.keys() ^ others.keys()):
        raise UserError(
            f"model_task lm+mlm needs a model whose modes have the same weights, but one of those "
            f"of {one.name!r} alone has {alone[0]}. Do a run for each mode: --model_task lm, "
            f"--model_task {TASKS_OF_MODES['mlm'].name}."
        )
    for name, weight in weights.items():
        module, _, leaf = name.rpartition(".")
        other.model.get_submodule(module)._parameters[leaf] = weight


def _weights(model: Any) -> dict[str, Any]:
    """The parameters of a model, those that are tied under each of their names."""
    return dict(model.named_parameters(remove_duplicate=False))
