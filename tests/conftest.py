"""What all tests share: no network, no cache of the user's, one thread."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile

# Under nohup it is ignored, and what is ignored stays so in a run.
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

_home = tempfile.mkdtemp(prefix="finetune_lm_tests_")
os.environ["HF_HOME"] = _home
os.environ["HF_DATASETS_CACHE"] = os.path.join(_home, "datasets")  # noqa: PTH118
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"
# Otherwise each process of pytest would rewrite the assertions of all files, each time anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from commands import wait_for_no_disk  # noqa: E402
from undrawn import drawing, leave_undrawn  # noqa: E402

wait_for_no_disk()

# Fixtures that several files share: each names them in `pytest_plugins`.
pytest.register_assert_rewrite(
    "kl_terms", "pair_files", "short_runs", "stopped_runs", "two_modes_runs"
)

settings.register_profile("suite", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def undrawn():
    """Leave pages of PDF files undrawn, except in tests that look at them."""
    leave_undrawn()


@pytest.fixture
def drawn_pages():
    """For tests that look at pages of PDF files, or at what may go wrong with them."""
    with drawing():
        yield


_n_modules_before = 0


@pytest.fixture(autouse=True, scope="module")
def quick_garbage_collection():
    """Leave what is there for good out of garbage collection, of which many tests do several.

    To look through all objects of torch and transformers takes a quarter of a second.
    """
    global _n_modules_before
    if len(sys.modules) > _n_modules_before + 50 or not gc.get_freeze_count():
        _n_modules_before = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests():
    """Arguments that live on after their test, in a cycle or a cache, have no say in the next."""
    yield
    if (redaction := sys.modules.get("finetune_lm.arguments.redaction")) is not None:
        redaction._REMEMBERED.clear()


@pytest.fixture(autouse=True)
def usual_matrix_products():
    """Undo what a run sets for its process, of which the next test knows nothing."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_float32_matmul_precision("highest")
