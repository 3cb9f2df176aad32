"""Write the pages of the reference."""

from pathlib import Path

from reference.pages import PAGES

PLACE = Path(__file__).parent.parent / "docs/reference"

for name, page in PAGES.items():
    (PLACE / name).write_text(page())
