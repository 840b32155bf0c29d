"""Tables as spreadsheets export them: read to the very numbers that were written, or refused by line and column."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from checks.scaling._cells import number
from checks.scaling._names import read_name
from checks.scaling.sheet import read_sheet
from checks.scaling.table import ladder, read_ladder
from tests.scaling.ladders import simulated
from trainvitals.errors import UsageError

RUNS = simulated(np.random.default_rng(0))
FRAME = pd.DataFrame({"N": RUNS.n, "D": RUNS.d, "loss": RUNS.loss})
PLAIN = FRAME.to_csv(index=False)
HEADER, *LINES = PLAIN.strip().split("\n")
BODY = "\n".join(LINES) + "\n"


def german(value: float, form: str = ",.2f") -> str:
    return format(value, form).translate({ord(","): ".", ord("."): ","})


def named(**columns: object) -> pd.DataFrame:
    """The frame under other names and in other units."""
    return pd.DataFrame(columns)


EXPORTS: dict[str, str | bytes] = {
    "a comma too many in every line": PLAIN.replace("\n", ",\n"),
    "a comma too many in every row": HEADER + "\n" + BODY.replace("\n", ",\n"),
    "three commas too many": HEADER + ",,,\n" + BODY.replace("\n", ",,,\n"),
    "pandas' index": FRAME.to_csv(),
    "an index without a name": HEADER + "\n" + "\n".join(f"{i},{line}" for i, line in enumerate(LINES)),
    "row names of R": HEADER + "\n" + "\n".join(f'"run {i}",{line}' for i, line in enumerate(LINES)),
    "sep=,": "sep=,\n" + PLAIN,
    "sep=;": "sep=;\r\n" + PLAIN.replace(",", ";"),
    "quoted sep line": '"sep=;"\n' + PLAIN.replace(",", ";"),
    "semicolons and decimal commas": PLAIN.replace(",", ";").replace(".", ","),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "aligned with blanks": FRAME.map(lambda v: repr(float(v))).to_string(index=False),
    "a byte order mark": "\ufeff" + PLAIN,
    "Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-16, big end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "the code page of Windows": ("modèle," + HEADER + "\n" + "".join(f"é{i},{x}\n" for i, x in enumerate(LINES))
                                 ).encode("cp1252"),
    "thousands": FRAME.assign(N=[f"{v:,.2f}" for v in FRAME.N], D=[f"{v:,.3f}" for v in FRAME.D]).to_csv(index=False),
    "thousands with narrow blanks": FRAME.assign(N=[f"{v:,.2f}".replace(",", "\u202f") for v in FRAME.N]
                                                 ).to_csv(index=False),
    "Berlin": FRAME.assign(N=[german(v) for v in FRAME.N], D=[german(v, ".9E") for v in FRAME.D],
                           loss=[german(v, ".9f") for v in FRAME.loss]).to_csv(index=False, sep=";"),
    "every cell in quotes": FRAME.to_csv(index=False, quoting=csv.QUOTE_ALL),
    "upper-case exponents": FRAME.to_csv(index=False, float_format="%.12E"),
    "times ten": FRAME.assign(D=[f"{v:.9e}".replace("e+", " × 10^") for v in FRAME.D]).to_csv(index=False),
    "units in brackets": named(**{"N (M)": FRAME.N / 1e6, "tokens (B)": FRAME.D / 1e9, "loss [nats]": FRAME.loss}
                               ).to_csv(index=False),
    "units as words": named(
        params_millions=FRAME.N / 1e6, billions_of_tokens=FRAME.D / 1e9, loss=FRAME.loss).to_csv(index=False),
    "units as letters": named(params_b=FRAME.N / 1e9, tokens_T=FRAME.D / 1e12, loss=FRAME.loss).to_csv(index=False),
    "powers of ten": named(**{"N (1e6)": FRAME.N / 1e6, "D (x10^9)": FRAME.D / 1e9, "loss": FRAME.loss}
                           ).to_csv(index=False),
    "ExaFLOPs": named(N=FRAME.N, ExaFLOPs=6 * FRAME.N * FRAME.D / 1e18, loss=FRAME.loss).to_csv(index=False),
    "PF-days": named(N=FRAME.N, **{"C (PF-days)": 6 * FRAME.N * FRAME.D / 8.64e19}, loss=FRAME.loss
                     ).to_csv(index=False),
    "a row of units": "N,D,loss\n(M),(B),nats/token\n" + FRAME.assign(N=FRAME.N / 1e6, D=FRAME.D / 1e9
                                                                     ).to_csv(index=False, header=False),
    "merged cells": "Model,Training,\nN,D,loss\n" + BODY,
    "a title": "Our ladder\n\n" + PLAIN,
    "comments": "# made in May\n" + PLAIN.replace("\n", "\n# and so on\n\n", 2),
    "NumPy's header": "# N D loss\n" + BODY.replace(",", " "),
    "blank rows": PLAIN.replace("\n", "\n,,\n\n  \n", 5),
    "equal columns twice": FRAME.assign(x=FRAME.loss).set_axis(["N", "D", "loss", "loss"], axis=1).to_csv(index=False),
    "JSON rows": FRAME.to_json(orient="records", double_precision=15),
    "JSON lines": FRAME.to_json(orient="records", lines=True, double_precision=15),
    "JSON columns": FRAME.to_json(orient="columns", double_precision=15),
    "lists per column": str({name: FRAME[name].tolist() for name in FRAME}).replace("'", '"'),
}


@pytest.mark.parametrize("kind", EXPORTS, ids=lambda kind: kind.replace(" ", "_"))
def test_exports_are_read_to_the_numbers_that_were_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ladder.csv"
    content = EXPORTS[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_ladder(path)
    for got, written in ((found.n, RUNS.n), (found.d, RUNS.d), (found.loss, RUNS.loss)):
        np.testing.assert_allclose(got, written, rtol=1e-6)


def test_parquet_is_a_table(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "ladder.parquet")
    np.testing.assert_array_equal(read_ladder(tmp_path / "ladder.parquet").n, RUNS.n)
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "ladder.parquet").read_bytes()[:200])
    with pytest.raises(UsageError, match="damaged Parquet"):
        read_ladder(tmp_path / "torn.parquet")


def changed(line: int, column: int, cell: str) -> str:
    """The plain table with one cell changed, counted from 2 and 0."""
    rows = list(csv.reader(io.StringIO(PLAIN)))
    rows[line - 1][column] = cell
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


REFUSED = {
    "a word": (changed(5, 2, "diverged"), "Line 5 of .* has 'diverged' in column 'loss'"),
    "a spreadsheet's error": (changed(7, 1, "#DIV/0!"), "Line 7 of .* has '#DIV/0!' in column 'D'"),
    "a percentage": (changed(4, 2, "312 %"), "Line 4 of .* '312 %' in column 'loss'.* shares of 1"),
    "a date": (changed(4, 2, "3. Feb"), "Line 4 of .* '3. Feb' in column 'loss'"),
    "not a number": (changed(9, 2, "NaN"), "Line 9 of .* no value in column 'loss'"),
    "infinity": (changed(9, 2, "-inf"), "Line 9 of .* '-inf' in column 'loss'.* not a finite"),
    "blank": (changed(9, 2, "n/a"), "Line 9 of .* no value in column 'loss'"),
    "400 digits": (changed(3, 0, "1" * 400), "Line 3 of .* in column 'N', which is not a finite number"),
    "underscores": (changed(3, 0, "70_000_000"), "Line 3 of .* '70_000_000' in column 'N'"),
    "decimal points and commas": (changed(6, 0, "50000000,5"), "mixes decimal points and commas: .*line 6"),
    "a comma that may be either": ("N;D|loss\n".replace(";", "|") + '70000000|1000000000|3\n' * 3 + "7e7|2e9|3,125\n",
                                   "line 5. may be 3125 or 3.125"),
    "unlike columns of one name": (FRAME.assign(x=1).set_axis(["N", "D", "loss", "loss"], axis=1).to_csv(index=False),
                                   "two columns called 'loss', number 3 and 4"),
    "two names for one quantity": (FRAME.assign(val_loss=FRAME.loss + 1).to_csv(index=False),
                                   '--columns "loss=loss"'),
    "cells without names": (PLAIN.replace("\n", ",7\n").replace(",7", "", 1), "line 2 has 4 cells, .* has 3"),
    "decimal commas between commas": (HEADER + "\n70000000,1000000000,3,21\n", "line 2 has 4 cells"),
    "no names at all": (BODY, "no names of columns: line 1"),
    "a row behind a mark": (PLAIN.replace("\n5", "\n#5", 3), "line [0-9]+ begins with '#' and holds a row"),
    "a quote that stays open": (PLAIN.replace("\n", '\n"', 2), "line [0-9,]+, .*Look for a quote"),
    "billions of units": (PLAIN.replace("N,D", "params_b,D"), "comes to 3e.18 parameters, more than any run"),
    "a unit of its own": (PLAIN.replace("N,D", "N (1e6 heads),D"), "unit that is not understood"),
    "a workbook": (b"PK\x03\x04" + bytes(50), "an Excel workbook .*Save the table as CSV"),
    "an image": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is not a CSV file"),
    "zeros": (bytes(1000), "is not a CSV file"),
    "JSON of another kind": ('{"a": 1}', "is JSON, but no table"),
    "JSON that is torn": ('[{"N": 1', "is not JSON"),
    "a row that is no object": ('[{"N": 1}, 3]', "entry 2 is '3', where the others are objects"),
}


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.replace(" ", "_"))
def test_what_cannot_be_read_is_refused_by_line_and_column(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "ladder.csv"
    content, says = REFUSED[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=says) as error:
        read_ladder(path)
    text = str(error.value)
    assert "\n" not in text and len(text) < 400 and str(path) in text


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.text("N,Dlos;\t\"'1234567890.eE+-#\n =%()", max_size=300).map(str.encode))
@example(b";")
@example(b"sep=;\n;;\n")
def test_any_bytes_are_a_table_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    try:
        sheet = read_sheet(path)
    except UsageError as error:
        assert len(str(error)) < 500 and "\n" not in str(error)
    else:
        assert all(len(column) == len(sheet) for column in sheet.cells) and len(sheet.cells) == len(sheet.header)


@settings(max_examples=60, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([repr, "{:.9e}".format, "{:,.6f}".format]))
def test_a_number_is_read_as_it_was_written(value: float, write: Callable[[float], str]) -> None:
    text = write(value)
    english = number(text)
    continental = number(text.translate({ord(","): ".", ord("."): ","}), ",")
    assert english == continental == float(text.replace(",", ""))


@pytest.mark.parametrize(
    ("name", "base", "scale"),
    [("N (M)", "n", 1e6), ("params_b", "params", 1e9), ("tokens (B)", "tokens", 1e9), ("N", "n", 1.0),
     ("Tokens [in billions]", "tokens", 1e9), ("D (×10^9)", "d", 1e9), ("N (1000)", "n", 1e3),
     ("total_tokens_T", "total_tokens", 1e12), ("N (non-embedding)", "n", 1.0), ("train_GFLOPs", "train_flops", 1e9),
     ("C (EFLOPs)", "c", 1e18)],
)  # fmt: skip
def test_units_in_names(name: str, base: str, scale: float) -> None:
    found = read_name(name, "t.csv")
    assert (found.base, found.scale) == (base, scale)


def test_a_frame_is_read_as_a_file_is() -> None:
    assert ladder(FRAME.rename(columns={"N": "params (M)"}).assign(**{"params (M)": FRAME.N / 1e6})).n[0] == RUNS.n[0]
