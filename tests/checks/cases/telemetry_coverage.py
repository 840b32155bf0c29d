"""Cases of telemetry.coverage: what the tap did not see of the job."""

from tests.checks.synthetic import Synthetic


def fault_losses_of_some_forwards_are_not_seen(s: Synthetic, at: int) -> None:
    s.coverage["losses_seen"][at - 1 :] = 1
    s.coverage["forwards"][:] = 2
    s.coverage["losses_seen"][: at - 1] = 2


def fault_a_router_is_replaced_by_one_that_cannot_be_read(s: Synthetic, at: int) -> None:
    s.coverage["routers_read"][at - 1 :] -= 1


def fault_parameters_thaw_that_no_optimizer_holds(s: Synthetic, at: int) -> None:
    s.coverage["parameters"][at - 1 :] += 100


def fault_no_gradient_is_where_torch_keeps_it(s: Synthetic, at: int) -> None:
    s.coverage["gradients_seen"][at - 1 :] = 0


def control_all_is_seen(s: Synthetic, at: int) -> None:
    assert s.coverage["losses_seen"].sum() > 0


def control_an_expert_without_tokens_has_no_gradient(s: Synthetic, at: int) -> None:
    s.coverage["gradients_seen"][at - 1 :] -= 10

