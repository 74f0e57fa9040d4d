"""Settings of the process under which the same arithmetic takes less time. For CPUs.

They are chosen by what the machine is, not by measuring, so that two runs on one machine compute
with the same routines and write the same tables.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finetune_lm.arguments.calls import takes_named

# How far a float32 product may be from that in float64, relative to it: float32 sums of 768 terms
# are some 3e-7 away, products that are rounded to 16 bits 2e-3.
_EXACT = 2e-6

# glibc's mallopt: what is larger than a threshold is asked of the system each time and given back.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1


def tune(*, is_short_of_memory: bool = False) -> list[str]:
    """Set what is of use on this machine and changes no result beyond rounding.

    Args:
        is_short_of_memory: Whether all that saves time and takes more memory is left out.

    Returns:
        What was set, for the record.
    """
    settings = {"float32 matrix products by oneDNN": use_onednn}
    if not is_short_of_memory:
        settings["memory is kept from going back to the system"] = keep_memory
    return [what for what, attempt in settings.items() if attempt()]


def keep_memory() -> bool:
    """Let the process keep the memory of large tensors for the next ones.

    A step's logits are 100 MB and more. As a rule they are given back to the system after each
    step and asked for again in the next, page by page.

    Returns:
        Whether that was possible: on Linux with glibc.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = ((_M_MMAP_THRESHOLD, _NEVER), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))
    done = [mallopt(option, value) == 1 for option, value in options]
    return all(done)


def use_onednn() -> bool:
    """Let oneDNN multiply float32 matrices where MKL is slow and oneDNN exact.

    That is on AMD's processors with AVX-512: there MKL runs at half of what they can do. torch has
    a setting that lets oneDNN do the work, which allows it to round to bfloat16; without units for
    that it does not. Whether it does is looked at.

    Returns:
        Whether the setting was made.
    """
    import torch

    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(matmul, "fp32_precision") or not _is_amd_with_avx512():
        return False
    before = torch.get_float32_matmul_precision()
    # Not by matmul.fp32_precision, after which the function above is an error, which compilers use.
    torch.set_float32_matmul_precision("medium")
    if _products_are_exact():
        return True
    torch.set_float32_matmul_precision(before)
    return False


def fused(optimizer: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The argument that makes an optimizer go through all of its state in one pass, if it has one.

    Args:
        optimizer: Its class.
        given: The arguments that it is given anyway; who chooses another way has it.
    """
    ways = {"fused", "foreach", "capturable", "differentiable"}
    return {"fused": True} if takes_named(optimizer, "fused") and not ways & given.keys() else {}


def _is_amd_with_avx512() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="ignore")
    except OSError:
        return False
    return "AuthenticAMD" in text and "avx512f" in text


def _products_are_exact() -> bool:
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 768, generator=generator) for n in (256, 768))
    exact = a.double() @ b.double().T
    return float((a @ b.T - exact).norm() / exact.norm()) < _EXACT
