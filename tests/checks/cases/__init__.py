"""Cases of single checks: `<area>_<name>.py` holds those of `checks/<area>/<name>.py`, and test_cases.py runs them.

In a cases file, `fault_<what>(s, at)` plants a fault in a sound run from step `at` on, and the check has to find it
there; `control_<what>(s, at)` does what is no fault, and the check has to pass. Two constants are optional:
`ONSET_ERROR_STEPS` (0), how far the onset may be off, and `RUN` ({}), arguments of `Synthetic`.
"""
