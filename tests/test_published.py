"""What those see who come from outside: the package, the pages, the files about the project."""

from __future__ import annotations

import email
import os
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"\[[^\]]*\]\((?!\w+:)([^)#\s]*)(#[^)\s]+)?\)")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    return Path(next(builder.build(directory=str(tmp_path_factory.mktemp("dist")))))


def test_the_demo_needs_nothing_but_the_wheel(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as file:
        file.extractall(installed)
    program = (
        "import sys, finetune_lm; from finetune_lm.cli import main;"
        "print(finetune_lm.__file__); sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "demo", "here", "--epochs", "1"],
        cwd=empty,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))
    assert "After the verb the difference went from" in done.stdout
    assert "Best epoch: 0" in done.stdout
    assert (empty / "here" / "report.html").stat().st_size > 1000
    assert (empty / "here" / "run" / "probe_results.csv.gz").is_file()


def test_the_package_describes_itself_where_it_has_no_files(wheel):
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(file.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload(decode=True).decode("utf-8")
    assert text.startswith("# finetune-lm\n")
    assert LINK.search(text) is None
    assert "| docs/data.md | data files" in text or "Source" in PROJECT.get("urls", {})


def test_links_of_a_readme_elsewhere():
    pytest.importorskip("hatchling")
    shown_elsewhere = runpy.run_path(str(ROOT / "hatch_build.py"))["shown_elsewhere"]
    readme = "![A plot.](a/b.png) [page](docs/x.md#part), [site](https://x.org), [here](#here)"
    rest = "[site](https://x.org), [here](#here)"
    assert shown_elsewhere(readme, None) == f"*(A plot.)* page, {rest}"
    source = "https://host/me/it/blob/v1/"
    assert shown_elsewhere(readme, source) == (
        "![A plot.](https://host/me/it/raw/v1/a/b.png) "
        f"[page](https://host/me/it/blob/v1/docs/x.md#part), {rest}"
    )


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert f"version {PROJECT['version']}," in (ROOT / "README.md").read_text("utf-8")


def test_what_users_install_has_no_development_tools():
    environment = yaml.safe_load((ROOT / "environment.yaml").read_text("utf-8"))
    pip = environment["dependencies"][-1]["pip"]
    assert pip == [
        "--extra-index-url https://download.pytorch.org/whl/cpu", "-c constraints.txt", ".",
    ]  # fmt: skip


def test_every_extra_is_pinned():
    pins = (ROOT / "constraints.txt").read_text("utf-8").lower().replace("_", "-")
    names = {re.split(r"[\[>=;, ]", each)[0].lower() for each in extra_requirements()}
    pinned = set(re.findall(r"^([a-z0-9-]+)==", pins, re.MULTILINE))
    # Neither is part of what the tests run in.
    assert names - pinned == {"cmaes", "optuna-dashboard"} - pinned


def extra_requirements() -> list[str]:
    return [each for extra in PROJECT["optional-dependencies"].values() for each in extra]


def test_every_report_of_a_problem_asks_for_the_record_of_the_run():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text("utf-8"))
        assert {"name", "description", "body"} <= form.keys()
        asked = {each["id"]: each for each in form["body"]}
        assert asked["run_json"]["attributes"]["label"] == "run.json"
        required = asked["run_json"].get("validations", {}).get("required", False)
        assert required == (path.stem != "wish")


def pages() -> list[Path]:
    return [
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted(ROOT.glob("*.md")),
        *(ROOT / "data").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
        *paper_pages(),
    ]


def paper_pages() -> list[Path]:
    return sorted((ROOT / "examples" / "papers").glob("*/README.md"))


def anchors(page: Path) -> set[str]:
    """The parts of a page, as Markdown's table of contents and code hosts name them."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+?)\s*$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s+", "-", each) for each in plain}


def test_links_lead_somewhere():
    broken = []
    for page in pages():
        for path, part in LINK.findall(page.read_text("utf-8")):
            target = (page.parent / path).resolve() if path else page
            if not target.exists():
                broken.append(f"{page.name}: {path}")
            elif part and part[1:] not in anchors(target):
                broken.append(f"{page.name}: {path}{part}")
    assert not broken


def test_every_page_is_on_the_site_and_in_the_readme():
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    names = {path.name for path in (ROOT / "docs").glob("*.md")}
    listed = {line.split("- ")[1] for line in text.splitlines() if line.endswith(".md")}
    assert names - listed == set(), "nav in mkdocs.yml must have every page of docs/"
    papers = {f"examples/papers/{path.parent.name}_README.md" for path in paper_pages()}
    assert listed - names == papers | {
        "index.md", "CONTRIBUTING.md", "CHANGELOG.md", "data_README.md", "benchmarks/RESULTS.md",
    }  # fmt: skip
    readme = (ROOT / "README.md").read_text("utf-8")
    assert not [name for name in names if f"(docs/{name})" not in readme]
