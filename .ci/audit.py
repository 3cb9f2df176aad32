"""Look for known vulnerabilities of pinned versions: `python .ci/audit.py constraints.txt`.

Exit code 1 if there are any, 2 if it cannot be run. That nobody could be asked, as offline, is said
and is no failure: a build must not depend on it.
"""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SECONDS = 120


def verdict(dependencies: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """Exit code and text for a report, the `dependencies` of `pip-audit --format json`."""
    lines = [
        f"{one['name']} {one['version']}: {fault['id']}"
        f" (fixed in {', '.join(fault['fix_versions']) or 'no version yet'})"
        for one in dependencies
        for fault in one.get("vulns", ())
    ]
    unknown = [one["name"] for one in dependencies if "skip_reason" in one]
    known = len(dependencies) - len(unknown)
    if not known:
        return 0, "NOT AUDITED: nobody could be asked for known vulnerabilities; are you offline?"
    code = 1 if lines else 0
    lines.append(f"{known} packages audited, {len(lines)} known vulnerabilities")
    if unknown:
        lines.append(f"NOT AUDITED: {', '.join(unknown)}")
    return code, "\n".join(lines)


def main(requirements: str) -> int:
    """Ask, print what there is to know, and return the exit code."""
    if not Path(requirements).is_file() or importlib.util.find_spec("pip_audit") is None:
        print(f"NOT AUDITED: it takes pip-audit (make audit), and {requirements}")
        return 2
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps"]
    options = ["--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "10"]
    try:
        done = subprocess.run(  # noqa: S603  # nothing of it comes from outside
            [*command, *options], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"NOT AUDITED: no end within {_SECONDS} s")
        return 0
    try:
        report = json.loads(done.stdout)["dependencies"]
    except ValueError:
        # What it says last is why.
        print(done.stderr.strip().rpartition("\n")[2])
        report = []
    code, text = verdict(report)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
