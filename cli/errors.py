"""Why a command ends without doing what it was asked to."""


class CommandError(Exception):
    """One sentence, and perhaps a hint, for whoever typed the command."""
