"""Data or this run: planted in all twins or in one, on made logs; and what it is worth to have a twin."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner

from checks import run_checks
from checks.twins.backtest import backtest
from checks.twins.known import find_twins, note_twins
from checks.twins.proxy import proxies
from checks.twins.recognise import recognise
from checks.twins.twin_command import twin
from checks.twins.whose import whose
from tests.twins.logs import made, rows_of
from tests.twins.test_control import planted, write
from trainvitals.card import RunCard
from trainvitals.errors import UsageError
from trainvitals.store import open_run


def asked(rng, in_twins, rise, trial):
    """What one to three twins say of a rise of 1 to 200 rows, theirs from .7 to 1.2 times as high or none."""
    logs = [made(1_500, 10 * trial + i) for i in range(int(rng.integers(2, 5)))]
    at, length = int(rng.integers(500, 1_200)), int(rng.choice([1, 3, 10, 60, 200]))
    for i, (_, losses) in enumerate(logs):
        if i == 0 or in_twins:
            losses[at : at + length] *= 1 + rise * (1 if i == 0 else rng.uniform(0.7, 1.2))
    mine, *others = map(rows_of, logs)
    told = whose(mine, [(other, recognise(mine, other)) for other in others], at, at + length - 1)
    return told.cause if told else "silent"


@pytest.mark.parametrize(("in_twins", "right", "wrong"), [(True, "data", "own"), (False, "own", "data")])
def test_planted_faults_are_told_rightly(in_twins, right, wrong):
    rng = np.random.default_rng(0)
    for rise in (0.1, 0.4):
        said = Counter(asked(rng, in_twins, rise, trial) for trial in range(20))
        print(f"{right} +{rise:.0%}: {dict(said)}")
        assert said[wrong] == 0 and said[right] >= (12 if rise == 0.1 else 18)


def test_nothing_is_told_of_calm_rows_nor_without_shared_ones():
    rng = np.random.default_rng(1)
    assert {asked(rng, in_twins, 0.0, trial) for trial in range(10) for in_twins in (True, False)} == {"silent"}
    mine, late = rows_of(made(1_500, 1)), rows_of(made(700, 2, start=800))
    assert whose(mine, [(late, recognise(mine, late))], 300, 320) is None


def test_an_incident_says_whose_it_is(tmp_path):
    def ruined(log):
        steps, losses = log
        losses = losses.copy()
        losses[900:940] *= 1.5
        return steps, losses

    def words(name, mine, other):
        runs = [write(tmp_path / name, mine), write(tmp_path / f"{name}-twin", other)]
        note_twins(runs, find_twins(runs)[1])
        report = run_checks(open_run(runs[0].path))
        return [i.twins for i in report.incidents if "loss" in i.areas]

    (own,) = words("own", ruined(made(1_500, 1)), made(1_500, 2))
    assert own.startswith("This run alone: the loss of 1 twin does not")
    (data,) = words("data", ruined(made(1_500, 1)), ruined(made(1_500, 2)))
    assert data.startswith("The data did it: the loss of 1 of 1 twin does the same")
    (none,) = words("none", ruined(made(1_500, 1)), made(1_500, 2, data=7))
    assert none == ""


def test_a_backtest_finds_what_it_planted_and_sooner_with_a_twin():
    mine, other = rows_of(made(2_000, 1)), rows_of(made(2_000, 2))
    rows = backtest(mine, [(other, recognise(mine, other))])
    assert [r.rise_nat for r in rows] == [0.03, 0.1, 0.3]
    assert all(r.found == r.places == 12 for r in rows)
    assert rows[0].delay_rows < 100 and (rows[0].delay_rows_alone or 2_000) >= 5 * rows[0].delay_rows
    short, few = rows_of(made(500, 1)), rows_of(made(500, 2))
    assert backtest(short, [(few, recognise(short, few))]) == []


def test_sizes_of_proxies():
    card = RunCard(params_total=1_000_000, params_active=500_000, params_embedding=100_000, layers=12)
    quarter, twelfth, thirtieth = proxies(card, 1e9)
    assert [p.params for p in (quarter, twelfth, thirtieth)] == [250_000, 83_333, 33_333]
    for p in (quarter, twelfth, thirtieth):
        assert 800_000 * p.scale**3 + 200_000 * p.scale == pytest.approx(p.params, abs=1)
        assert p.flops_share == pytest.approx((300_000 * p.scale**3 + 200_000 * p.scale) / 500_000)
        assert p.flops == pytest.approx(6 * 500_000 * 1e9 * p.flops_share)
    assert proxies(RunCard(params_total=100), None)[0].flops is None
    with pytest.raises(UsageError, match="params_total"):
        proxies(RunCard(), None)


def test_the_command(tmp_path):
    runs = [write(tmp_path / "big", planted(made(1_500, 1), 900, 0.0)), write(tmp_path / "small", made(1_500, 2))]
    for run in runs:
        card = open_run(run.path).card
        card.params_total = 12_000_000
        (tmp_path / run.path / "run.json").write_text(card.to_json())
    alone = CliRunner().invoke(twin, ["--of", runs[0].path])
    assert alone.exit_code == 0 and "1/12" in alone.output and "once a twin is known" in alone.output
    note_twins(runs, find_twins(runs)[1])
    told = json.loads(CliRunner().invoke(twin, ["--of", runs[0].path, "--json"]).output)
    assert told["proxies"][1]["params"] == 1_000_000 and told["twins"][0]["noise_ratio"] > 5
    assert [row["rise_nat"] for row in told["backtest"]] == [0.03, 0.1, 0.3]
    assert "0.03 nat" in CliRunner().invoke(twin, ["--of", runs[0].path]).output
