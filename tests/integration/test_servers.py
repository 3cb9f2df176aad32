"""What workers tell each other of their servers, on a real Valkey."""

from collections.abc import Iterator

import pytest
import redis

from sandbox.valkey import Valkey
from tasks.errors import BrokerFullError, BrokerUnavailableError
from workers.ledger import servers as module
from workers.ledger.servers import (
    DIGESTS,
    TOLD_SECONDS,
    WARM,
    WARM_SECONDS,
    Device,
    Loaded,
    Server,
    Servers,
)

pytestmark = pytest.mark.integration

PLACES = "comfyfleet:servers"
FOREVER = 2.0**40
# Names that others give: of hosts, and by users of environments.
FOREIGN = "http://[::1]:8188 on höst \n%d *:'\"'"


@pytest.fixture
def client(valkey: Valkey) -> Iterator[redis.Redis]:
    """Valkey itself, where nothing has been told."""
    with redis.Redis.from_url(valkey.url, decode_responses=True) as one:
        one.flushall()
        yield one


@pytest.fixture
def servers(valkey: Valkey, client: redis.Redis) -> Iterator[Servers]:  # noqa: ARG001
    with Servers(valkey.url) as one:
        yield one


def server(place: str, digest: str = "d", **fields: object) -> Server:
    values = {
        "place": place,
        "instance": f"http://{place}",
        "worker": "w",
        "version": "0.8.0",
        "digest": digest,
        "takes_jobs": True,
        **fields,
    }
    return Server.model_validate(values)


# Servers


def test_what_is_told_is_live_for_all(servers: Servers, valkey: Valkey) -> None:
    assert servers.live() == []
    device = Device(name="cuda:0 GPU", kind="cuda", vram_total_bytes=24, vram_free_bytes=20)
    first = server("b", devices=[device], ram_total_bytes=64, takes_jobs=False)
    assert servers.tell(first) == (False, [first])
    second = server("a")
    assert servers.tell(second) == (False, [second, first])
    with Servers(valkey.url) as others:
        assert others.live() == [second, first]


def test_what_is_told_again_replaces_what_was(servers: Servers) -> None:
    servers.tell(server("a"))
    now = server("a", "e", takes_jobs=False)
    servers.tell(now)
    assert servers.live() == [now]


def test_what_is_not_told_again_expires(servers: Servers, client: redis.Redis) -> None:
    servers.tell(server("a"))
    servers.tell(server("b"))
    remaining = client.pttl("comfyfleet:server:a")
    assert TOLD_SECONDS * 1000 - 5000 < remaining <= TOLD_SECONDS * 1000  # type: ignore[operator]
    client.pexpire("comfyfleet:server:a", 0)
    assert [one.place for one in servers.live()] == ["b"]
    # And nothing is left of it.
    assert client.smembers(PLACES) == {"b"}
    client.pexpire("comfyfleet:server:b", 0)
    assert servers.tell(server("c"))[1] == [server("c")]
    assert client.smembers(PLACES) == {"c"}


@pytest.mark.parametrize("entry", ["", "{{{", "5", "[]", "{}", '{"place": "a"}'])
def test_what_is_no_server_is_passed_over(
    servers: Servers, client: redis.Redis, entry: str
) -> None:
    client.set("comfyfleet:server:a", entry)
    client.sadd(PLACES, "a")
    servers.tell(server("b"))
    assert servers.live() == [server("b")]


def test_what_a_later_version_tells_is_read(servers: Servers, client: redis.Redis) -> None:
    servers.tell(server("a"))
    text = str(client.get("comfyfleet:server:a"))
    client.set("comfyfleet:server:a", text[:-1] + ', "temperature": 70}')
    assert servers.live() == [server("a")]


def test_names_from_outside_are_names(servers: Servers) -> None:
    one = server(FOREIGN, FOREIGN, worker=FOREIGN)
    servers.tell(one)
    assert servers.live() == [one]
    servers.tell_capabilities(FOREIGN, b"\x00\xff")
    assert servers.capabilities(FOREIGN) == b"\x00\xff"


# Capabilities


def test_digests_of_live_servers_count_for_as_long(servers: Servers, client: redis.Redis) -> None:
    servers.tell(server("a", "d"))
    servers.tell(server("b", "d"))
    servers.tell(server("c", "e"))
    now, _ = client.time()  # type: ignore[misc]
    until = dict(client.zrange(DIGESTS, 0, -1, withscores=True))  # type: ignore[arg-type]
    assert until.keys() == {"d", "e"}
    assert all(TOLD_SECONDS - 5 < one - now <= TOLD_SECONDS + 1 for one in until.values())
    assert sorted(servers.remembered()) == ["d", "e"]
    client.zadd(DIGESTS, {"d": 1.0})
    servers.tell(server("c", "e"))
    assert client.zrange(DIGESTS, 0, -1) == ["e"]


def test_capabilities_are_told_once_and_kept_while_they_are_named(
    servers: Servers, client: redis.Redis
) -> None:
    assert servers.capabilities("d") is None
    assert servers.tell(server("a", "d"))[0] is False
    servers.tell_capabilities("d", b"packed")
    assert servers.capabilities("d") == b"packed"
    client.expire("comfyfleet:capabilities:d", 5)
    assert servers.tell(server("b", "d"))[0] is True
    assert client.ttl("comfyfleet:capabilities:d") > 3000  # type: ignore[operator]
    assert servers.tell(server("b", "e"))[0] is False


