"""Params as they are typed, and as tables have them."""

from pathlib import Path
from typing import Any

import pytest

from cli.errors import CommandError
from cli.rows import combine, pairs, read_params, read_sweeps, read_table, read_value
from cli.sources import MOST_BYTES, read_sources


class TestTyped:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("42", 42),
            ("-1", -1),
            ("7.5", 7.5),
            ("true", True),
            ("a cat", "a cat"),
            ('"42"', "42"),
            ("[1, 2]", [1, 2]),
            ('{"a": 1}', {"a": 1}),
            (str(2**64 - 1), 2**64 - 1),
            ("", ""),
            ("random", "random"),
            # What JSON would write in another way may be meant as it is.
            ("1.50", "1.50"),
            ("1e3", "1e3"),
            ("007", "007"),
            ("NaN", "NaN"),
            ("9" * 5000, "9" * 5000),
            ("[" * 100_000, "[" * 100_000),
        ],
        ids=lambda value: str(value)[:20],
    )
    def test_a_value_is_json_or_text(self, text: str, value: Any) -> None:
        assert (read_value(text), type(read_value(text))) == (value, type(value))

    def test_a_value_may_have_equals_signs(self) -> None:
        assert read_params(["6.text=a=b", "3.seed=1"]) == {"6.text": "a=b", "3.seed": 1}

    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            (["3.seed"], "--param: found '3.seed', expected NAME=VALUE"),
            (["=1"], "--param: found '=1', expected NAME=VALUE"),
            (["3.seed=1", "3.seed=2"], "--param: '3.seed' is given twice"),
        ],
    )
    def test_what_is_no_pair(self, given: list[str], sentence: str) -> None:
        with pytest.raises(CommandError) as caught:
            pairs("--param", given)
        assert str(caught.value) == sentence

    def test_a_sweep_has_values_between_commas(self) -> None:
        sweeps = ["3.cfg=5,7.5, 9", '6.text="a, b",c', '7.text=["x, y","z"]', "3.seed=1"]
        assert read_sweeps(sweeps) == {
            "3.cfg": [5, 7.5, 9],
            "6.text": ["a, b", "c"],
            "7.text": ["x, y", "z"],
            "3.seed": [1],
        }

    @pytest.mark.parametrize("text", ["3.seed=", "3.seed=[]", '6.text="a', "6.text=a\nb"])
    def test_what_has_no_values(self, text: str) -> None:
        with pytest.raises(CommandError, match=r"^--sweep: '[36]\.\w+': expected values"):
            read_sweeps([text])


