"""Two ranks, each writing its share and never talking about it, read back as the run of a single process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import trainvitals as tv
from tests.collectors import tiny, two_ranks

pytestmark = pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
                                reason="this torch has no gloo")

COUNTS = ("loss/tokens", "loss/domain_tokens", "router/tokens", "router/domain_tokens", "data/domain_tokens",
          "data/sequences", "tokens/counts")
NUMBERS = ("loss/train", "loss/domain", "grad/norm", "grad/norm_by_layer", "grad/norm_clipped", "lr/used",
           "weight/norm_by_layer", "update/ratio_by_layer", "update/ratio")


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
def test_two_ranks_equal_one_process(tmp_path: Path, kind: str) -> None:
    tiny.train(tiny.olmoe(), two_ranks.data(None), tmp_path / "single", max_norm=0.5, collectors=two_ranks.COLLECTORS)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    ranks = [subprocess.Popen([sys.executable, "-m", "tests.collectors.two_ranks", kind, str(rank), str(tmp_path)],
                              env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
             for rank in range(2)]
    try:
        said = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)

    single, merged = tv.open_run(tmp_path / "single"), tv.open_run(tmp_path / kind)
    assert merged.card.world_size == 2 and merged.card.params_total == single.card.params_total
    assert "collector_disabled" not in set(merged.events()["kind"])
    for name in COUNTS:
        assert np.array_equal(merged.array(name).values, single.array(name).values), name
    for name in NUMBERS:
        ours, theirs = merged.array(name), single.array(name)
        assert ours.labels == theirs.labels
        np.testing.assert_allclose(ours.values, theirs.values, rtol=2e-4, atol=1e-9, err_msg=name)
    assert merged.array("throughput/step_time_by_rank").values.shape[1] == 2
