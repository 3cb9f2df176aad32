"""What answers mean: each in one sentence with its fix, and no secret in it."""

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
)
from celery import Celery
from redis import exceptions as redis_errors

from settings import Settings
from settings.lookalikes import misspelt
from tasks.errors import (
    ComfyUIAccessDeniedError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    JobError,
    StorageDeniedError,
)
from workers.checks import rabbitmq, storage
from workers.checks.clocks import judge_redis_clock, judge_store_clock
from workers.checks.comfyui import judge_error as judge_comfyui_error
from workers.checks.comfyui import judge_version
from workers.checks.disk import check_disk, judge_room
from workers.checks.doctor import all_checks
from workers.checks.environment import judge_settings
from workers.checks.finding import Judgement, Status, fail, ok, warn
from workers.checks.fleet import judge_workers
from workers.checks.redis_errors import judge_error
from workers.checks.redis_server import (
    judge_eviction,
    judge_memory,
    judge_persistence,
    judge_server,
    redis_servers,
)
from workers.checks.running import Check, exit_code, run
from workers.ledger.servers import Server
from workers.storage.seam import meaning_of

KNOWN = {str(field.alias) for field in Settings.model_fields.values()}
MIB = 2**20


def says(judgement: Judgement, status: str, sentence: str, fix: str = "") -> bool:
    assert judgement.status == status, judgement
    assert sentence in judgement.sentence
    assert fix in judgement.fix
    # What is not well says how to mend it.
    assert bool(judgement.fix) is (judgement.status in (Status.WARN, Status.FAIL))
    return True


# Settings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("COMFYUI_ULR", "COMFYUI_URL"),
        ("comfyui_ulr", "COMFYUI_URL"),
        ("WORKER_SLOT", "WORKER_SLOTS"),
        ("CELERY_BROKER", "CELERY_BROKER_URL"),
        ("S3_ENDPOINT", "S3_ENDPOINT_URL"),
        ("JOB_MAX_ATTEMPT", "JOB_MAX_ATTEMPTS"),
    ],
)
def test_a_typo_is_told_with_what_is_meant(name: str, meant: str) -> None:
    assert misspelt([name, "PATH"], KNOWN) == [(name, meant)]


@pytest.mark.parametrize(
    "names",
    [
        ["PATH", "HOME", "LOGNAME", "AWS_REGION", "REDIS_URL", "WORKER_CLASS"],
        # Kubernetes tells of a service that is called comfyui, or valkey.
        ["COMFYUI_PORT", "COMFYUI_SERVICE_HOST", "COMFYUI_PORT_8188_TCP_ADDR", "S3_PORT"],
        # What is meant is there, too: the other one is somebody else's.
        ["S3_ENDPOINT", "S3_ENDPOINT_URL"],
        ["comfyui_url", "COMFYUI_ULR"],
        sorted(KNOWN),
    ],
)
def test_the_variables_of_others_are_theirs(names: list[str]) -> None:
    assert misspelt(names, KNOWN) == []


def settings(**variables: str) -> Settings:
    return Settings(**variables)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"S3_ENDPOINT_URL": "http://s3.lan/renders"}, "S3_ENDPOINT_URL names the bucket renders"),
        ({"S3_ENDPOINT_URL": "http://renders.s3.lan"}, "S3_ENDPOINT_URL names the bucket renders"),
        (
            {"COMFYUI_HEADERS": '{"Authorization": "secret"}', "COMFYUI_URL": "http://gpu.io"},
            "COMFYUI_HEADERS go unencrypted to COMFYUI_URL",
        ),
    ],
)
def test_settings_that_are_wrong_together_are_named(
    variables: dict[str, str], sentence: str
) -> None:
    judged = judge_settings(settings(S3_BUCKET="renders", **variables), [("A", "B")])
    assert says(judged, "warn", sentence)
    assert "A is no setting, did you mean B?" in judged.sentence
    assert "secret" not in str(judged)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"S3_ENDPOINT_URL": "http://s3.lan:8333/storage/v1/s3"},
        {"COMFYUI_HEADERS": '{"Cookie": "x"}', "COMFYUI_URL": "https://gpu.io"},
        {"COMFYUI_HEADERS": '{"Cookie": "x"}', "COMFYUI_URL": "http://10.0.0.7:8188"},
        {"COMFYUI_HEADERS": '{"Cookie": "x"}', "COMFYUI_URL": "http://comfyui:8188"},
        {"COMFYUI_HEADERS": '{"Cookie": "x"}', "COMFYUI_URL": "http://gpu.lan"},
    ],
)
def test_settings_that_go_together_are_well(variables: dict[str, str]) -> None:
    assert says(judge_settings(settings(S3_BUCKET="renders", **variables), []), "ok", "valid")


