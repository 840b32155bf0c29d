"""MLflow's file store with one run, a deleted one beside it, and a metric whose name is a path."""

import math
from pathlib import Path

FORMAT = "mlflow-files"
ROWS = {
    "loss/train": {step: 3.0 - step / 64 for step in range(1, 31)} | {7: math.nan, 9: math.inf},
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "val/µ accuracy": {10: 0.25, 20: 0.5},
}
BLIND = {"rank"}
META = "artifact_uri: file:///x\nexperiment_id: '1'\nlifecycle_stage: {}\nrun_id: {}\nrun_name: {}\n" \
       "start_time: 1700000000000\nstatus: 3\nuser_id: me\n"


def write(folder: Path) -> Path:
    for key, stage in (("0123456789abcdef", "active"), ("fedcba9876543210", "deleted")):
        run = folder / "mlruns" / "1" / key
        for name, file in (("loss/train", "loss"), ("grad/norm", "grad_norm"), ("val/µ accuracy", "val/µ accuracy")):
            path = run / "metrics" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (f"{1_700_000_000_000 + step} {value} {step}\n" for step, value in ROWS[name].items())
            path.write_text("".join(lines))
        (run / "params").mkdir()
        (run / "params" / "learning_rate").write_text("0.001")
        (run / "meta.yaml").write_text(META.format(stage, key, f"tiny-{stage}"))
    (folder / "mlruns" / "1" / "meta.yaml").write_text("experiment_id: '1'\nname: pretraining\n")
    return folder / "mlruns"
