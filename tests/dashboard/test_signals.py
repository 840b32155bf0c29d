"""The page of all signals: formulas against Python's own arithmetic; pins, samples, card in Streamlit's runner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collectors.start import start
from dashboard.signals import pins
from dashboard.signals.cards import flat
from dashboard.signals.formula import MOST_LENGTH, parse
from dashboard.signals.pins import Pin
from tests.dashboard.test_pages import charts, words
from trainvitals.errors import UsageError

STEPS = 120


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of a script's own numbers and samples."""
    folder = tmp_path_factory.mktemp("own")
    run = start(run=folder / "own", config={"model": {"hidden": [64, 128]}, "lr": 3e-4}, tags=["sweep"], group="ppo")
    for step in range(STEPS):
        run.log({"reward": step / 10, "a:b": 1.0}, step=step)
        if step % 2 == 0:
            run.log({"kl": step / 100}, step=step)
    for step in (0, 100):
        run.log_text("answers", f"<b>{step}</b> **bold**\nsecond", step=step)
        run.log_table("evals", columns=["q", "a"], rows=[["=1+1", "2"]], step=step)
        run.log_histogram("weights", np.arange(50.0), step=step)
        run.log_image("grid", np.zeros((4, 6)), caption="[x](y)", step=step)
    run.close()
    return folder


# -- formulas ----------------------------------------------------------------------------------------------------------

NUMBERS = st.floats(-4, 4).map(lambda v: round(v, 3))
TREES = st.recursive(
    st.one_of(NUMBERS.map(repr), st.sampled_from(["{a}", "{b/c}"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        inner.map(lambda t: f"abs(-{t})"), st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})"),
    ), max_leaves=8)  # fmt: skip


@given(TREES, NUMBERS, NUMBERS)
def test_a_formula_is_what_python_computes(text, a, b):
    text = f"{text} + 0 * {{a}}"
    found = float(parse(text).of({"a": np.array([a]), "b/c": np.array([b])} if "{b/c}" in text
                                 else {"a": np.array([a])})[0])
    try:
        # Python itself is the oracle, and the text is made of numbers and signs by the strategy above.
        expected = float(eval(text.replace("{a}", "A").replace("{b/c}", "B"),  # noqa: S307 - the oracle of a test
                              {"A": a, "B": b, "abs": abs, "max": max}))
    except ZeroDivisionError:
        assume(False)
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("text", [
    "__import__('os')", "{a}.real", "[{a}]", "{a} if {a} else 1", "lambda: {a}", "{a} < 1", "log({a}, 2)", "min({a})",
    "sin({a})", "{a} and 1", "loss + {a}", "{a", "{}", "1 + 1", "{a}(1)", "{a}[0]", "'x' + {a}",
    "{a} @ {a}", "True * {a}",
    "{a}" + "+{a}" * MOST_LENGTH, "(" * 200 + "{a}", "log(x={a})", "{a}; {a}",
])  # fmt: skip
def test_what_is_no_formula_is_refused_in_one_sentence(text):
    with pytest.raises(UsageError):
        parse(text)


def test_a_power_tower_ends_at_once_and_undefined_values_are_not_finite():
    assert np.isinf(parse("{a} + 9 ** 9 ** 9 ** 9").of({"a": np.zeros(2)})).all()
    assert np.isnan(parse("log({a})").of({"a": np.array([-1.0])})).all()


# -- pins --------------------------------------------------------------------------------------------------------------


def test_pins_are_kept_replaced_and_removed(tmp_path):
    assert pins.read_pins(str(tmp_path)) == []
    pins.keep(str(tmp_path), Pin("gap", ("{a} - {b}",)))
    pins.keep(str(tmp_path), Pin("gap", ("a", "b"), True))
    pins.keep(str(tmp_path), Pin("other", ("c",)))
    assert pins.read_pins(str(tmp_path)) == [Pin("gap", ("a", "b"), True), Pin("other", ("c",))]
    pins.remove(str(tmp_path), "gap")
    assert [p.name for p in pins.read_pins(str(tmp_path))] == ["other"]
    with pytest.raises(UsageError):
        pins.keep(str(tmp_path), Pin(" ", ("a",)))


