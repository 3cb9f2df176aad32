import base64

import celery
import pytest

from settings import Settings, SettingsError, load
from settings.celery import celery_options, worker_options
from settings.masking import MASK, without_password
from settings.secrets import webhook_keys
from workers.ledger import Ledger

WHSEC = "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load()


def test_defaults_need_nothing() -> None:
    settings = load()
    assert settings.comfyui_url == "http://127.0.0.1:8188"
    assert settings.result_backend.get_secret_value() == settings.broker_url.get_secret_value()


def test_it_is_read_once_and_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(monkeypatch, WORKER_SLOTS="3")
    monkeypatch.setenv("WORKER_SLOTS", "4")
    assert load() is first
    with pytest.raises(ValueError, match="frozen"):
        first.worker_slots = 5  # type: ignore[misc]


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, WORKER_SLOTS="", S3_ENDPOINT_URL="").s3_endpoint_url is None


def test_the_backend_follows_a_redis_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "rediss://broker:6380/3?ssl_cert_reqs=required"
    settings = read(monkeypatch, CELERY_BROKER_URL=url)
    assert settings.result_backend.get_secret_value() == url


@pytest.mark.parametrize(
    ("variable", "value", "found", "expected"),
    [
        ("COMFYUI_URL", "ftp://x", "'ftp://x'", "http:// or https:// URL"),
        ("COMFYUI_URL", "http://", "'http://'", "http:// or https:// URL"),
        ("COMFYUI_URL", "http://x:99999", "'http://x:99999'", "http:// or https:// URL"),
        ("COMFYUI_URL", "http://fd00::5:8188", "'http://fd00::5:8188'", "IPv6 address in brackets"),
        ("COMFYUI_URL", "http://u:secret@x", f"'http://u:{MASK}@x'", "COMFYUI_HEADERS"),
        ("COMFYUI_URLS", " , ", "' , '", "URLs separated by commas"),
        ("COMFYUI_URLS", "http://a,,gpu", "'gpu'", "http:// or https:// URL"),
        ("COMFYUI_URLS", "http://u:secret@x,http://y", f"'http://u:{MASK}@x'", "COMFYUI_HEADERS"),
        ("COMFYUI_URLS", "http://a:80/,http://A", "'http://a:80/,http://A'", "each server once"),
        (
            "COMFYUI_URLS",
            "http://[::1]:1,http://0.0.0.0:1",
            "'http://[::1]:1,http://0.0.0.0:1'",
            "once",
        ),
        ("COMFYUI_SHARED", "perhaps", "'perhaps'", "a valid boolean"),
        ("COMFYUI_HEADERS", "{secret", f"'{MASK}'", "a JSON object of strings"),
        ("COMFYUI_HEADERS", '["secret"]', f"'{MASK}'", "a JSON object of strings"),
        ("COMFYUI_HEADERS", '{"A": "b\\nsecret: c"}', f"'{MASK}'", "without line breaks"),
        ("COMFYUI_HEADERS", '{"A": " secret"}', f"'{MASK}'", "without line breaks"),
        ("COMFYUI_HEADERS", '{"a b": "secret"}', f"'{MASK}'", "names of HTTP headers"),
        ("COMFYUI_HEADERS", '{"": "secret"}', f"'{MASK}'", "names of HTTP headers"),
        *(
            ("WEBHOOK_SECRET", value, f"'{MASK}'", "whsec_ and the base64 of 24 to 64 random")
            for value in ("secret", "whsec_", "whsec_c2VjcmV0", f"{WHSEC},secret", f"{WHSEC}!")
        ),
        ("MESSAGE_SECRET", "secret", f"'{MASK}'", "32 random characters or more"),
        ("MESSAGE_SECRET", f"{'m' * 32} secret", f"'{MASK}'", "32 random characters or more"),
        ("INPUT_MAX_COUNT", "-1", "'-1'", "greater than or equal to 0"),
        ("OUTPUT_MAX_COUNT", "0", "'0'", "greater than or equal to 1"),
        ("WEBHOOK_ALLOW_HOSTS", "http://x", "'http://x'", "host names, addresses or networks"),
        ("COMFYUI_READ_TIMEOUT_SECONDS", "inf", "'inf'", "less than or equal to 86400"),
        ("CELERY_BROKER_URL", "redis://h:x/0", "'redis://h:x/0'", "redis://"),
        ("COMFYUI_URL", "user:secret@host", f"'user:{MASK}@host'", "http:// or https:// URL"),
        ("CELERY_BROKER_URL", "kafka://u:secret@h", f"'kafka://u:{MASK}@h'", "redis://"),
        ("CELERY_BROKER_URL", "sqs://h", "'sqs://h'", "redis://"),
        ("COMFYUI_URL", "http://[", "'http://['", "http:// or https:// URL"),
        ("CELERY_BROKER_URL", "localhost", "'localhost'", "redis://"),
        ("CELERY_RESULT_BACKEND", "localhost", "'localhost'", "redis://"),
        ("S3_ENDPOINT_URL", "minio:9000", "'minio:9000'", "http:// or https:// URL"),
        ("S3_PREFIX", "a/../b", "'a/../b'", "without . or .."),
        ("WORKER_SLOTS", "many", "'many'", "integer"),
        ("WORKER_SLOTS", "0", "'0'", "greater than or equal to 1"),
        ("JOB_MAX_ATTEMPTS", "0", "'0'", "greater than or equal to 1"),
        ("JOB_MAX_CRASHES", "0", "'0'", "greater than or equal to 1"),
        ("JOB_MAX_CRASHES", "2.5", "'2.5'", "integer"),
        ("S3_PATIENCE_SECONDS", "-1", "'-1'", "greater than or equal to 0"),
        ("S3_PATIENCE_SECONDS", "inf", "'inf'", "less than or equal to 86400"),
        ("S3_PATIENCE_SECONDS", "nan", "'nan'", "than or equal to"),
        ("STALL_SECONDS", "0", "'0'", "greater than 0"),
        ("STALL_SECONDS", "1h", "'1h'", "number"),
        ("SHUTDOWN_GRACE_SECONDS", "-0.1", "'-0.1'", "greater than or equal to 0"),
        ("SHUTDOWN_GRACE_SECONDS", "86401", "'86401'", "less than or equal to 86400"),
        ("INPUT_TIMEOUT_SECONDS", "0", "'0'", "greater than 0"),
        ("INPUT_TIMEOUT_SECONDS", "inf", "'inf'", "less than or equal to 86400"),
        ("INPUT_BUCKETS", "a,s3://b", "'a,s3://b'", "names of buckets, separated by commas"),
        ("INPUT_BUCKETS", "a/b", "'a/b'", "names of buckets, separated by commas"),
        *(
            ("INPUT_ALLOW_HOSTS", value, f"'{value}'", "host names, addresses or networks")
            for value in (
                "http://x",
                "x:80",
                "127.1",
                "1",
                "0x7f",
                "10.0.0.1/8",
                "*.lan",
                "a b",
                "[::1]",
            )
        ),
        ("LOG_LEVEL", "loud", "'LOUD'", "'DEBUG', 'INFO'"),
        ("LOG_FORMAT", "xml", "'xml'", "'console' or 'json'"),
    ],
)
def test_a_wrong_value_is_named_with_found_and_expected(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, found: str, expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(monkeypatch, **{variable: value})
    message = str(caught.value)
    assert message.startswith(f"{variable}: found {found}, expected ")
    assert expected in message
    assert "secret" not in message


def test_a_worker_may_drive_one_of_several_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, COMFYUI_URLS="http://a:1/, http://b:2")
    assert settings.comfyui_servers == ("http://a:1", "http://b:2")
    # Where one is meant it is the first one.
    assert settings.comfyui_url == "http://a:1"
    assert settings.masked()["COMFYUI_URLS"] == "http://a:1,http://b:2"


