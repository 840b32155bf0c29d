"""Repeats, later words and branches, against the rule applied to one row after the other; whatever the batches."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.importers import order as order_module
from collectors.importers.importer import Gather, Rows
from collectors.importers.order import MOST_BRANCHES, Back, Order
from trainvitals.formulas import given as given_

Row = tuple[int, dict[str, float]]
row = st.tuples(st.integers(0, 8), st.dictionaries(st.sampled_from("ab"), st.sampled_from([0.0, 1.0]), min_size=1))


def rows_of(batch: list[Row]) -> Rows:
    gather = Gather()
    for step, values in batch:
        gather.add(step, values)
    return gather.take()


def plain(found: list[Any]) -> list[Any]:
    """Rows one by one and where the job went back."""
    out: list[Any] = []
    for item in found:
        if isinstance(item, Back):
            out.append(item.step)
        else:
            out += [(int(step), {n: float(v[i]) for n, v in item.columns.items() if given_(v[i : i + 1])[0]})
                    for i, step in enumerate(item.steps)]
    return out


def by_the_rule(rows: list[Row]) -> list[Any]:
    last: dict[str, int] = {}
    seen: dict[int, dict[str, float]] = {}
    out: list[Any] = []
    for step, values in rows:
        newest = max((last[name] for name in values if name in last), default=-1)
        if step <= newest and seen.get(step) == values:
            continue
        if step < newest:
            out.append(step - 1)
            last = {name: min(at, step - 1) for name, at in last.items()}
            seen = {}
        out.append((step, values))
        seen[step] = values
        last |= {name: max(step, last.get(name, step)) for name in values}
    return out


@settings(max_examples=200)
@given(st.lists(row, max_size=14), st.lists(st.integers(1, 5), min_size=14, max_size=14), st.integers(1, 4))
def test_rows_are_sorted_out_by_the_rule(rows: list[Row], sizes: list[int], stretch: int) -> None:
    order, found, at = Order({}), [], 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(order_module, "STRETCH", stretch)
        for size in sizes:
            if batch := rows[at : at + size]:
                found += list(order.sorted_out(rows_of(batch)))
            at += size
    assert plain(found) == by_the_rule(rows)


def test_a_later_process_knows_where_the_log_was() -> None:
    first = Order({})
    list(first.sorted_out(rows_of([(1, {"a": 1.0}), (2, {"a": 2.0})])))
    later = Order(first.state())
    assert plain(list(later.sorted_out(rows_of([(2, {"b": 5.0}), (3, {"a": 1.0}), (1, {"a": 9.0})])))) == [
        (2, {"b": 5.0}), (3, {"a": 1.0}), 0, (1, {"a": 9.0})]  # fmt: skip
    assert later.notes()[0].startswith("Steps go back 1 time without a word: what came after is the main line")


def test_another_value_for_a_step_is_said_and_the_same_one_is_not() -> None:
    order = Order({})
    list(order.sorted_out(rows_of([(1, {"a": 1.0, "epoch": 0.5}), (1, {"b": 1.0, "epoch": 0.5}), (1, {"a": 7.0})])))
    assert order.replaced == 1 and order.repeats == 0


def test_a_log_out_of_order_makes_a_bounded_number_of_branches() -> None:
    order, steps = Order({}), np.random.default_rng(0).integers(0, 10**6, 3_000)
    found = plain(list(order.sorted_out(rows_of([(int(step), {"a": float(i)}) for i, step in enumerate(steps)]))))
    assert sum(isinstance(item, int) for item in found) == MOST_BRANCHES
    assert sum(isinstance(item, tuple) for item in found) == 3_000 and "out of order" in order.notes()[0]
