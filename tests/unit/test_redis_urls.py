"""URLs of Redis mean the same to Celery, kombu and our own client; nothing is connected."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from settings import Settings, SettingsError, load
from settings.celery import celery_options, worker_options
from settings.masking import MASK
from settings.redis_urls import checked, for_our_client, read_sentinels
from workers.broker.transport import SentinelTransport
from workers.ledger.connection import connect

SENTINELS = "sentinel://me:p%2Fw@a:26379/2;sentinel://me:p%2Fw@b:26380/2"


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load()


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    file = tmp_path / "ca.pem"
    file.touch()
    return file


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:6379/0",
        "redis://:p%2Fw@broker:6379/3",
        "redis:///1",
        "rediss://h:6380/0?ssl_cert_reqs=required",
        "rediss://h?ssl_cert_reqs=CERT_NONE&ssl_check_hostname=false",
        "sentinel://h:26379",
        "sentinel://a:26379;sentinel://b:26379/0",
        f"{SENTINELS};sentinel://me:p%2Fw@c:26379/2",
    ],
)
def test_what_is_taken(url: str) -> None:
    assert checked(url) == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h", "a redis://, rediss:// or sentinel:// URL"),
        ("redis://h:0/0", "a redis://, rediss:// or sentinel:// URL"),
        ("redis://h:x/0", "a redis://, rediss:// or sentinel:// URL"),
        ("redis://h/name", "the number of a database"),
        ("redis://a/0;redis://b/0", "one server; with replicas to fail over to, sentinel://"),
        ("redis://h/0?ssl_cert_reqs=required", "rediss:// with parameters of TLS"),
        # Kombu would check no certificate, and only warn.
        ("rediss://h/0", "a parameter ssl_cert_reqs"),
        ("rediss://h/0?ssl_cert_reqs=", "a parameter ssl_cert_reqs"),
        ("rediss://h/0?ssl_cert_reqs=yes", "a parameter ssl_cert_reqs"),
        ("rediss://h/0?ssl_cert_reqs=none&ssl_ca_cert=x", "and not ssl_ca_cert"),
        ("rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=0", "to be true or false"),
        ("rediss://h/0?ssl_cert_reqs=none&ssl_keyfile=k", "ssl_certfile beside ssl_keyfile"),
        ("rediss://h/0?ssl_cert_reqs=required&ssl_ca_certs=/no", "ssl_ca_certs to name a file"),
        ("sentinel://h", "each with host and port"),
        ("sentinel://:26379", "each with host and port"),
        ("sentinel://a:26379,b:26379/0", "each with host and port"),
        ("sentinel://a:26379;b:26379", "each with host and port"),
        ("sentinel://a:26379;redis://b:6379", "each with host and port"),
        ("sentinel://a:26379;", "each with host and port"),
        # Kombu goes by the first, and after a failure by the next.
        ("sentinel://:x@a:26379;sentinel://b:26379/0", "the same user, password, database"),
        ("sentinel://a:26379;sentinel://b:26379/1", "the same user, password, database"),
        ("sentinel://a:1;sentinel://b:1?ssl_cert_reqs=none", "the same user, password, database"),
        ("sentinel://a:1?ssl_ca_certs=x", "a parameter ssl_cert_reqs"),
    ],
)
def test_what_is_refused(url: str, expected: str) -> None:
    with pytest.raises(ValueError, match="^[^\n]+$") as refused:
        checked(url)
    assert expected in str(refused.value)


def test_tls_means_the_same_to_all(monkeypatch: pytest.MonkeyPatch, pem: Path) -> None:
    query = f"ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={pem}&ssl_check_hostname=false"
    settings = read(monkeypatch, CELERY_BROKER_URL=f"rediss://h:6380/1?{query}")
    url = settings.broker_url.get_secret_value()

    to_kombu = Connection(url).ssl
    app = Celery(set_as_current=False)
    app.conf.update(celery_options(settings))
    to_celery = app.backend.connparams
    with connect(settings.ledger_url) as client:
        to_us = client.connection_pool.connection_kwargs
    names = {"required": ssl.CERT_REQUIRED}
    expected = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(pem)}
    expected |= {"ssl_check_hostname": False}
    for told in (to_kombu, to_celery, to_us):
        found: dict[str, Any] = {name: told[name] for name in expected}
        found["ssl_cert_reqs"] = names.get(found["ssl_cert_reqs"], found["ssl_cert_reqs"])
        assert found == expected


def test_sentinels_mean_the_same_to_all(monkeypatch: pytest.MonkeyPatch, pem: Path) -> None:
    query = f"ssl_cert_reqs=required&ssl_ca_certs={pem}"
    url = ";".join(f"{one}?{query}" for one in SENTINELS.split(";"))
    settings = read(
        monkeypatch,
        CELERY_BROKER_URL=url,
        SENTINEL_MASTER_NAME="renders",
        SENTINEL_USERNAME="watcher",
        SENTINEL_PASSWORD="s&s",
    )
    addresses = [("a", 26379), ("b", 26380)]
    server = {"db": 2, "username": "me", "password": "p/w", "ssl_ca_certs": str(pem)}
    sentinel = {"username": "watcher", "password": "s&s", "ssl_ca_certs": str(pem)}

    options = worker_options(settings)["broker_transport_options"]
    connection = Connection(url, transport=SentinelTransport, transport_options=options)
    monkeypatch.setattr("redis.client.Redis.ping", lambda *_, **__: True)
    channel = connection.channel()
    app = Celery(set_as_current=False)
    app.conf.update(celery_options(settings))
    with connect(settings.ledger_url) as client:
        ours = client.connection_pool
    for pool in (channel.pool, channel.pool_beside(3.0), app.backend.client.connection_pool, ours):
        assert pool.service_name == "renders"
        assert pool.connection_class.__name__ == "SentinelManagedSSLConnection"
        assert pool.connection_kwargs.items() >= server.items()
        asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        assert [(one["host"], one["port"]) for one in asked] == addresses
        assert all(one.items() >= sentinel.items() for one in asked)
    assert channel.pool_beside(3.0).connection_kwargs["socket_timeout"] == 3.0
    connection.close()


def test_a_url_of_sentinels_comes_back_as_it_was_told() -> None:
    url = for_our_client(SENTINELS, master_name="a&b", username=None, password="p=;w")
    told = read_sentinels(url)
    assert (told.master_name, told.sentinel_username, told.sentinel_password) == (
        *("a&b", None),
        "p=;w",
    )
    assert (told.addresses, told.username, told.password, told.database, told.tls) == (
        (("a", 26379), ("b", 26380)),
        *("me", "p/w", 2, {}),
    )


def test_sentinels_need_the_masters_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="^SENTINEL_MASTER_NAME: found '', expected the NAME"):
        read(monkeypatch, CELERY_BROKER_URL="sentinel://:secret@h:26379/0")


def test_what_opens_the_sentinels_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        CELERY_BROKER_URL="sentinel://:secret@a:1/0;sentinel://:secret@b:1/0",
        SENTINEL_MASTER_NAME="renders",
        SENTINEL_PASSWORD="secret",
    )
    shown = settings.masked()
    assert shown["SENTINEL_PASSWORD"] == MASK
    assert shown["SENTINEL_MASTER_NAME"] == "renders"
    assert "secret" not in str(shown) + repr(settings)
