"""The documentation holds together: links lead somewhere, generated parts are fresh, no page is forgotten."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prefork.config import load

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])

LINK = re.compile(
    r"\]\((?!https?:)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)|click \w+ \"(?P<click>[^\"]+)\""
)


def links(page: Path) -> list[tuple[Path, str | None]]:
    """Return the files, and anchors in them, that a page links to."""
    found = LINK.finditer(page.read_text())
    return [((page.parent / (m["path"] or m["click"] or page.name)).resolve(), m["anchor"]) for m in found]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and others give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target, anchor in links(page):
        assert target.exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{page.relative_to(ROOT)}: no heading #{anchor} in {target}"


def test_every_page_can_be_reached_from_the_index():
    reached, pending = set(), [ROOT / "docs" / "index.md"]
    while pending:
        page = pending.pop()
        if page in reached:
            continue
        reached.add(page)
        for target, _ in links(page):
            pending += [target / "README.md"] if (target / "README.md").exists() else []
            pending += [target] if target.suffix == ".md" and target.exists() else []
    assert not {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - reached


SNIPPETS = [
    (page, snippet)
    for page in PAGES
    for snippet in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
]


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS, ids=lambda value: getattr(value, "name", ""))
def test_config_that_a_page_shows_is_valid(page, snippet, tmp_path, pki, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, ours in {"chain.pem": "server.pem", "key.pem": "server.key", "clients.pem": "ca.pem"}.items():
        shutil.copy(pki.path(ours), name)
    file = tmp_path / "app.yaml"
    file.write_text(snippet if "app:" in snippet else f"app: shop.wsgi:application\n{snippet}")
    load([str(file)], [], environ={})


@pytest.mark.measured
def test_generated_parts_are_fresh():
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_stale_part_is_found():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = "before\n<!-- generated: worker-states -->\nold\n<!-- /generated -->\nafter\n"
    fresh = generate.fill(stale)
    assert fresh != stale
    assert fresh.startswith("before\n<!-- generated: worker-states -->\n| state |")
    assert fresh.endswith("|\n<!-- /generated -->\nafter\n")
    assert generate.fill(fresh) == fresh
