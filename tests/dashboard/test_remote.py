"""The board over `s3://bucket/runs`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from trainvitals.card import RunCard

pytest.importorskip("s3fs", reason="needs the extra s3: pip install 'trainvitals[s3]'")
pytest.importorskip("moto", reason="needs moto[server], of the extra dev")


@pytest.fixture(scope="module")
def runs() -> Iterator[str]:
    from tests.store.object_store import lab, write

    with lab():
        for name, steps in (("first", 50), ("second", 80)):
            writer = write(f"s3://lab/runs/{name}", range(1, steps + 1))
            writer.write_card(RunCard(name=name, model=f"model of {name}", total_steps=steps))
            writer.close()
        yield "s3://lab/runs"


def test_runs_in_a_bucket_are_listed_and_read(runs: str) -> None:
    from dashboard.server import reads

    found = reads.runs_below(runs)
    assert found == {"first": f"{runs}/first", "second": f"{runs}/second"}
    seen = reads.poll(found["second"])
    assert (seen.status, seen.last_step, seen.card.model, seen.error) == ("finished", 80, "model of second", "")
    assert len(reads.series(found["first"], "loss/train")) == 50
    assert reads.poll(f"{runs}/nowhere").error


def test_the_board_opens_on_a_bucket(board, runs: str) -> None:
    page = board(runs, run="first")
    assert not page.exception
    assert page.sidebar.selectbox[0].options == ["first", "second"]
    assert any("model of first" in caption.value for caption in page.sidebar.caption)
