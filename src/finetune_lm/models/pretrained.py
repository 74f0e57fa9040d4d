"""Models, configurations and tokenizers as transformers reads them: from where, or why not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_lm.constants import BUILTIN_MODELS
from finetune_lm.errors import UserError, first_line
from finetune_lm.models.unknown_kwargs import (
    ACCESS,
    check_model_kwarg,
    check_tokenizer_effects,
    check_tokenizer_kwargs,
)

if TYPE_CHECKING:
    from finetune_lm.arguments import ModelArguments


def hub_arguments(args: ModelArguments) -> dict[str, Any]:
    """Where a model is looked for."""
    return {
        "revision": args.model_revision,
        "cache_dir": args.cache_dir,
        "token": read_token(args.token),
        # Without this transformers would ask on the terminal, and wait.
        "trust_remote_code": args.trust_remote_code,
    }


def model_path(name: str) -> str:
    """Where transformers is to look for a model: a built-in one has its place in the package."""
    if name in BUILTIN_MODELS:
        return str(Path(__file__).parent / "builtin" / name)
    return name


def read_token(token: bool | str | None) -> bool | str | None:
    """The access token itself, where a file holding it may be named instead.

    Raises:
        UserError: If the file is no text.
    """
    # Not Path.is_file, which fails on what is too long for the name of a file.
    if isinstance(token, str) and os.path.isfile(token):  # noqa: PTH113
        try:
            return Path(token).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise UserError(
                "token must be an access token or a text file that holds one."
            ) from None
    return token


_PARTS = {"AutoConfig": "configuration", "AutoTokenizer": "tokenizer"}


def from_pretrained(
    auto_class: Any, argument: str, name: str, standard: dict[str, Any], given: dict[str, Any]
) -> Any:
    """What an Auto class of transformers makes of a name.

    Args:
        auto_class: The class.
        argument: The argument that holds the name, for the message.
        name: A directory, a built-in model or a name on the Hub.
        standard: What every model is given.
        given: What the user has given besides, which goes before it.

    Raises:
        UserError: If it cannot be loaded, whatever the reason.
    """
    _check_local(argument, name)
    try:
        return auto_class.from_pretrained(model_path(name), **{**standard, **given})
    except ImportError as error:
        raise UserError(f"{argument} {name!r} needs a package: {_in_short(error)}") from error
    except Exception as error:
        # Broken files have as many kinds of errors as there are readers for them.
        if isinstance(error, TypeError):
            check_model_kwarg(name, error, standard.get("config"), given)
        if "trust_remote_code=True" in str(error):
            raise UserError(
                f"{argument} {name!r} needs Python code that comes with it, which is not run "
                f"unless you trust it. Read it, and then give --trust_remote_code."
            ) from error
        where = "is a directory that" if _is_directory(name) else "is no directory here, and"
        raise UserError(
            f"{argument} {name!r} {where} cannot be loaded as "
            f"{_PARTS.get(auto_class.__name__, 'model')}: {_in_short(error)}"
        ) from error


def _in_short(error: Exception) -> str:
    """The first line of what a library says, with what kind of error it is if that helps."""
    if "Weights only load failed" in str(error):
        return (
            "its weights are a pickle that holds more than numbers and could run any program. "
            "Save them as safetensors."
        )
    kind = type(error).__name__
    if kind == "error":  # as the standard library's modules call their own
        kind = f"{type(error).__module__}.error"
    if not str(error).strip():
        return kind
    telling = isinstance(error, (OSError, ValueError, RuntimeError, ImportError))
    return first_line(error) if telling else f"{kind}: {first_line(error)}"


def _is_directory(name: str | Path) -> bool:
    return os.path.isdir(name)  # noqa: PTH112 - Path.is_dir fails on a long path


def _check_local(argument: str, name: str) -> None:
    """Tell at once that a directory is not there, where a name can be nothing else."""
    parts = Path(name).parts
    is_path = name.startswith((".", "/", "~")) or len(parts) > 2
    is_there = os.path.exists(name)  # noqa: PTH110 - Path.exists fails on a long path
    if not is_there and (is_path or (len(parts) == 2 and Path(parts[0]).is_dir())):
        raise UserError(f"{argument} {name!r} is not there: there is no such directory.")


def load_tokenizer(args: ModelArguments) -> Any:
    """Load the tokenizer that the arguments name.

    Raises:
        UserError: If it is not there, or does not take what it is given.
    """
    import transformers
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    hub, place = hub_arguments(args), _tokenizer_place(args)

    def build(kwargs: dict[str, Any]) -> Any:
        standard = {**hub, "use_fast": args.use_fast_tokenizer}
        return from_pretrained(
            transformers.AutoTokenizer, "tokenizer_name", place, standard, kwargs
        )

    tokenizer = build(args.tokenizer_kwargs)
    if args.tokenizer_kwargs:
        access = {key: args.tokenizer_kwargs[key] for key in ACCESS if key in args.tokenizer_kwargs}
        saved = get_tokenizer_config(model_path(place), **{**hub, **access})
        check_tokenizer_kwargs(place, tokenizer, args.tokenizer_kwargs, saved)
        saved = {"use_fast": args.use_fast_tokenizer, **saved}
        check_tokenizer_effects(place, tokenizer, args.tokenizer_kwargs, saved, build)
    return tokenizer


_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
)


def _tokenizer_place(args: ModelArguments) -> str:
    """Where the tokenizer is: as named, with the model, or beside it as a run has saved both.

    Without any files transformers would make one up that knows no words.
    """
    name = args.tokenizer_name or args.model_name_or_path
    if not _is_directory(model_path(name)) or "gguf_file" in args.tokenizer_kwargs:
        return name
    place = tokenizer_place(name)
    if place is None or (place != name and name != args.model_name_or_path):
        raise UserError(f"{name!r} has no tokenizer in it. Give --tokenizer_name.")
    return place


def tokenizer_place(name: str) -> str | None:
    """Where the tokenizer of a saved model is: with it or beside it; None if in neither place."""
    directory = Path(model_path(name))
    if any((directory / file).exists() for file in _TOKENIZER_FILES):
        return name
    beside = directory.resolve().parent / "tokenizer"
    return str(beside) if beside.is_dir() else None
