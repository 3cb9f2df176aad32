"""The producer's trace, as a message carries it on: W3C's headers, if the producer has one."""

import sys


def trace_headers() -> dict[str, str]:
    """`traceparent` and `tracestate` of the span in which this is called; empty without one."""
    # Who has a span has loaded this. Nobody else pays for it, nor needs to have it.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers
