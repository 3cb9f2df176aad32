"""Hosts that lie, lead astray, drip and die, and what of it reaches who asked."""

import gzip
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import pytest

from sandbox.processes import free_ports
from workers.web import (
    ForbiddenError,
    OpenHosts,
    Reply,
    TooSlowError,
    UnusableError,
    Web,
    WebError,
)
from workers.web.addresses import Address
from workers.web.deadline import Deadline

from .hosts import CERTIFICATE, Host

pytestmark = pytest.mark.integration

LOOPBACK = ip_address("127.0.0.1")
# What only has to be over some time, and what is about being too slow.
LONG, SHORT = 20.0, 0.4


class Names:
    """A resolver that says what it is told, one answer after the other, the last for good."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = {name.replace("_", "."): list(told) for name, told in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str) -> list[Address]:
        self.asked.append(host)
        told = self._answers.get(host, [["127.0.0.1"]])
        return [ip_address(one) for one in (told.pop(0) if len(told) > 1 else told[0])]


def web(names: Any = None, *, timeout: float = LONG, opened: str = "127.0.0.1") -> Web:
    return Web(
        opened=OpenHosts.of(opened.split(",")),
        timeout=timeout,
        tls=lambda: ssl.create_default_context(cafile=str(CERTIFICATE)),
        resolve=names or Names(),
    )


def read(url: str, client: Web | None = None, etag: str = "") -> bytes:
    with (client or web()).get(url, etag) as answer:
        return b"".join(answer.pieces)


@pytest.fixture
def host() -> Iterator[Host]:
    with Host() as running:
        yield running


@pytest.fixture
def plain() -> Iterator[Host]:
    with Host(tls=False) as running:
        yield running


# The way there


def test_what_is_there_comes_by_tls_in_the_name_of_the_host(host: Host) -> None:
    host.paths["/a.png"] = lambda asked: asked.answer(b"red", ETag='"1"')
    with web().get(host.url("/a.png?sig=x")) as answer:
        assert (b"".join(answer.pieces), answer.length, answer.etag) == (b"red", 3, '"1"')
    (asked,) = host.asked
    assert (asked.path, host.names) == ("/a.png?sig=x", ["files.example"])
    assert asked.headers == {
        "host": f"files.example:{host.port}",
        "user-agent": "comfyfleet",
        "accept": "*/*",
        "accept-encoding": "identity",
    }


def test_an_address_has_a_certificate_as_well(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"red")
    assert read(host.url(name="127.0.0.1")) == b"red"


def test_a_host_that_is_not_the_one_it_should_be_is_not_asked(host: Host) -> None:
    with pytest.raises(UnusableError, match="has no valid TLS certificate"):
        read(host.url(name="evil.example"))
    assert host.asked == []


def test_dns_cannot_change_between_the_check_and_the_connection(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"red")
    names = Names(files_example=[["127.0.0.1"], ["10.0.0.1"]])
    assert read(host.url(), web(names)) == b"red"
    assert names.asked == ["files.example"]


@pytest.mark.parametrize(
    "addresses", [["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["::ffff:127.0.0.1"], ["fd00:ec2::254"]]
)
def test_where_dns_leads_is_checked(host: Host, addresses: list[str]) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"red")
    with pytest.raises(ForbiddenError, match=r"leads to files\.example, which is not a public"):
        read(host.url(), web(Names(files_example=[addresses])))
    assert host.asked == []


def test_an_opened_name_is_open_wherever_it_leads(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"red")
    assert read(host.url(), web(opened="files.example")) == b"red"
    with pytest.raises(ForbiddenError):
        read(host.url(name="other.example"), web(opened="files.example"))


def test_nothing_that_is_not_opened_leads_to_this_machine(plain: Host) -> None:
    for name in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
        with pytest.raises(ForbiddenError):
            read(plain.url(name=name), web(opened="files.lan"))
    assert plain.asked == []


def test_the_next_address_is_tried(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"red")
    names = Names(files_example=[["127.0.0.2", "127.0.0.1"]])
    assert read(host.url(), web(names, opened="files.example")) == b"red"


def test_the_environment_has_no_part_in_it(
    plain: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    plain.paths["/"] = lambda asked: asked.answer(b"red")
    (dead,) = free_ports(1)
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{dead}")
    passwords = tmp_path / "netrc"
    passwords.write_text("machine files.example login me password secret\n")
    monkeypatch.setenv("NETRC", str(passwords))
    assert read(plain.url()) == b"red"
    assert "authorization" not in plain.asked[0].headers


def test_a_header_that_cannot_be_read_does_not_have_the_url_logged(
    plain: Host, caplog: pytest.LogCaptureFixture
) -> None:
    plain.paths["/a"] = lambda asked: asked.send(b"HTTP/1.1 200 OK\r\nno header\r\n\r\nred")
    assert read(plain.url("/a?sig=secret")) == b"red"
    assert plain.asked[0].path == "/a?sig=secret"
    assert "secret" not in caplog.text


# Redirects


def test_a_redirect_is_followed_and_told_nothing(host: Host) -> None:
    host.paths["/a"] = lambda asked: asked.redirect(
        host.url("/b", "other.example"), Set_Cookie="secret=1"
    )
    host.paths["/b"] = lambda asked: asked.answer(b"red")
    names = Names()
    assert read(host.url("/a"), web(names)) == b"red"
    assert names.asked == host.names == ["files.example", "other.example"]
    assert not {"cookie", "authorization", "referer"} & set(host.asked[1].headers)


def test_five_redirects_are_followed_and_no_more(host: Host) -> None:
    for number in range(6):
        host.paths[f"/{number}"] = lambda asked, n=number: asked.redirect(f"/{n + 1}")
    host.paths["/6"] = lambda asked: asked.answer(b"red")
    assert read(host.url("/1")) == b"red"
    with pytest.raises(UnusableError, match="is redirected more than 5 times"):
        read(host.url("/0"))
    assert host.asked[-1].path == "/5"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("https://10.0.0.1/", "leads to 10.0.0.1, which is not a public address"),
        ("https://169.254.169.254/latest/meta-data", "leads to 169.254.169.254, which is not"),
        ("https://[::ffff:127.0.0.1]/", "leads to ::ffff:7f00:1, which is not"),
        ("https://inside.example/", "leads to inside.example, which is not a public address"),
        ("https://2130706433/", "redirected to a URL that has a host that is neither"),
        ("https://me:secret@files.example/", "redirected to a URL that has a user or a password"),
        ("http://files.example/", "redirected to a URL that leads from https to http"),
        ("file:/etc/passwd", "redirected to a URL that is no https:// URL"),
        ("", "is redirected more than 5 times"),
    ],
)
def test_a_redirect_that_leads_astray_is_not_followed(host: Host, location: str, why: str) -> None:
    host.paths["/"] = lambda asked: asked.redirect(location)
    names = Names(inside_example=[["192.168.0.1"]])
    with pytest.raises(UnusableError) as caught:
        read(host.url(), web(names))
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_redirect_is_resolved_anew(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.redirect("/")
    with pytest.raises(ForbiddenError):
        read(host.url(), web(Names(files_example=[["127.0.0.1"], ["127.0.0.1", "10.0.0.1"]])))
    assert len(host.asked) == 1


# Time


def in_time(url: str, client: Web) -> None:
    began = time.monotonic()
    with pytest.raises(TooSlowError, match=f"took longer than {SHORT:g} s"):
        read(url, client)
    assert time.monotonic() - began < LONG / 2


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
    ids=["status", "header", "body", "endless body"],
)
def test_who_drips_does_not_outlast_the_time(host: Host, plain: Host, head: bytes) -> None:
    for one in (host, plain):
        one.paths["/"] = lambda asked: (asked.send(head), asked.drip())
        in_time(one.url(), web(timeout=SHORT))


def test_who_says_go_on_for_ever_does_not_outlast_the_time(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.drip(b"HTTP/1.1 100 Continue\r\n\r\n")
    in_time(host.url(), web(timeout=SHORT))


def test_all_redirects_have_one_time(host: Host) -> None:
    def slowly(asked: Any) -> None:
        host.ended.wait(SHORT / 3)
        asked.redirect("/")

    host.paths["/"] = slowly
    in_time(host.url(), web(timeout=SHORT))
    assert len(host.asked) <= 4


def test_who_accepts_and_says_nothing_does_not_outlast_the_time() -> None:
    with Host(speaks=False) as silent:
        in_time(silent.url(), web(timeout=SHORT))


def test_names_that_nobody_answers_do_not_outlast_the_time(host: Host) -> None:
    def resolve(_: str) -> list[Address]:
        host.ended.wait()
        return [LOOPBACK]

    in_time(host.url(), web(resolve, timeout=SHORT))
    assert host.asked == []


def test_a_time_that_is_over_before_it_begins_leaves_nothing_open() -> None:
    here, there = socket.socketpair()
    with here, there, pytest.raises(TooSlowError), Deadline(0).cutting(here):
        pytest.fail("there was no time")


# What may come later


def test_a_connection_that_is_refused_may_come_later() -> None:
    (port,) = free_ports(1)
    with pytest.raises(WebError, match=r"refused the connection: files\.example") as caught:
        read(f"https://files.example:{port}/")
    assert type(caught.value) is WebError


@pytest.mark.parametrize("status", ["429 Slow Down", "500 X", "502 X", "503 X", "504 X"])
def test_who_says_so_may_have_it_later(host: Host, status: str) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"secret", status)
    with pytest.raises(WebError, match=rf"files\.example answered {status[:3]}$") as caught:
        read(host.url("/"))
    assert type(caught.value) is WebError


@pytest.mark.parametrize("status", ["204 X", "206 X", "304 X", "400 X", "401 X", "403 X", "404 X"])
def test_who_says_so_has_it_never(host: Host, status: str) -> None:
    host.paths["/"] = lambda asked: asked.answer(status=status)
    with pytest.raises(UnusableError, match=rf"files\.example answered {status[:3]}$"):
        read(host.url("/"))


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nred",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nre",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n",
        b"\x00\x01\x02",
        b"",
    ],
    ids=["short", "short chunk", "no chunk", "long header", "headers", "no HTTP", "nothing"],
)
def test_what_is_no_whole_answer_may_come_later(plain: Host, text: bytes) -> None:
    plain.paths["/"] = lambda asked: asked.send(text)
    with pytest.raises(WebError) as caught:
        read(plain.url())
    assert type(caught.value) is WebError


def test_a_host_without_tls_is_no_host_with_it(plain: Host) -> None:
    with pytest.raises(WebError, match="failed to agree on TLS"):
        read(plain.url().replace("http:", "https:"))


# What comes


def test_what_is_compressed_unasked_is_what_it_was(host: Host) -> None:
    content = gzip.compress(b"red" * 1000)
    host.paths["/"] = lambda asked: asked.answer(content, Content_Encoding="gzip")
    with web().get(host.url()) as answer:
        # Its length says nothing about what it becomes.
        assert answer.length is None
        assert b"".join(answer.pieces) == b"red" * 1000


@pytest.mark.parametrize("length", ["-1", "nonsense", "9" * 5000, "3, 3", "3, 4"])
def test_a_length_that_is_none_is_not_believed(plain: Host, length: str) -> None:
    plain.paths["/"] = lambda asked: asked.answer(b"red", Content_Length=length)
    with suppress(WebError):
        assert read(plain.url()) == b"red"


def test_a_bomb_comes_in_pieces(host: Host) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    host.paths["/"] = lambda asked: asked.answer(bomb, Content_Encoding="gzip")
    with web().get(host.url()) as answer:
        first, second, *_ = (len(next(answer.pieces)) for _ in range(2))
    assert max(first, second) <= 1_000_000


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "nonsense"])
def test_what_is_compressed_in_another_way_is_refused(host: Host, encoding: str) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"x", Content_Encoding=encoding)
    with pytest.raises(UnusableError, match=r"is compressed in an unknown way by files\.example"):
        read(host.url())


def test_what_is_not_compressed_though_it_is_said_so_is_refused(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"nonsense", Content_Encoding="gzip")
    with pytest.raises(UnusableError, match="sent what cannot be decompressed"):
        read(host.url())


def test_what_is_known_does_not_come_again(host: Host) -> None:
    host.paths["/"] = lambda asked: asked.answer(status="304 Not Modified")
    with web().get(host.url(), '"1"') as answer:
        assert (list(answer.pieces), answer.changed) == ([], False)
    assert host.asked[0].headers["if-none-match"] == '"1"'


@pytest.mark.parametrize("etag", ['W/"1"', "1", '"\x01"'])
def test_a_tag_that_other_bytes_may_have_is_none(host: Host, etag: str) -> None:
    host.paths["/"] = lambda asked: asked.answer(b"red", ETag=etag)
    with web().get(host.url()) as answer:
        assert (answer.etag, answer.changed) == ("", True)


# Sending


def test_what_is_posted_arrives_whole_and_only_the_status_is_read(host: Host) -> None:
    body = b'{"a": "' + b"x" * 1_000_000 + b'"}'
    # Whoever read on would be late.
    host.paths["/hook"] = lambda asked: [
        asked.send(b"HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 9999999\r\n\r\n"),
        asked.drip(),
    ]
    reply = web(timeout=LONG).post(host.url("/hook?key=x"), body, {"webhook-id": "1"})
    assert reply == Reply(503, "7")
    (asked,) = host.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/hook?key=x", body)
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["webhook-id"] == "1"


def test_nothing_is_posted_to_where_it_is_redirected(host: Host) -> None:
    host.paths["/old"] = lambda asked: asked.redirect(host.url("/new"))
    assert web().post(host.url("/old"), b"{}", {}).status == 302
    assert [asked.path for asked in host.asked] == ["/old"]


def test_nothing_is_posted_to_what_is_not_opened(host: Host, plain: Host) -> None:
    with pytest.raises(ForbiddenError):
        web(opened="10.0.0.1").post(host.url("/"), b"{}", {})
    with pytest.raises(ForbiddenError):
        web(opened="10.0.0.1").post(plain.url("/", "127.0.0.1"), b"{}", {})
    assert host.asked == plain.asked == []


def test_who_takes_no_end_of_it_is_cut() -> None:
    with Host(tls=False, speaks=False) as silent:
        with pytest.raises(TooSlowError):
            web(timeout=SHORT).post(silent.url("/", "127.0.0.1"), b"x" * 50_000_000, {})
