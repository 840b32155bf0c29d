"""A checkpoint as `Trainer` writes it."""

import json
from pathlib import Path

FORMAT = "hf-trainer"
ROWS = {
    "loss/train": {step: 3.0 - step / 64 for step in range(1, 31)},
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "loss/val": {30: 2.75},
}
BLIND = {"nonfinite"}


def write(folder: Path) -> Path:
    history: list[dict[str, float]] = [
        {"epoch": step / 100, "grad_norm": ROWS["grad/norm"][step], "learning_rate": 1e-3, "loss": loss, "step": step}
        for step, loss in ROWS["loss/train"].items()
    ]
    history.append({"epoch": 0.3, "eval_loss": 2.75, "eval_runtime": 1.5, "step": 30})
    checkpoint = folder / "checkpoint-30"
    checkpoint.mkdir(parents=True)
    state = {"epoch": 0.3, "global_step": 30, "log_history": history, "logging_steps": 1, "max_steps": 300}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state, indent=2))
    return checkpoint / "trainer_state.json"
