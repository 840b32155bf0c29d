"""report.html: self-contained, escaped, and clear on its first screen. Opened in Chromium without a network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from checks.contamination.report.page import write_report
from checks.contamination.report.text import BLOCK, marked, tag, text
from checks.contamination.report.top import _trust, facts
from tests.contamination.make_audit import HOSTILE, HUGE, make_audit
from trainvitals.errors import RunDamaged

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
).split()


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with its report."""
    folder = make_audit(tmp_path_factory.mktemp("audit"))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder full of attacks, with its report."""
    folder = make_audit(tmp_path_factory.mktemp("hostile"), 200, hostile=True)
    write_report(folder)
    return folder


class _Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def _seen(folder: Path) -> _Seen:
    seen = _Seen()
    seen.feed((folder / "report.html").read_text(encoding="utf-8"))
    return seen


def test_the_report_is_one_file_that_loads_nothing(hostile: Path):
    seen = _seen(hostile)
    assert seen.tags.count("script") == 1 and seen.tags.count("style") == 1
    assert not {"img", "iframe", "link", "object", "embed", "base", "form", "image", "foreignobject"} & set(seen.tags)
    names = {name for name, _ in seen.attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "srcset", "style", "xlink:href")]
    assert all(value.startswith("#") for name, value in seen.attributes if name == "href" and value)
    page = (hostile / "report.html").read_text(encoding="utf-8")
    assert "url(" not in page and "@import" not in page
    assert "default-src 'none'" in page and "unsafe" not in page
    assert len(page) < 600_000, "huge strings are cut"


def test_invisible_and_direction_changing_characters_can_be_seen(hostile: Path):
    page = (hostile / "report.html").read_text(encoding="utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\ufeff\x00-\x08\x0b-\x1f\U000e0041]", page)
    assert 'invoice <span class="ctl">U+202E</span>fdp.exe' in page


def test_the_report_is_made_from_the_folder_alone_and_twice_alike(audit: Path, tmp_path: Path):
    copy = shutil.copytree(audit, tmp_path / "copy")
    (copy / "report.html").unlink()
    assert write_report(copy).read_bytes() == (audit / "report.html").read_bytes()
    assert str(audit) not in (audit / "report.html").read_text()


def test_every_benchmark_shows_at_most_fifty_pairs_and_says_so(tmp_path: Path):
    page = write_report(make_audit(tmp_path, 2400, scores=False, inject=False)).read_text()
    dirty = page[page.index('id="contaminated"') : page.index('id="suspect"')]
    assert dirty.count("<details") == 50 and "72 contaminated items" in dirty
    shown = [float(score) for score in re.findall(r"containment ([\d.]+)", dirty)]
    scores = pd.read_parquet(tmp_path / "items.parquet").query("verdict == 'contaminated'")["score"]
    assert shown == [round(s, 2) for s in scores.sort_values(ascending=False)[:50]], "the clearest evidence first"
    assert "The 50 with the strongest evidence are shown" in dirty
    assert "run the audit with <code>--inject</code>" in page and "<code>--scores</code>" in page
    assert "Do not report gsm8k_made as it stands: 72 of" in page


def test_the_first_screen_tells_the_recall_of_plain_copies_and_of_the_hardest_kind():
    def told(verbatim: float, paraphrase: float) -> str:
        rows = [
            {"edit": edit, "detector": detector, "recall": recall}
            for edit, recall in (("verbatim", verbatim), ("paraphrase", paraphrase))
            for detector in ("exact", "any")
        ]
        corpus = {"documents": 2, "text_bytes": 10, "shards": [{"documents": 2}, {"documents": 0}], "problems": []}
        return facts({"corpus": corpus, "inject": {"table": rows}})

    both = "finds 100.0 % of copies planted verbatim, 25.0 % of the hardest kind (paraphrase)."
    assert told(1.0, 0.25).endswith(both)
    assert told(0.5, 0.5).endswith("finds 50.0 % of copies planted verbatim.")
    assert "in 1 of 2 shards" in told(0.5, 0.5)


@pytest.mark.parametrize("unscored", [0, 140])
def test_the_score_to_trust_says_how_many_items_it_rests_on(unscored: int) -> None:
    score = {"n": 200 - unscored, "value": 0.5, "low": 0.4, "high": 0.6}
    model = {"model": "m", "control": False, "subsets": {"whole": score, "clean": score}}
    verdicts = {"contaminated": 0, "suspect": 0, "clean": 200, "untestable": 0}
    benchmark = {"name": "b", "items": 200, "verdicts": verdicts, "scores": [model]}
    cell = _trust(benchmark, {"documents": 1, "records": 1, "problems": []}, model)
    assert ("on 60 of 200 items scored" if unscored else "on all 200 items") in cell


@pytest.mark.parametrize("name", ["items.parquet", "matches.parquet", "sweep.parquet", "audit.json"])
def test_a_damaged_folder_gets_one_sentence(audit: Path, tmp_path: Path, name: str):
    copy = shutil.copytree(audit, tmp_path / "copy")
    (copy / name).write_bytes(b"{")
    with pytest.raises(RunDamaged, match="No report can be made"):
        write_report(copy)
    (copy / name).unlink()
    with pytest.raises(RunDamaged, match="Run the audit again"):
        write_report(copy)


@given(st.text(max_size=60), st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70)), max_size=5))
@example("a\r\nb\r", [(0, 2)])
@example("<b>\x07<i>\u202e</pre>", [(0, 5)])
def test_marking_keeps_the_text_and_marks_the_spans(value: str, spans: list[tuple[int, int]]):
    class Plain(HTMLParser):
        def __init__(self) -> None:
            super().__init__(convert_charrefs=True)
            self.open: list[str | None] = []
            self.text, self.flags = "", []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            self.open.pop()

        def handle_data(self, data: str) -> None:
            inside = "span" in self.open
            self.text += chr(int(data[2:], 16)) if inside else data
            self.flags += ["mark" in self.open] * (1 if inside else len(data))

    parsed = Plain()
    parsed.feed(marked(value, spans))
    parsed.close()
    expected = [any(a <= i < b for a, b in spans) for i in range(len(value))]
    dropped = {i for i, c in enumerate(value) if value[i : i + 2] == "\r\n"}
    assert parsed.text == "".join(c for i, c in enumerate(value) if i not in dropped)
    assert parsed.flags == [flag for i, flag in enumerate(expected) if i not in dropped]


def test_long_texts_are_cut_around_the_first_span():
    shown = marked("x" * 50_000 + "HERE" + "y" * 50_000, [(50_000, 50_004)])
    assert "<mark>HERE</mark>" in shown and len(shown) < BLOCK + 300 and "characters before" in shown
    assert len(text(HUGE)) < 400 and text("<b>") == "&lt;b&gt;"
    assert tag("p", HOSTILE[1], title=HOSTILE[1]).count('"') == 2


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    """A headless browser; skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine")
    with api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 1440])
