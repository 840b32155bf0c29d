"""DVCLive's folder: a table per metric, one of them with times."""

import math
from pathlib import Path

FORMAT = "dvclive"
ROWS = {
    "loss/train": {step: 3.0 - step / 64 for step in range(1, 31)} | {7: math.nan, 9: math.inf},
    "grad/norm": {step: 1.0 + step / 32 for step in range(1, 31)},
    "eval/µ": {10: 0.25, 20: 0.5},
}
BLIND = {"steps", "rank"}


def write(folder: Path) -> Path:
    metrics = folder / "dvclive" / "plots" / "metrics"
    for file, name in (("train/loss", "loss/train"), ("grad_norm", "grad/norm"), ("eval/µ", "eval/µ")):
        path = metrics / f"{file}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        timed = file == "grad_norm"
        lines = [f"{'timestamp	' * timed}step\t{path.stem}"]
        lines += [f"{f'{1_700_000_000_000 + step}	' * timed}{step}\t{value}" for step, value in ROWS[name].items()]
        path.write_text("\n".join(lines) + "\n")
    (folder / "dvclive" / "metrics.json").write_text('{"step": 30}\n')
    (folder / "dvclive" / "params.yaml").write_text("learning_rate: 0.001\nmodel:\n  layers: 2\n")
    return folder / "dvclive"
