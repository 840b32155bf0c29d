"""Cases of throughput.data_wait."""

from tests.checks.synthetic import Synthetic

ONSET_ERROR_STEPS = 1


def fault_loader_falls_behind(s: Synthetic, at: int) -> None:
    s.data_wait[at - 1 :] = 0.4 * s.step_time[at - 1 :]


def fault_loader_stalls_for_a_while(s: Synthetic, at: int) -> None:
    s.data_wait[at - 1 : at + 59] = 0.15 * s.step_time[at - 1 : at + 59]


def control_single_late_batches(s: Synthetic, at: int) -> None:
    s.data_wait[at - 1 :: 10] = 0.9 * s.step_time[at - 1 :: 10]


def control_caches_fill(s: Synthetic, at: int) -> None:
    s.data_wait[:10] = 0.9 * s.step_time[:10]
