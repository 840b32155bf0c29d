"""Lines as each tool prints them, written from its documented format, and the numbers that stand in them.

`PRINTERS[format](step, loss, norm, rate)` gives the text of one step and {name: number as printed}. The numbers are
rounded here by Python's own formatting, and read by nothing of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

Printed = tuple[str, dict[str, float]]


def _read(**tokens: str) -> dict[str, float]:
    return {name: float(token.replace(",", "")) for name, token in tokens.items()}


def megatron(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"consumed samples": f"{step * 512:12d}", "elapsed time per iteration (ms)": f"{norm * 7:.1f}",
             "learning rate": f"{rate:.6E}", "global batch size": f"{512:5d}", "lm loss": f"{loss:.6E}",
             "loss scale": "1.0", "grad norm": f"{norm:.3f}", "number of skipped iterations": f"{0:3d}",
             "number of nan iterations": f"{0:3d}"}
    line = f" [2025-01-31 12:00:{step % 60:02d}] iteration {step:8d}/{100000:8d} |" + "".join(
        f" {name}: {text} |" for name, text in texts.items())
    return line, _read(**texts)


def torchtitan(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"loss": f"{loss:7.4f}", "grad_norm": f"{norm:7.4f}", "memory(GiB)": f"{norm:5.2f}", "memory(%)": "59.70",
             "tps": f"{step * 1000 + 5:,}", "tflops": f"{norm * 9:,.2f}", "mfu(%)": "33.73"}
    line = (f"2025-01-31 12:00:00,123 - root - INFO - \x1b[31mstep: {step:2}  \x1b[32mloss: {texts['loss']}  "
            f"\x1b[38;2;180;60;0mgrad_norm: {texts['grad_norm']}  \x1b[36mmemory: {texts['memory(GiB)']}GiB(59.70%)  "
            f"\x1b[34mtps: {texts['tps']}  \x1b[36mtflops: {texts['tflops']}  \x1b[35mmfu: 33.73%\x1b[39m")
    return line, _read(**texts)


def torchtitan_structured(step: int, loss: float, norm: float, rate: float) -> Printed:
    record = {"delta_ms": 0.5, "rank": 0, "source": "training", "step": step, "time_us": 1738324800000000 + step,
              "log_type": "scalar", "log_type_name": "loss", "value": loss, "caller": "trainer.py:796:train_step"}
    return json.dumps(record), {"loss": loss}


def olmo_core(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"train/CE loss": f"{loss:.3f}", "optim/total grad norm": f"{norm:.4f}", "throughput/device/TPS": "12,345"}
    line = f"2025-01-31 12:00:00.123\thost:0\ttrain:12\tINFO\t[step={step}/596057,epoch=1,eta=3days4:05:06]" + "".join(
        f"\n    {name}={text}" for name, text in texts.items())
    return line, _read(**texts)


def nemo(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"lr": f"{rate:.4g}", "global_batch_size": "512", "reduced_train_loss": f"{loss:.4g}",
             "train_step_timing in s": f"{norm:.4g}", "consumed_samples": str(step * 512)}
    line = (f"Training epoch 0, iteration {step}/99999 | lr: {texts['lr']} | global_batch_size: 512 | global_step: "
            f"{step} | reduced_train_loss: {texts['reduced_train_loss']} | train_step_timing in s: "
            f"{texts['train_step_timing in s']} | consumed_samples: {step * 512}")
    return line, _read(**texts)


def automodel(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"loss": f"{loss:.4f}", "grad_norm": f"{norm:.4f}", "lr": f"{rate:.2e}", "mem": "11.66", "tps": "6924.50",
             "tps_per_gpu": "3462.25", "num_label_tokens": "322"}
    line = (f"2025-01-31 12:00:00 | INFO | root | step {step} | epoch 0 | loss {texts['loss']} | grad_norm "
            f"{texts['grad_norm']} | lr {texts['lr']} | mem 11.66 GiB | tps 6924.50(3462.25/gpu) | num_label_tokens "
            "322")
    return line, _read(**texts)


def deepspeed(step: int, loss: float, norm: float, rate: float) -> Printed:
    line = (f"[2025-01-31 12:00:00,123] [INFO] [logging.py:96:log_dist] [Rank 0] step={step}, skipped=4, "
            f"lr=[{rate}, {rate}], mom=[(0.9, 0.95), (0.9, 0.95)]")
    return line, {"skipped": 4.0, "lr": rate}


def levanter(step: int, loss: float, norm: float, rate: float) -> Printed:
    metrics = {"train/loss": loss, "optim/learning_rate": rate, "throughput": {"duration": norm}}
    line = "2025-01-31T12:00:00 - levanter.json_logger - INFO - " + json.dumps(
        {"tracker": "json_logger", "event": "log", "step": step, "metrics": metrics})
    return line, {"train/loss": loss, "optim/learning_rate": rate, "throughput/duration": norm}


def llmc(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"trl": f"{loss:.4f}", "lr": f"{rate:.6f}", "norm": f"{norm:.2f}"}
    return f"s:{step} trl:{texts['trl']} lr:{texts['lr']} norm:{texts['norm']}", _read(**texts)


def llmc_console(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"loss": f"{loss:7.6f}", "loss z": "-0.52", "norm": f"{norm:6.4f}", "norm z": "0.31", "lr": f"{rate:.2e}",
             "ms": f"{norm * 9:.2f}", "tok/s": "424242"}
    line = (f"step {step:4d}/100000 | loss {texts['loss']} (-0.52z)| norm {texts['norm']} (+0.31z)| lr {texts['lr']} | "
            f"{texts['ms']} ms | 424242 tok/s")
    return line, _read(**texts)


def nanogpt(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"loss": f"{loss:.4f}", "time(ms)": f"{norm * 9:.2f}", "mfu(%)": "35.21"}
    return f"iter {step}: loss {texts['loss']}, time {texts['time(ms)']}ms, mfu 35.21%", _read(**texts)


def modded_nanogpt(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"train_loss": f"{loss:.4f}", "train_time(ms)": f"{step * 99:.0f}", "step_avg(ms)": f"{norm:.2f}"}
    line = (f"step:{step}/100000 train_loss:{texts['train_loss']} train_time:{texts['train_time(ms)']}ms "
            f"step_avg:{texts['step_avg(ms)']}ms")
    return line, _read(**texts)


def nanochat(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"loss": f"{loss:.6f}", "lrm": "1.00", "dt(ms)": f"{norm * 9:.2f}", "tok/sec": "1,023,456", "mfu": "45.67",
             "total time(m)": "1.25"}
    line = (f"step {step:05d}/100000 (1.17%) | loss: {texts['loss']} | lrm: 1.00 | dt: {texts['dt(ms)']}ms | tok/sec: "
            "1,023,456 | mfu: 45.67 | total time: 1.25m")
    return line, _read(**texts)


def hf_output(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"loss": f"{loss:.4g}", "grad_norm": f"{norm:.4g}", "learning_rate": f"{rate:.4g}", "epoch": "0.01"}
    bar = f"{step / 1000:4.0f}%|##        | {step}/100000 [00:05<08:15,  2.00it/s]"
    line = "\r" + " " * 40 + "\r" + str(texts) + "\n\r" + bar + "\r" + bar
    return line, _read(**texts)


def llama_factory(step: int, loss: float, norm: float, rate: float) -> Printed:
    record = {"current_steps": step, "total_steps": 100000, "loss": loss, "lr": rate, "epoch": 0.5, "percentage": 1.0,
              "elapsed_time": "0:00:10", "remaining_time": "1:00:00"}
    return json.dumps(record), {"loss": loss, "lr": rate, "epoch": 0.5}


def composer(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"time/batch": str(step - 1), "loss/train/total": f"{loss:.4f}", "l2_norm/grad/global": f"{norm:.4f}"}
    line = f"[batch={step}/100000]:" + "".join(f"\n\t Train {name}: {text}" for name, text in texts.items())
    return line, _read(**texts)


def printed(step: int, loss: float, norm: float, rate: float) -> Printed:
    texts = {"train_loss": f"{loss:.5f}", "gnorm": f"{norm:.3f}", "lr": f"{rate:.3e}"}
    line = (f"INFO:trainer: Step {step}/100000: train_loss={texts['train_loss']}, gnorm: {texts['gnorm']}, "
            f"lr = {texts['lr']}")
    return line, _read(**texts)


PRINTERS: dict[str, Callable[[int, float, float, float], Printed]] = {
    "megatron": megatron, "torchtitan": torchtitan, "torchtitan-structured": torchtitan_structured,
    "olmo-core": olmo_core, "nemo": nemo, "automodel": automodel, "deepspeed": deepspeed, "levanter": levanter,
    "llmc": llmc, "llmc (console)": llmc_console, "nanogpt": nanogpt, "modded-nanogpt": modded_nanogpt,
    "nanochat": nanochat, "hf-output": hf_output, "llama-factory": llama_factory, "composer": composer,
    "printed": printed,
}  # fmt: skip


def write_log(path: Path, name: str, steps: Iterable[int]) -> list[tuple[int, str, float]]:
    """A log of a format: (step, name, value) of all that stands in it."""
    expected = []
    with path.open("w", encoding="utf-8", newline="") as file:
        for step in steps:
            text, values = PRINTERS[name](step, 2.0 + 1.0 / (step + 1), 0.3 + step % 7 / 9, 1e-4 * (1 + step % 5))
            file.write(text + "\n")
            expected += [(step, key, values[key]) for key in sorted(values)]
    return expected


class Sample:
    """A log of 30 steps as `tests/importers/samples` has them, of columns that become signals.

    Args:
        name: in PRINTERS.
        signals: catalogue name -> the log's name of it, with a factor behind a star.
    """

    def __init__(self, name: str, signals: Mapping[str, str], file: str = "job.out") -> None:
        self._name, self._file = name, file
        self.rows: dict[str, dict[int, float]] = {signal: {} for signal in signals}
        for step in range(1, 31):
            values = PRINTERS[name](step, 2.0 + 1.0 / (step + 1), 0.3 + step % 7 / 9, 1e-4 * (1 + step % 5))[1]
            for signal, column in signals.items():
                own, _, factor = column.partition("*")
                self.rows[signal][step] = values[own] * float(factor or 1)

    def write(self, folder: Path) -> Path:
        """The log in a new folder."""
        folder.mkdir(parents=True)
        write_log(folder / self._file, self._name, range(1, 31))
        return folder / self._file
