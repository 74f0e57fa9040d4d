"""Tests of a series of checkpoints: a run that only tests for each, and one table of them all."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from finetune_lm.arguments import (
    DataTrainingArguments,
    OptimizationArguments,
    config_dict,
    config_yaml,
    without_token,
)
from finetune_lm.arguments.data_training_arguments import DrawnSeed
from finetune_lm.constants import CONFIG_YAML
from finetune_lm.data.files import read_files
from finetune_lm.errors import UserError
from finetune_lm.messages import say, warn
from finetune_lm.ranks import world
from finetune_lm.runs import directory as place
from finetune_lm.runs.earlier_run import EarlierRun
from finetune_lm.runs.following import End, check_signals, tell
from finetune_lm.runs.interruption import Interruption
from finetune_lm.runs.lock import RunLock
from finetune_lm.runs.record import RunRecord
from finetune_lm.runs.run_identity import AllArguments, identity_of
from finetune_lm.runs.run_result import RunResult
from finetune_lm.series.followed_series import Conduct, Next, follow_series
from finetune_lm.series.hub_cache import drop_from_cache
from finetune_lm.series.members import Member, members_of, series_name
from finetune_lm.series.merged_tables import merge_tables
from finetune_lm.whole_files import write_whole

REVISIONS = "revisions"
"""The directory with those of the checkpoints."""


class MembersFailedError(UserError):
    """Some checkpoints of a series could not be tested; the table has the others."""

    exit_status = 1


def check_series(all_args: AllArguments) -> None:
    """See that a series is only tested.

    Raises:
        UserError: If it is to be trained or searched with.
    """
    if all_args[2].do_optimize or all_args[1].train_file is not None:
        raise UserError(
            "a series of checkpoints is only tested, so there can be no train_file and no "
            "do_optimize. Name one model, or leave them out."
        )


def run_series(
    all_args: AllArguments, earlier: EarlierRun | None, conduct: Conduct, *, is_locked: bool = False
) -> RunResult:
    """Test each checkpoint of a series.

    A checkpoint that has been tested before is not tested again, so that the same command goes on
    with a series that was stopped, or takes up checkpoints that are new.

    Args:
        all_args: All arguments.
        earlier: The series that is resumed, if one is.
        conduct: Does one run.
        is_locked: Whether its directory is locked already, for a series that is resumed or one of
            a grid.

    Raises:
        UserError: If something is wrong with the series as a whole.
        MembersFailedError: If some of its checkpoints could not be tested.
    """
    check_series(all_args)
    if not world().is_first:
        return follow_series(all_args, conduct)
    model_args, data_args, _ = all_args
    files = read_files(data_args)  # what is wrong with them is wrong for all checkpoints
    members = members_of(model_args)
    name = series_name(model_args)
    directory = earlier.directory if earlier else _directory(data_args, name)
    prefix = data_args.test_output_file_prefix or name
    place.check_results_name(prefix, name)
    all_args = (model_args, _seeded(data_args, directory), all_args[2])
    series = _Series(all_args, members, directory, prefix, conduct)
    identity = identity_of(all_args, {**files, "loss": []})
    if earlier is None:
        _check_directory(directory)
        place.make_output_dir(directory)
    with (
        Interruption() as interruption,
        nullcontext() if is_locked else RunLock(directory),
    ):
        record = RunRecord(
            directory / place.RUN_JSON,
            earlier.record if earlier else None,
            identity=identity,
            series=[member.revision for member in members],
        )
        with write_whole(directory / CONFIG_YAML) as aside:
            aside.write_text(config_yaml(*all_args), encoding="utf-8")
        try:
            tested, failed = series.test_all(interruption)
        except KeyboardInterrupt as interrupt:
            if hasattr(interrupt, "output_dir"):
                interrupt.output_dir = directory
            record.end("interrupted")
            raise
        except BaseException as error:
            record.end("failed", without_token(f"{type(error).__name__}: {error}", *all_args))
            raise
        tables = merge_tables(tested, directory)
        record.add(failed=failed)
        record.end("failed" if failed else "finished")
        if not failed:
            tell(End((directory, tables[0])))
    if failed:
        raise MembersFailedError(
            f"{len(failed)} of {len(members)} checkpoints could not be tested"
            + (f"; {tables[0]} has the others." if tables else "."),
            *(f"{revision}: {reason}" for revision, reason in failed.items()),
        )
    return RunResult(directory, None, None, tables[0])


class _Series:
    """Tests the checkpoints of a series.

    Args:
        all_args: The arguments of the series.
        members: The checkpoints.
        directory: Where it writes.
        prefix: What the names of tables begin with.
        conduct: Does one run.
    """

    def __init__(
        self,
        all_args: AllArguments,
        members: list[Member],
        directory: Path,
        prefix: str,
        conduct: Conduct,
    ) -> None:
        self._all_args = all_args
        self._members = members
        self._directory = directory
        self._prefix = prefix
        self._conduct = conduct
        self._tokenizer: tuple[str, str] | None = None

    def test_all(
        self, interruption: Interruption
    ) -> tuple[list[tuple[Member, Path]], dict[str, str]]:
        """Test those that are not tested yet.

        Returns:
            The checkpoints that are, with their directories, and why others are not.
        """
        tested: list[tuple[Member, Path]] = []
        failed: dict[str, str] = {}
        for member in self._members:
            check_signals(interruption)
            directory = self._directory / REVISIONS / place.as_file_name(member.revision)
            try:
                args = self._args_of(member, directory)
                self._check_tokenizer(member)
                if not _is_tested(directory, args):
                    say(f"{member.revision}:")
                    tell(Next.of(self._all_args, args))
                    world().attempt(partial(self._conduct, args))
            except _OtherTokenizerError:
                raise
            except Exception as error:
                if world().ends_more(error):
                    raise
                told = (
                    str(error)
                    if isinstance(error, UserError)
                    else f"{type(error).__name__}: {error}"
                )
                failed[member.revision] = without_token(told, member.args)
                warn(f"{member.revision} could not be tested: {failed[member.revision]}")
            else:
                tested.append((member, directory))
            if member.args.drop_cache:
                tell(Next.of(self._all_args, self._args_of(member, directory), is_over=True))
                drop_from_cache(member.args)
        return tested, failed

    def _args_of(self, member: Member, directory: Path) -> AllArguments:
        """The arguments of the run that tests a checkpoint."""
        data = replace(
            self._all_args[1],
            output_dir=str(directory),
            test_output_file_prefix=self._prefix,
            # A test that is killed goes on after the last batch that was finished.
            save_tmp_test_files=True,
        )
        return member.args, data, OptimizationArguments()

    def _check_tokenizer(self, member: Member) -> None:
        """See that a checkpoint cuts texts into the same tokens as those before it."""
        if member.args.tokenizer_name not in (None, member.args.model_name_or_path):
            return
        from finetune_lm.models.pretrained import load_tokenizer

        own = _fingerprint(load_tokenizer(member.args))
        if self._tokenizer is None:
            self._tokenizer = member.revision, own
        elif self._tokenizer[1] != own:
            raise _OtherTokenizerError(
                "all checkpoints of a series must have the same tokenizer, but that of "
                f"{member.revision} differs from that of {self._tokenizer[0]}. Test them "
                "separately, or give one --tokenizer_name."
            )


class _OtherTokenizerError(UserError):
    """A checkpoint whose numbers cannot stand in one table with those of the others."""


def _fingerprint(tokenizer: Any) -> str:
    """What stands for how a tokenizer cuts texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    said = [
        type(tokenizer).__name__,
        backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _seeded(args: DataTrainingArguments, directory: Path) -> DataTrainingArguments:
    """The arguments with the seed of the series, where they have only one that was drawn."""
    if not isinstance(args.seed, DrawnSeed) or not (directory / CONFIG_YAML).exists():
        return args
    import yaml

    try:
        seed = yaml.safe_load((directory / CONFIG_YAML).read_bytes())["seed"]
        return replace(args, seed=int(seed))
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return args


def _directory(args: DataTrainingArguments, name: str) -> Path:
    if args.output_dir is not None:
        return place.choose_output_dir(args.output_dir, name, [])
    return Path("outputs", "test_only", f"{place.as_file_name(name)}-series")


def _check_directory(directory: Path) -> None:
    place.check_writable(directory)
    found = place.results_in(directory) if directory.is_dir() else []
    if found and not (directory / REVISIONS).is_dir():
        raise UserError(
            f"output_dir must not have results of another run, but {directory} has "
            f"{', '.join(found)}. Give another --output_dir."
        )


def _is_tested(directory: Path, args: AllArguments) -> bool:
    """Whether a checkpoint has been tested, by these arguments.

    Raises:
        UserError: If it was by others.
    """
    if not (directory / CONFIG_YAML).exists():
        return False
    earlier = EarlierRun.read(directory)
    if changes := earlier.given_anew(config_dict(*args)):
        raise UserError(
            f"{directory} has a test with other arguments: {', '.join(changes)}. Give another "
            "--output_dir."
        )
    return earlier.is_finished
