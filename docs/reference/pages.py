"""Which pages there are, and what makes each of them."""

from collections.abc import Callable

from docs.reference.metrics_page import metrics_page
from docs.reference.settings_page import settings_page

PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "metrics.md": metrics_page,
}
