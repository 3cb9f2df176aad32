"""Write the pages of the reference."""

from pathlib import Path

from docs.reference.pages import PAGES

for name, page in PAGES.items():
    (Path(__file__).parent / name).write_text(page())
