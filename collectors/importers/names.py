"""A log's own names -> signals of the catalogue, with the exact factor to their unit.

    Names(importer.means, maps).meaning("train/grad_norm")     # grad/norm, x 1

What the user says goes first (`--map grad/norm=COLUMN`), then what the importer knows of its format, then the spellings
of the table below, which tools and scripts share. A name that could be two things stays the user's own: a wrong guess
is a wrong number, and `--map` costs a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainvitals.catalogue import FIELDS, SIGNALS
from trainvitals.errors import UsageError

UNITS: Mapping[str, float] = {
    "nats": 1.0, "bits": math.log(2), "s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "percent": 0.01,
    "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12,
}  # fmt: skip
"""Word behind a star -> what a number is multiplied by to be in the unit of the catalogue."""

LR = "lr/used"
BY_NAME = "by its name"
ROLES = ("step", "time", "run")
"""What `--map` may say of a column that is no series; importers of tables find it in `state["map"]`."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a column is taken for."""

    signal: str
    """Catalogue name."""
    factor: float = 1.0
    label: str = ""
    """Of a learning rate: the parameter group."""
    why: str = ""
    rank: int = 0
    """Which of two columns for one signal is preferred: the smaller."""


_TRAIN = r"(?:(?:train|training|metrics|optim|stats|perf)[ /])*"
_VALIDATION = r"(?:(?:eval|evaluation|val|valid|validation)[ /])+"
_PER_S = r"(?:/ ?s|/ ?sec|/ ?second|per sec|per second|per s)"
_TABLE: tuple[tuple[str, str, float, int], ...] = (
    # signal, pattern of the spelled-out name, factor, rank
    ("loss/train", rf"{_TRAIN}(?:lm loss|cross entropy loss|ce loss)", 1.0, 0),
    ("loss/train", rf"{_TRAIN}(?:loss|cross entropy|nll|nll loss)", 1.0, 1),
    ("loss/train", r"(?:loss[ /]train|train(?:ing)? loss|loss train|trl)", 1.0, 1),
    ("loss/train", r"(?:train[ /])?(?:train )?loss step", 1.0, 2),
    ("loss/val", rf"{_VALIDATION}(?:lm )?(?:loss|cross entropy|ce loss|nll)", 1.0, 0),
    ("loss/val", r"(?:loss[ /](?:val|validation|eval)|lm loss validation|valid(?:ation)? loss)", 1.0, 0),
    ("grad/norm", rf"{_TRAIN}(?:total |global )?(?:grad|gradient)s? ?norm", 1.0, 0),
    ("grad/norm", rf"{_TRAIN}(?:grad|gradient)s? norm (?:unclipped|before clip(?:ping)?|preclip|pre clip)", 1.0, 0),
    ("grad/loss_scale", rf"{_TRAIN}(?:(?:amp|fp16|dynamic|current) )?loss ?scale", 1.0, 0),
    ("grad/norm_clipped", rf"{_TRAIN}(?:clipped (?:grad|gradient) norm|(?:grad|gradient)s? norm "
     r"(?:clipped|after clip(?:ping)?|post ?clip))", 1.0, 0),
    ("throughput/tokens_per_s", rf"{_TRAIN}(?:throughput[ /])?(?:tokens?|tok) ?{_PER_S}", 1.0, 0),
    ("throughput/mfu", rf"{_TRAIN}(?:throughput[ /])?mfu", 1.0, 0),
    ("throughput/step_time", rf"{_TRAIN}(?:throughput[ /])?(?:step|iteration|iter|batch|elapsed) time", 0.0, 0),
    ("throughput/step_time", r"elapsed time per iteration", 0.0, 0),
    ("throughput/step_time", rf"{_TRAIN}(?:dt|time per (?:step|iteration))", 0.0, 0),
    ("data/tokens_seen", rf"{_TRAIN}(?:throughput[ /])?(?:consumed tokens|tokens (?:seen|consumed|processed)|"
     r"(?:num )?input tokens seen|num tokens seen|total tokens|ntokens seen|n tokens seen)", 1.0, 0),
)
"""Factor 0: the unit must stand in the name, else it stays the user's own."""
_PATTERNS = tuple((signal, re.compile(rf"(?:{pattern})"), factor, rank) for signal, pattern, factor, rank in _TABLE)
_LR = re.compile(rf"{_TRAIN}(?:lr|learning rate)(?P<label>[ /](?:(?:param )?group ?|pg ?|g)?\d{{1,4}})?")
_LIGHTNING_LR = re.compile(r"lr-(?P<label>\w{1,40}(?:/pg\d{1,4})?(?:-\d{1,4})?)")
"""As its LearningRateMonitor names them; it logs `lr-AdamW-momentum`, too, which is no rate."""
_UNIT = re.compile(r"^(?P<name>.*?)(?: ?[(\[] ?(?P<bracket>[^()\[\]]{1,20}) ?[)\]]| (?P<word>ms|milliseconds?|msec|"
                   r"secs?|seconds?|s|bits|percent|pct))$")
