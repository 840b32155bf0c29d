"""Two launches that `trainvitals run` listened to: W&B's numbers, and what was printed beside them."""

import json
from pathlib import Path

FORMAT = "heard"
ROWS = {
    "loss/train": {step: 3.0 - step / 64 for step in range(1, 31)},
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "loss/val": {15: 2.75, 30: 2.5},
    "printed: train_loss": {15: 9.0},
}
BLIND = {"rank", "scaled"}


def write(folder: Path) -> Path:
    place = folder / ".mine.heard"
    for name, steps in (("001", range(1, 16)), ("002", range(16, 31))):
        launch = place / name
        launch.mkdir(parents=True)
        (launch / "begin.json").write_text(json.dumps({"command": "python train.py", "time": 1.75e9}))
        rows = [{"s": "wandb", "n": step, "t": 1.75e9 + step, "v": {
            "train/loss": ROWS["loss/train"][step], "grad_norm": ROWS["grad/norm"][step]}} for step in steps]
        (launch / "hook-17.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        last = steps[-1]
        printed = f"step:{last}/30 val_loss:{ROWS['loss/val'][last]:.4f} train_time:9ms\n"
        printed += "step:15/30 train_loss:9.0000 train_time:9ms\n" if name == "001" else ""
        (launch / "output.log").write_text(printed)
        (launch / "end.json").write_text(json.dumps({"code": 0, "how": "exit code 0", "time": 1.75e9 + 99}))
    return place