@pytest.mark.parametrize("data", ["", "[]", '{"pins": 1}', '{"pins": [{"name": 1, "signals": []}]}', "{" * 99])
def test_a_damaged_file_of_pins_is_named_and_never_replaced(tmp_path, data):
    (tmp_path / pins.FILE).write_text(data)
    with pytest.raises(UsageError, match=r"pins\.json"):
        pins.keep(str(tmp_path), Pin("a", ("b",)))
    assert (tmp_path / pins.FILE).read_text() == data


# -- the page ----------------------------------------------------------------------------------------------------------


def test_own_numbers_formulas_and_what_is_not_there(board, own):
    test = board(own, page="signals", run="own")
    assert not test.exception and "3 signals, 3 of them logged by the script itself" in words(test)
    test.multiselect(key="signals").set_value(["kl", "a:b", "{reward} - {kl}", "nothing", "{kl} +"]).run()
    assert not test.exception and charts(test) == 3
    assert "This run has no signal nothing" in words(test) and "The formula cannot be read" in words(test)
    test.toggle(key="one").set_value(True).run()
    assert not test.exception and charts(test) == 1


def test_a_formula_is_computed_at_the_steps_that_its_signals_share(own):
    from dashboard.signals.values import curve

    table = curve(str(own / "own"), "{reward} - {kl}", None, 1000).table
    assert table["step"].to_list() == list(range(0, STEPS, 2))
    np.testing.assert_allclose(table["value"], [s / 10 - s / 100 for s in range(0, STEPS, 2)])


def test_labels_of_a_signal_and_a_formula_of_one(board, runs):
    from dashboard.signals.values import curve

    path = str(runs / "faulty")
    code = curve(path, "loss/domain:code", None, 5000).table
    half = curve(path, "{loss/domain:code} / 2", None, 5000).table
    np.testing.assert_allclose(half["value"], code["value"] / 2)
    with pytest.raises(UsageError, match="needs one"):
        curve(path, "{loss/domain}", None, 10)
    with pytest.raises(UsageError, match="no label"):
        curve(path, "loss/domain:nothing", None, 10)
    test = board(page="signals", run="hostile")
    test.multiselect(key="signals").set_value(["router/load", "loss/domain"]).run()
    assert not test.exception and charts(test) == 2


def test_a_pin_brings_its_view_back(board, own):
    pins.keep(str(own), Pin("both", ("kl", "reward"), True))
    test = board(own, page="signals", run="own")
    test.button_group(key="pinned").set_value("both").run()
    assert test.multiselect(key="signals").value == ["kl", "reward"] and test.toggle(key="one").value
    test.multiselect(key="signals").set_value(["kl", "reward", "a:b"]).run()
    assert test.multiselect(key="signals").value == ["kl", "reward", "a:b"]
    (own / pins.FILE).unlink()


@pytest.mark.parametrize(("name", "kind"), [("answers", "text"), ("evals", "dataframe"),
                                            ("weights", "vega_lite_chart"), ("grid", "image")])
def test_every_kind_of_sample_is_shown(board, own, name, kind):
    test = board(own, page="signals", run="own", part="Samples", sample=name)
    assert not test.exception
    assert len(test.dataframe if kind == "dataframe" else test.get(kind)) == 1
    assert "step 100" in words(test)


def test_the_card_is_searchable(board, own):
    test = board(own, page="signals", run="own", part="Run card", find_setting="hidden 128")
    assert not test.exception and "ppo" in words(test) and "sweep" in words(test)
    shown = test.dataframe[0].value
    assert shown["name"].to_list() == ["model.hidden"] and shown["value"].to_list() == ["64, 128"]


def test_nested_settings_are_taken_apart():
    nested = {"a": {"b": [1, 2], "c": [{"d": 0}], "e": None}, "f": ""}
    assert dict(flat(nested, "")) == {"a.b": "1, 2", "a.c[0].d": "0"}


def test_the_tab_names_level_run_and_page(monkeypatch):
    from types import SimpleNamespace

    from dashboard import sidebar

    said = SimpleNamespace(level="fail")
    monkeypatch.setattr(sidebar, "judge", lambda: SimpleNamespace(known=lambda path: said))
    choice = sidebar.Choice("runs/a", "a")
    assert sidebar.title(choice, "Loss") == "FAIL · a · Loss"
    said.level = "pass"
    assert sidebar.title(choice, "Loss") == "a · Loss"
