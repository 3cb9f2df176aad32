"""What is well and what is not, as `/livez` and `/readyz` tell it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from workers.health.asking import Asking, NoAnswerError
from workers.health.endpoint import Page, Pages

Check = Callable[[], str]
"""What is wrong with something; nothing if it is well."""


def report(checks: Mapping[str, Check]) -> Page:
    """A page of checks: 200 if all is well, else 503."""
    troubles = {name: check() for name, check in checks.items()}
    told = {
        name: {"ok": not trouble, **({"reason": trouble} if trouble else {})}
        for name, trouble in troubles.items()
    }
    ok = not any(troubles.values())
    body = json.dumps({"ok": ok, "checks": told}, indent=1).encode() + b"\n"
    return Page(200 if ok else 503, "application/json", body)


def answering(asking: Asking[Any]) -> Check:
    """The check that a question is answered."""

    def check() -> str:
        try:
            asking.latest()
        except NoAnswerError as error:
            return str(error)
        return ""

    return check


def health_pages(live: Mapping[str, Check], ready: Mapping[str, Check]) -> Pages:
    """The pages of a worker that lives, and of one that can work, while these checks find nothing.

    One that waits for a server is live, and has a check that says so as the reason that it is not
    ready.
    """
    return {"/livez": lambda _: report(live), "/readyz": lambda _: report(ready)}
