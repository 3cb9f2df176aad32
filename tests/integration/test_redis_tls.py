"""Broker, result backend and ledger over TLS, with a certificate on either side."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.command_line import Comfyfleet
from tests.stack import Client, bars
from tests.tls import Certificates, TlsFront
from workers.ledger.connection import connect

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def front(
    valkey: Valkey, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsFront]:
    one = TlsFront(certificates, valkey.port, tmp_path_factory.mktemp("front"))
    yield one
    one.process.stop()


def test_a_job_over_tls_alone(stack: Stack, front: TlsFront, certificates: Certificates) -> None:
    url = f"rediss://127.0.0.1:{front.port}/0?{certificates.query}"
    own = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url, "SHUTDOWN_GRACE_SECONDS": "0"}
    environment = {**stack.environment(), **own}
    worker = stack.worker(settings=own)
    client = Client(environment)
    try:
        # A message that takes many records of TLS.
        result = client.run(bars(1, seconds=0.3), metadata={"large": "x" * 300_000})
        assert result["attempts"][0]["error"] is None
        told = Comfyfleet(environment)("result", result["job_id"])
        assert told.code == 0, told.stderr
    finally:
        client.close()
        worker.stop()
    assert worker.returncode == 0


@pytest.mark.parametrize("change", ["another authority", "no certificate"])
def test_who_is_not_believed_is_refused(
    front: TlsFront, certificates: Certificates, change: str, tmp_path: Path
) -> None:
    query = {
        "another authority": Certificates(tmp_path).query,
        "no certificate": certificates.query.partition("&ssl_certfile")[0],
    }[change]
    with connect(f"rediss://127.0.0.1:{front.port}/0?{query}") as client:
        with pytest.raises(redis.ConnectionError):
            client.ping()
