"""Words from bytes: the compiled splitter against Python's own Unicode, and what must never tell two texts apart."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.contamination.text.words import Words, spellings, split_words, words_of
from tests.contamination import twin

ALPHABETS = st.text(
    st.one_of(
        st.sampled_from("aBz09_ .,'-\n\t\x00é\u0301ÄßﬁǅΣςσЖѣ½²①Ⅷ漢字かがカﾞ\u3099々한글각　”…\u00ad\ufeff"),
        st.characters(min_codepoint=0x20, max_codepoint=0x24F),
        st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
        st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
    ),
    max_size=40,
)


ESCAPES = st.lists(
    st.sampled_from([
        "\\", "n", "u00e9", "u2019", "\\n", "\\t", "\\u00e9", "\\\\u0301", "\\u00", "\\ud83d", "&", "&quot;", "&amp;",
        "&amp", "&#39;", "&#x27;", "&#xe9;", "&#233;", "&#9999999;", "&foo;", "&#;", "&#x;", "#39;", "word", "a",
        "_", "\\theta", "\\neq", "\\text", "\\textbf", "\\mathrm", "\\dfrac", "\\_", "&eacute;", "&amp;lt;", "&sup2;",
        " ", "é", "字",
    ]),
    max_size=10,
).map("".join)


quick = settings(deadline=None, max_examples=200)  # the first call may compile


def spelt(text: str | bytes) -> list[str]:
    raw = text.encode() if isinstance(text, str) else text
    found = split_words(np.frombuffer(raw, np.uint8), np.array([0, len(raw)], np.int64))
    points, first = spellings(np.frombuffer(raw, np.uint8), found)
    return ["".join(map(chr, points[first[i] : first[i + 1]])) for i in range(len(found))]


@quick
@given(ALPHABETS.filter(lambda text: not any("FRACTION" in unicodedata.name(c, "") for c in text)))
def test_words_are_those_of_a_regex_over_normalised_text(text: str) -> None:
    assert spelt(text) == twin.words(text)


@quick
@given(ESCAPES)
def test_escapes_count_as_what_they_stand_for(text: str) -> None:
    assert spelt(text) == twin.words(text)


@quick
@given(st.text(max_size=60) | ESCAPES)
def test_same_hash_means_same_letters_and_each_word_stands_alone_at_its_place(text: str) -> None:
    raw = text.encode()
    found, spelling = words_of(text), spelt(text)
    hashes = found.hashes.tolist()
    assert len({*zip(hashes, spelling, strict=True)}) == len(set(spelling)) == len(set(hashes))
    for k in range(len(found)):
        part = raw[found.starts[k] : found.ends[k]].decode()  # never within a character
        assert spelt(part) == [spelling[k]]


@quick
@given(st.binary(max_size=60))
def test_invalid_bytes_separate_words(raw: bytes) -> None:
    assert spelt(raw) == spelt(raw.decode(errors="replace"))


@quick
@given(st.lists(ALPHABETS, max_size=6))
def test_words_never_cross_documents(texts: list[str]) -> None:
    raw = [text.encode() for text in texts]
    found = split_words(np.frombuffer(b"".join(raw), np.uint8), np.cumsum([0, *map(len, raw)], dtype=np.int64))
    for k, text in enumerate(texts):
        assert found.hashes[found.first[k] : found.first[k + 1]].tolist() == words_of(text).hashes.tolist()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Janet’s ducks — lay “16” eggs…", "janet's DUCKS lay 16\neggs"),
        ("Café STRASSE", "cafe\u0301 Straße"),
        ("ｆｕｌｌ　ｗｉｄｔｈ １２", "full width 12"),
        ("soft\u00adhyphen zero\u200djoin", "softhyphen zerojoin"),
        ("한국어 각", unicodedata.normalize("NFD", "한국어 각")),
        ("がぎ", unicodedata.normalize("NFD", "がぎ")),
        ("_stressed_ has_close_elements", "stressed *has__close_elements*"),
        ("٣ apples", "3 apples"),
        ('def f(x):\n\treturn "café’s"', r'def f(x):\n\treturn \"caf\u00e9\u2019s\"'),
        ('def f(x):\n\treturn "a\\n"', r'def f(x):\\n\\treturn \\\"a\\\\n\\\"'),
        ("Janet's eggs: 3 < 4 & “x”", "Janet&#39;s eggs: 3 &lt; 4 &amp; &ldquo;x&#x201D;"),
        (r"\theta \times \sin{A}\\\nabla", r"THETA times \SIN A \\\\nabla"),
        ("wo\u200brd zero\u2060join\ufeff", "word zerojoin"),
        (r"\textbf{Bold} is 5\,\text{cm} of \dfrac{1}{2}", r"Bold is 5 cm of \frac{1}{2}"),
        (r"has\_close\_elements", "has_close_elements"),
        ("caf&eacute; &amp;quot;&amp;#39;x&amp;amp;", "café x"),
    ],
)
def test_what_looks_the_same_is_the_same(one: str, other: str) -> None:
    assert words_of(one).hashes.tolist() == words_of(other).hashes.tolist()


WRAPPED = st.lists(st.tuples(
    st.sampled_from("How many ducks does H2O hold, if x < 3 and y > 4? café 漢字 80,000".split()),
    st.sampled_from([
        ("<span class=\"a b\">", "</span>"), ("<em>", "</em>"), ("<b>", "</b>"), ("<code>", "</code>"),
        ("<SUB>", "</SUB>"),
        ("<a href='http://x.y/z?a=b&amp;c' rel=nofollow>", "</a>"), ("<!-- a note -->", "<!---->"), ("<wbr>", "<wbr/>"),
        ("<span\nclass=\"math-container\">$", "$</span>"), ("&lt;strong&gt;", "&lt;/strong&gt;"),
        ("", "&lt;!-- x --&gt;"), ("**", "**"),
        ("\\u003ci\\u003e", "\\u003c/i\\u003e"), ("<i><b><u>", "</u></b></i>"), ("[", "](https://x.y/(z)#w)"),
        ("\\emph{", "}"), ("\u200b", "\u2060"), ("<mark\tdata-x=\"1\">", "<\\/mark>"), ("_", "_"), ("", ""),
    ]),
), max_size=12)


@quick
@given(WRAPPED)
def test_text_in_markup_is_the_text_without_it(parts: list[tuple[str, tuple[str, str]]]) -> None:
    plain = " ".join(word for word, _ in parts)
    assert spelt(" ".join(f"{before}{word}{behind}" for word, (before, behind) in parts)) == twin.words(plain)


@pytest.mark.parametrize(("marked", "plain"), [
    ("un<b>believ</b>able H<sub>2</sub>O<!-- x --> na<wbr>me", "unbelievable H2O name"),
    ("<p>one</p><p>two</p>three<br>four<br/>five<td>six", "one two three four five six"),
    ("<div class=x>one</div><div>two</div>", "one two"),
    ("one</s>two", "one two"),
    ('<img alt="Natalia sold clips to 48 of her friends in all of April" src="x">', "img alt Natalia sold clips to 48 "
     "of her friends in all of April src x"),
    ("&amp;lt;p&amp;gt;one&amp;lt;/p&amp;gt;two", "one two"),
    ("<![CDATA[one]]> <!DOCTYPE html> two <?xml version='1.0'?>", "one two"),
    ("[one](http://a.b) two[0](three) [four](#five)", "one two 0 three four"),
])
def test_markup_is_no_word_and_blocks_separate(marked: str, plain: str) -> None:
    assert spelt(marked) == spelt(plain)


@pytest.mark.parametrize("text", [
    "a < b and c > d", "if a <b and c> d", "x<b>y", "List<int> and Map<String, Object>", "List<Object> <T> vector<a>",
    "for (i = 0; i<a; i++) j>i", "#include <time.h> #include <map>", "std::vector<data> x; std::cout<<a>>b",
    "<your name>",
    "what does <em> do?", "a <- b -> c <= d >= e <> f", "<3 <!-- open", "x <p q and r", "<a <b <i", "<code", "<",
])
def test_what_is_no_tag_stays(text: str) -> None:
    assert spelt(text) == twin.words(text)


def test_tags_that_never_end_take_no_time() -> None:
    for text in ("<b>" * 200_000, "<!-- " * 200_000, '<a "' * 200_000, "<a b='" * 100_000, "&lt;i&gt;" * 100_000,
                 "](/a" * 100_000):
        assert len(words_of(text)) >= 0


@pytest.mark.parametrize(
    ("one", "other"), [("か", "が"), ("कि", "का"), ("x1", "x2"), ("a b", "ab"), ("fizz_buzz", "fizzbuzz")]
)
def test_what_differs_stays_different(one: str, other: str) -> None:
    assert words_of(one).hashes.tolist() != words_of(other).hashes.tolist()


def test_scripts_without_spaces_give_a_word_per_character() -> None:
    assert [len(words_of(text)) for text in ("日本語とkana", "ภาษา", "中文abc中")] == [5, 4, 4]


def test_no_text_no_words() -> None:
    empty: Words = split_words(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    assert (len(empty), empty.first.tolist(), len(words_of("")), len(words_of(" ?!\x00"))) == (0, [0], 0, 0)
