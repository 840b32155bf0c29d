"""Every error that TrainVitals raises at a user, and the exit code each one ends the command line with.

    TrainVitalsError
    ├── UsageError        a wrong argument: what it was and what is accepted
    ├── RunNotFound       a path that holds no run
    ├── RunDamaged        a run whose card or schema cannot be read at all
    ├── StoreUnreachable  an object store that does not answer, or refuses
    └── UnknownSignal     a signal that this run does not have

A message is one sentence that names the place and one that names the remedy.
"""


class TrainVitalsError(Exception):
    """Base of all errors that a user can cause or mend."""

    exit_code = 70


class UsageError(TrainVitalsError, ValueError):
    """An argument that cannot be used."""

    exit_code = 64


class RunNotFound(TrainVitalsError, FileNotFoundError):
    """No run folder at this path."""

    exit_code = 66

    def __str__(self) -> str:
        return str(self.args[0])


class RunDamaged(TrainVitalsError):
    """The run folder exists, but what it holds cannot be read."""

    exit_code = 65


class StoreUnreachable(TrainVitalsError, OSError):
    """An object store did not answer, or refused."""

    exit_code = 69

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownSignal(TrainVitalsError, KeyError):
    """The run has no signal of this name."""

    exit_code = 65

    def __str__(self) -> str:
        return str(self.args[0])
