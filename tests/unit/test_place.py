"""What a server is called by the whole fleet, and who can reach it under that name."""

import socket

import pytest

from workers.execution.place import Place

LOOPBACK = [
    "http://127.0.0.1:8188",
    "http://127.1.2.3:8188",
    "http://localhost:8188",
    "http://LocalHost:8188/base",
    "http://gpu.localhost",
    "http://[::1]:8188",
    # Whoever connects to it reaches itself.
    "http://0.0.0.0:8188",
]
FOR_ALL = [
    "http://gpu-1:8188",
    "https://10.0.0.7/comfyui",
    "http://localhost.example.com",
    "http://notlocalhost",
    "http://[fd00::1]:8188",
]


@pytest.mark.parametrize("url", LOOPBACK)
def test_a_loopback_address_is_another_server_on_each_host(url: str) -> None:
    one, other = Place(url, "one"), Place(url, "other")
    assert one.key != other.key
    assert one.reaches(one.key, url)
    assert not other.reaches(one.key, url)


@pytest.mark.parametrize("url", FOR_ALL)
def test_any_other_address_is_the_same_server_for_all(url: str) -> None:
    one, other = Place(url, "one"), Place(url, "other")
    assert one.key == other.key == url
    assert other.reaches(one.key, url)


def test_a_server_is_reached_from_a_worker_of_another_one() -> None:
    here = Place("http://127.0.0.1:8188", "one")
    for neighbour in (Place("http://127.0.0.1:8189", "one"), Place("http://gpu-2:8188", "two")):
        assert here.reaches(neighbour.key, neighbour.url)


def test_two_servers_of_a_host_are_two_places() -> None:
    assert Place("http://127.0.0.1:1", "one").key != Place("http://127.0.0.1:2", "one").key


@pytest.mark.parametrize(
    "url",
    ["http://localhost:80", "http://127.0.0.1", "http://[::1]/", "http://0.0.0.0", "http://[::]"],
)
def test_a_host_reaches_itself_under_several_names(url: str) -> None:
    here = Place("http://LOCALHOST.", "one")
    assert Place(url, "one").key == here.key
    assert here.reaches(here.key, url)


@pytest.mark.parametrize("url", ["http://127.0.0.2", "http://a.localhost", "http://localhost:81"])
def test_what_may_be_another_server_of_the_host_is_one(url: str) -> None:
    assert Place(url, "one").key != Place("http://localhost", "one").key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://GPU:80/a/", "http://gpu/a"),
        ("https://gpu:443", "https://gpu"),
        ("http://[FD00:0::1]:8188", "http://[fd00::1]:8188"),
        ("http://[::ffff:10.0.0.7]", "http://10.0.0.7"),
    ],
)
def test_a_server_is_the_same_however_its_url_is_spelled(one: str, other: str) -> None:
    assert Place(one, "x").key == Place(other, "x").key == other


def test_a_place_is_on_this_host() -> None:
    assert Place.of("http://gpu").host == socket.gethostname()
