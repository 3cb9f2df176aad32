"""`comfyfleet settings`: what is in force."""

from rich.table import Table

from cli.output import AsJson, cell, print_json, print_table
from settings import load


def show_settings(as_json: AsJson = False) -> None:
    """Print the effective settings, secrets masked."""
    values = load().masked()
    if as_json:
        print_json(values)
        return
    table = Table("variable", "value")
    for variable, value in values.items():
        table.add_row(variable, cell(value) if value is not None else "[dim]unset[/dim]")
    print_table(table)
