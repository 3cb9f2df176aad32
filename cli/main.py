"""`comfyfleet`: whatever happens, it ends with an exit code and at most a sentence on stderr."""

import signal
import sys
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> NoReturn:
    """Run the command line; errors are a sentence on stderr, never a traceback."""
    # So that whatever was started is stopped on `kill` and a closed terminal as on Ctrl-C.
    for number in _ENDING:
        signal.signal(number, _interrupt)
    try:
        # Here, so that Ctrl-C while much is being imported is one, too.
        from cli.app import app

        code = app(standalone_mode=False)
    except Exception as error:  # noqa: BLE001  # the last one who can say it in a sentence
        from cli.failures import fail

        fail(error)
    except KeyboardInterrupt:
        from cli.exit_codes import ExitCode

        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(code or 0)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once: a second one must not interrupt the stopping of what was started.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
