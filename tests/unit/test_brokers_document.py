"""docs/brokers.md says what the code does."""

import json
import re
from pathlib import Path

from sandbox.rabbitmq import POLICY, POLICY_PATTERN
from settings.rabbitmq import QUEUES, RETURNED, worker_options
from workers.checks.rabbitmq import OLDEST

PAGE = (Path(__file__).parents[2] / "docs" / "brokers.md").read_text()


def test_the_queues_are_those_that_workers_take_from_in_this_order() -> None:
    table = re.findall(r"^\| `(comfyui[.a-z]*)` \|", PAGE, re.MULTILINE)
    assert table == list(worker_options()["task_queues"])
    assert set(table) == {*QUEUES.values(), RETURNED}


def test_the_oldest_version_is_the_one_that_workers_take() -> None:
    assert f"RabbitMQ {'.'.join(map(str, OLDEST))} or later" in PAGE


def test_the_policy_is_the_one_that_is_tried() -> None:
    pattern, definition = re.findall(r"comfyfleet '(\^.*)' \\\n\s+'(.*)' \\", PAGE)[0]
    assert (pattern, json.loads(definition)) == (POLICY_PATTERN, POLICY)
    assert not re.search(pattern, RETURNED)
    assert all(re.search(pattern, queue) for queue in (*QUEUES.values(), "comfyui.lane.a"))
