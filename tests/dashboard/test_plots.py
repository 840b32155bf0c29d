"""Charts as specifications: nothing is drawn here."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dashboard.charts import plots
from dashboard.charts.live import Area, Line, Mark, Panel, live_chart
from tests.dashboard.make_run import HOSTILE


def table(labels=("a",), rows=20, bad=None) -> pd.DataFrame:
    frames = []
    for offset, label in enumerate(labels):
        value = np.linspace(3, 2, rows) + offset
        frame = pd.DataFrame(
            {
                "step": np.arange(rows) * 10,
                "last_step": np.arange(rows) * 10 + 9,
                "label": label,
                "value": value,
                "lo": value - 0.1,
                "hi": value + 0.1,
                "nonfinite": 0,
            }
        )
        if bad is not None:
            frame.loc[bad, ["value", "lo", "hi", "nonfinite"]] = [np.nan, np.nan, np.nan, 3]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def cells() -> pd.DataFrame:
    return pd.DataFrame({"row": ["x", "x", "y", "y"], "column": ["0", "1"] * 2, "value": [0.5, 1.5, 1.0, np.nan]})


HOSTILE_MARKS = [Mark(50, HOSTILE[0], HOSTILE[2])]
HOSTILE_AREAS = [Area(20, 60, "fail", HOSTILE[1])]


@pytest.mark.parametrize("chart", [
    lambda names: plots.lines(table(names), "nats", marks=HOSTILE_MARKS, areas=HOSTILE_AREAS, heading=names[0],
                              log=True),
    lambda names: plots.heatmap(table(names, bad=3), "1", order=names, row_title="layer", log=True),
    lambda names: plots.stacked(table(names), order=names),
    lambda names: plots.shares(pd.DataFrame({"label": names, "share": 0.2, "planned": [np.nan, 0.2, 0.2, 0.2, 0.2]}),
                               order=names, palette=names),
    lambda names: plots.bars(pd.DataFrame({"label": names, "value": 1.0}), order=names, palette=names,
                             value_title="epochs"),
    lambda names: plots.grid(cells().assign(row=names[0]), rows=names, columns=["0", "1"], row_title="a",
                             column_title="b", value_title="v", center=1.0, dark=True),
])  # fmt: skip
def test_charts_are_valid_and_hold_hostile_strings_as_data_only(chart):
    specification = chart(list(HOSTILE)).to_dict()  # validates against the Vega-Lite schema
    del specification["datasets"]
    for key, value in walk(specification):
        if key not in ("domain", "sort", "values"):
            assert value not in HOSTILE
        if key in ("href", "url", "expr", "calculate"):
            assert "window" not in str(value)


@pytest.mark.parametrize("chart", [
    lambda name: plots.shares(pd.DataFrame({"label": [name], "share": 0.2, "planned": 0.2}), order=[name],
                              palette=[name]),
    lambda name: plots.bars(pd.DataFrame({"label": [name], "value": 1.0}), order=[name], palette=[name],
                            value_title="epochs"),
    lambda name: plots.lines(table([name]), "nats", order=[name]),
    lambda name: plots.heatmap(table([name]), "1", order=[name], row_title="layer"),
    lambda name: plots.grid(cells().assign(row=name), rows=[name], columns=["0", "1"], row_title="a",
                            column_title="b", value_title="v", dark=True),
])  # fmt: skip
def test_no_label_turns_the_text_around(chart):
    written = json.dumps(chart("web\u202egnp.exe").to_dict(), ensure_ascii=False)
    assert "\u202e" not in written and "webgnp.exe" in written


def walk(node, key=""):
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from walk(inner, name)
    elif isinstance(node, list):
        for inner in node:
            yield from walk(inner, key)
    else:
        yield key, node


def test_a_bucket_that_is_not_finite_is_drawn_and_not_filled():
    specification = plots.lines(table(bad=4), "nats").to_dict()
    shapes = [layer["mark"].get("shape") for layer in specification["layer"] if isinstance(layer["mark"], dict)]
    assert "triangle-up" in shapes
    data = next(rows for rows in specification["datasets"].values() if len(rows) == 20)
    assert data[4]["value"] is None


def test_values_that_a_logarithmic_axis_cannot_place_are_left_out():
    data = table().assign(value=0.0)
    drawn = next(iter(plots.lines(data, "1", log=True).to_dict()["datasets"].values()))
    assert all(row["value"] is None for row in drawn)


def test_the_live_chart_keeps_spikes_marks_and_areas():
    data = table(bad=7)
    data.loc[3, "hi"] = 99.0
    line = Line("run", data)
    option = live_chart(
        [Panel("Loss", "nats", (line,)), Panel("Norm", "1", (line,), log=True)],
        [Mark(50, "{a}{@x} checkpoint")],
        HOSTILE_AREAS,
        steps=(0, 200),
        height=400,
    )
    first = option["dataset"][0]["source"]
    assert first["highest"].max() == 99.0
    assert first["not finite"].notna().sum() == 1
    lines = [s["markLine"]["data"][0] for s in option["series"] if "markLine" in s]
    assert [line["xAxis"] for line in lines] == [50, 50]
    assert "{" not in lines[0]["label"]["formatter"]
    assert sum("markArea" in s for s in option["series"]) == 2
    assert HOSTILE[1] not in json.dumps({k: v for k, v in option.items() if k != "dataset"})


def test_panels_fill_the_height_and_do_not_overlap():
    panel = Panel("Loss", "nats", (Line("run", table()),))
    grids = live_chart([panel] * 5, steps=(0, 1), height=600)["grid"]
    for above, below in zip(grids, grids[1:], strict=False):
        assert above["top"] + above["height"] < below["top"]
    assert grids[-1]["top"] + grids[-1]["height"] <= 600
