"""The bucket: whether it is there, and does all that jobs need of it."""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from botocore.exceptions import ParamValidationError

from tasks.errors import JobError, StorageDeniedError
from tasks.request import label
from workers.checks.clocks import judge_store_clock
from workers.checks.finding import Judgement, Status, fail, ok, warn
from workers.storage import ObjectStore
from workers.storage.probe import probe_key, takes_conditions
from workers.storage.seam import answer

_CONTENT = b"comfyfleet doctor"
_TEXT = "text/plain"

_CONFIGURE = (
    "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_DEFAULT_REGION, or what boto3 finds "
    "instead, and look at S3_BUCKET"
)
_NO_BUCKET = (
    "there is no bucket {bucket!r} at {place}",
    "make it, or correct S3_BUCKET or S3_ENDPOINT_URL",
)
_CLOCK = (
    "the store at {place} refuses this host's clock",
    "have this host set its clock by NTP (timedatectl set-ntp true)",
)
_CREDENTIALS = (
    "the store at {place} refuses the credentials",
    "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what boto3 finds instead",
)
_EXPIRED = (
    "the store at {place} says that the credentials have expired",
    "renew AWS_SESSION_TOKEN, or what boto3 finds instead",
)
_REGION = (
    "bucket {bucket!r} is in another region than the one that is asked",
    "set AWS_DEFAULT_REGION to the bucket's region",
)
# What stores say by codes of their own, and how it is mended.
_MEANING = {
    "NoSuchBucket": _NO_BUCKET,
    # To a request whose answer has no body.
    "404": _NO_BUCKET,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "AuthFailure": _CREDENTIALS,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "QuotaExceeded": (
        "bucket {bucket!r} at {place} is full",
        "raise its quota, or remove objects",
    ),
}


class StoreChecks:
    """Asks one bucket, by objects of its own. Not for several threads at once."""

    def __init__(self, store: ObjectStore, prefix: str, endpoint: str | None) -> None:
        """Take the store; it stays its maker's to close.

        Args:
            store: the bucket.
            prefix: below which jobs write.
            endpoint: of the store, if settings name one.
        """
        self._store = store
        self._endpoint = endpoint
        # In a folder of its own: who removes that may not meet what others try just then.
        self._folder = probe_key(prefix)
        self._key = f"{self._folder}/object"

    def write(self) -> Judgement:
        """Whether an object can be stored."""

        def ask() -> Judgement:
            self._store.look()
            self._store.replace(self._key, _CONTENT, _TEXT)
            return ok(f"bucket {self._store.bucket!r} takes objects")

        return self._judged(ask)

    def read(self) -> Judgement:
        """Whether it comes back."""

        def ask() -> Judgement:
            found = self._store.get(self._key)
            if found == _CONTENT:
                return ok("and gives them back")
            return fail(
                f"bucket {self._store.bucket!r} does not give back what it has just taken",
                "use a store that is consistent: read after write",
            )

        return self._judged(ask)

    def conditions(self) -> Judgement:
        """Whether a second object of the same key is refused if that is asked for."""

        def ask() -> Judgement:
            if takes_conditions(self._store, self._key):
                return ok("a manifest is written once (If-None-Match)")
            return warn(
                "the store does not take conditional writes (If-None-Match): which attempt commits "
                "a job is decided in Redis, at the price of one more request a job",
                "none is needed while Redis keeps what it has accepted; newer versions of most "
                "stores take conditions",
            )

        return self._judged(ask)

    def removal(self) -> Judgement:
        """Whether objects can be listed and removed, as those of cancelled jobs are."""

        def ask() -> Judgement:
            self._store.delete_folder(self._folder)
            return ok("and what comes to nothing is removed again")

        judged = self._judged(ask)
        if judged.status is Status.OK:
            return judged
        return warn(
            f"{judged.sentence}: what cancelled and failed jobs have stored will stay",
            "allow s3:ListBucket on the bucket and s3:DeleteObject on its objects",
        )

    def clock(self) -> Judgement:
        """Whether the store's clock agrees with this host's."""
        return self._judged(lambda: judge_date(self._store.look()))

    def _judged(self, ask: Callable[[], Judgement]) -> Judgement:
        try:
            return ask()
        except JobError as error:
            return judge_error(error, self._store, self._endpoint)


def judge_date(date: str | None) -> Judgement:
    """What it means for this host's clock that the store tells this HTTP date."""
    try:
        told = parsedate_to_datetime(date or "")
    except ValueError:
        return ok("the store does not tell its time")
    return judge_store_clock(time.time() - told.timestamp())


def judge_configuration(error: JobError) -> Judgement:
    """What it means that no client of the store can be made."""
    fix = "correct AWS_PROFILE, AWS_DEFAULT_REGION or AWS's own files"
    return fail(error.message, fix, heals=False)


def judge_error(error: JobError, store: ObjectStore, endpoint: str | None) -> Judgement:
    """What it means that the store did not do what it was asked to."""
    status, code = answer(error)
    place = endpoint or "AWS"
    if code in _MEANING:
        sentence, fix = _MEANING[code]
        told = " ".join(dict.fromkeys((str(status), code)))
        return fail(f"{sentence.format(bucket=store.bucket, place=place)} ({told})", fix)
    if status in (401, 403):
        return _denied(error, store, place)
    if status:
        return fail(error.message, "look at the store's own log")
    if isinstance(error.__cause__, ParamValidationError):
        return fail(
            f"{label(store.bucket)} is no name that a bucket can have",
            "correct S3_BUCKET: small letters, digits, dots and hyphens",
        )
    if isinstance(error, StorageDeniedError):
        return fail(error.message, _CONFIGURE)
    return fail(
        f"{error.message}; it is looked for at {place}",
        "start it, or correct S3_ENDPOINT_URL; look whether something between here and there "
        "stops it",
    )


def _denied(error: JobError, store: ObjectStore, place: str) -> Judgement:
    bucket = f"bucket {store.bucket!r} at {place}"
    try:
        store.get("comfyfleet-probe/none")
    except JobError:
        return fail(
            f"{bucket} is closed to these credentials: {error.message}",
            "allow s3:PutObject, s3:GetObject and s3:DeleteObject on its objects",
        )
    return fail(
        f"{bucket} is read-only for these credentials: {error.message}",
        "allow s3:PutObject on its objects",
    )
