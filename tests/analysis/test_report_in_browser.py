"""A report in a browser: everything is drawn, nothing is asked for, and text stays text."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pytest

import finetune_lm
from browser import needs_browser, open_page
from finetune_lm.analysis.report import report
from report_runs import PEOPLE, data, do, write_lines
from undrawn import drawing

pytestmark = needs_browser

HOSTILE = "<script>alert(1)</script> & \"quoted\" 'so' %{y} $x_1$ ${y} <b>bold</b> &lt;"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The report of a run whose model, files, conditions and sentences try to be code."""
    directory = tmp_path_factory.mktemp("hostile")
    builtin = Path(finetune_lm.__file__).parent / "models" / "builtin" / "tiny-lm"
    model = directory / "<img src=x onerror=alert(2)>\"'"
    shutil.copytree(builtin, model)
    given = data(directory)
    given["probe_file"] = [
        write_lines(
            directory / "<script>alert(3)<" / "script>.txt.gz",
            ["No one is happy.", f"She said {HOSTILE}", "Tea is <i>good</i>."],
            [{"condition": HOSTILE}, {"condition": "plain"}, {"condition": "</script>"}],
        ),
        *given["probe_file"],
    ]
    run = do(directory / "a </script><script>alert(4)</script> run", str(model), **given)
    with drawing():
        return report(run, out=directory / "out" / "report.html")


@pytest.fixture(scope="module")
def opened(hostile):
    return open_page(hostile.page)


def test_everything_is_drawn_and_nothing_asked_for(hostile, opened):
    assert opened.errors == []
    assert opened.requests == []
    traces = re.findall(r'id="plot-(\w+)"[^>]*data-traces="(\d+)"', opened.html)
    figures = {path.stem for path in hostile.figures.glob("*.pdf")}
    assert {stem for stem, _ in traces} == figures
    assert figures >= {"loss", "surprisal", "before_after", "forgetting"}
    # Each line of a figure, and each band, is a trace.
    packed = re.search(r'id="packed-figures">([^<]*)<', hostile.page.read_text("utf-8"))
    given = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    assert {stem: int(n) for stem, n in traces} == {
        stem: len(figure["data"]) for stem, figure in given.items()
    }
    assert dict(traces)["loss"] == "4"  # training and validation, with a band each


def test_text_stays_text(hostile, opened):
    page = hostile.page.read_text("utf-8")
    assert opened.errors == []  # an alert would be one
    assert "<script>alert" not in page
    assert "<img" not in page
    shown = " ".join(opened.texts("td") + opened.texts("h1") + opened.texts("pre"))
    for text in ("<img src=x onerror=alert(2)>", HOSTILE, "<script>alert(3)<"):
        assert text in shown
    # In figures: names in legends, which are text in an SVG.
    assert HOSTILE in opened.texts("text")
    assert "<b>bold" not in opened.html


def test_search_finds_a_sentence(hostile):
    milk = [f"A {who} will flomp milk." for who in PEOPLE]
    for wanted, found in (
        ("will flomp milk", milk),
        ("SHE SAID <SCRIPT>", [f"She said {HOSTILE}"]),
        ("no such sentence", []),
    ):
        opened = open_page(hostile.page, urlencode({"search": wanted}))
        assert opened.errors == []
        texts = re.findall(r'<span class="text">(.*?)</span>', opened.html)
        assert [unescape(text) for text in texts] == found
        n_rows = opened.html.count('<th class="at" style')
        assert n_rows == len(found) * 4  # before and after each of 3 epochs


def test_the_page_may_not_ask_for_anything(hostile):
    page = hostile.page.read_text("utf-8")
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';' in page
    assert not re.search(r"<(link|iframe|img|object|embed)\b", page)
    assert not re.search(r"<script[^>]*\bsrc=", page)
