"""How the workers of one host are shown, and when they are started again."""

import pytest

from settings import SettingsError
from workers.lifecycle.crew import _environment, check_ports, failures_after, pause_after, prefixed


def test_pauses_grow_up_to_half_a_minute() -> None:
    assert [pause_after(number) for number in (1, 2, 3, 4, 5, 6, 7)] == [1, 2, 4, 8, 16, 30, 30]
    assert pause_after(10**6) == 30


def test_who_has_lived_for_long_begins_from_the_start() -> None:
    assert failures_after(5, 59.9) == 6
    assert failures_after(5, 60.0) == 1


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"ready.\n", b"http://a | ready.\n"),
        # What programs read names its server by itself.
        (b'{"message": "ready."}\n', b'{"message": "ready."}\n'),
        (b"\xff\n", b"http://a | \xff\n"),
    ],
)
def test_each_line_begins_with_its_server(line: bytes, shown: bytes) -> None:
    assert prefixed("http://a", line) == shown


def test_each_is_pinned_to_its_server() -> None:
    own = {"COMFYUI_URLS": "http://a,http://b", "COMFYUI_URL": "http://a", "S3_BUCKET": "s"}
    pinned = {"COMFYUI_URLS": "", "COMFYUI_URL": "http://b", "S3_BUCKET": "s"}
    assert _environment(own, "http://b", 1) == pinned


def test_each_tells_of_itself_on_a_port_of_its_own() -> None:
    assert _environment({"METRICS_PORT": "9108"}, "http://b", 2)["METRICS_PORT"] == "9110"


def test_the_last_one_must_have_a_port_too() -> None:
    check_ports(None, 9)
    check_ports(65_534, 2)
    with pytest.raises(SettingsError, match="65534.*3 workers.*65533 or less"):
        check_ports(65_534, 3)
