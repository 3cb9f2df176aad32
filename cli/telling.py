"""How a job stands, in a sentence."""

from cli.finding import Found
from settings import load
from tasks.result import Progress
from workers.broker.waiting import are_listed


def sentence(found: Found) -> str:
    """What is to be said of a job, after its name."""
    why = f"{type(found.error).__name__}: {found.error}" if found.error is not None else ""
    match found.state:
        case "FAILURE":
            return f"failed: {why}"
        case "REVOKED":
            return "was cancelled"
        case "RETRY":
            return f"waits for its next attempt after {why}"
        case "PENDING":
            unsure = "" if are_listed(load()) else ", or is not known: RabbitMQ does not tell"
            return f"waits in the queue{unsure}"
        case "UNKNOWN":
            hint = "its output.prefix, if it had one, to --prefix"
            if not load().s3_bucket:
                hint = "the bucket of its manifest to S3_BUCKET"
            return f"is not known: it was never enqueued, or is forgotten; perhaps give {hint}"
        case _:
            return f"has not finished: {progress_words(found.progress)}"


def progress_words(progress: Progress | None) -> str:
    """How far a job is that goes on."""
    if progress is None:
        return "a worker has begun it"
    step = f", step {progress.step} of {progress.steps}" if progress.steps else ""
    node = f", node {progress.node_id} ({progress.class_type}){step}" if progress.node_id else ""
    return f"{progress.stage}, {progress.value:.0%}{node}, on {progress.instance}"
