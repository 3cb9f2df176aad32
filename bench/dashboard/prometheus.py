"""A Prometheus of one's own, for as long as it is needed."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from bench.dashboard.model import Query, Series, series_of
from bench.model import BenchError
from sandbox.processes import ChildProcess, free_ports

# Seconds between two scrapes, and between two points of an answer.
_STEP_SECONDS = 2
_TIMEOUT_SECONDS = 30.0


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        """Name it; nothing is asked yet."""
        self._url = url

    def answers(self) -> bool:
        """Whether it is ready to."""
        try:
            return requests.get(f"{self._url}/-/ready", timeout=_TIMEOUT_SECONDS).ok
        except requests.ConnectionError:
            return False

    def ask(self, query: Query, since: float, until: float) -> list[Series]:
        """The series of a query between two Unix times (seconds)."""
        answer = requests.get(
            f"{self._url}/api/v1/query_range",
            params={
                "query": query.expression,
                "start": str(since),
                "end": str(until),
                "step": str(_STEP_SECONDS),
            },
            timeout=_TIMEOUT_SECONDS,
        )
        told = answer.json()
        if told["status"] != "success":
            raise BenchError(f"Prometheus does not take {query.expression!r}: {told['error']}")
        return series_of(query, told)


@contextmanager
def scraping(targets: Iterable[str], folder: Path) -> Iterator[Prometheus]:
    """Scrape these hosts and ports; what was scraped is forgotten with the folder."""
    program = shutil.which("prometheus")
    if program is None:
        raise BenchError("there is no prometheus on the PATH (apt install prometheus)")
    static = [{"targets": list(targets)}]
    scraped = {"job_name": "comfyfleet", "static_configs": static}
    config = folder / "prometheus.yml"
    # JSON is YAML.
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": f"{_STEP_SECONDS}s", "scrape_timeout": "2s"},
                "scrape_configs": [scraped],
            }
        )
    )
    (port,) = free_ports(1)
    process = ChildProcess(
        [
            *(program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        folder / "prometheus.log",
    )
    found = Prometheus(f"http://127.0.0.1:{port}")
    try:
        process.wait_until(found.answers)
        yield found
    finally:
        process.stop()