def test_each_redis_is_looked_at_once() -> None:
    one, two = "redis://one/0", "redis://two/0"
    own = {"CELERY_BROKER_URL": one}
    assert redis_servers(settings(**own, CELERY_RESULT_BACKEND=one)) == [("CELERY_BROKER_URL", one)]
    assert redis_servers(settings(**own, CELERY_RESULT_BACKEND=two)) == [
        ("CELERY_BROKER_URL", one),
        ("CELERY_RESULT_BACKEND", two),
    ]
    database = settings(**own, CELERY_RESULT_BACKEND="db+sqlite:///x")
    assert redis_servers(database) == [("CELERY_BROKER_URL", one)]


# Redis


@pytest.mark.parametrize(
    ("error", "sentence", "heals"),
    [
        (
            redis.AuthenticationError("invalid username-password pair"),
            "refuses the password",
            False,
        ),
        (redis_errors.NoPermissionError("x"), "does not allow this user", True),
        (redis.ReadOnlyError("x"), "is a read-only replica", True),
        (redis.OutOfMemoryError("x"), "has no memory left", True),
        (redis.BusyLoadingError("x"), "is still loading", True),
        (redis.TimeoutError("x"), "did not answer in time", True),
        (redis.ConnectionError("x"), "cannot be connected (ConnectionError)", True),
        (redis.InvalidResponse("HTTP/1.1 400"), "is no Redis", True),
        (redis.ResponseError("DB index is out of range"), "no database of that number", False),
        (redis.ResponseError("MISCONF Redis is configured"), "cannot write to its disk", True),
        (redis.ResponseError("CROSSSLOT Keys in request"), "is a Redis Cluster", False),
        (redis.ResponseError("unknown command 'LMOVE'"), "does not know commands", False),
        (redis.ResponseError("SET secret"), "answered with an error (ResponseError)", True),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_errors_of_redis_by_meaning(error: redis.RedisError, sentence: str, heals: bool) -> None:
    judged = judge_error(error, "CELERY_BROKER_URL (redis://h)")
    assert says(judged, "fail", sentence)
    assert judged.heals is heals
    assert "secret" not in str(judged)


@pytest.mark.parametrize(
    ("info", "status", "sentence"),
    [
        ({"redis_version": "7.2.4"}, "ok", "answers: Redis 7.2.4"),
        (
            {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.0.1"},
            "ok",
            "answers: Valkey 9.0.1",
        ),
        ({"redis_version": "6.0.16"}, "fail", "is Redis 6.0.16, too old"),
        ({}, "fail", "of no version that it tells"),
        ({"redis_version": "7.0.0", "cluster_enabled": 1}, "fail", "is a Redis Cluster"),
        ({"redis_version": "7.0.0", "role": "slave"}, "fail", "is a replica"),
    ],
)
def test_what_a_redis_says_of_itself(info: dict[str, Any], status: str, sentence: str) -> None:
    assert says(judge_server(info, "it"), status, sentence)


@pytest.mark.parametrize(
    ("info", "status", "heals"),
    [
        ({"maxmemory": 0, "maxmemory_policy": "noeviction"}, "ok", True),
        ({"maxmemory": MIB, "maxmemory_policy": "noeviction"}, "ok", True),
        ({}, "ok", True),
        ({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, "warn", True),
        ({"maxmemory": MIB, "maxmemory_policy": "allkeys-lru"}, "fail", False),
        # Leases and ends have a time to live, though messages have none.
        ({"maxmemory": MIB, "maxmemory_policy": "volatile-lru"}, "fail", False),
    ],
)
def test_what_is_accepted_must_not_be_forgotten(
    info: dict[str, Any], status: str, heals: bool
) -> None:
    judged = judge_eviction(info, "it")
    assert (judged.status, judged.heals) == (status, heals)


@pytest.mark.parametrize(
    ("used", "most", "status"),
    [(5, 0, "ok"), (5, 10, "ok"), (80, 100, "warn"), (97, 100, "warn"), (98, 100, "fail")],
)
def test_what_is_left_of_the_memory(used: int, most: int, status: str) -> None:
    info = {"used_memory": used * MIB, "maxmemory": most * MIB}
    assert says(judge_memory(info, "it"), status, f"{used}.0 MiB")


@pytest.mark.parametrize(
    ("info", "save", "status", "sentence"),
    [
        ({"aof_enabled": 1, "aof_last_write_status": "ok"}, "", "ok", "survives"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "", "fail", "cannot write"),
        ({"aof_enabled": 0}, "3600 1", "warn", "after its last snapshot"),
        ({"aof_enabled": 0}, "", "warn", "forgets all jobs"),
        ({"aof_enabled": 0}, None, "warn", "does not say"),
    ],
)
def test_what_survives_the_end_of_redis(
    info: dict[str, Any], save: str | None, status: str, sentence: str
) -> None:
    assert says(judge_persistence(info, save, "it"), status, sentence)


@pytest.mark.parametrize(
    ("told", "status", "sentence"),
    [
        ({"product": "RabbitMQ", "version": "3.10.8"}, "ok", "RabbitMQ 3.10.8"),
        ({"product": "RabbitMQ", "version": "4.2.0"}, "ok", "RabbitMQ 4.2.0"),
        ({"product": "RabbitMQ", "version": "3.9.29"}, "fail", "nothing of this was tried"),
        ({}, "fail", "a broker of no version"),
    ],
)
def test_what_a_rabbitmq_says_of_itself(told: dict[str, Any], status: str, sentence: str) -> None:
    assert says(rabbitmq.judge_server(told, "quorum", "it"), status, sentence)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("classic", "queue comfyui is of the type classic; it does not tell its consumer_timeout"),
        (None, "queue comfyui is not there yet, or its type is not told"),
    ],
)
def test_the_type_of_the_queue_is_told(kind: str | None, sentence: str) -> None:
    told = {"product": "RabbitMQ", "version": "4.2.0"}
    assert says(rabbitmq.judge_server(told, kind, "it"), "ok", sentence)


@pytest.mark.parametrize(
    ("nodes", "status", "sentence"),
    [
        ((ok("a"), ok("b")), "ok", "a"),
        ((fail("a is away", "start a"), ok("b")), "warn", "a is away; another node answers"),
        ((fail("a is away", "start a"), fail("b is away", "start b")), "fail", "a is away"),
        ((ok("a"), fail("b refuses", "correct b", heals=False)), "fail", "b refuses"),
    ],
)
def test_one_node_that_will_do_is_enough(
    nodes: tuple[Judgement, ...], status: str, sentence: str
) -> None:
    assert says(rabbitmq.judge_nodes(nodes), status, sentence)


def test_a_rabbitmq_that_is_away_cannot_be_connected() -> None:
    judged = rabbitmq.check_rabbitmq("amqp://user:secret@127.0.0.1:1//")
    assert says(judged, "fail", "cannot be connected (ConnectionRefusedError)", "start it")
    assert "secret" not in judged.sentence


# Clocks, disk, workers


@pytest.mark.parametrize(
    ("seconds", "status", "sentence"),
    [
        (0.0, "ok", "agrees"),
        (-89.0, "ok", "agrees"),
        (100.0, "warn", "100 s ahead of the store's"),
        (-100.0, "warn", "100 s behind the store's"),
        (901.0, "fail", "901 s ahead of"),
    ],
)
def test_the_clock_of_the_store(seconds: float, status: str, sentence: str) -> None:
    assert says(judge_store_clock(seconds), status, sentence)


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_a_store_that_tells_no_time(date: str | None) -> None:
    assert says(storage.judge_date(date), "ok", "does not tell its time")


def test_the_clock_of_redis() -> None:
    assert says(judge_redis_clock(-4.0), "ok", "agrees")
    assert says(judge_redis_clock(-3600.0), "warn", "3600 s behind that of Redis", "NTP")


@pytest.mark.parametrize(("free", "status"), [(99, "fail"), (100, "warn"), (400, "ok")])
def test_the_room_that_is_left(free: int, status: str) -> None:
    assert says(judge_room(free * MIB, 100 * MIB, Path("/tmp")), status, f"/tmp has {free} MiB")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert says(check_disk(1, tmp_path / "gone"), "fail", "No such file", "TMPDIR")
    assert says(check_disk(1, tmp_path), "ok", str(tmp_path))


def test_who_works_on_the_queue() -> None:
    ready, busy = (
        Server(
            place=str(takes),
            instance="http://gpu",
            worker="w",
            version="",
            digest="",
            takes_jobs=takes,
        )
        for takes in (True, False)
    )
    assert says(judge_workers([]), "warn", "no worker", "celery -A workers worker")
    assert says(judge_workers([busy]), "warn", "none of 1 live servers takes jobs")
    assert says(judge_workers([ready, busy]), "ok", "1 of 2 live servers take jobs")


# The store


class Bucket:
    bucket = "b"

    def __init__(self, readable: bool = True) -> None:
        self._readable = readable

    def get(self, _: str) -> None:
        if not self._readable:
            raise StorageDeniedError("no")


def refused(status: int, code: str) -> JobError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return seen(ClientError(answer, "PutObject"))


def seen(foreign: Exception) -> JobError:
    error = meaning_of(foreign, "b")
    error.__cause__ = foreign
    return error


@pytest.mark.parametrize(
    ("error", "sentence", "fix"),
    [
        (refused(404, "NoSuchBucket"), "there is no bucket 'b' at http://s3", "make it"),
        (refused(404, "404"), "there is no bucket 'b' at http://s3 (404)", "make it"),
        (refused(403, "SignatureDoesNotMatch"), "refuses the credentials (403", "AWS_SECRET"),
        (refused(403, "InvalidAccessKeyId"), "refuses the credentials (403", "AWS_ACCESS_KEY_ID"),
        (refused(400, "ExpiredToken"), "have expired", "AWS_SESSION_TOKEN"),
        (refused(403, "RequestTimeTooSkewed"), "refuses this host's clock", "NTP"),
        (refused(301, "PermanentRedirect"), "in another region", "AWS_DEFAULT_REGION"),
        (refused(507, "QuotaExceeded"), "is full", "quota"),
        (refused(403, "AccessDenied"), "is read-only for these credentials", "s3:PutObject"),
        (refused(500, "InternalError"), "500 InternalError", "log"),
        (
            seen(ParamValidationError(report="x")),
            "b is no name that a bucket can have",
            "S3_BUCKET",
        ),
        (seen(NoCredentialsError()), "(NoCredentialsError)", "AWS_ACCESS_KEY_ID"),
        (seen(EndpointConnectionError(endpoint_url="x")), "looked for at http://s3", "S3_ENDPOINT"),
    ],
)
def test_what_the_store_refuses_by_meaning(error: JobError, sentence: str, fix: str) -> None:
    judged = storage.judge_error(error, Bucket(), "http://s3")  # type: ignore[arg-type]
    assert says(judged, "fail", sentence, fix)


def test_a_bucket_that_is_closed_is_not_read_only() -> None:
    error = refused(403, "AccessDenied")
    judged = storage.judge_error(error, Bucket(readable=False), None)  # type: ignore[arg-type]
    assert says(judged, "fail", "at AWS is closed to these credentials", "s3:PutObject")


# ComfyUI


@pytest.mark.parametrize(
    ("stats", "status", "sentence"),
    [
        ({"system": {"comfyui_version": "0.3.45"}}, "ok", "ComfyUI 0.3.45 answers"),
        ({"system": {"comfyui_version": "v1.2"}}, "ok", "ComfyUI v1.2 answers"),
        ({"system": {"comfyui_version": "0.3.44"}}, "fail", "is 0.3.44, which gives"),
        ({"system": {}}, "warn", "does not tell its version"),
        ({"system": "x"}, "warn", "does not tell its version"),
        ({"system": {"comfyui_version": "x" * 9999}}, "warn", "does not tell its version"),
        ({}, "warn", "does not tell its version"),
    ],
)
def test_the_version_of_comfyui(stats: dict[str, Any], status: str, sentence: str) -> None:
    judged = judge_version(stats, "http://gpu")
    assert says(judged, status, sentence)
    assert len(judged.sentence) < 200


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (ComfyUIUnavailableError("away"), "start it"),
        (ComfyUIProtocolError("a page"), "correct COMFYUI_URL"),
        (ComfyUIAccessDeniedError("401"), "COMFYUI_HEADERS"),
    ],
)
def test_a_comfyui_that_does_not_answer(error: JobError, fix: str) -> None:
    assert says(judge_comfyui_error(error), "fail", error.message, fix)


