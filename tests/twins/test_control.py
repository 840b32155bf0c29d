"""The control: planted changes are found sooner than without, by the right run, and a wrong twin does no harm."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from checks import run_checks
from checks.stream.layout import LOSS
from checks.stream.series import Series
from checks.twins.culprits import culprits
from checks.twins.difference import difference
from checks.twins.judge import controls, partings, told_at
from checks.twins.known import find_twins, note_twins, twin_paths
from checks.twins.recognise import recognise
from tests.twins.logs import CURVES, made, published, rows_of
from trainvitals.card import RunCard
from trainvitals.store import RunWriter, open_run


def judged(run, *twins):
    mine = rows_of(run, "run")
    return partings(controls(mine, [(t, p) for t in (rows_of(x, f"t{i}") for i, x in enumerate(twins))
                                    if (p := recognise(mine, t)).twin]))  # fmt: skip


def planted(log, place, size):
    steps, losses = log[0], log[1].copy()
    losses[place:] += size
    return steps, losses


def test_a_rise_of_three_hundredths_is_found_ten_times_sooner():
    late, soon = [], []
    for i, place in enumerate(range(1_000, 2_600, 100)):
        run = planted(made(3_000, i), place, 0.03)
        hits = [told_at(p.episode) - place
                for p in judged(run, made(3_000, 99)) if p.episode.noticed >= place]
        soon.append(min(hits, default=3_000))
        series = Series(LOSS)
        series.feed(*run)
        late.append(min([e.noticed - place for e in series.episodes() if e.side > 0 and e.noticed >= place],
                        default=3_000 - place))  # fmt: skip
    print(f"median delay: {np.median(soon)} rows with a twin, {np.median(late)} without")
    assert np.median(late) >= 10 * max(np.median(soon), 1) and max(soon) < 100


def test_the_difference_has_a_fraction_of_the_noise_and_never_looks_ahead():
    a, b = rows_of(made(2_000, 1), "a"), rows_of(made(2_000, 2), "b")
    pair = recognise(a, b)
    whole = difference(a, b, pair)
    assert np.std(np.diff(whole.values)) < 0.2 * np.std(np.diff(whole.own))
    for n in (150, 700, 1_400):
        cut = difference(*(rows_of((x.steps[:n], np.exp(x.values[:n]))) for x in (a, b)), pair)
        np.testing.assert_allclose(cut.values, whole.values[:n], atol=1e-9)


def test_which_of_two_moved():
    found = judged(planted(made(3_000, 1), 1_500, 0.15), made(3_000, 2))
    assert [p.moved for p in found] == [True] and abs(found[0].episode.onset - 1_500) <= 3
    fell = judged(made(3_000, 1), planted(made(3_000, 2), 1_500, -0.15))
    assert [p.moved for p in fell] == [False]


def test_of_several_twins_the_one_that_moved_is_not_the_run():
    assert [p.moved for p in judged(made(3_000, 1), planted(made(3_000, 2), 1_500, -0.03), made(3_000, 3))] == [False]
    mine = judged(planted(made(3_000, 1), 1_500, 0.03), made(3_000, 2), made(3_000, 3))
    assert [(p.moved, p.agreed, p.of) for p in mine] == [(True, 2, 2)]


def test_healthy_twins_part_in_none_of_40_runs():
    alarms = sum(len(judged(made(2_000, 2 * i, data=i), made(2_000, 2 * i + 1, data=i))) for i in range(40))
    print(f"{alarms} partings in 80,000 healthy rows")
    assert alarms == 0


def test_spikes_are_told_as_data_or_own():
    rng = np.random.default_rng(0)
    right = total = 0
    for i in range(6):
        run, twins = made(2_000, i, data=i), [made(2_000, 100 + 3 * i + k, data=i) for k in range(3)]
        places = rng.choice(np.arange(300, 2_000, 25), 16, replace=False)
        for place in places[:8]:
            for log in (run, *twins):
                log[1][place] *= 1.35 + 0.1 * rng.random()
        run[1][places[8:]] *= 1.4
        mine = rows_of(run, "run")
        found = culprits(mine, [(t, recognise(mine, t)) for t in map(rows_of, twins)])
        causes = {c.step: c.cause for c in found}
        right += sum(causes.get(int(p)) == "data" for p in places[:8])
        right += sum(causes.get(int(p)) == "own" for p in places[8:])
        total += 16
    print(f"{right} of {total} spikes called rightly")
    assert right >= 0.95 * total


# -- runs, notes, commands ---------------------------------------------------------------------------------------------


def write(path, log):
    writer = RunWriter(path, when_full="wait")
    writer.write_card(RunCard(name=path.name))
    frame = writer.frame("loss", ["loss/sum", "loss/tokens"])
    for step, loss in zip(*log, strict=True):
        frame.append(int(step), {"loss/sum": float(loss) * 100.0, "loss/tokens": 100.0})
    writer.close()
    return open_run(path)


@pytest.fixture
def runs(tmp_path):
    logs = {"faulty": planted(made(1_500, 1), 900, 0.09), "twin": made(1_500, 2), "third": made(1_500, 3),
            "other": made(1_500, 4, data=9)}  # fmt: skip
    return {name: write(tmp_path / name, log) for name, log in logs.items()}


def said(run):
    return [f for f in run_checks(open_run(run.path)).findings if f.check == "loss.twin"]


def test_a_run_without_twins_is_not_asked(runs):
    assert said(runs["faulty"]) == []


def test_noted_twins_judge_one_another(runs):
    _, pairs = find_twins(list(runs.values()))
    note_twins(list(runs.values()), pairs)
    (finding,) = said(runs["faulty"])
    assert finding.level == "fail" and "2 of 2 twins" in finding.summary
    assert finding.steps[0] == pytest.approx(900, abs=3)
    (calm,) = said(runs["twin"])
    assert calm.level == "pass" and "2 twins" in calm.summary
    assert said(runs["other"]) == []


def test_a_wrong_or_lost_note_makes_no_verdict_worse(runs):
    before = run_checks(open_run(runs["faulty"].path)).level
    for note in (b'{"twins": ["../other", "../gone", "s3://x/y", 7]}', b"{", b'{"twins": {}}', b"[]"):
        runs["faulty"].keep("twins.json", note)
        assert said(runs["faulty"]) == [] and run_checks(open_run(runs["faulty"].path)).level == before
    runs["faulty"].keep("twins.json", b'{"twins": ["s3://x/y"]}')
    assert twin_paths(runs["faulty"]) == []


def test_the_command(runs, tmp_path):
    sheet = tmp_path / "culprits.csv"
    done = subprocess.run([sys.executable, "-m", "trainvitals.cli", "twins", *(r.path for r in runs.values()), "--json",
                           "--culprits", str(sheet)], capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {"a", "b", "twin", "offset_steps", "evidence", "noise_ratio"} <= set(answer["pairs"][0])
    named = {(p["a"].rsplit("/", 1)[-1], p["b"].rsplit("/", 1)[-1]): p["twin"] for p in answer["pairs"]}
    assert named["faulty", "twin"] is True and named["twin", "other"] is False
    assert sheet.read_text().startswith("run,step,percent")
    alone = subprocess.run([sys.executable, "-m", "trainvitals.cli", "twins", runs["twin"].path], capture_output=True,
                           text=True, check=False)  # fmt: skip
    assert alone.returncode == 64 and "Name another" in alone.stderr and "Traceback" not in alone.stderr


@pytest.mark.skipif(not CURVES.is_dir(), reason=f"the published logs are not at {CURVES}")
def test_published_twins_accuse_no_one():
    logs = published()
    logs.pop("llmc")
    wrong = {name: [p for p in judged(log, *(other for key, other in logs.items() if key != name)) if p.moved]
             for name, log in logs.items()}
    print({name: len(found) for name, found in wrong.items()}, "of", sum(len(v[0]) for v in logs.values()), "rows")
    assert not any(wrong.values())


def test_the_board_draws_what_twins_leave(runs):
    from dashboard.twins import twins_of

    note_twins(list(runs.values()), find_twins(list(runs.values()))[1])
    found = twins_of(runs["faulty"].path, None, 300)
    assert set(found.table["label"]) == {"twin", "third"}
    of_one = found.table[found.table["label"] == "twin"]
    late = of_one[of_one["step"] > 920]["value"].mean() - of_one[of_one["step"].between(500, 880)]["value"].mean()
    assert late == pytest.approx(100 * 0.09 / 2.75, rel=0.2)
    assert twins_of(runs["other"].path, None, 300) is None
