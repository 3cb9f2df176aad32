"""`python -m bench`: how fast; `scale`: how far; `dashboard`: how that looks to who watches."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import requests

from bench import plan, table
from bench.chart import svg
from bench.dashboard.run import draw_dashboard
from bench.figures import compared
from bench.model import BenchError, Report
from bench.run import run
from bench.scale.model import ScaleReport
from bench.scale.run import PARTS as SCALE_PARTS
from bench.scale.run import run_scale
from bench.scale.table import markdown as scale_markdown
from sandbox.processes import StartupError, end_as_interrupted

_RESULTS = Path(__file__).parent / "results"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog="BENCH_COMFYUI_URL names real servers to run on, separated by commas; their queues "
        "and histories are cleared. `scale` and `dashboard` use stand-ins in any case.",
    )
    parser.add_argument("what", nargs="?", choices=["speed", "scale", "dashboard"], default="speed")
    parser.add_argument("--repeat", type=int, default=3, help="times; medians are told")
    parser.add_argument(
        "--only",
        type=lambda text: tuple(text.split(",")),
        help=f"parts of speed ({','.join(plan.PARTS)}) or of scale ({','.join(SCALE_PARTS)})",
    )
    parser.add_argument("--quick", action="store_true", help="little of it, in about a minute")
    parser.add_argument("--out", type=Path, default=_RESULTS, help="folder for what is written")
    arguments = parser.parse_args()
    known = {"speed": plan.PARTS, "scale": SCALE_PARTS}.get(arguments.what, ())
    arguments.only = arguments.only or known
    if unknown := set(arguments.only) - set(known):
        parser.error(f"no parts of {arguments.what}: {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    """Measure, write and print; 1 if it could not be done, 130 if it was interrupted."""
    arguments = _arguments()
    end_as_interrupted()
    try:
        written = _MEASURES[arguments.what](arguments)
    except (BenchError, StartupError, requests.RequestException) as error:
        _tell(f"bench: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (arguments.out / name).write_text(text)
        _tell(f"written: {arguments.out / name}")
    return 0


def _speed(arguments: argparse.Namespace) -> dict[str, str]:
    urls = [url for url in os.environ.get("BENCH_COMFYUI_URL", "").split(",") if url]
    chosen = plan.quick_plan() if arguments.quick else plan.plan(arguments.only, arguments.repeat)
    report = run(chosen, urls, _tell)
    text = table.markdown(report)
    print(text)  # noqa: T201
    written = {"speed.json": _json(report), "speed.md": text}
    return {**written, "speed.svg": svg(report)} if compared(report.runs) else written


def _scale(arguments: argparse.Namespace) -> dict[str, str]:
    report = run_scale(arguments.only, quick=arguments.quick, tell=_tell)
    text = scale_markdown(report)
    print(text)  # noqa: T201
    return {"scale.json": _json(report), "scale.md": text}


def _dashboard(arguments: argparse.Namespace) -> dict[str, str]:
    return {"dashboard.svg": draw_dashboard(quick=arguments.quick, tell=_tell)}


_MEASURES = {"speed": _speed, "scale": _scale, "dashboard": _dashboard}


def _json(report: Report | ScaleReport) -> str:
    return json.dumps(asdict(report), indent=1) + "\n"


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
