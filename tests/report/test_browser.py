"""The page in a browser: a head clicked sorts, a word filters, paper repeats the heads of long tables."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OFFLINE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
ACT = """<script>
const table = document.querySelector("#center-vendor-mean-hu");
const heads = [...table.querySelectorAll("thead th")];
const at = heads.findIndex((head) => head.textContent.startsWith("Sensitivity"));
const order = () => [...table.querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent);
heads[at].querySelector("button").click();
const rising = order();
const way = heads[at].getAttribute("aria-sort");
heads[at].querySelector("button").click();
const falling = order();
const long = document.querySelector("#dictionary");
const input = long.querySelector("input");
input.value = "rogan";
input.dispatchEvent(new Event("input"));
const shown = [...long.querySelectorAll("tbody tr")].filter((row) => !row.hidden).length;
const said = long.querySelector("output").textContent;
const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
document.body.dataset.result = JSON.stringify({ rising, way, falling, shown, said, wide });
</script></body>"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")]


def browse(folder: Path, page: str, *options: str) -> str:
    """Open the page and return what the browser prints."""
    target = folder / "page.html"
    target.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(BROWSER), *OFFLINE, profile, *options, target.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("width", [480, 1280])
def test_a_click_sorts_and_a_word_filters(tmp_path: Path, page: str, width: int) -> None:
    dumped = browse(tmp_path, page.replace("</body>", ACT), "--dump-dom", f"--window-size={width},900")
    found = re.search(r'data-result="([^"]*)"', dumped)
    assert found is not None
    result = json.loads(html.unescape(found[1]))
    assert result["rising"] == ["north", "all centers", "west", "south", "east"]
    assert result["falling"] == ["south", "west", "all centers", "north", "east"]
    assert result["way"] == "ascending"
    assert result["shown"] == int(result["said"].split(" of ")[0]) > 0
    assert not result["wide"]


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext on this machine")
def test_paper_repeats_the_heads_of_a_long_table(tmp_path: Path, page: str) -> None:
    browse(tmp_path, page, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    said = subprocess.run(
        ["pdftotext", "-layout", str(tmp_path / "page.pdf"), "-"], capture_output=True, text=True, check=True
    ).stdout
    assert len(re.findall(r"^\s*Name\s+Unit\s+Meaning", said, flags=re.MULTILINE)) > 1
    assert "Filter rows" not in said
