"""Observers: all are told, and none can do harm."""

import pytest

from workers.observing import Event, JobSuppressed, Observers

EVENT = JobSuppressed("job", "ended")


def test_what_one_raises_the_others_do_not_notice(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_event: Event) -> None:
        raise ValueError("no room")

    heard: list[Event] = []
    Observers(broken, heard.append)(EVENT)
    assert heard == [EVENT]
    assert "JobSuppressed was not noted" in caplog.text
