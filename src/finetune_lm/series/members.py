"""Which checkpoints a series has: revisions on the Hub, or directories."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.arguments import ModelArguments
from finetune_lm.errors import UserError, first_line
from finetune_lm.messages import say
from finetune_lm.series.checkpoint_names import Progress, in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

_WILD = re.compile(r"[*?[]")


@dataclass(frozen=True)
class Member:
    """One checkpoint.

    Attributes:
        revision: What it is called in the series.
        args: Which model it is.
    """

    revision: str
    args: ModelArguments

    @property
    def progress(self) -> Progress:
        """How far its training was."""
        return Progress.of(self.revision)


def is_series(args: ModelArguments) -> bool:
    """Whether the arguments name several checkpoints."""
    return _names_revisions(args) or _names_directories(args)


def series_name(args: ModelArguments) -> str:
    """What the model of a series is called, without what stands for its checkpoints.

    Example:
        >>> series_name(ModelArguments("runs/checkpoints/step*"))
        'runs/checkpoints'
    """
    if not _names_directories(args):
        return args.model_name_or_path
    return str(Path(*_around(args.model_name_or_path)[0])) or "checkpoints"


def members_of(args: ModelArguments) -> list[Member]:
    """The checkpoints of a series: those of a list as they are given, others as they were trained.

    Raises:
        UserError: If there are none.
    """
    if _names_directories(args):
        if _names_revisions(args):
            raise UserError(
                "a series is made of revisions or of directories, but both model_revision and "
                "model_name_or_path name several."
            )
        found = _directories(args.model_name_or_path)
        return [Member(name, _at(args, found[name])) for name in in_order([*found])]
    return [
        Member(name, replace(args, model_revision=name))
        for name in _revisions(args, _as_list(args.model_revision))
    ]


def _at(args: ModelArguments, directory: str) -> ModelArguments:
    """The arguments of the model in a directory, with its own tokenizer and configuration."""
    own: dict[str, Any] = {
        name: None
        for name in ("tokenizer_name", "config_name")
        if getattr(args, name) == args.model_name_or_path
    }
    return replace(args, model_name_or_path=directory, **own)


def _names_revisions(args: ModelArguments) -> bool:
    return isinstance(args.model_revision, list) or bool(_WILD.search(args.model_revision))


def _names_directories(args: ModelArguments) -> bool:
    name = args.model_name_or_path
    return bool(_WILD.search(name)) and not Path(name).exists()


def _as_list(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _around(pattern: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts of a path before the first and behind the last that stands for several."""
    parts = Path(pattern).parts
    wild = [number for number, part in enumerate(parts) if _WILD.search(part)]
    return parts[: wild[0]], parts[wild[-1] + 1 :]


def _directories(pattern: str) -> dict[str, str]:
    """Directories with a model in them, by the part of their names in which they differ."""
    before, behind = (len(parts) for parts in _around(pattern))
    found = {}
    for path in map(Path, glob.glob(pattern)):  # noqa: PTH207 - as the user wrote it
        if (path / "config.json").is_file():
            parts = path.parts
            found["/".join(parts[before : len(parts) - behind])] = str(path)
    if not found:
        raise UserError(
            f"model_name_or_path must match directories with a saved model in each, but {pattern} "
            f"matches none."
        )
    return found


def _revisions(args: ModelArguments, wanted: Sequence[str]) -> Iterator[str]:
    if Path(args.model_name_or_path).is_dir():
        raise UserError(
            f"model_revision must be one for a directory, which has no revisions, but got "
            f"{', '.join(wanted)}. Name several directories instead: --model_name_or_path "
            f"'checkpoints/*'."
        )
    known = _known_revisions(args) if any(map(_WILD.search, wanted)) else []
    chosen: dict[str, None] = {}
    for pattern in wanted:
        if not _WILD.search(pattern):
            chosen[pattern] = None
            continue
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            raise UserError(
                f"model_revision must match revisions of {args.model_name_or_path}, but {pattern} "
                f"matches none of its {len(known)}: {', '.join(in_order(known)[:10])} ..."
            )
        chosen |= dict.fromkeys(in_order(found))
    return iter(chosen)


def _known_revisions(args: ModelArguments) -> list[str]:
    """The branches and tags of a model on the Hub, or those in the cache if that is not there."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    from finetune_lm.models.pretrained import read_token

    name = args.model_name_or_path
    try:
        refs = huggingface_hub.list_repo_refs(name, token=read_token(args.token))
    except (OfflineModeIsEnabled, HfHubHTTPError, OSError, ValueError) as error:
        cached = _cached_revisions(args)
        if not cached:
            raise UserError(
                f"the revisions of {name} cannot be listed: {first_line(error)}. Name them one by "
                f"one: --model_revision step1000 step2000"
            ) from error
        say(f"the Hub cannot be reached, so the revisions of {name} are those in the cache.")
        return cached
    return list(dict.fromkeys(ref.name for ref in (*refs.branches, *refs.tags)))


def _cached_revisions(args: ModelArguments) -> list[str]:
    from huggingface_hub import constants

    cache = Path(args.cache_dir or constants.HF_HUB_CACHE)
    refs = cache / f"models--{args.model_name_or_path.replace('/', '--')}" / "refs"
    return [str(path.relative_to(refs)) for path in sorted(refs.rglob("*")) if path.is_file()]
