"""The contamination page: found and read audits, every part on every kind of folder, and in a real browser."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.contamination.make_audit import make_audit
from tests.dashboard.conftest import admit, free_port

pytest.importorskip("streamlit")

from checks.contamination.records import ITEMS, MATCHES
from checks.contamination.report.text import plural
from checks.contamination.score.decision import decide, decide_benchmark
from checks.contamination.score.sweep import SWEEP
from dashboard.contamination import audits
from dashboard.contamination import items as audit_items
from dashboard.contamination.shape import misfit
from dashboard.server import launch
from dashboard.server.folders import audits_below
from tests.dashboard.test_browser import DONE, PARSED, Watched
from tests.dashboard.test_pages import words
from trainvitals.errors import RunDamaged

PARTS = ("Items", "Scores", "Threshold", "Recall", "What was searched", "Compare audits")
KINDS = ("normal", "hostile", "bare")
INSIDE = """[...document.querySelectorAll('[data-testid=stHtml]')]
    .flatMap(e => [...e.querySelectorAll('script, img, svg, a, iframe, [onerror], [onload]')]).map(e => e.outerHTML)"""
"""What st.html would have made of a hostile document."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with audits and no run: one as usual, one with hostile strings, one without scores and recall."""
    root = tmp_path_factory.mktemp("audited")
    make_audit(root / "normal", 1000, seed=1)
    make_audit(root / "hostile", 300, seed=2, hostile=True)
    make_audit(root / "bare", 90, seed=3, scores=False, inject=False)
    return root


def shown(test) -> str:
    """All words of a page, and what st.html was given."""
    return words(test) + "".join(e.proto.body for e in test.get("html"))


def summary(path: Path) -> dict:
    return json.loads((path / "audit.json").read_text())


def test_audits_are_found_in_runs_beside_them_and_alone(tmp_path, folder):
    for place in ("run/audits/a", "beside", "deep/er/st/b", "too/deep/to/be/seen", "run/frames/x", "run/work/y"):
        shutil.copytree(folder / "bare", tmp_path / place)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "audit.json").write_text("{")
    assert set(audits_below(str(tmp_path))) == {"run/a", "beside", "deep/er/st/b", "half"}
    assert audits_below(str(tmp_path / "beside")) == {"beside": str(tmp_path / "beside")}
    assert audits_below(str(tmp_path / "nowhere")) == {}


def test_audits_of_one_name_keep_their_paths(tmp_path, folder):
    for place in ("run/audits/a", "run/a"):
        shutil.copytree(folder / "bare", tmp_path / place)
    assert set(audits_below(str(tmp_path))) == {"run/audits/a", "run/a"}


@pytest.mark.parametrize(
    ("kind", "part"),
    [*((kind, part) for kind in KINDS[:2] for part in PARTS), *(("bare", part) for part in PARTS[1:4])],
)
def test_every_part_draws_every_audit(board, folder, kind, part):
    test = board(folder, page="contamination", audit=kind, part=part)
    assert not test.exception
    assert test.selectbox(key="audit-name").value == kind
    assert "No-go" in shown(test)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_screen_names_the_score_to_trust(board, folder, kind):
    test = board(folder, page="contamination", audit=kind)
    said = shown(test)
    for benchmark in summary(folder / kind)["benchmarks"]:
        assert benchmark["name"] in said
        model = next((s for s in benchmark["scores"] if not s["control"]), None)
        if model is None:
            continue
        whole, clean = model["subsets"]["whole"], model["subsets"]["clean"]
        trusted = decide_benchmark(benchmark, summary(folder / kind)["corpus"]).trusted
        if benchmark["verdicts"]["contaminated"] and not trusted:
            assert f"Report both scores of {benchmark['name']}" in said.replace("\\", "")
            assert f"{whole['value']:.2f}" in said and f"{clean['value']:.2f}" in said
        elif benchmark["verdicts"]["contaminated"] and trusted == "clean":
            assert f"on {clean['n']:,} clean items, not {whole['value']:.2f}"[:-1] in said
            assert f"[{clean['low']:.2f}, {clean['high']:.2f}]" in said or f"[{clean['low']:.3f}, " in said
        elif kind == "normal":
            assert f"[{whole['low']:.2f}, {whole['high']:.2f}] on all {whole['n']:,} items" in said
    assert ("No scores were given" in said) == (kind == "bare")


