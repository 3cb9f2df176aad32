"""URLs: every spelling of a host is one host or none, and redirects are URLs as well."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.web.addresses import OpenHosts
from workers.web.errors import ForbiddenError, UnusableError
from workers.web.target import Target, check, read_url, redirected

LOOPBACKS = {
    "decimal": "2130706433",
    "hex": "0x7f000001",
    "upper hex": "0X7F000001",
    "octal": "017700000001",
    "octal parts": "0177.0.0.1",
    "hex parts": "0x7f.0x0.0x0.0x1",
    "padded": "127.000.000.001",
    "short": "127.1",
    "shorter": "127.0.1",
    "zero": "0",
    "number as last label": "x.1",
    "hex as last label": "x.0x7f",
    "five numbers": "1.127.0.0.1",
    "too large a number": "127.0.0.256",
    "encoded": "%31%32%37.0.0.1",
    "encoded dot": "127%2E0.0.1",
    "NUL": "127.0.0.1%00.example.com",
    "zone": "[fe80::1%25eth0]",
    "plain zone": "[fe80::1%eth0]",
    "no address in brackets": "[127.0.0.1]",
    "name in brackets": "[localhost]",
    "future address": "[v1.x]",
    "two dots at the end": "127.0.0.1..",
    "empty label": "a..b",
    "none": "",
    "user": "user@127.0.0.1",
    "user and password": "example.com:80@127.0.0.1",
    "user that looks like a host": "example.com%40@127.0.0.1",
    "two users": "a@b@127.0.0.1",
    "backslash": "example.com\\@127.0.0.1",
    "tab": "127.0.\t0.1",
    "line break": "127.0.0.1\n",
    "space": "127.0.0.1 ",
    "soft hyphen": "ex\u00adample.com",
    "no letter": "\u2764.example",
    "too long": "a" * 64 + ".example",
    "comma": "127.0.0.1,example.com",
    "semicolon": "example.com;127.0.0.1",
}


@pytest.mark.parametrize("host", LOOPBACKS.values(), ids=LOOPBACKS)
def test_a_spelling_that_is_read_in_two_ways_is_none(host: str) -> None:
    with pytest.raises(UnusableError):
        read_url(f"https://{host}/a.png")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
        ("\u2460\u2461\u2466.0.0.1", "127.0.0.1"),
        ("127\u30020\uff0e0\uff611", "127.0.0.1"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[::FFFF:7F00:1]", "::ffff:127.0.0.1"),
        ("[::127.0.0.1]", "::127.0.0.1"),
        ("[fd00:ec2::254]", "fd00:ec2::254"),
    ],
)
def test_an_address_is_known_as_one_and_refused(host: str, address: str) -> None:
    target = read_url(f"https://{host}/a.png")
    assert target.address == ip_address(address)
    with pytest.raises(ForbiddenError, match="which is not a public address"):
        check(target, [ip_address(address)], OpenHosts())


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/")),
        ("HTTPS://EXAMPLE.com.:8443/A?b=c#d", Target("https", "example.com", 8443, "/A?b=c")),
        ("http://a_b-c.example/", Target("http", "a_b-c.example", 80, "/")),
        ("https://m\u00fcnchen.example/", Target("https", "xn--mnchen-3ya.example", 443, "/")),
        ("https://example.com?x", Target("https", "example.com", 443, "/?x")),
        ("https://example.com/\u00fc%20a", Target("https", "example.com", 443, "/%C3%BC%20a")),
        ("https://example.com/#@127.0.0.1/", Target("https", "example.com", 443, "/")),
        ("https://[2606:4700::1111]/", Target("https", "2606:4700::1111", 443, "/")),
    ],
)
def test_a_url_is_read(url: str, target: Target) -> None:
    assert read_url(url) == target
    assert read_url(target.url) == target


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:/etc/passwd", "is no https:// URL"),
        ("ftp://example.com/a", "is no https:// URL"),
        ("gopher://127.0.0.1:6379/_x", "is no https:// URL"),
        ("//example.com/a", "is no https:// URL"),
        ("https:example.com", "neither a name nor an address"),
        ("https:///example.com", "neither a name nor an address"),
        ("https://example.com:0/", "names port 0"),
        ("https://example.com:99999/", "is no valid URL"),
        ("https://example.com:8x/", "is no valid URL"),
        ("https://[::1/", "is no valid URL"),
        ("https://user:secret@example.com/", "has a user or a password in it"),
        ("https://example.com/a b", "has a space, a backslash or a control character"),
        ("https://example.com/\r\nX: y", "has a space, a backslash or a control character"),
        ("https://example.com/" + "a" * 9000, "has more than 8,192 characters"),
    ],
)
def test_a_url_that_is_none_says_why(url: str, why: str) -> None:
    with pytest.raises(UnusableError) as caught:
        read_url(url)
    assert why in str(caught.value)
    assert "secret" not in str(caught.value)


# Host names of the worst kind: what comes out is one host that is written in one way.
@given(st.text("0123456789abcxX.%:[]@/\\#?\uff11\u3002-_ ", max_size=20))
def test_whatever_is_read_is_read_the_same_again(host: str) -> None:
    try:
        target = read_url(f"https://{host}/")
    except UnusableError:
        return
    assert read_url(target.url) == target
    assert target.host.isascii()


HERE = Target("https", "example.com", 443, "/a/b")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/c", "https://example.com:443/c"),
        ("c?d", "https://example.com:443/a/c?d"),
        ("//other.example/c", "https://other.example:443/c"),
        ("https://other.example:8443/c", "https://other.example:8443/c"),
    ],
)
def test_a_redirect_leads_on(location: str, url: str) -> None:
    assert redirected(HERE, location).url == url


@pytest.mark.parametrize(
    "location",
    [
        *("http://example.com/", "file:/etc/passwd", "ftp://example.com/", "data:,x"),
        *("https://0x7f000001/", "https://user@example.com/", "https://example.com/\u00fc"),
        *("https://[::1", "javascript:x", "//2130706433/"),
    ],
)
def test_a_redirect_that_leads_astray_is_refused(location: str) -> None:
    with pytest.raises(UnusableError):
        redirected(HERE, location)


def test_http_may_lead_to_https() -> None:
    plain = Target("http", "files.lan", 80, "/")
    assert redirected(plain, "https://example.com/").scheme == "https"
    assert redirected(plain, "/x").scheme == "http"


PUBLIC, PRIVATE, OTHER = map(ip_address, ("1.1.1.1", "10.1.2.3", "10.9.9.9"))
OPENED = OpenHosts.of(["files.lan", "10.1.2.0/24"])


@pytest.mark.parametrize(
    ("scheme", "host", "addresses", "allowed"),
    [
        ("https", "example.com", [PUBLIC], True),
        ("https", "example.com", [PRIVATE], True),
        ("https", "example.com", [PUBLIC, PRIVATE], True),
        ("https", "example.com", [OTHER], False),
        # One that is not public is enough: it may be the one that answers.
        ("https", "example.com", [PUBLIC, OTHER], False),
        ("https", "example.com", [OTHER, PUBLIC], False),
        ("https", "files.lan", [OTHER], True),
        ("https", "sub.files.lan", [OTHER], False),
        ("http", "files.lan", [OTHER], True),
        ("http", "example.com", [PRIVATE], True),
        ("http", "example.com", [PUBLIC], False),
        ("http", "example.com", [PUBLIC, PRIVATE], False),
        ("http", "example.com", [OTHER], False),
    ],
)
def test_where_a_target_may_be(scheme: str, host: str, addresses: list, allowed: bool) -> None:
    target = Target(scheme, host, 443, "/")
    if allowed:
        check(target, addresses, OPENED)
        return
    with pytest.raises(ForbiddenError) as caught:
        check(target, addresses, OPENED)
    # Who may not go there need not know what is there.
    assert "10." not in str(caught.value)
