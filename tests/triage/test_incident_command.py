"""`trainvitals incident`: incidents by name, and what people say of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from checks.triage.command import incident
from checks.triage.identity import Known, Member, named
from checks.watch.looking import muted
from trainvitals.errors import UsageError
from trainvitals.store import RunWriter, open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A loss that jumps at step 201 and stays."""
    path, random = tmp_path_factory.mktemp("incident") / "jumps", np.random.default_rng(0)
    writer = RunWriter(path)
    loss = writer.frame("loss", ["loss/sum", "loss/tokens"])
    for step in range(1, 401):
        usual = (1.8 + 6 * (step + 20) ** -0.4) * np.exp(random.normal(0, 0.01)) * (1.6 if step > 200 else 1.0)
        loss.append(step, {"loss/sum": usual * 1000, "loss/tokens": 1000})
    writer.close()
    return path


def asked(*args: str) -> Result:
    return CliRunner().invoke(incident, args, catch_exceptions=False)


def test_an_incident_is_listed_and_shown_by_number_and_by_name(run: Path) -> None:
    listed = json.loads(asked(str(run), "--json").output)["incidents"]
    assert len(listed) == 1 and abs(listed[0]["steps"][0] - 201) <= 2
    assert asked(str(run)).exit_code == 2 and listed[0]["id"] in asked(str(run)).output
    by_name = asked(str(run), listed[0]["id"]).output
    assert by_name == asked(str(run), "1").output
    assert "loss.divergence" in by_name and "Do this: " in by_name
    with pytest.raises(UsageError, match=r"Its incidents: 1 learning-"):
        asked(str(run), "2")


def test_what_people_say_is_kept_and_reaches_the_watch(run: Path) -> None:
    """Also under an id that another look gave the incident, two steps off."""
    with pytest.raises(UsageError, match="Of which incident"):
        asked(str(run), "--note", "x")
    name = json.loads(asked(str(run), "--json").output)["incidents"][0]["id"]
    step = int(name.rpartition("-")[2])
    known = Known(f"learning-{step + 2}", "learning", (Member("loss.divergence", step, step + 2),))
    assert muted(open_run(run), known.id, [known], 2e9) == (False, False)
    shown = asked(str(run), "1", "--ack", "--note", "a bad shard", "--mute", "2", "--who", "Ann").output
    assert "taken on by Ann, muted by Ann until" in shown and "Ann: ack: a bad shard" in shown
    at = open_run(run).remarks()[0].time
    assert muted(open_run(run), known.id, [known], at + 60) == (True, True)
    assert muted(open_run(run), known.id, [known], at + 7300) == (False, True)
    assert muted(open_run(run), "machine-201", [], at + 60) == (False, False)
    assert "muted" not in asked(str(run), "1", "--unmute").output.splitlines()[1]


@pytest.mark.parametrize(("id", "means"), [
    ("learning-100", True), ("learning-103", True), ("learning-103-2", True), ("learning-120", False),
    ("machine-100", False), ("learning-", False), ("learning", False), ("", False), ("learning-" + "9" * 5000, False)])
def test_an_id_of_another_look_means_the_incident_that_began_there(id: str, means: bool) -> None:
    assert named(Known("learning-7", "learning", (Member("loss.spike", 99, 101),)), id) is means