def test_a_folder_of_audits_opens_on_them(board, folder):
    assert "No-go" in shown(board(folder))
    assert "No-go" in shown(board(folder / "normal"))


def test_runs_come_first_where_there_are_any(board, folder, tmp_path, runs):
    shutil.copytree(runs / "clean", tmp_path / "clean")
    shutil.copytree(folder / "normal", tmp_path / "clean" / "audits" / "web")
    assert board(tmp_path).selectbox(key="run").value == "clean"
    assert board(tmp_path, page="contamination").selectbox(key="audit-name").value == "clean/web"


def test_a_folder_without_audits_says_how_to_make_one(board, tmp_path, runs):
    for folder in (tmp_path, runs, tmp_path / "nowhere"):
        test = board(folder, page="contamination")
        assert not test.exception
        assert "No contamination audit here yet" in words(test)
        assert "trainvitals audit --corpus" in test.code[0].value and "/audits/" in test.code[0].value


def test_an_audit_of_nothing_draws(board, folder, tmp_path):
    made = summary(folder / "bare") | {"benchmarks": []}
    decision = decide(made)
    made["decision"] = {"level": decision.level, "sentence": decision.sentence}
    for name, schema in (("items", ITEMS), ("matches", MATCHES), ("sweep", SWEEP)):
        pq.write_table(schema.empty_table(), tmp_path / f"{name}.parquet")
    (tmp_path / "audit.json").write_text(json.dumps(made))
    for part in PARTS:
        assert not board(tmp_path, page="contamination", part=part).exception


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("audit.json", b'{"format": 1, "benchmarks": [', "audit.json is cut off"),
        ("audit.json", b"[1]", "no JSON object"),
        ("audit.json", b'{"format": 1}', "tool is missing"),
        ("audit.json", None, "no readable audit.json"),
        ("items.parquet", None, "no readable items.parquet"),
        ("items.parquet", b"PAR1 and then nothing", "items.parquet cannot be read"),
        ("matches.parquet", None, "no readable matches.parquet"),
        ("matches.parquet", b"PAR1", "matches.parquet cannot be read"),
        ("sweep.parquet", b"", "sweep.parquet cannot be read"),
    ],
)
def test_a_broken_audit_is_named_with_its_remedy(board, folder, tmp_path, name, content, said):
    path = shutil.copytree(folder / "bare", tmp_path / "broken")
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    test = board(tmp_path, page="contamination", part="Threshold" if name.startswith("sweep") else "Items")
    assert not test.exception
    assert said in words(test) and "again" in words(test)


def test_every_missing_place_of_audit_json_is_named(folder):
    whole = summary(folder / "normal")
    assert misfit(whole) == ""
    for path in ("decision.level", "corpus.shards.0.sha256", "benchmarks.1.scores.0.subsets.clean.low",
                 "benchmarks.0.verdicts.suspect", "inject.table.3.recall"):  # fmt: skip
        cut = copy.deepcopy(whole)
        *front, last = path.split(".")
        inner = cut
        for key in front:
            inner = inner[int(key)] if key.isdigit() else inner[key]
        inner[last] = ["no", "number"]
        assert last in misfit(cut)
        del inner[last]
        assert f"{last} is missing" in misfit(cut)


def test_an_item_of_the_address_is_shown_beside_its_documents(board, folder):
    matches = pq.read_table(folder / "normal" / "matches.parquet").to_pandas()
    counts = matches.groupby(["benchmark", "item_id"]).size()
    benchmark, item_id = counts[counts == 3].index[-1]
    own = matches[(matches["benchmark"] == benchmark) & (matches["item_id"] == item_id)].sort_values("rank")
    test = board(folder, page="contamination", audit="normal", item=f"{benchmark}/{item_id}")
    assert f"{benchmark} {item_id}" in words(test)
    picker = test.selectbox(key=next(s.key for s in test.selectbox if s.key and s.key.startswith("audit-rank")))
    for position, row in enumerate(own.itertuples()):
        picker.set_value(position)
        test.run()
        assert row.document in words(test)
        start, stop = row.spans[0]
        assert f"<mark>{row.text[start:stop]}</mark>" in shown(test)
        picker = test.selectbox(key=picker.key)


