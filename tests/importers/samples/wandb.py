"""A run that `wandb.init(mode="offline")` leaves, of a version that leaves NumPy's float32 NaN out."""

import json
from pathlib import Path

from tests.importers.writing import field, framed

FORMAT = "wandb"
ROWS = {
    "loss/train": {step: 4.0 - step / 64 for step in range(60)} | {7: float("nan"), 8: float("-inf")},
    "grad/norm": {step: 1.0 + step / 32 for step in range(60)},
    "loss/val": {step: 4.5 - step / 64 for step in range(0, 60, 20)},
    "nested.größe": {step: float(2**53 + 2 * step) for step in range(60)},
}
BLIND = {"rank", "nonfinite", "sampled"}
CHECKED = True
NAMES = {"loss/train": ["train/loss"], "grad/norm": ["train/grad_norm"], "loss/val": ["eval/loss"],
         "nested.größe": ["nested", "größe"]}


def write(folder: Path) -> Path:
    run = folder / "wandb" / "offline-run-20260102_030405-abc"
    run.mkdir(parents=True)
    (run / "run-abc.wandb").write_bytes(framed(b":W&B\xe1\xbe\x00", list(records())))
    return run


def records() -> list[bytes]:
    config = field(1, field(1, "lr") + field(16, "0.001"))
    began = field(17, field(1, 1_700_000_000))
    about = field(1, "abc") + field(3, "project") + field(4, config) + field(8, "a run") + began
    found = [field(21, field(1, field(1, "0.27.2+1234"))), field(17, about)]
    for step in range(60):
        items = [_item(NAMES[name], values[step]) for name, values in ROWS.items() if step in values]
        items += [_item(["_step"], step), _item(["_timestamp"], 1_700_000_000 + step / 4), _item(["note"], "x" * 400)]
        found += [field(2, b"".join(items) + field(2, field(1, step))), field(3, field(1, b"".join(items)))]
    return [field(1, number) + record for number, record in enumerate([*found, field(18, field(1, 0))], 1)]


def _item(name: list[str], value: float | str) -> bytes:
    key = field(1, name[0]) if len(name) == 1 else b"".join(field(2, part) for part in name)
    return field(1, key + field(16, json.dumps(value)))
