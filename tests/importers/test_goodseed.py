"""GoodSeed's database as its own client writes it, against its own reader."""

import math
from pathlib import Path

import pytest

from collectors.importers.goodseed import GoodSeed
from tests.importers.reading_tables import bits, read_all

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own
SHAPES = {
    "short": [(step, value) for step, value in enumerate([1.0, math.inf, -math.inf, 5e-324, 0.1])],
    "long": [(step, math.sin(step)) for step in range(3000)],
    "resumed": [*((step, math.sin(step)) for step in range(60)), *((step, math.cos(step)) for step in range(40, 80))],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_value_is_the_clients(shape: str, tmp_path: Path) -> None:
    storage = pytest.importorskip("goodseed.storage")
    path = tmp_path / "a é.sqlite"
    local = storage.LocalStorage(path)
    local.set_meta("status", "finished")
    local.log_configs({"lr": ("float", "0.0003"), "tags": ("string_set", '["a"]'), "n": ("int", "3")})
    local.log_metric_points([(name, step, value + len(name), 1_700_000_000 + step) for step, value in SHAPES[shape]
                             for name in ("loss", "deep/µ é")])
    live = read_all(GoodSeed(), path)["a é"]  # its write-ahead log is full, and it is open
    local.close()
    closed = read_all(GoodSeed(), path)["a é"]
    series = storage.read_metrics(path)
    for name in ("loss", "deep/µ é"):
        theirs = [(int(point["step"]), bits(point["y"])) for point in local_points(storage, path, name)]
        assert live.values[name] == closed.values[name] == theirs
    assert live.config == {"lr": 3e-4, "tags": ["a"], "n": 3}
    assert series and [note.kind for note in closed.notes] == ["closed"]


def local_points(storage: object, path: Path, name: str) -> list[dict[str, float]]:
    local = storage.LocalStorage(path)
    try:
        return list(local.get_metric_points(name))
    finally:
        local.close()


def test_the_client_loses_a_nan_as_we_say(tmp_path: Path) -> None:
    storage = pytest.importorskip("goodseed.storage")
    local = storage.LocalStorage(tmp_path / "x.sqlite")
    with pytest.raises(Exception, match="NOT NULL"):
        local.log_metric_points([("loss", 1, math.nan, 0)])
    local.close()
    assert any(spot.kind == "nonfinite" for spot in GoodSeed.blind)
