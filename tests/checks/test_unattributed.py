"""Domains that only the losses know are an unknown mix, not a broken one."""

from __future__ import annotations

from pathlib import Path

from checks.judge import run_checks
from trainvitals.card import RunCard
from trainvitals.store import RunWriter, open_run


def test_domains_given_to_the_loss_alone(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, when_full="wait")
    writer.write_card(RunCard(domains={"web": 0.5, "code": 0.5}))
    labels = {"domain": ["web", "code", "unattributed"]}
    data = writer.frame("data", ["data/domain_tokens"], labels)
    loss = writer.frame("loss", ["loss/domain_sum", "loss/domain_tokens"], labels)
    for step in range(1, 101):
        data.append(step, {"data/domain_tokens": [0, 0, 100]})
        loss.append(step, {"loss/domain_sum": [150.0, 150.0, 0.0], "loss/domain_tokens": [50, 50, 0]})
    writer.close()
    levels = {f.check: f.level for f in run_checks(open_run(tmp_path), only=["data.unattributed", "data.mix"]).findings}
    assert levels["data.unattributed"] == "unknown" and levels["data.mix"] in ("unknown", "pass"), levels