def test_the_one_to_be_tried_first_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = "http://a,http://localhost:2"
    settings = read(monkeypatch, COMFYUI_URLS=urls, COMFYUI_URL="http://127.0.0.1:2")
    assert settings.comfyui_servers == ("http://127.0.0.1:2", "http://a")


def test_one_alone_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, COMFYUI_URL="http://a", COMFYUI_SHARED="1")
    assert (settings.comfyui_servers, settings.comfyui_shared) == (("http://a",), True)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"COMFYUI_URL": "http://c", "COMFYUI_URLS": "http://a,http://b"},
            "COMFYUI_URLS: found 'http://a,http://b', expected COMFYUI_URL (http://c) among them, "
            "or no COMFYUI_URL",
        ),
        (
            {"COMFYUI_SHARED": "1", "COMFYUI_URLS": "http://a,http://b"},
            "COMFYUI_SHARED: found '1', expected false beside several COMFYUI_URLS, of which each "
            "worker takes one; name the server to be shared in COMFYUI_URL alone",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], sentence: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read(monkeypatch, **variables)
    assert str(caught.value) == sentence


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        INPUT_BUCKETS="photos, scans-2,",
        INPUT_ALLOW_HOSTS="Files.LAN., localhost,4f3c2b1a,10.1.2.3,10.2.0.0/16,fd00::/8",
    )
    assert settings.input_buckets == ("photos", "scans-2")
    hosts = ("files.lan", "localhost", "4f3c2b1a", "10.1.2.3", "10.2.0.0/16", "fd00::/8")
    assert settings.input_allow_hosts == hosts
    assert settings.masked()["INPUT_ALLOW_HOSTS"] == ",".join(hosts)
    load.cache_clear()
    monkeypatch.setenv("INPUT_BUCKETS", " , ")
    assert load().masked()["INPUT_BUCKETS"] is None


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n"])
def test_several_secrets_let_one_replace_the_other(
    monkeypatch: pytest.MonkeyPatch, separator: str
) -> None:
    other = f"whsec_{base64.b64encode(bytes(64)).decode()}"
    settings = read(monkeypatch, WEBHOOK_SECRET=f"{WHSEC}{separator}{other}")
    assert webhook_keys(settings.webhook_secret) == (b"secret" * 4, bytes(64))


