"""The page on settings."""

from settings import Settings


def settings_page() -> str:
    """Every setting with its default and what it means."""
    shown = Settings.model_construct().masked()
    rows = [
        f"| `{field.alias}` | {_default(shown[str(field.alias)])} | {field.description} |"
        for field in Settings.model_fields.values()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "All settings are environment variables; an empty one counts as not set. A wrong value",
            "ends a worker with exit code 2 before it takes a job, and names variable, found and",
            "expected. AWS credentials and region are found by boto3's own chain.",
            "`comfyfleet settings` prints what is in force, secrets masked.",
            "",
            "| variable | default | meaning |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _default(shown: str | None) -> str:
    return f"`{shown}`" if shown is not None else ""
