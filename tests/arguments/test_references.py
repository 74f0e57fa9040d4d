from __future__ import annotations

import builtins
import datetime
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from finetune_lm.arguments import references
from finetune_lm.arguments.references import Reference, describe, name_of, resolve_name, short_name
from finetune_lm.errors import UserError


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Stands in for the package of losses, so that these tests know its names."""
    module = types.ModuleType("finetune_lm.loss_classes")

    class OutputsDefaultLoss: ...

    class Hidden: ...

    OutputsDefaultLoss.__module__ = "finetune_lm.loss_classes.outputs_default_loss"
    module.OutputsDefaultLoss = OutputsDefaultLoss  # type: ignore[attr-defined]
    module.Hidden = Hidden  # type: ignore[attr-defined]
    module.__all__ = ["OutputsDefaultLoss"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "finetune_lm.loss_classes", module)
    return module


@pytest.fixture
def user_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with modules of the user's own, forgotten again afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def message_of(name: str) -> str:
    with pytest.raises(UserError) as caught:
        resolve_name(name)
    (message,) = caught.value.problems
    return message


def test_documented_names_come_first(package: types.ModuleType) -> None:
    found = package.OutputsDefaultLoss
    assert resolve_name("loss_classes.OutputsDefaultLoss") is found
    assert resolve_name("finetune_lm.loss_classes.OutputsDefaultLoss") is found
    assert name_of(found) == "loss_classes.OutputsDefaultLoss"
    assert short_name(found) == short_name(Reference("loss_classes.OutputsDefaultLoss"))


def test_a_users_module_may_have_the_name_of_a_package(
    package: types.ModuleType, user_directory: Path
) -> None:
    (user_directory / "loss_classes.py").write_text("class MyLoss: ...\n")
    assert resolve_name("loss_classes.MyLoss").__name__ == "MyLoss"
    assert resolve_name("loss_classes.OutputsDefaultLoss") is package.OutputsDefaultLoss


def test_a_misspelt_documented_name_is_told(package: types.ModuleType) -> None:
    message = message_of("loss_classes.OutputDefaultLoss")
    assert "loss_classes has no 'OutputDefaultLoss'" in message
    assert "Did you mean loss_classes.OutputsDefaultLoss?" in message


def test_the_current_directory_is_on_the_path(user_directory: Path) -> None:
    (user_directory / "my_losses.py").write_text("class MyLoss:\n    class Inner: ...\n")
    assert resolve_name("my_losses.MyLoss").__name__ == "MyLoss"
    assert resolve_name("my_losses.MyLoss.Inner").__name__ == "Inner"
    assert name_of(resolve_name("my_losses.MyLoss.Inner")) == "my_losses.MyLoss.Inner"


def test_a_function_hides_the_file_that_defines_it(user_directory: Path) -> None:
    (user_directory / "my_package").mkdir()
    (user_directory / "my_package" / "__init__.py").write_text("from my_package.mean import mean\n")
    (user_directory / "my_package" / "mean.py").write_text("def mean(): ...\n")
    (user_directory / "my_package" / "other.py").write_text("def f(): ...\n")
    assert resolve_name("my_package.mean").__class__ is types.FunctionType
    assert resolve_name("my_package.mean.mean") is resolve_name("my_package.mean")
    assert resolve_name("my_package.other").__class__ is types.ModuleType
    assert resolve_name("my_package.other.f").__name__ == "f"
    assert "Did you mean my_package.other.f?" not in message_of("my_package.othr.f")
    assert "my_package has no 'othr'. Did you mean my_package.other?" in message_of(
        "my_package.othr.f"
    )


@pytest.mark.parametrize(
    ("code", "error", "line"),
    [
        ("x = 1\nraise ValueError('no\\n luck')\n", "ValueError: no luck", 2),
        ("import not_a_module_of_anyone\n", "ModuleNotFoundError: No module named", 1),
        ("import json\njson.nothing\n", "AttributeError: module 'json' has no", 2),
        ("def f(:\n", "SyntaxError: ", 1),
        ("import sys\nsys.exit('bye')\n", "SystemExit: bye", 2),
    ],
)
def test_an_error_inside_a_users_module_is_told_as_such(
    code: str, error: str, line: int, user_directory: Path
) -> None:
    (user_directory / "broken.py").write_text(code)
    message = message_of("broken.Loss")
    assert message.startswith(f"importing broken failed with {error}")
    assert f"broken.py:{line})." in message
    assert "\n" not in message


def test_a_missing_module_is_told() -> None:
    message = message_of("jsom.loads")
    assert message == (
        "'jsom.loads' cannot be imported: there is no module 'jsom'. Did you mean json? "
        "If the text itself is meant, put quotes around it: '\"jsom.loads\"'."
    )
    assert "it is not a name" in message_of("data.v-2.txt")
    assert "it is not a name" in message_of(".")
    assert "json.loads has no 'a'" in message_of("json.loads.a.a")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (sum, "callable:sum"),
        (builtins.int, "callable:int"),
        (json, "import:json"),
        (json.loads, "json.loads"),
        (json.JSONDecoder.decode, "json.decoder.JSONDecoder.decode"),
        (datetime.datetime.now, "datetime.datetime.now"),
        (Reference("a.b"), "a.b"),
        (Reference("json"), "import:json"),
        (Reference("1.5"), "import:1.5"),
    ],
)
def test_objects_have_names(value: Any, name: str) -> None:
    assert name_of(value) == name


def test_objects_of_torch_have_the_names_that_people_use() -> None:
    import torch

    for value, name in [
        (torch.optim.SGD, "torch.optim.SGD"),
        (torch.sum, "torch.sum"),
        (torch.mean, "torch.mean"),
        (torch.float32, "torch.float"),
        (torch.nn.functional.relu, "torch.relu"),
    ]:
        found = name_of(value)
        assert found is not None
        assert resolve_name(found) is value
        if value not in (torch.float32, torch.nn.functional.relu):
            assert found == name


def test_no_import_is_set_off_by_looking_for_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    monkeypatch.setitem(sys.modules, "lazy", Lazy("lazy"))
    monkeypatch.setitem(sys.modules, "odd", object())  # type: ignore[arg-type]
    assert name_of(object()) is None


def test_what_has_no_name_is_described_without_an_address() -> None:
    class Local: ...

    def local() -> None: ...

    assert describe(Local) == "<class Local, given in Python>"
    assert describe(local) == "<function local, given in Python>"
    assert describe(lambda: None) == "<function <lambda>, given in Python>"
    assert describe(Local()) == "<Local object, given in Python>"


def test_a_module_that_only_imported_an_object_does_not_name_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = types.ModuleType("a")
    other.d = json.decoder.JSONDecoder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a", other)
    monkeypatch.setattr(references, "_found_names", {})
    assert name_of(json.decoder.JSONDecoder) == "json.JSONDecoder"


def test_a_name_that_was_found_is_given_as_long_as_it_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Mine: ...

    module = types.ModuleType("home_of_mine")
    module.Mine = module.Same = Mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "home_of_mine", module)
    assert name_of(Mine) == "home_of_mine.Mine"
    with monkeypatch.context() as patched:
        patched.setattr(references, "_candidates", lambda _: pytest.fail("searched again"))
        assert name_of(Mine) == "home_of_mine.Mine"
    del module.Mine
    assert name_of(Mine) == "home_of_mine.Same"
    del module.Same
    assert name_of(Mine) is None


def test_installed_packages_win_over_the_current_directory(user_directory: Path) -> None:
    references.resolve_name("json.loads")
    assert sys.path[-1] == str(user_directory)