def test_no_patience_and_no_grace_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, S3_PATIENCE_SECONDS="0", SHUTDOWN_GRACE_SECONDS="0")
    assert (settings.s3_patience_seconds, settings.shutdown_grace_seconds) == (0.0, 0.0)


def test_the_limits_of_failing_by_default() -> None:
    settings = load()
    assert (settings.max_attempts, settings.max_crashes) == (3, 3)
    assert (settings.s3_patience_seconds, settings.stall_seconds) == (900.0, 600.0)
    # Docker's ten seconds are less than this: the compose file says so.
    assert settings.shutdown_grace_seconds == 15.0


@pytest.mark.parametrize(
    ("broker", "ledger"),
    [
        ("redis://:p%2Fw@broker:6379/3", "redis://:p%2Fw@broker:6379/3"),
        ("rediss://h/0?ssl_cert_reqs=CERT_NONE", "rediss://h/0?ssl_cert_reqs=none"),
        (
            "rediss://h/0?ssl_check_hostname=true&ssl_cert_reqs=CERT_REQUIRED",
            "rediss://h/0?ssl_check_hostname=true&ssl_cert_reqs=required",
        ),
        ("rediss://h/0?ssl_cert_reqs=required", "rediss://h/0?ssl_cert_reqs=required"),
    ],
)
def test_workers_agree_on_the_brokers_own_server(
    monkeypatch: pytest.MonkeyPatch, broker: str, ledger: str
) -> None:
    url = read(monkeypatch, CELERY_BROKER_URL=broker, CELERY_RESULT_BACKEND="redis://x").ledger_url
    assert url == ledger
    # Nothing is opened, but every option is understood.
    Ledger(url).close()


