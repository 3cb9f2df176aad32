"""Why nothing came of asking a host. Who asked makes an error of the job of it."""


class WebError(Exception):
    """No answer, or one that asks to come again. The message is the second half of a sentence."""


class TooSlowError(WebError):
    """It did not end in time."""


class UnusableError(WebError):
    """The URL cannot be used, today or ever: what it is, where it leads or what is there."""


class ForbiddenError(UnusableError):
    """The URL leads where jobs may not go unless the operator opens it."""
