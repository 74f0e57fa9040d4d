"""The examples of the pages in docs/ that are meant to be tried, run as they stand."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import finetune_lm
from commands import run_command

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^(?:`([\w.]+)`:\n\n)?```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


SHORTER = {"probes.md": ("--epochs 70", "--epochs 2")}
"""What is written of a page's commands so that they take less time."""


def try_page(name: str, directory: Path, but: str = "\0") -> None:
    """Run a page's blocks in order: Python goes to the file named before it, sh is run.

    Blocks with a certain word in them are left out.
    """
    for place in ("data", "examples"):
        (directory / place).symlink_to(ROOT / place)
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    if name in SHORTER:
        assert SHORTER[name][0] in page
        page = page.replace(*SHORTER[name])
    module = directory / "unnamed.py"
    for file, language, text in BLOCK.findall(page):
        if but in text:
            continue
        if language == "python":
            module = directory / file if file else module
            before = module.read_text(encoding="utf-8") if module.exists() else ""
            module.write_text(f"{before}\n\n{text}", encoding="utf-8")
            continue
        # The shell says what the words of the command are.
        ours = f'python() {{ {sys.executable} "$@"; }}\nfinetune-lm() {{ printf "%s\\0" "$@"; }}'
        program = f"{ours}\nset -e\n{text}"
        done = subprocess.run(
            ["bash", "-c", program], cwd=directory, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        if "finetune-lm" in text:
            assert re.match("finetune-lm(.*\\\\\n)*.*\n$", text), f"not one command: {text}"
            run = run_command(*done.stdout.removesuffix("\0").split("\0"), cwd=directory)
            assert run.returncode == 0, f"{text}\n{run.stderr}"


def test_the_examples_of_pairs(tmp_path, monkeypatch):
    try_page("pairs.md", tmp_path, but="gpt2")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("unnamed.py")
    assert (tmp_path / "datives.png").stat().st_size > 1000


@pytest.mark.parametrize("page", ["losses.md", "extending.md", "probes.md"])
def test_the_examples_of_a_page(tmp_path, page, monkeypatch):
    try_page(page, tmp_path)
    tables = sorted(tmp_path.glob("outputs/**/metrics.csv.gz"))
    assert tables
    columns = {column for table in tables for column in finetune_lm.load_metrics(table).columns}
    if page == "losses.md":
        assert {"WordLoss", "KLBaselineLoss"} <= columns
    if page == "probes.md":
        monkeypatch.chdir(tmp_path)
        module = runpy.run_path("unnamed.py")
        one_sentence = finetune_lm.load_metrics("outputs/one-sentence")
        learned = one_sentence[one_sentence["dataset_type"] == "train"]
        assert learned["original_text"].nunique() == 1
        assert (learned["token"] == " flomped").any()  # the verb is one token
        by_step = module["active"].groupby(["step", "arg_order"])["surprisal"].mean().unstack()
        assert by_step.shape == (3, 2)
        assert Path("probes.png").stat().st_size > 1000
        # Nothing but the verb has changed; before it, it is only one more word that might come.
        before = module["probes"].query("word_num == 1 and sentence_type == 'perfect transitive'")
        costs = before.groupby("example_num")["surprisal"]
        assert (costs.max() - costs.min()).max() < 1e-3
