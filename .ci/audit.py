"""Look for known vulnerabilities of pinned versions: `python .ci/audit.py constraints.txt`.

Exit code 1 if there are any. That nobody could be asked, as offline, is said and is no failure: a
build must not depend on it.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

_SECONDS = 600


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
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps"]
    options = ["--disable-pip", "--progress-spinner", "off", "--format", "json", "--timeout", "10"]
    try:
        done = subprocess.run(  # noqa: S603  # nothing of it comes from outside
            [*command, *options], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        report = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        report = []
    code, text = verdict(report)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
