"""`python -m tests.chaos`: hurt a fleet for some minutes, and account for every job."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from sandbox.processes import end_as_interrupted
from tests.chaos.schedule import Kind, plan
from tests.chaos.soak import soak
from tests.chaos.table import table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of jobs and faults")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4, help="and as many ComfyUI servers")
    parser.add_argument(
        "--minutes", type=float, help="over which jobs are sent; default: what they execute"
    )
    parser.add_argument("--every", type=float, default=4.0, help="seconds between two faults")
    parser.add_argument(
        "--faults",
        type=lambda text: [Kind(kind) for kind in text.split(",") if kind],
        default=list(Kind),
        help=f"default: {','.join(Kind)}",
    )
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds without an end before giving up"
    )
    parser.add_argument("--logs", type=Path, help="folder to keep logs and evidence in")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.parse_args()


def main() -> int:
    """Run it; 0 if the goal was met, 1 if not, 130 if it was interrupted."""
    arguments = _arguments()
    end_as_interrupted()
    schedule = plan(
        arguments.seed,
        jobs=arguments.jobs,
        workers=arguments.workers,
        kinds=arguments.faults,
        fault_every=arguments.every,
        span=arguments.minutes and arguments.minutes * 60,
    )
    try:
        report = soak(
            schedule,
            workers=arguments.workers,
            patience=arguments.patience,
            logs=arguments.logs,
            tell=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        derived = ("is_good", "waste", "worst_pick_up", "worst_pick_up_with_broker")
        told = {name: getattr(report, name) for name in derived}
        print(json.dumps({"seed": arguments.seed, **told, **asdict(report)}, indent=1))
    else:
        print(table(report))
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