class TestTables:
    def table(self, tmp_path: Path, content: bytes | str, name: str = "rows.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    @pytest.mark.parametrize(
        "content",
        [
            '3.seed,6.text\n1,"a, ""big"" cat"\n2,\n',
            '\ufeff3.seed,6.text\r\n1,"a, ""big"" cat"\r\n2,\r\n',
            ' 3.seed , 6.text\n1,"a, ""big"" cat"\n\n,\n2\n',
            '3.seed;6.text\n1;"a, ""big"" cat"\n2;\n',
            '3.seed\t6.text\n1\ta, ""big"" cat\n2\t\n'.replace(
                'a, ""big"" cat', '"a, ""big"" cat"'
            ),
        ],
        ids=["plain", "of a spreadsheet", "loose", "semicolons", "tabs"],
    )
    def test_the_first_line_has_the_addresses(self, tmp_path: Path, content: str) -> None:
        path = self.table(tmp_path, content)
        # Text: what it means is for the inputs to say.
        assert read_table(path) == [{"3.seed": "1", "6.text": 'a, "big" cat'}, {"3.seed": "2"}]

    def test_a_cell_may_have_lines(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, '6.text,3.seed\n"one\ntwo",1\n')
        assert read_table(path) == [{"6.text": "one\ntwo", "3.seed": "1"}]

    def test_a_line_may_be_an_object(self, tmp_path: Path) -> None:
        path = self.table(tmp_path, '\ufeff{"3.seed": 1}\n\n{"6.text": "\u2028é"}\r\n', "r.jsonl")
        assert read_table(path) == [{"3.seed": 1}, {"6.text": "\u2028é"}]

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("rows.csv", "", "expected the addresses of inputs, as 3.seed, in"),
            ("rows.csv", "3.seed,,6.text\n1,2,3", "expected the addresses of inputs"),
            ("rows.csv", "3.seed,3.seed\n1,2", "'3.seed' stands twice in its first line"),
            ("rows.csv", "3.seed\n", "has no rows"),
            ("rows.csv", "3.seed\n1\n1,2\n", "line 3: has 2 cells, but the first line has 1"),
            ("rows.csv", '3.seed\n"1', "line 2: unexpected end of data"),
            ("rows.csv", b"3.seed\n\xff", "is no text in UTF-8"),
            ("rows.jsonl", '{"a": 1}\n{', "line 2: is no JSON"),
            ("rows.jsonl", "[" * 100_000, "line 1: is no JSON"),
            ("rows.jsonl", "[1]", "line 1: found [1], expected an object"),
            ("rows.jsonl", "\n", "has no rows"),
            ("rows.xlsx", "", "expected a file that ends in .csv, .tsv or .jsonl"),
        ],
    )
    def test_what_is_no_table(
        self, tmp_path: Path, name: str, content: bytes | str, sentence: str
    ) -> None:
        path = self.table(tmp_path, content, name)
        with pytest.raises(CommandError) as caught:
            read_table(path)
        assert str(caught.value).startswith(str(path))
        assert sentence in str(caught.value)


class TestRows:
    def test_one_job(self) -> None:
        assert combine({"3.seed": 1}, None, {}) is None

    def test_each_row_with_each_combination(self) -> None:
        table = [{"6.text": "a"}, {"6.text": "b", "3.seed": 2}]
        assert combine({"3.seed": 1, "3.cfg": 0}, table, {"3.cfg": [5, 7]}) == [
            {"3.seed": 1, "3.cfg": 5, "6.text": "a"},
            {"3.seed": 1, "3.cfg": 7, "6.text": "a"},
            {"3.seed": 2, "3.cfg": 5, "6.text": "b"},
            {"3.seed": 2, "3.cfg": 7, "6.text": "b"},
        ]

    def test_a_sweep_alone(self) -> None:
        assert combine({}, None, {"3.cfg": [5, 7]}) == [{"3.cfg": 5}, {"3.cfg": 7}]


class TestSources:
    def test_urls_stay_and_files_travel_along(self, tmp_path: Path) -> None:
        (tmp_path / "red.png").write_bytes(b"red")
        (tmp_path / "odd").write_bytes(b"odd")
        given = ["a.png=s3://b/a=b.png", "b.png=HTTPS://x/y", "c=data:,x"]
        files = [f"d.png={tmp_path}/red.png", f"e={tmp_path}/odd"]
        assert read_sources([*given, *files], 1) == {
            "a.png": "s3://b/a=b.png",
            "b.png": "HTTPS://x/y",
            "c": "data:,x",
            "d.png": "data:image/png;base64,cmVk",
            "e": "data:application/octet-stream;base64,b2Rk",
        }

    @pytest.mark.parametrize(
        ("size", "jobs", "sentence"),
        [
            (MOST_BYTES + 1, 1, "has 4.0 MB, and at most 4.0 MB can travel with a job"),
            (1_000_000, 200, "has 1.0 MB, and at most 0.5 MB can travel with each of 200 jobs"),
        ],
    )
    def test_what_is_too_large_belongs_on_s3(
        self, tmp_path: Path, size: int, jobs: int, sentence: str
    ) -> None:
        (tmp_path / "large").write_bytes(bytes(size))
        with pytest.raises(CommandError) as caught:
            read_sources([f"a={tmp_path}/large"], jobs)
        assert sentence in str(caught.value)
        assert str(caught.value).endswith("put it on S3 and give its s3:// URL")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "none"):
            with pytest.raises(CommandError, match="--input: there is no file"):
                read_sources([f"a={path}"], 1)