# One after the other


def test_what_needs_something_that_fails_is_passed_over() -> None:
    asked: list[str] = []

    def asking(name: str, judgement: Judgement) -> Any:
        return lambda: asked.append(name) or judgement

    found = list(
        run(
            [
                Check("a", asking("a", warn("so so", "do"))),
                Check("b", asking("b", fail("no", "do")), ("a",)),
                Check("c", asking("c", ok("yes")), ("b",)),
                Check("d", asking("d", ok("yes")), ("c", "a")),
                Check("e", asking("e", ok("yes")), ("a",)),
            ]
        )
    )
    assert [one.status for one in found] == ["warn", "fail", "skipped", "skipped", "ok"]
    assert found[2].sentence == "not looked at, as it needs: b"
    assert asked == ["a", "b", "e"]
    assert exit_code(found) == 1
    assert exit_code(one for one in found if one.status != "fail") == 0


def test_what_hangs_is_waited_for_no_longer_than_its_time() -> None:
    import threading

    for_ever = threading.Event()
    began = time.monotonic()
    (found,) = run([Check("hangs", lambda: for_ever.wait() or ok("?"), seconds=0.05)])
    for_ever.set()
    assert (found.status, found.sentence) == ("fail", "no answer within 0.05 s")
    assert time.monotonic() - began < 5


