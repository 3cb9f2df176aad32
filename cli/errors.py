"""Why a command ends without doing what it was asked to."""

from cli.exit_codes import ExitCode


class CommandError(Exception):
    """One sentence, and perhaps a hint, for whoever typed the command."""

    exit_code = ExitCode.FAILED


class UsageError(CommandError):
    """What was typed cannot be meant."""

    exit_code = ExitCode.USAGE


class UnknownError(CommandError):
    """Nobody knows what was asked for."""

    exit_code = ExitCode.UNKNOWN
