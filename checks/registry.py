"""The list of checks. A check is a plain function with a decorator; adding one means adding one file.

    @check("loss.spike", area="loss", reads=("loss/train",), refs=("https://...",))
    def loss_spike(run, *, z: float = 6.0) -> Iterator[Finding]:
        \"\"\"Loss jumps more than `z` robust deviations above its running median.\"\"\"

Every module `checks/<area>/<name>.py` with a check in it is imported when the list is first asked for; names with a
leading underscore hold what several checks of an area share.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.abc import InspectLoader
from typing import TYPE_CHECKING, Any

from checks.certificates import certificate_words
from checks.finding import Finding
from trainvitals.blind import Blindness, BlindSpot
from trainvitals.errors import UnknownSignal, UsageError

if TYPE_CHECKING:
    from trainvitals.store import Run

AREAS = ("loss", "optimisation", "routing", "data", "scaling", "throughput", "telemetry")
CheckFunction = Callable[..., Iterable[Finding]]

_CHECKS: dict[str, Check] = {}


@dataclass(frozen=True, slots=True)
class Check:
    """What a check is, and how to run it."""

    name: str
    area: str
    reads: tuple[str, ...]
    """Signals without which there is no answer."""
    uses: tuple[str, ...]
    """Signals that sharpen the answer where they exist."""
    refs: tuple[str, ...]
    function: CheckFunction
    instead: Mapping[str, str]
    """Signal -> what is read in its place where the run has none."""
    needs: tuple[Blindness, ...] = ()
    """What its `pass` cannot do without: where the log of an imported run is blind to it, the answer is unknown."""
    optional: bool = False
    """Has nothing to say of runs without a ground of its own, such as a twin; silence is then no missing answer."""

    @property
    def meaning(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def defaults(self) -> dict[str, Any]:
        """Thresholds and windows that can be set, with their defaults."""
        return {
            name: p.default
            for name, p in inspect.signature(self.function).parameters.items()
            if p.kind is p.KEYWORD_ONLY
        }

    def run(self, run: Run, settings: Mapping[str, Any] | None = None) -> list[Finding]:
        """Findings on this run, at least one unless the check is optional. Never raises because of what the run holds.

        Raises:
            UsageError: `settings` names a threshold that the check does not have.
        """
        unknown = set(settings or ()) - set(self.defaults)
        if unknown:
            raise UsageError(
                f"Check {self.name} has no setting {', '.join(sorted(unknown))}. "
                f"It has {', '.join(self.defaults) or 'none'}."
            )
        try:
            missing = [name for name in self.reads
                       if not _has(run, name) and not _has(run, self.instead.get(name, name))]
            found = [_absent(missing, _told(run, missing))] if missing else list(self.function(run, **(settings or {})))
        # A check that fails must cost its own answer only, not the other checks' nor the caller's.
        except Exception as error:
            found = [_broken(self.name, error)]
        spots = self._blind_to(run)
        said = found or ([] if self.optional else [_silent()])
        rates = certificate_words(self.name, settings or _scanned_otherwise(run, self.area))
        return [replace(_blinded(f, spots), check=self.name, area=self.area, certificate=rates) for f in said]

    def _blind_to(self, run: Run) -> list[BlindSpot]:
        """What the log that the run was imported from hides of the signals that the check reads."""
        imported = getattr(run, "imported", None) if self.needs else None
        if imported is None:
            return []
        signals = [*self.reads, *self.instead.values(), *(name for name in self.uses if _has(run, name))]
        return [spot for spot in imported.blind if spot.kind in self.needs and spot.concerns(signals)]


def check(
    name: str,
    *,
    area: str,
    reads: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
    refs: tuple[str, ...] = (),
    instead: Mapping[str, str] | None = None,
    needs: tuple[Blindness, ...] = (),
    optional: bool = False,
) -> Callable[[CheckFunction], CheckFunction]:
    """Register a function `(run, *, thresholds) -> findings` as a check.

    Args:
        name: `area.what`, as findings carry it.
        area: one of `AREAS`.
        reads: signals without which there is no answer.
        uses: signals that sharpen the answer where they exist.
        refs: where the method comes from.
        instead: signal -> what the function reads in its place where the run has none.
        needs: kinds of blind spots, on its signals, that turn its `pass` into `unknown`; alarms stay alarms.
        optional: no finding is an answer too: the run has nothing that this check is about.

    Raises:
        UsageError: the area is not one of `AREAS`, or another function has this name already.
    """
    if area not in AREAS:
        raise UsageError(f"Check {name} has area {area!r}. Use one of {', '.join(AREAS)}.")

    def register(function: CheckFunction) -> CheckFunction:
        earlier = _CHECKS.get(name)
        if earlier and earlier.function.__module__ != function.__module__:
            raise UsageError(
                f"Two checks are called {name}: in {earlier.function.__module__} and {function.__module__}. Rename one."
            )
        _CHECKS[name] = Check(name, area, reads, uses, refs, function, instead or {}, needs, optional)
        return function

    return register


def all_checks() -> tuple[Check, ...]:
    """Every check, by area and name."""
    _discover()
    return tuple(sorted(_CHECKS.values(), key=lambda c: (AREAS.index(c.area), c.name)))


@cache
def _discover() -> None:
    for area in AREAS:
        package = importlib.import_module(f"checks.{area}")
        for module in pkgutil.iter_modules(package.__path__):
            name = f"checks.{area}.{module.name}"
            if not module.name.startswith("_") and _registers(name):
                importlib.import_module(name)


def _registers(name: str) -> bool:
    """Whether a module holds a check. Areas that are systems of their own hold much else, which is slow to import."""
    spec = importlib.util.find_spec(name)
    source = spec.loader.get_source(name) if spec and isinstance(spec.loader, InspectLoader) else None
    return source is None or "@check(" in source


def _scanned_otherwise(run: Run, area: str) -> dict[str, Any]:
    """Settings of the scan that the checks of an area share, where they are not the shipped ones."""
    settings = getattr(run, "settings", {}) if area in ("loss", "optimisation") else {}
    return {name: given for name, given in settings.items() if name.startswith("scan.")}


def _has(run: Run, name: str) -> bool:
    try:
        return bool(run.has(name))
    except UnknownSignal:
        return False


REMEDIES: Mapping[str, str] = {
    "loss/val": "Log validation losses: pass an evaluation set to the trainer, or call the tap's validation loss.",
    "loss": "Attach the loss collector: tv.attach(model, ...) for Hugging Face models, tap.loss(...) otherwise.",
    "grad": "Attach the gradient collector: tv.attach(model, optimizer, ...).",
    "lr": "Attach the learning-rate collector: tv.attach(model, optimizer, scheduler=...).",
    "router": "Attach the router collector to a mixture-of-experts model; a dense model has no routers.",
    "data": "Let batches carry a `domain` column and attach with domains={name: planned share}.",
    "tokens": "Attach the token collector: tv.attach(model, ..., tokenizer=tokenizer).",
    "throughput": "Attach the throughput collector: tv.attach(model, optimizer, ...).",
}


def remedy(signal: str) -> str:
    """How a run comes to have this signal: one sentence."""
    return REMEDIES.get(signal) or REMEDIES.get(signal.partition("/")[0], f"Log {signal} in the training script.")


def _told(run: Run, missing: list[str]) -> list[str]:
    """What a collector wrote down about signals of its family, such as why it does not record them."""
    events = run.events()
    families = tuple(f"{name.partition('/')[0]}_" for name in missing)
    told = events[events["kind"].astype(str).str.startswith(families)]
    return list(dict.fromkeys(str(message) for message in told["message"] if isinstance(message, str) and message))


def _absent(missing: list[str], told: list[str]) -> Finding:
    return Finding(
        level="unknown",
        summary=f"No data for {', '.join(missing)}.",
        what_it_means=" ".join(
            ["The signals that this check reads were never written, so it can say nothing.", *told[:3]]
        ),
        what_to_do=" ".join(dict.fromkeys(remedy(name) for name in missing)),
        details={"missing": missing},
    )


def _blinded(finding: Finding, spots: list[BlindSpot]) -> Finding:
    """A `pass` on a log that hides what would have been an alarm is none."""
    if finding.level != "pass" or not spots:
        return finding
    says = " ".join(dict.fromkeys(f"{spot.says.rstrip('.')}." for spot in spots))
    return replace(
        finding,
        level="unknown",
        summary=f"Nothing was found in what the log holds, and it may hide a fault: {spots[0].says.rstrip('.')}.",
        what_it_means=f"{says} In what the log holds: {finding.summary}",
        what_to_do=" ".join(dict.fromkeys(f"{spot.remedy.rstrip('.')}." for spot in spots)),
        details={**finding.details, "blind": [spot.kind for spot in spots]},
    )


def _broken(name: str, error: Exception) -> Finding:
    return Finding(
        level="unknown",
        summary=f"The check failed with {type(error).__name__}: {error}.",
        what_it_means="This is a fault of the check or of the stored data, not of the training.",
        what_to_do=f"Report it with the run card, and leave {name} out until it is mended.",
        details={"error": repr(error)},
    )


def _silent() -> Finding:
    return Finding(
        level="unknown",
        summary="The check gave no answer.",
        what_it_means="A check must answer at least once; this one did not.",
        what_to_do="Report it with the run card.",
    )