# What is loaded


def loaded(models: str, place: str, digest: str = "d") -> Loaded:
    return Loaded(models, digest, place)


def warm(client: redis.Redis) -> set[str]:
    return set(client.zrange(WARM, 0, -1))  # type: ignore[arg-type]


def test_who_asks_first_loads_and_others_leave_it_to_him(
    servers: Servers, client: redis.Redis
) -> None:
    assert servers.warm_up(loaded("m", "a")) == "here"
    assert servers.warm_up(loaded("m", "b")) == "elsewhere"
    assert warm(client) == {"m d a"}
    seconds, _ = client.time()  # type: ignore[misc]
    assert 0 < client.zscore(WARM, "m d a") - seconds <= WARM_SECONDS + 1  # type: ignore[operator]


def test_who_has_it_already_has_it(servers: Servers, client: redis.Redis) -> None:
    servers.warm_up(loaded("m", "a"))
    assert servers.warm_up(loaded("m", "a")) == "here"
    assert warm(client) == {"m d a"}


def test_a_server_has_one_set_of_models_loaded(servers: Servers, client: redis.Redis) -> None:
    servers.warm_up(loaded("m", "a"))
    assert servers.warm_up(loaded("n", "a", "e")) == "here"
    assert warm(client) == {"n e a"}
    assert servers.warm_up(loaded("m", "b")) == "here"


def test_who_only_asks_changes_nothing(servers: Servers, client: redis.Redis) -> None:
    assert servers.warm_up(loaded("m", "a"), may=False) == "nowhere"
    assert warm(client) == set()
    servers.warm_up(loaded("n", "a"))
    servers.warm_up(loaded("m", "b"))
    assert servers.warm_up(loaded("m", "a"), may=False) == "elsewhere"
    assert warm(client) == {"n d a", "m d b"}
    assert servers.warm_up(loaded("q", "a"), may=False) == "nowhere"
    assert warm(client) == {"n d a", "m d b"}


def test_who_must_loads_whoever_else_has_it(servers: Servers, client: redis.Redis) -> None:
    servers.warm_up(loaded("m", "a"))
    assert servers.warm_up(loaded("m", "b"), must=True) == "here"
    assert warm(client) == {"m d a", "m d b"}
    assert servers.warm_up(loaded("m", "c"), must=True, may=False) == "here"


def test_the_warmth_of_who_cannot_run_the_job_is_of_no_account(servers: Servers) -> None:
    servers.warm_up(loaded("m", "a", "unable"))
    assert servers.warm_up(loaded("m", "b"), unable=["unable", "x"], may=False) == "nowhere"
    assert servers.warm_up(loaded("m", "b"), unable=["x"], may=False) == "elsewhere"


def test_a_server_that_has_let_go_of_its_models_is_warm_no_more(
    servers: Servers, client: redis.Redis
) -> None:
    servers.warm_up(loaded("m", "a"))
    servers.warm_up(loaded("n", "b"))
    assert servers.warm_up(loaded("", "a"), must=True) == "here"
    assert warm(client) == {"n d b"}


def test_warmth_that_is_not_told_again_expires(servers: Servers, client: redis.Redis) -> None:
    servers.warm_up(loaded("m", "a"))
    client.zadd(WARM, {"m d a": 1.0})
    assert servers.warm_up(loaded("m", "b"), may=False) == "nowhere"
    assert warm(client) == set()


def test_foreign_members_are_passed_over(servers: Servers, client: redis.Redis) -> None:
    client.zadd(WARM, {"": FOREVER, "m": FOREVER, "m d": FOREVER, "%s %d": FOREVER})
    assert servers.warm_up(loaded("m", FOREIGN)) == "here"
    assert servers.warm_up(loaded("m", FOREIGN)) == "here"
    assert servers.warm_up(loaded("m", "b"), may=False) == "elsewhere"


# What goes wrong


def test_a_full_server_and_one_that_is_away_are_errors_of_ours(
    servers: Servers, client: redis.Redis
) -> None:
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BrokerFullError):
            servers.tell_capabilities("d", b"packed")
        # These are small. A server of which nothing is heard counts as gone, with all its jobs.
        assert servers.tell(server("a")) == (False, [server("a")])
        assert servers.warm_up(loaded("m", "a")) == "here"
        assert servers.live() == [server("a")]
    finally:
        client.config_set("maxmemory", 0)
    with Servers("redis://127.0.0.1:1") as nowhere:
        for ask in (nowhere.live, lambda: nowhere.capabilities("d")):
            with pytest.raises(BrokerUnavailableError):
                ask()


def test_a_key_of_another_type_is_an_error_of_ours(servers: Servers, client: redis.Redis) -> None:
    client.lpush(PLACES, "a")
    with pytest.raises(BrokerUnavailableError):
        servers.live()


def test_what_is_told_holds_for_longer_than_until_it_is_told_again() -> None:
    from workers.routing import survey

    assert 3 * survey._TELL_SECONDS <= module.TOLD_SECONDS
