"""A run as `swanlab.init(mode="offline")` leaves it: scalars one by one, and the machine's own steps."""

from pathlib import Path

from tests.importers.writing import field, framed

FORMAT = "swanlab"
ROWS = {
    "loss/train": {step: 4.0 - step / 64 for step in range(60)} | {7: float("nan"), 8: float("inf")},
    "grad/norm": {step: 1.0 + step / 32 for step in range(60)},
    "größe": {step: 0.1 * step for step in range(60)},
    "system/mem": {10: 0.25, 40: 0.75},
}
BLIND = {"rank", "sampled"}
CHECKED = True
NAMES = {"loss/train": "train/loss", "grad/norm": "train/grad_norm", "größe": "größe"}


def write(folder: Path) -> Path:
    run = folder / "run-20260102_030405-abc"
    (run / "files").mkdir(parents=True)
    (run / "files" / "config.yaml").write_text("lr:\n  desc: ''\n  sort: 0\n  value: 0.001\n")
    (run / "run-abc.swanlab").write_bytes(framed(b":SWL\xd6\xe1\x02", records()))
    return run


def records() -> list[bytes]:
    start = field(1, "project") + field(4, "a run") + field(10, "abc") + field(12, field(1, 1_700_000_000))
    found = [field(10, start), field(20, field(1, "config") + field(2, "/gone/config.yaml"))]
    found.append(field(12, field(1, 2) + field(2, 1) + field(3, "__swanlab__.mem")))
    for step in range(60):
        time = field(1, 1_700_000_000 + step // 4) + field(2, step % 4 * 250_000_000)
        for signal, name in NAMES.items():
            found.append(_scalar(name, step, time, ROWS[signal][step]))
        if step in (10, 40):
            found.append(_scalar("__swanlab__.mem", step // 30, time, ROWS["system/mem"][step]))
    found.append(field(11, field(1, 1)))
    return [field(1, number) + record for number, record in enumerate(found, 1)]


def _scalar(name: str, step: int, time: bytes, value: float) -> bytes:
    number = field(1, value) if value else b""
    at = field(2, step) if step else b""
    return field(13, field(1, name) + at + field(3, 1) + field(4, time) + field(5, number))