def test_the_first_screen_tells_which_score_to_trust(audit: Path, hostile: Path, chromium, scheme: str, width: int):
    for folder in (audit, hostile):
        context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        page = context.new_page()
        noted: list[str] = []
        page.on("console", lambda message, noted=noted: noted.append(message.text))
        page.on("pageerror", lambda error, noted=noted: noted.append(str(error)))
        page.on("dialog", lambda dialog, noted=noted: (noted.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request, noted=noted: noted.append(request.url))
        url = (folder / "report.html").as_uri()
        page.goto(url)
        assert noted == [url]
        assert page.evaluate("window.__xss ?? null") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        decision = json.loads((folder / "audit.json").read_text())["decision"]["sentence"]
        assert page.locator("h1").inner_text() == decision
        last = page.locator("table.benchmarks tr").last.bounding_box()
        assert last["y"] + last["height"] <= 800, "the table of benchmarks is on the first screen"
        context.close()


def test_filter_and_print(audit: Path, chromium, tmp_path: Path):
    page = chromium.new_page()
    page.goto((audit / "report.html").as_uri())
    shown = page.locator("#contaminated details.item:visible")
    assert shown.count() == 40
    page.locator("input.filter").fill("question only")
    some = shown.count()
    assert 0 < some < 40
    page.locator("input.filter").fill("no such words")
    assert shown.count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.close()