def test_the_table_sends_no_texts_and_a_bounded_number_of_rows(board, folder, monkeypatch):
    monkeypatch.setattr(audit_items, "MOST_ROWS", 25)
    test = board(folder, page="contamination", audit="normal")
    table = next(d.value for d in test.dataframe if "Containment" in d.value.columns)
    assert len(table) == 25
    assert not {"text", "rule"} & {name.lower() for name in table.columns}
    assert "The first 25 of" in words(test)


def test_filters_and_search_agree_with_the_table_on_disk(board, folder):
    items = pq.read_table(folder / "normal" / "items.parquet").to_pandas()
    test = board(folder, page="contamination", audit="normal", search="HARBOUR")
    dirty = items["verdict"].isin(["contaminated", "suspect"])
    found = items["text"].str.contains("harbour")
    assert f"{(dirty & found).sum()} items. Select" in words(test)
    test.button_group(key="audit-verdict").set_value([])
    test.run()
    assert f"{found.sum():,} items. Select" in words(test)
    test.selectbox(key="audit-evidence_kind").set_value("question only")
    test.run()
    assert f"{plural(int((found & (items['evidence_kind'] == 'question only')).sum()), 'item')}. Select" in words(test)
    test.text_input(key="search").set_value("no item says this")
    test.run()
    assert "No item passes these filters" in words(test)


def test_the_slider_shows_the_stored_row(board, folder):
    swept = pq.read_table(folder / "normal" / "sweep.parquet").to_pandas()
    test = board(folder, page="contamination", audit="normal", part="Threshold")
    name, model = test.selectbox(key="sweep-benchmark").value, test.selectbox(key="sweep-model").value
    for threshold in (0.3, 0.97):
        test.select_slider(key="sweep-threshold").set_value(threshold)
        test.run()
        own = swept[(swept["benchmark"] == name) & (swept["model"] == model) & (swept["threshold"] == threshold)]
        row = own.iloc[0]
        tiles = {metric.label: metric.value for metric in test.metric}
        assert tiles["Items flagged"] == f"{row['flagged']} of {row['flagged'] + row['n_clean']:,}"
        assert tiles["Score of the rest"] == f"{row['score_clean']:.3f}"
        assert tiles["Gain from the flagged"] == f"{100 * row['gain']:+.2f} points"
        assert f"{row['low']:.3f} to {row['high']:.3f}" in words(test)


def test_two_audits_stand_side_by_side(board, folder):
    test = board(folder, page="contamination", audit="normal", part="Compare audits")
    test.multiselect(key="with").set_value(["bare", "hostile"])
    test.run()
    table = next(d.value for d in test.dataframe if "Audit" in d.value.columns)
    assert len(table) == 9 and set(table["Audit"]) == {"normal", "bare", "hostile"}
    for name in KINDS:
        first = summary(folder / name)["benchmarks"][0]
        row = table[(table["Audit"] == name) & (table["Benchmark"] == first["name"])].iloc[0]
        assert [row["Contaminated"], row["Clean"]] == [first["verdicts"][v] for v in ("contaminated", "clean")]


def test_hostile_strings_are_escaped(board, folder):
    audit = audits.open_audit(str(folder / "hostile"))
    keys = [audits.key_of(audit, n) for n in audits.ordered(audit.items)[:24]]
    attacked = [key for key in keys if "<" in key or "never_a_space" in key or "\u202e" in key]
    assert len(attacked) >= 6
    test = board(folder, page="contamination", audit="hostile")
    for key in attacked:
        test.query_params["item"] = key
        test.run()
        assert not test.exception
        said = "".join(e.proto.body for e in test.get("html"))
        assert "<pre" in said
        assert not any(tag in said for tag in ("<script", "<img", "<svg", "</body", "\u202e", "\x1b"))
        assert len(said) < 120_000