_WORDS = {"ms": "ms", "msec": "ms", "millisecond": "ms", "milliseconds": "ms", "s": "s", "sec": "s", "secs": "s",
          "second": "s", "seconds": "s", "us": "us", "%": "percent", "percent": "percent", "pct": "percent",
          "bits": "bits", "nats": "nats", "min": "min"}


class Names:
    """The meaning of one log's names."""

    def __init__(self, means: Mapping[str, str] = {}, maps: Iterable[str] = ()) -> None:  # noqa: B006 - never changed
        """`means`: of an importer. `maps`: SIGNAL=COLUMN, as the user gave them. Raises UsageError for a bad one."""
        self._told = dict(_mapped(text) for text in maps if text.partition("=")[0].strip() not in ROLES)
        self._format = {column: _starred(name, column, "the format says so") for column, name in means.items()}

    def meaning(self, column: str) -> Meaning | None:
        """What a column is; None where nobody knows, so that it stays under its own name."""
        mapped = {meaning.signal for meaning in self._told.values()}
        if column in self._told:
            return self._told[column]
        found = self._format.get(column) or guess(column)
        return None if found is not None and found.signal in mapped else found

    def unused(self, columns: Iterable[str]) -> list[str]:
        """Columns that the user named and that the log does not have."""
        return sorted(set(self._told) - set(columns))


def roles_told(maps: Iterable[str]) -> dict[str, str]:
    """Role -> column, of what the user said by `--map`."""
    return {role.strip(): column.strip() for role, _, column in (text.partition("=") for text in maps)
            if role.strip() in ROLES and column.strip()}


def guess(column: str) -> Meaning | None:
    """What the name of a column says to everybody who knows the field."""
    spelled = re.sub(r"[\s_.:]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)).lower().replace("-", " ")
    spelled = re.sub(r" ?/ ?", "/", spelled).strip(" /")
    found = _in_table(spelled, "")
    if found is None and (cut := _UNIT.match(spelled)) and (unit := _WORDS.get(cut["bracket"] or cut["word"])):
        found = _in_table(cut["name"].strip(), unit)
    if found is None and (rate := _LR.fullmatch(spelled) or (_LIGHTNING_LR.fullmatch(column))):
        found = Meaning(LR, label=(rate["label"] or "").strip(" /-") or "all", why=BY_NAME)
    return found


def _in_table(name: str, unit: str) -> Meaning | None:
    for signal, pattern, factor, rank in _PATTERNS:
        if (factor or unit) and pattern.fullmatch(name):
            return Meaning(signal, UNITS[unit] if unit else factor, why=BY_NAME, rank=rank)
    return None


def _mapped(text: str) -> tuple[str, Meaning]:
    signal, equals, column = text.partition("=")
    if not equals or not signal.strip() or not column.strip():
        raise UsageError(f"--map {text!r} does not say SIGNAL=COLUMN. Give one such as loss/train=lm_loss, and a "
                         f"factor behind a star where the unit differs: {', '.join(UNITS)}, or a number.")
    column, star, factor = column.strip().rpartition("*")
    column, factor = (column, factor) if star and _factor(factor) is not None else (f"{column}{star}{factor}", "")
    return column, _starred(f"{signal.strip()}*{factor}" if factor else signal.strip(), column, "--map says so")


def _starred(name: str, column: str, why: str) -> Meaning:
    signal, _, factor = name.partition("*")
    known = SIGNALS.get(signal) or FIELDS.get(signal)
    times = _factor(factor) if factor else 1.0
    if known is None or (known.axes and signal != LR):
        raise UsageError(f"{column!r} cannot be taken for {signal!r}: it is no signal of one number per step. "
                         "docs/signals.md lists those.")
    if times is None:
        raise UsageError(f"{factor!r} is no factor. Give {', '.join(UNITS)}, or a finite number above 0.")
    return Meaning(signal, times, "all" if signal == LR else "", why)


def _factor(text: str) -> float | None:
    if text in UNITS:
        return UNITS[text]
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None
