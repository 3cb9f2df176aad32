"""The leases on servers, on a real Valkey: who has one, for how long, and who comes after."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from sandbox.valkey import Valkey
from tasks.errors import BrokerUnavailableError
from workers.ledger import pins as module
from workers.ledger.ledger import LEASE_SECONDS
from workers.ledger.pins import Holder, Pins, Process

pytestmark = pytest.mark.integration

PLACE, OTHER = "http://gpu:8188", "http://localhost:8188 on a"
HOLDER = Holder(worker="w", host="a", process=Process(boot="b", pid=1))
NEXT = Holder(worker="next", host="b")


@pytest.fixture
def pins(valkey: Valkey, server: redis.Redis) -> Iterator[Pins]:  # noqa: ARG001
    with Pins(valkey.url) as one:
        yield one


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    # The server has only just been started.
    monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 0.0)


def taken(pins: Pins, holder: Holder = HOLDER, place: str = PLACE) -> tuple[str, int]:
    nonce = uuid.uuid4().hex
    token = pins.take(place, holder, nonce)
    assert token is not None
    return nonce, token


def lapse(server: redis.Redis) -> None:
    """Have the time of the lease pass."""
    server.hset(f"comfyfleet:pin:{PLACE}", "until", 1)


def test_a_server_is_had_by_one_of_all_who_want_it(pins: Pins) -> None:
    def take(_: int) -> int | None:
        return pins.take(PLACE, HOLDER, uuid.uuid4().hex)

    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(take, range(32)))
    assert [token for token in tokens if token is not None] == [1]
    (pin,) = pins.look([PLACE])
    assert pin is not None
    assert (pin.token, pin.holder, pin.let_go) == (1, HOLDER, False)
    assert LEASE_SECONDS - 5 < pin.seconds <= LEASE_SECONDS


def test_each_server_has_a_lease_of_its_own(pins: Pins) -> None:
    taken(pins)
    assert pins.look([PLACE, OTHER])[1] is None
    taken(pins, NEXT, OTHER)
    assert [pin.holder for pin in pins.look([OTHER, PLACE]) if pin] == [NEXT, HOLDER]


def test_a_taking_that_is_repeated_is_the_same(pins: Pins) -> None:
    nonce, token = taken(pins)
    assert pins.take(PLACE, HOLDER, nonce) == token


def test_what_was_let_go_of_is_had_at_once_with_a_higher_token(pins: Pins) -> None:
    nonce, token = taken(pins)
    pins.let_go(PLACE, "another")
    assert pins.take(PLACE, NEXT, "n") is None
    pins.let_go(PLACE, nonce)
    (pin,) = pins.look([PLACE])
    assert pin is not None
    assert pin.let_go
    _, later = taken(pins, NEXT)
    assert later > token


def test_who_has_let_go_is_a_new_one_when_it_comes_back(pins: Pins) -> None:
    nonce, token = taken(pins)
    pins.let_go(PLACE, nonce)
    assert pins.take(PLACE, HOLDER, nonce) == token + 1


@pytest.mark.usefixtures("no_grace")
def test_a_lease_that_has_run_out_is_kept_unless_somebody_takes_it(
    pins: Pins, server: redis.Redis
) -> None:
    nonce, token = taken(pins)
    lapse(server)
    assert pins.renew(PLACE, HOLDER, nonce, token)
    assert pins.take(PLACE, NEXT, "n") is None
    lapse(server)
    later = pins.take(PLACE, NEXT, "n")
    assert later == token + 1
    # Fenced off, whatever it does.
    assert not pins.renew(PLACE, HOLDER, nonce, token)
    pins.let_go(PLACE, nonce)
    assert pins.renew(PLACE, NEXT, "n", later)


def test_while_redis_was_away_nobody_could_renew(pins: Pins, server: redis.Redis) -> None:
    nonce, token = taken(pins)
    uptime = server.info("server")["uptime_in_seconds"]  # type: ignore[index]
    lapse(server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RESTART_GRACE_SECONDS", uptime + 10.0)
        assert pins.take(PLACE, NEXT, "n") is None
        assert pins.renew(PLACE, HOLDER, nonce, token)


def test_one_that_is_known_to_be_gone_is_not_waited_for(pins: Pins) -> None:
    nonce, token = taken(pins)
    # Of another one than has it now that says nothing.
    assert pins.take(PLACE, NEXT, "n", gone=token + 1) is None
    assert pins.take(PLACE, NEXT, "n", gone=token) == token + 1
    assert not pins.renew(PLACE, HOLDER, nonce, token)


def test_of_two_who_find_it_gone_one_has_it(pins: Pins) -> None:
    _, token = taken(pins)
    assert pins.take(PLACE, NEXT, "n", gone=token) == token + 1
    assert pins.take(PLACE, NEXT, "m", gone=token) is None


def test_what_redis_has_forgotten_is_renewed_by_who_comes_first(
    pins: Pins, server: redis.Redis
) -> None:
    nonce, token = "n", 0
    for _ in range(3):
        nonce, token = taken(pins, place=f"{PLACE}/{token}")
    server.flushall()
    assert pins.renew(PLACE, HOLDER, nonce, token)
    assert not pins.renew(PLACE, NEXT, "m", token)
    # Tokens go on to grow.
    assert taken(pins, NEXT, OTHER)[1] == token + 1


def test_a_full_server_takes_leases_and_renewals(pins: Pins, server: redis.Redis) -> None:
    server.config_set("maxmemory", "1")
    try:
        nonce, token = taken(pins)
        assert pins.renew(PLACE, HOLDER, nonce, token)
        pins.let_go(PLACE, nonce)
    finally:
        server.config_set("maxmemory", "0")


def test_what_another_version_has_written_is_a_holder_nevertheless(
    pins: Pins, server: redis.Redis
) -> None:
    taken(pins)
    key = f"comfyfleet:pin:{PLACE}"
    server.hset(key, "holder", '{"worker": "w", "host": "h", "colour": "red"}')
    server.hset(f"comfyfleet:pin:{OTHER}", mapping={"token": 1, "since": 1, "holder": "?"})
    known, unknown = pins.look([PLACE, OTHER])
    assert known is not None
    assert unknown is not None
    assert known.holder == Holder(worker="w", host="h")
    assert unknown.holder.worker == "a worker of another version"
    assert unknown.let_go


def test_a_redis_that_is_away_is_an_error_of_ours() -> None:
    with Pins("redis://127.0.0.1:1/0") as nowhere:
        with pytest.raises(BrokerUnavailableError):
            nowhere.take(PLACE, HOLDER, "n")