def test_a_redis_that_says_nothing_holds_up_no_producer_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = read(monkeypatch, CELERY_BROKER_URL="redis://x")
    options = celery_options(settings)
    assert options["broker_transport_options"]["socket_timeout"] == 30
    backend = celery.Celery(broker="redis://x", set_as_current=False)
    backend.conf.update(options)
    assert backend.backend.retry_policy["timeout"] == 20
    # Workers keep at it: a result is not lost.
    backend = celery.Celery(broker="redis://x", set_as_current=False)
    backend.conf.update({**options, **worker_options(settings)})
    assert "timeout" not in backend.backend.retry_policy


RABBITMQ = "amqp://user:secret@one:5672/jobs;amqps://user:secret@two/jobs"


def test_rabbitmq_may_have_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, CELERY_BROKER_URL=RABBITMQ, CELERY_RESULT_BACKEND="redis://x")
    assert settings.on_rabbitmq
    assert "secret" not in str(settings.masked())
    options = celery_options(settings)
    assert options["broker_url"] == RABBITMQ
    assert options["broker_transport_options"] == {"confirm_publish": True}
    assert "broker_use_ssl" not in options


def test_over_tls_the_certificate_must_name_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "amqps://user:secret@one/jobs"
    settings = read(monkeypatch, CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND="redis://x")
    # What kombu replaces by the name of the node.
    assert celery_options(settings)["broker_use_ssl"] == {"server_hostname": None}


@pytest.mark.parametrize(
    "url", ["amqp://a;redis://b", "amqp://a:x", "amqp://a;", "amqp:a", "redis://a;amqp://b"]
)
def test_what_is_no_list_of_nodes_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(SettingsError, match="CELERY_BROKER_URL: found .* amqp:// or amqps:// URL"):
        read(monkeypatch, CELERY_BROKER_URL=url, CELERY_RESULT_BACKEND="redis://x")


@pytest.mark.parametrize(
    ("variables", "variable", "url"),
    [
        ({"CELERY_BROKER_URL": "redis://a"}, "CELERY_BROKER_URL", "redis://a"),
        (
            {"CELERY_BROKER_URL": "amqp://a", "CELERY_RESULT_BACKEND": "redis://b"},
            *("CELERY_RESULT_BACKEND", "redis://b"),
        ),
        (
            {"CELERY_BROKER_URL": "redis://a", "LEDGER_URL": "redis://a"},
            *("CELERY_BROKER_URL", "redis://a"),
        ),
        ({"CELERY_BROKER_URL": "amqp://a", "LEDGER_URL": "redis://c"}, "LEDGER_URL", "redis://c"),
    ],
)
def test_the_ledger_is_on_the_first_redis_that_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], variable: str, url: str
) -> None:
    settings = read(monkeypatch, **variables)
    assert (settings.ledger_variable, settings.ledger_url) == (variable, url)


