"""The pages as a whole: each is found, each link leads somewhere, each snippet is tried."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.pages import ROOT, Snippet, pages, snippets

pytestmark = pytest.mark.acceptance

# What tries the snippets of each kind: tests of their own page, or this module.
_TRIED_BY_PAGE = {"python", "console", "html", "sh", "bash"}
_TRIED_HERE = {"json", "yaml", "mermaid", "text", "promql", "ini", "nginx", "sql"}

SNIPPETS = [snippet for page in pages() for snippet in snippets(page)]


def test_every_snippet_is_of_a_kind_that_is_tried() -> None:
    unknown = [(one.page, one.kind) for one in SNIPPETS]
    assert {kind for _, kind in unknown} <= _TRIED_BY_PAGE | _TRIED_HERE, unknown


@pytest.mark.parametrize("page", sorted({s.page for s in SNIPPETS if s.kind in _TRIED_BY_PAGE}))
def test_a_page_with_programs_is_read_by_a_test(page: str) -> None:
    tests = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    name = Path(page).name
    assert any(name in text for text in tests), f"no test reads {page}"


@pytest.mark.parametrize(
    "snippet",
    [s for s in SNIPPETS if s.kind in ("json", "yaml")],
    ids=lambda s: f"{s.page}-{s.title}",
)
def test_data_can_be_read(snippet: Snippet) -> None:
    if snippet.kind == "json":
        # One document, a part of one, or one a line.
        text = snippet.text if snippet.text.startswith(("{", "[")) else f"{{{snippet.text}}}"
        try:
            json.loads(text)
        except ValueError:
            for line in text.splitlines():
                json.loads(line)
    else:
        assert list(yaml.safe_load_all(snippet.text))


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    for target, anchor in re.findall(
        r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)", (ROOT / page).read_text()
    ):
        path = (folder / target).resolve() if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in _anchors(path), f"{page}: {target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in headings}


def test_the_site_shows_every_page_and_is_built_without_a_warning(tmp_path: Path) -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text())
    shown = re.findall(r"'([\w/-]+\.md)'", repr(config["project"]["nav"]))
    assert sorted(shown) == [page[5:] for page in pages() if page.startswith("docs/")]
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    done = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "tutorial" / "index.html").exists()
    assert not list((tmp_path / "site").rglob("*.py"))
