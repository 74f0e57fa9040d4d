"""Whose source counts: the user's own modules, and those that they import."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
import torch

from finetune_lm.arguments.references import default_object
from finetune_lm.loss_classes import OutputsDefaultLoss
from finetune_lm.runs.source_hashes import source_hashes

FILES = {
    "own_a.py": "import own_b\nfrom own_pack import deep\nclass A(own_b.B):\n    pass\n",
    "own_b.py": "class B:\n    pass\ndef later():\n    import own_lazy\n",
    "own_lazy.py": "X = 1\n",
    "own_pack/__init__.py": "",
    "own_pack/deep.py": "from . import sibling\nfrom .sibling import Y\ndef f(x):\n    return x\n",
    "own_pack/sibling.py": "Y = 2\n",
    "own_alone.py": "import torch, json, numpy\ndef g():\n    pass\n",
}
OF_A = {"own_a", "own_b", "own_lazy", "own_pack", "own_pack.deep", "own_pack.sibling"}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    (tmp_path / "own_pack").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_nothing_of_what_is_installed_counts():
    theirs = [torch.optim.AdamW, OutputsDefaultLoss, Path, len, torch.sum, torch, print, 3, None]
    theirs += [default_object("own_a.A"), "own_a.A", torch.nn.Linear(1, 1)]
    assert source_hashes({"a": theirs, "b": {"c": tuple(theirs)}}) == {}


def test_wherever_a_module_comes_in():
    import own_a
    import own_alone
    import own_pack.deep

    class Wrapped(torch.nn.Module):
        pass

    Wrapped.__module__ = "own_alone"
    assert source_hashes({"x": [own_a.A]}).keys() == OF_A
    assert source_hashes(own_a.A()).keys() == OF_A
    assert source_hashes([functools.partial(own_alone.g)]).keys() == {"own_alone"}
    assert source_hashes(functools.partial(print, own_alone.g)).keys() == {"own_alone"}
    assert source_hashes(own_alone).keys() == {"own_alone"}
    assert source_hashes(Wrapped).keys() == {"own_alone"}
    assert source_hashes(own_pack.deep.f).keys() == {
        "own_pack",
        "own_pack.deep",
        "own_pack.sibling",
    }
    # What decorates a function is part of it.
    decorated = functools.wraps(own_alone.g)(lambda: None)
    assert "own_alone" in source_hashes(decorated)


@pytest.mark.parametrize("name", [name for name in FILES if name != "own_alone.py"])
def test_a_change_shows(modules, name):
    import own_a

    before = source_hashes(own_a.A)
    with (modules / name).open("a") as file:
        file.write("\n# a change\n")
    after = source_hashes(own_a.A)
    changed = {module for module in before if before[module] != after[module]}
    assert changed == {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")}


def test_of_a_program_only_what_is_used_counts(modules, monkeypatch):
    """It may well be another when a run goes on: one that resumes it."""
    script = modules / "script.py"
    text = "import own_alone\nclass L:\n    x = 1\nrun(L)\n"

    def hashes(text):
        script.write_text(text)
        main = type(sys)("__main__")
        main.__file__ = str(script)
        monkeypatch.setitem(sys.modules, "__main__", main)
        exec(compile(text, str(script), "exec"), {**vars(main), "run": lambda _: None}, vars(main))
        import linecache

        linecache.checkcache()
        return source_hashes(main.L)

    before = hashes(text)
    assert before.keys() == {"__main__.L", "own_alone"}
    assert hashes(text.replace("run(L)", "resume = run; resume(L)")) == before
    assert hashes(text.replace("x = 1", "x = 2"))["__main__.L"] != before["__main__.L"]