def test_jobs_in_a_redis_have_their_ledger_there(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {"CELERY_BROKER_URL": "redis://a", "LEDGER_URL": "redis://:secret@c"}
    settings = read(monkeypatch, **urls, S3_BUCKET="renders")
    with pytest.raises(SettingsError, match="LEDGER_URL: found another server") as caught:
        settings.require_worker()
    assert "secret" not in str(caught.value)


def test_results_are_beside_the_ledger_if_the_broker_keeps_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = read(monkeypatch, CELERY_BROKER_URL="amqp://a", LEDGER_URL="redis://c")
    assert settings.result_backend.get_secret_value() == "redis://c"


def test_rabbitmq_alone_keeps_no_results(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="CELERY_RESULT_BACKEND: found '', .*RabbitMQ is none"):
        read(monkeypatch, CELERY_BROKER_URL="amqp://a")


def test_a_worker_needs_a_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = "db+postgresql://user:secret@host/results"
    settings = read(
        monkeypatch,
        CELERY_BROKER_URL="amqp://a",
        CELERY_RESULT_BACKEND=backend,
        S3_BUCKET="renders",
    )
    with pytest.raises(SettingsError, match="LEDGER_URL: found nothing, expected the URL of a Re"):
        settings.require_worker()


@pytest.mark.parametrize("url", ["amqp://a", "localhost", "redis://h:x"])
def test_a_ledger_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(SettingsError, match="LEDGER_URL: found .*, expected a redis://, red"):
        read(monkeypatch, LEDGER_URL=url)


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        read(monkeypatch, WORKER_SLOTS="0", COMFYUI_URL="x")
    lines = str(caught.value).splitlines()
    assert {line.partition(":")[0] for line in lines} == {"WORKER_SLOTS", "COMFYUI_URL"}


def test_a_worker_needs_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="S3_BUCKET: found nothing"):
        load().require_worker()
    load.cache_clear()
    settings = read(monkeypatch, S3_BUCKET="renders")
    assert settings.require_worker() is settings


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        CELERY_BROKER_URL="redis://:secret@broker/0",
        COMFYUI_HEADERS='{"Authorization": "Bearer secret"}',
        S3_ENDPOINT_URL="https://user:secret@store",
        WEBHOOK_SECRET=f"{WHSEC} {WHSEC}",
        MESSAGE_SECRET="m" * 32,
    )
    shown = settings.masked()
    assert shown["CELERY_BROKER_URL"] == f"redis://:{MASK}@broker/0"
    assert shown["COMFYUI_HEADERS"] == f'{{"Authorization": "{MASK}"}}'
    assert shown["WEBHOOK_SECRET"] == f"{MASK},{MASK}"
    assert "secret" not in str(shown)
    told = repr(settings).replace(settings.s3_endpoint_url or "", "")
    assert "secret" not in told.replace("_secret=", "")
    for hidden in (WHSEC, "m" * 32):
        assert hidden not in str(shown) + repr(settings)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://broker:6379/0", "redis://broker:6379/0"),
        ("redis://:pa/ss@broker/0", f"redis://:{MASK}@broker/0"),
        ("redis://me:p#s?s@broker/0", f"redis://me:{MASK}@broker/0"),
        ("redis://[/0", "redis://[/0"),
        (":secret@host", f":{MASK}@host"),
        ("redis://:p;ss@broker/0", f"redis://:{MASK}@broker/0"),
        ("redis://broker/0?password=x&db=1", f"redis://broker/0?password={MASK}&db={MASK}"),
    ],
)
def test_passwords_are_masked_however_they_are_written(url: str, masked: str) -> None:
    assert without_password(url) == masked


def test_log_levels_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, LOG_LEVEL="info").log_level == "INFO"


def test_log_formats_may_be_written_large(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, LOG_FORMAT="JSON").log_format == "json"


def test_a_producers_own_exporter_may_speak_what_ours_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read(monkeypatch, OTEL_EXPORTER_OTLP_ENDPOINT="collector:4317")


def test_each_url_of_a_list_is_masked() -> None:
    urls = "sentinel://:one@a:1;sentinel://:two@b:2"
    assert without_password(urls) == f"sentinel://:{MASK}@a:1;sentinel://:{MASK}@b:2"


def test_celery_needs_no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    options = celery_options(read(monkeypatch, WORKER_SLOTS="5", RESULT_EXPIRES="120"))
    assert options["worker_pool"] == "threads"
    assert options["worker_concurrency"] == 5
    assert options["accept_content"] == ["json"]
    assert options["task_default_queue"] == "comfyui"
    assert options["result_expires"] == 120
