"""A spare as the fleet sees it."""

import pytest

from sandbox.stack import Stack
from workers.ledger import Ledger
from workers.lifecycle.spare import Spare

pytestmark = pytest.mark.integration


def test_a_spare_is_seen_until_it_waits_no_more(stack: Stack) -> None:
    url = stack.valkey.url.replace("/0", "/9")
    with Ledger(url) as ledger:
        spare = Spare(Ledger(url), 12)
        spare.tell()
        (heard,) = ledger.fleet.all()
        assert (heard.state, heard.status.instance) == ("spare", "")
        spare.close()
        assert ledger.fleet.all() == []


def test_a_spare_waits_on_while_redis_is_away() -> None:
    spare = Spare(Ledger("redis://127.0.0.1:1"), 12)
    spare.tell()
    spare.close()
