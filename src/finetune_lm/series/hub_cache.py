"""Takes the files of one revision out of the Hub's cache."""

from __future__ import annotations

from pathlib import Path

from finetune_lm.arguments import ModelArguments
from finetune_lm.messages import say


def drop_from_cache(args: ModelArguments) -> None:
    """Free the room of one revision of a model, but for files that other revisions have too.

    A revision by which something else goes, such as ``main``, stays.

    Args:
        args: Which model, and which revision of it.
    """
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir(Path(args.cache_dir or constants.HF_HUB_CACHE))
    except CacheNotFound:
        return
    name = args.model_revision
    hashes = [
        revision.commit_hash
        for repo in cache.repos
        if repo.repo_type == "model" and repo.repo_id == args.model_name_or_path
        for revision in repo.revisions
        if revision.refs <= {name} and (name in revision.refs or name == revision.commit_hash)
    ]
    if hashes:
        plan = cache.delete_revisions(*hashes)
        plan.execute()
        say(f"{name}: {plan.expected_freed_size_str} of the cache were freed.")
