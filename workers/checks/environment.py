"""Settings that are each right by itself, and wrong together or by name."""

import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from settings import Settings
from workers.checks.finding import Judgement, ok, warn
from workers.web.addresses import is_public

# Ends of names that only a private network has.
_PRIVATE = (".internal", ".lan", ".local", ".home.arpa", ".svc")


def judge_settings(settings: Settings, misspelt: Sequence[tuple[str, str]]) -> Judgement:
    """What is to be known of settings.

    Args:
        settings: as they are.
        misspelt: variables that nobody reads, each with the one that is perhaps meant.
    """
    troubles = [*_names(misspelt), *_contradictions(settings)]
    if not troubles:
        return ok("all settings are valid")
    return warn("; ".join(what for what, _ in troubles), "; ".join(fix for _, fix in troubles))


def _names(misspelt: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (f"{name} is no setting, did you mean {meant}?", f"rename {name}, or unset it")
        for name, meant in misspelt
    ]


def _contradictions(settings: Settings) -> list[tuple[str, str]]:
    found = []
    bucket, endpoint = settings.s3_bucket, urlsplit(settings.s3_endpoint_url or "")
    parts = (*endpoint.path.strip("/").split("/"), (endpoint.hostname or "").partition(".")[0])
    if bucket and endpoint.hostname and bucket in (parts[-2], parts[-1]):
        found.append(
            (
                f"S3_ENDPOINT_URL names the bucket {bucket} too, as S3_BUCKET does",
                "leave the bucket out of S3_ENDPOINT_URL, unless it is part of the host's name",
            )
        )
    server = urlsplit(settings.comfyui_url)
    if settings.comfyui_headers and server.scheme == "http" and not _is_near(server.hostname):
        found.append(
            (
                "COMFYUI_HEADERS go unencrypted to COMFYUI_URL, which is http://",
                "use https:// there, or a private network",
            )
        )
    return found


def _is_near(host: str | None) -> bool:
    """Whether a host is on a private network, as far as its name tells."""
    name = (host or "").rstrip(".")
    try:
        return not is_public(ipaddress.ip_address(name))
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE)
