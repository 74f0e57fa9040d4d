from __future__ import annotations

import subprocess
import sys

import torch

from finetune_lm.scoring.fast import tuning


def test_an_optimizer_that_can_goes_through_its_state_in_one_pass():
    assert tuning.fused(torch.optim.AdamW, {"lr": 1.0}) == {"fused": True}
    assert tuning.fused(torch.optim.AdamW, {"fused": False}) == {}
    assert tuning.fused(torch.optim.AdamW, {"foreach": True}) == {}
    assert tuning.fused(torch.optim.RMSprop, {}) == {}
    assert tuning.fused(callable, {}) == {}


def test_in_one_pass_it_comes_to_the_same():
    weights = []
    for fused in ({}, {"fused": True}):
        torch.manual_seed(0)
        layer = torch.nn.Linear(20, 30)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, **fused)
        for _ in range(50):
            layer(torch.randn(4, 20)).pow(2).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


def test_a_setting_that_rounds_is_taken_back(monkeypatch):
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    monkeypatch.setattr(tuning, "_is_amd_with_avx512", lambda: True)
    monkeypatch.setattr(tuning, "_products_are_exact", lambda: False)
    assert not tuning.use_onednn()
    assert matmul.fp32_precision == before


def test_a_compiler_can_still_ask_for_the_precision():
    """torch has two ways to set it, of which one makes an error of asking by the other."""
    program = (
        "import torch; from finetune_lm.scoring.fast.tuning import tune; tune();"
        "assert torch.get_float32_matmul_precision() in ('highest', 'medium')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_products_are_as_exact_as_float32_allows():
    assert tuning._products_are_exact()
    a = torch.randn(8, 768)
    assert float((a.bfloat16().float() - a).norm() / a.norm()) > tuning._EXACT  # what would show


def test_settings_can_be_made_in_a_process_of_its_own():
    """They are the process's own, so not made in this one."""
    program = (
        "from finetune_lm.scoring.fast.tuning import tune, _products_are_exact; made = tune();"
        "assert isinstance(made, list); assert _products_are_exact()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
