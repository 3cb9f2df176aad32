"""The page on metrics."""

from workers.metrics.catalog import BUCKETS, METRICS, Metric


def metrics_page() -> str:
    """Every metric with its labels and what it means."""
    return "\n".join(
        [
            "# Metrics",
            "",
            "What a worker with `METRICS_PORT` tells at `/metrics`, beside Prometheus' usual",
            "`process_` metrics of the process. Every series of a counter is there from the start.",
            "How to use them: [observability](../observability.md).",
            "",
            "| metric | kind | labels | meaning |",
            "| --- | --- | --- | --- |",
            *map(_row, METRICS),
            "",
            f"Histograms have the buckets {', '.join(f'{one:g}' for one in BUCKETS)} seconds.",
            "",
            "*Of the fleet*: every worker tells the same number of all of it, so take the `max` of",
            "them, never the `sum`.",
            "",
        ]
    )


def _row(metric: Metric) -> str:
    labels = "; ".join(_label(name, values) for name, values in metric.labels.items())
    meaning = f"{metric.meaning} *Of the fleet.*" if metric.of_fleet else metric.meaning
    return f"| `{metric.name}` | {metric.kind} | {labels} | {meaning} |"


def _label(name: str, values: tuple[str, ...] | str) -> str:
    if isinstance(values, str):
        return f"`{name}`: {values}"
    if len(values) > _MOST_SHOWN:
        return f"`{name}`: the name of an error of `tasks.errors`"
    return f"`{name}`: {', '.join(f'`{value}`' for value in values)}"


# More values than fit into a cell.
_MOST_SHOWN = 8
