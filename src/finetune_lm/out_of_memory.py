"""When memory runs out: tell it by the error, and make room."""

from __future__ import annotations

import gc
import sys

_SIGNS = (
    "out of memory",  # CUDA and MPS
    "can't allocate memory",  # torch's CPU allocator
    "not enough memory",  # the same on Windows
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left, on whatever device."""
    torch = sys.modules.get("torch")
    kinds = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    if isinstance(error, kinds):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def free_memory() -> None:
    """Let go of what an error has left in memory, before something smaller is tried."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    from finetune_lm.fast import scratch

    scratch.release()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