def test_a_check_that_is_broken_hides_no_other_one() -> None:
    def raise_it() -> Judgement:
        raise KeyError("secret")

    broken, well = run([Check("a", raise_it), Check("b", lambda: ok("yes"))])
    assert (broken.status, well.status) == ("fail", "ok")
    assert "KeyError" in broken.sentence
    assert "secret" not in str(SimpleNamespace(found=broken))


def test_the_page_has_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    in_table = re.findall(r"^\| `([a-z ]+)` \|", page, re.MULTILINE)

    def names(**variables: str) -> list[str]:
        given = settings(S3_BUCKET="b", CELERY_BROKER_URL="redis://one/0", **variables)
        with Celery() as app, all_checks(given, app, render=True) as checks:
            return [check.name for check in checks]

    one = names(CELERY_RESULT_BACKEND="redis://one/0")
    assert in_table == one
    several = names(
        CELERY_RESULT_BACKEND="redis://one/0", COMFYUI_URLS="http://a,http://b,http://c"
    )
    assert set(several) - set(one) == {"comfyui 2", "comfyui 3"}
    # Names are what others need them by.
    two = names(CELERY_RESULT_BACKEND="redis://two/0")
    assert all(f"`{name}`" in page for name in two)
    assert len(set(two)) == len(two)
