"""Params as they are typed, and as tables have them."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

from cli.errors import CommandError, UsageError
from tasks import sweep
from tasks.request import shown

Row = dict[str, Any]

_TABLES = (".csv", ".tsv")
_LINES = (".jsonl", ".ndjson")


def read_value(text: str) -> Any:
    """A typed value: JSON if it is that, else text.

    A number that JSON would write in another way, as 1.50, stays text: the worker knows whether its
    input takes numbers.
    """
    try:
        value = json.loads(text, parse_constant=str)
        same = json.dumps(value) == text.strip()
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float | int) and not same else value


def read_params(given: Iterable[str]) -> Row:
    """Values of `--param`: `3.seed=42`.

    Raises:
        UsageError: one of them is none, or two are for the same address.
    """
    return {address: read_value(text) for address, text in pairs("--param", given).items()}


def read_sweeps(given: Iterable[str]) -> dict[str, list[Any]]:
    """Values of `--sweep`: `3.cfg=5,7,9`, or a JSON list after the equals sign.

    Raises:
        UsageError: one of them is none, or has no values, or two are for the same address.
    """
    sweeps = {address: _several(text) for address, text in pairs("--sweep", given).items()}
    for address, values in sweeps.items():
        if not values:
            raise UsageError(
                f"--sweep: {shown(address)}: expected values between commas, or a JSON list; what "
                "has a comma or a line break in it stands in quotes"
            )
    return sweeps


def pairs(option: str, given: Iterable[str]) -> dict[str, str]:
    """What an option says that is given as `NAME=VALUE`, again and again.

    Raises:
        UsageError: one of them is none, or two have the same name.
    """
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise UsageError(f"{option}: found {shown(one)}, expected NAME=VALUE")
        if name in found:
            raise UsageError(f"{option}: {shown(name)} is given twice")
        found[name] = value
    return found


def read_table(path: Path) -> list[Row]:
    """The rows of a table: CSV whose first line has the addresses, or JSON objects in lines.

    An empty cell leaves the workflow's own value.

    Raises:
        CommandError: the file is no such table; the sentence names the line.
    """
    kind = path.suffix.lower()
    if kind not in (*_TABLES, *_LINES):
        raise CommandError(f"{path}: expected a file that ends in .csv, .tsv or .jsonl")
    try:
        # What spreadsheets save begins with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: is no text in UTF-8") from error
    rows = list(_from_lines(path, text) if kind in _LINES else _from_table(path, text))
    if not rows:
        raise CommandError(f"{path}: has no rows")
    return rows


def combine(
    params: Mapping[str, Any], table: Sequence[Row] | None, sweeps: Mapping[str, Sequence[Any]]
) -> list[Row] | None:
    """The rows of a batch: each of the table with each combination of the sweeps.

    What a row says goes before `params`, and a sweep before both. None if it is one job.
    """
    if table is None and not sweeps:
        return None
    return [{**params, **row, **swept} for row, swept in product(table or [{}], sweep(sweeps))]


def _several(text: str) -> list[Any]:
    value = read_value(text)
    if isinstance(value, list):
        return value
    # As in a table: what has a comma in it stands in quotes.
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error:
        return []
    return [read_value(cell) for cells in rows for cell in cells]


def _from_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"{path}, line {number}: is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise CommandError(f"{path}, line {number}: found {shown(row)}, expected an object")
        yield row


def _from_table(path: Path, text: str) -> Iterator[Row]:
    header, _, _ = text.partition("\n")
    # Where the comma stands in numbers, spreadsheets put something else between cells.
    delimiter = next((one for one in ("\t", ";") if one in header and "," not in header), ",")
    table = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        addresses = _header(path, next(table, []))
        for cells in table:
            if not any(cells):
                continue
            if len(cells) > len(addresses):
                raise CommandError(
                    f"{path}, line {table.line_num}: has {len(cells)} cells, but the first line "
                    f"has {len(addresses)}"
                )
            yield {name: cell for name, cell in zip(addresses, cells, strict=False) if cell}
    except csv.Error as error:
        raise CommandError(f"{path}, line {table.line_num}: {error}") from error


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    addresses = [cell.strip() for cell in cells]
    if not addresses or not all(addresses):
        raise CommandError(
            f"{path}: expected the addresses of inputs, as 3.seed, in its first line"
        )
    if len(set(addresses)) < len(addresses):
        twice = next(one for one in addresses if addresses.count(one) > 1)
        raise CommandError(f"{path}: {shown(twice)} stands twice in its first line")
    return addresses
