"""Which pages there are, and what makes each of them."""

from collections.abc import Callable

from reference.cli_page import cli_page
from reference.errors_page import errors_page
from reference.metrics_page import metrics_page
from reference.models_page import models_page
from reference.settings_page import settings_page

PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "errors.md": errors_page,
    "models.md": models_page,
    "settings.md": settings_page,
    "metrics.md": metrics_page,
}
