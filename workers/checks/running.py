"""Checks, one after the other, each of them for so long and no longer."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from workers.checks.finding import Finding, Judgement, Status, fail, skipped

# Seconds that a check has whose own timeouts end it before.
CHECK_SECONDS = 6.0


@dataclass(frozen=True)
class Check:
    """Something to find out.

    Attributes:
        name: for people, and for other checks to refer to.
        ask: finds it out.
        needs: names of checks without which it makes no sense.
        seconds: after which nobody waits for it any more.
    """

    name: str
    ask: Callable[[], Judgement]
    needs: tuple[str, ...] = ()
    seconds: float = CHECK_SECONDS


def run(checks: Iterable[Check]) -> Iterator[Finding]:
    """What each check finds, as it finds it."""
    useless: set[str] = set()
    for check in checks:
        began = time.monotonic()
        lacking = next((name for name in check.needs if name in useless), None)
        if lacking is not None:
            judgement = skipped(f"not looked at, as it needs: {lacking}")
        else:
            judgement = _within(check)
        if judgement.status in (Status.FAIL, Status.SKIPPED):
            useless.add(check.name)
        seconds = round(time.monotonic() - began, 3)
        yield Finding(check.name, judgement.status, judgement.sentence, judgement.fix, seconds)


def _within(check: Check) -> Judgement:
    judgements: list[Judgement] = []

    def ask() -> None:
        try:
            judgements.append(check.ask())
        except Exception as error:  # noqa: BLE001  # one that is broken must not hide the others
            judgements.append(
                fail(
                    f"the check itself failed with {type(error).__name__}",
                    "this is a fault of comfyfleet: please report it",
                )
            )

    # A daemon: what hangs for good does not hold up the end.
    thread = threading.Thread(target=ask, name=f"check {check.name}", daemon=True)
    thread.start()
    thread.join(check.seconds)
    if judgements:
        return judgements[0]
    return fail(
        f"no answer within {check.seconds:g} s",
        "look whether something between here and there swallows packets (firewall, proxy, DNS)",
    )


def exit_code(findings: Iterable[Finding]) -> int:
    """0 if nothing fails, else 1."""
    return int(any(one.status is Status.FAIL for one in findings))