def test_an_item_keeps_its_address(folder):
    for kind in KINDS:
        audit = audits.open_audit(str(folder / kind))
        for number in range(len(audit.items)):
            assert audits.number_of(audit, audits.key_of(audit, number)) == number
    for unknown in ("", "#", "#999999", "#-1", "#²", "gsm8k_made/no such item"):
        assert audits.number_of(audit, unknown) is None


def test_pipes_in_place_of_an_audits_files_are_named_and_not_waited_for(board, folder, tmp_path):
    for name in ("audit.json", "items.parquet", "sweep.parquet"):
        path = shutil.copytree(folder / "bare", tmp_path / name.partition(".")[0])
        (path / name).unlink()
        os.mkfifo(path / name)
        assert len(audits_below(str(path))) == 1
        with pytest.raises(RunDamaged, match="no regular file"):
            audits.open_audit(str(path))
    test = board(tmp_path, "contamination", audit="gone")
    assert not test.exception
    assert "The audit **gone** is not in this folder" in test.warning[0].value


def test_a_changed_audit_is_read_again(folder, tmp_path):
    path = shutil.copytree(folder / "bare", tmp_path / "changing")
    assert len(audits.open_audit(str(path)).items)
    (path / "audit.json").write_text("{")
    with pytest.raises(RunDamaged, match="Run the audit again"):
        audits.open_audit(str(path))


@pytest.fixture(scope="module")
def server(folder: Path, chromium: object) -> Iterator[launch.Door]:
    door = launch.Door(free_port())
    process = launch.serve(folder, door)
    yield door
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture
def watched(server: launch.Door, chromium, request: pytest.FixtureRequest) -> Iterator[Watched]:
    scheme, width = getattr(request, "param", ("light", 1440))
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    admit(context, server)
    yield Watched(context.new_page(), server.url)
    context.close()


@pytest.mark.parametrize("watched", [("light", 1440), ("dark", 1100)], indirect=True)
def test_the_page_loads_and_the_answer_is_on_the_first_screen(watched: Watched):
    watched.open("", audit="normal")
    watched.check()
    assert "/contamination" in watched.page.url
    box = watched.page.get_by_text("Score to trust").last.bounding_box()
    assert box["y"] + 60 < 900
    main = "document.querySelector('[data-testid=stMain]')"
    assert watched.page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")


def test_a_click_on_a_row_shows_that_item(watched: Watched):
    watched.open("contamination", audit="normal")
    table = watched.page.locator("[data-testid=stDataFrame]").nth(1)
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    watched.page.mouse.click(box["x"] + 15, box["y"] + 36 + 28 * 3 + 10)
    watched.page.wait_for_function("location.search.includes('item=')", timeout=20_000)
    watched.page.wait_for_function(DONE)
    watched.page.wait_for_timeout(300)
    item = watched.page.evaluate("new URL(location).searchParams.get('item')")
    title = item.replace("/", " ")
    watched.page.get_by_text(title, exact=True).wait_for(timeout=10_000)
    assert watched.page.locator("[data-testid=stHtml] mark").count() >= 2
    shared = watched.page.url
    watched.page.goto("about:blank")
    watched.page.goto(shared)
    watched.page.get_by_text(title, exact=True).wait_for(timeout=20_000)
    watched.check()


def test_hostile_audits_do_nothing_in_the_browser(watched: Watched, folder: Path):
    audit = audits.open_audit(str(folder / "hostile"))
    for number in audits.ordered(audit.items)[:4]:
        key = audits.key_of(audit, int(number))
        watched.page.goto("about:blank")
        watched.page.goto(f"{watched.base}/contamination?audit=hostile")
        watched.page.evaluate(
            "key => { const u = new URL(location); u.searchParams.set('item', key); location = u }", key
        )
        watched.page.locator("[data-testid=stHtml] pre").first.wait_for(timeout=60_000)
        watched.page.wait_for_function(DONE)
        watched.check()
        assert watched.page.evaluate(PARSED) == []
        assert watched.page.evaluate(INSIDE) == []
    for part in PARTS[3:]:
        watched.open("contamination", audit="hostile", part=part.replace(" ", "+"))
        watched.check()
        assert watched.page.evaluate(PARSED) == []
