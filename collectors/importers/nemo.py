"""Output of NeMo 2, and output and metric files of NeMo Automodel.

    Training epoch 0, iteration 1/99 | lr: 1.961e-07 | global_step: 1 | reduced_train_loss: 15.07 | val_loss: 9.1
    2025-01-31 12:00:00 | INFO | root | step 1 | epoch 0 | loss 3.1234 | grad_norm 1.2345 | lr 1.00e-05 | mem 11.66 GiB
    {"step": 1, "epoch": 0, "timestamp": "2025-01-31T12:00:00.000Z", "loss": 3.1234, "grad_norm": 1.2345, "lr": 1e-05}

NeMo: `TrainingProgress`, https://github.com/NVIDIA/NeMo/blob/main/nemo/lightning/pytorch/callbacks/progress_printer.py,
with four significant digits; `val_loss` is printed again on every line until the next validation, so that it is taken
where it changes. Automodel: `log_train_metrics` of its recipes and
https://github.com/NVIDIA-NeMo/Automodel/blob/main/nemo_automodel/components/loggers/metric_logger.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from collectors.importers._log import Log
from collectors.importers._text import TextImporter
from collectors.importers._tokens import json_of, number, numbers_of, time_of
from collectors.importers.importer import BlindSpot, RunOf

_NEMO = re.compile(rb"\bTraining epoch (\d{1,9}), iteration (\d{1,18})/(\d{1,18}) \|")
_AUTOMODEL = re.compile(rb"(\[val\] (?:name \"?[^|]{0,100} \| )?)?\bstep (\d{1,18}) \| epoch (\d{1,9}) \| "
                        rb"(?=[a-z_]*loss )")
_PAIR = re.compile(rb"([a-z_]{1,40}) ([-+\d.,eEnaifNAIF]{1,40})(?: ?GiB)?(?:\(([\d.,]+)/gpu\))?")
_RESTORED = re.compile(rb"Restored all states from the checkpoint at .{0,1000}?step[=_](\d{1,18})")
_BUFFERED = BlindSpot("sampled", ("loss/", "grad/", "lr/"), "Automodel writes its metric files 100 rows at a time: the "
                      "newest are not there while the job runs, nor where it was killed", "Give its printed output.")


class Nemo(TextImporter):
    """NeMo 2."""

    format = "nemo"
    title = "NeMo output"
    pattern = re.compile(rb"\bTraining epoch \d+, iteration \d+/\d+ \| ")
    means = {"reduced_train_loss": "loss/train", "lr": "lr/used", "val_loss": "loss/val", "grad_norm": "grad/norm",
             "train_step_timing in s": "throughput/step_time"}
    ended = re.compile(rb"`Trainer\.fit` stopped: `max_\w+=\d+` reached")
    between = {"loss/train": "sampled", "lr/used": "sampled", "throughput/step_time": "sampled"}
    blind = (
        BlindSpot("rounded", ("loss/train", "loss/val"), "NeMo prints four significant digits: a change of the loss "
                  "below 0.001 (0.01 above 10) is not in its output",
                  "Give its TensorBoard or W&B files."),
        BlindSpot("absent", ("grad/", "throughput/tokens_per_s"), "NeMo prints no gradient norm unless it is told to",
                  "Give its TensorBoard or W&B files."),
    )

    def line(self, line: bytes, log: Log) -> bool:
        found = _NEMO.search(line)
        if found is None:
            if found := _RESTORED.search(line):
                log.resumed(int(found[1]), f"The job read a checkpoint of step {int(found[1]):,}")
            return found is not None
        fields: dict[str, bytes | float] = {}
        for part in line[found.end() :].split(b"|"):
            name, colon, token = part.partition(b":")
            if colon and number(token) is not None:
                fields[name.strip().decode("utf-8", "replace")] = token
        step = number(fields.pop("global_step", found[2]))  # type: ignore[arg-type]
        repeated = log.memory.setdefault("repeated", {})
        for field in [field for field in fields if field.startswith("val")]:
            printed = str(fields[field])
            if repeated.get(field) == printed:
                del fields[field]
            repeated[field] = printed
        if step is not None and step == step:
            log.row(int(step), fields, line[: found.start()])
        return True


class Automodel(TextImporter):
    """NeMo Automodel: its output, its `training.jsonl`, or the folder of them."""

    format = "automodel"
    title = "NeMo Automodel log"
    pattern = re.compile(rb"\bstep \d{1,18} \| epoch \d{1,9} \| loss [-\d.naif]+ \| |"
                         rb'^\{"step": \d{1,18}, "epoch": \d{1,9}, "timestamp": "[^"]{1,40}", "(?:[a-z_]*loss|lr|mem)')
    means = {"loss": "loss/train", "grad_norm": "grad/norm", "lr": "lr/used", "val_loss": "loss/val",
             "val loss": "loss/val", "tps": "throughput/tokens_per_s"}
    between = {"loss/train": "sampled", "grad/norm": "sampled", "lr/used": "sampled"}
    blind = (
        BlindSpot("absent", ("grad/norm_by_layer", "loss/domain", "router/", "throughput/data_wait_share"),
                  "Automodel logs one gradient norm, and no loss per domain, load per expert or wait for data",
                  "Tap the loop with trainvitals.attach."),
    )

    def recognises(self, path: Path, head: bytes) -> str:
        if path.is_dir() and (path / "training.jsonl").is_file():
            with (path / "training.jsonl").open("rb") as file:
                return super().recognises(path / "training.jsonl", file.read(65_536))
        return super().recognises(path, head)

    def runs(self, path: Path) -> list[RunOf]:
        return [RunOf(path, path.name if path.is_dir() else path.stem)]

    def files(self, path: Path) -> list[Path]:
        return [path] if not path.is_dir() else [path / "training.jsonl", *sorted(path.glob("validation*.jsonl"))[:100]]

    def line(self, line: bytes, log: Log) -> bool:
        if found := _AUTOMODEL.search(line):
            validates = "val " if found[1] else ""
            values: dict[str, bytes | float] = {}
            for name, token, per_gpu in _PAIR.findall(line, found.end()):
                values[validates + name.decode()] = token
                if per_gpu:
                    values["tps_per_gpu"] = per_gpu
            log.row(int(found[2]), values, line[: found.start()], leads=not validates)
            return True
        entry = json_of(line) if line.startswith(b"{") else None
        if entry is None or type(entry.get("step")) is not int:
            return False
        numbers = {name: value for name, value in numbers_of(entry).items() if name not in ("step", "epoch")}
        is_validation = "val_loss" in numbers
        if not log.memory.get("buffered_said"):
            log.memory["buffered_said"] = True
            log.facts(blind=(_BUFFERED,))
        # The learning rate and memory that go with a validation are the training's, said again.
        kept = {name: value for name, value in numbers.items() if not is_validation or "loss" in name}
        # Of several validation sets each has a file: the second one's loss must not replace the first one's.
        several = log.file.removeprefix("validation").removesuffix(".jsonl").strip("_-") if is_validation else ""
        apart = f"{several}/" if several not in ("", "default") else ""
        renamed = {apart + name: value for name, value in kept.items()}
        log.row(entry["step"], renamed, leads=not is_validation, time=time_of(str(entry.get("timestamp")).encode()))
        return True

