"""What MLflow's two stores share: the meaning of a run's columns and tags, and what both of them hide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from collectors.importers._blind import no_rank
from collectors.importers._points import as_time
from collectors.importers.importer import BlindSpot, Facts, Item, Note, RunOf

BLIND = (no_rank("MLflow", "; equal values of one name, step and millisecond are one row in its database"),)
STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
"""Numbers of the file store, https://github.com/mlflow/mlflow/blob/v3.1.0/mlflow/protos/service.proto."""
_OWN = "mlflow."


class Stepless:
    """Which metrics have a step that says nothing of the training."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._zero, self._again, self._beyond = (set(names) for names in state.get("stepless", ((), (), ())))

    def met(self, name: str, step: int) -> None:
        """Take note of a value."""
        if step:
            if name not in self._beyond:
                self._beyond.add(name)
        elif name in self._zero:
            self._again.add(name)
        else:
            self._zero.add(name)

    def told(self) -> Iterator[Item]:
        """The blind spots, where they are new."""
        self._state["stepless"] = [sorted(names) for names in (self._zero, self._again, self._beyond)]
        without = sorted(self._again - self._beyond)
        counted = sorted(name for name in self._zero | self._beyond if name.startswith("system/"))
        spots = []
        if without:
            spots.append(BlindSpot("steps", tuple(without[:20]),
                                   f"{', '.join(without[:3])}: logged without a step, and MLflow puts every value at "
                                   "step 0",
                                   "Give step= to mlflow.log_metric"))
        if counted:
            spots.append(BlindSpot("steps", tuple(counted[:20]),
                                   "The step of MLflow's system metrics counts their samples, not the training's steps",
                                   "Compare them by time"))
        if spots and repr(spots) != self._state.get("spots"):
            self._state["spots"] = repr(spots)
            yield Facts(blind=tuple(spots))


def facts_of(run: RunOf, told: Mapping[str, Any], params: Mapping[Any, Any], tags: Mapping[Any, Any]) -> Facts:
    """The run card of what MLflow keeps of a run."""
    status = told.get("status")
    notes = {
        "mlflow_run_id": run.key,
        "mlflow_experiment": told.get("experiment"),
        "mlflow_status": STATUS.get(status, status) if isinstance(status, int) else status,
        "mlflow_user": told.get("user_id") or tags.get(f"{_OWN}user"),
        "mlflow_source": told.get("source_name") or tags.get(f"{_OWN}source.name"),
        "mlflow_parent_run": tags.get(f"{_OWN}parentRunId"),
        "mlflow_note": tags.get(f"{_OWN}note.content"),
        "tags": {str(key): str(value) for key, value in tags.items() if not str(key).startswith(_OWN)},
    }
    created = as_time(told.get("start_time"), 1000.0)
    card = {
        "name": run.name,
        **({"created": created} if created == created else {}),
        **({"git_commit": str(tags[f"{_OWN}source.git.commit"])} if tags.get(f"{_OWN}source.git.commit") else {}),
        "notes": {key: value for key, value in notes.items() if value not in (None, "", {})},
    }
    return Facts(card, {str(key): _typed(value) for key, value in params.items()})


def status_note(facts: Facts, state: dict[str, Any]) -> Iterator[Item]:
    """What MLflow says of the run's end, once."""
    status = facts.card["notes"].get("mlflow_status")
    if status in ("FINISHED", "FAILED", "KILLED") and state.get("status") != status:
        state["status"] = status
        yield Note("closed" if status == "FINISHED" else "ended", f"MLflow says that the run is {status.lower()}")


def _typed(value: Any) -> Any:
    """A parameter, which MLflow keeps as text, as the number that it was."""
    if not isinstance(value, str) or len(value) > 40:
        return value
    for kind in (int, float):
        try:
            number = kind(value)
        except ValueError:
            continue
        return number if number == number and abs(number) < 1e308 else value
    return {"True": True, "False": False, "None": None}.get(value, value)
