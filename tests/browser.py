"""A page opened in a real browser: Debian's chromium, without a window."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in _NAMES if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason=f"none of {', '.join(_NAMES)} is installed"
)

# Keeps what goes wrong and what is asked for, and writes it down when the page says it is ready.
_WATCH = """
<script>
const seen = { errors: [], requests: [] };
for (const level of ["error", "warn"])
  console[level] = (...said) => seen.errors.push(said.map(String).join(" "));
addEventListener("error", (event) => seen.errors.push(String(event.message)), true);
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.blockedURI));
window.alert = (said) => seen.errors.push("alert " + said);
const watch = setInterval(() => {
  if (!document.body || document.body.dataset.ready !== "true") return;
  clearInterval(watch);
  seen.requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const told = document.createElement("pre");
  told.id = "seen-by-the-test";
  told.textContent = JSON.stringify(seen);
  document.body.append(told);
}, 50);
</script>
"""


@dataclass(frozen=True)
class Opened:
    """What a page has come to.

    Attributes:
        html: Its elements when its scripts were done.
        errors: What was said on the console, thrown, or forbidden.
        requests: What it has asked for.
    """

    html: str
    errors: list[str]
    requests: list[str]

    def texts(self, tag: str) -> list[str]:
        """The texts of all elements of a kind, without what is in them."""
        return [unescape(text) for text in re.findall(rf"<{tag}\b[^>]*>([^<]*)</{tag}>", self.html)]

    def attributes(self, name: str) -> list[str]:
        """The values of an attribute, wherever it is."""
        return [unescape(value) for value in re.findall(rf'\b{name}="([^"]*)"', self.html)]


def open_page(page: Path, fragment: str = "") -> Opened:
    """Open a page from its file.

    Args:
        page: The HTML file.
        fragment: What stands behind the ``#`` in its address.
    """
    assert BROWSER is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        copy = Path(own) / "page.html"
        head = '<html lang="en"><head>'
        text = page.read_text("utf-8")
        assert text.count(head) == 1
        copy.write_text(text.replace(head, head + _WATCH), "utf-8")
        address = copy.as_uri() + (f"#{fragment}" if fragment else "")
        done = subprocess.run(
            [
                BROWSER,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update"),
                *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={own}/profile"),
                *("--window-size=1100,2000", "--virtual-time-budget=60000", "--dump-dom"),
                address,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    found = re.search(r'<pre id="seen-by-the-test">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page did not get ready: {done.stderr[-3000:]}"
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    return Opened(done.stdout.replace(found[0], ""), seen["errors"], seen["requests"])
