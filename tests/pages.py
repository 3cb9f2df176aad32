"""The documents as tests read them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

_FENCED = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Snippet:
    """A fenced block.

    Attributes:
        page: its file, from the root.
        kind: the language that it names.
        title: what stands above it; a file's name, or a terminal's.
        text: what is in it.
    """

    page: str
    kind: str
    title: str
    text: str


def snippets(page: str) -> list[Snippet]:
    """The fenced blocks of a page, in order."""
    found = _FENCED.findall((ROOT / page).read_text())
    return [Snippet(page, kind, title, text) for kind, title, text in found]


def pages() -> list[str]:
    """All documents, from the root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    return sorted(str(page.relative_to(ROOT)) for page in found)


def write_files(page: str, folder: Path) -> None:
    """Write each block of a page whose title is a file's name."""
    for snippet in snippets(page):
        if "." in snippet.title:
            path = folder / snippet.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(snippet.text)
