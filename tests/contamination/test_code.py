"""Programs under other names: tokens held against Python's own tokenizer, both errors of the verdict printed."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contamination_edits import renamed, undocumented
from checks.contamination.records import Item
from checks.contamination.text.code import runs_of, tokens_of
from tests.contamination import twin
from tests.contamination.auditing import audit, humaneval, web_text

SOURCES = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[20:140:4]


def spelt(source: str) -> list[str]:
    raw, found = source.encode(), tokens_of(source)
    texts = [raw[a:b].decode() for a, b in zip(found.starts, found.ends, strict=True)]
    literal = re.compile(r"^('''|\"\"\"|'|\")(.*)\1$", re.DOTALL)
    return [repr(literal.sub(r"\2", text)) if text[0] in "'\"" else text for text in texts]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_tokens_are_those_of_python(path: Path) -> None:
    source = path.read_text(encoding="utf-8", errors="replace")
    assert spelt(source) == twin.code_tokens(source)


C_LIKE = """
import java.util.*;
/** Finds the second largest. */
public static int second(int[] values) {
    int best = Integer.MIN_VALUE, other = best; // both low
    for (int value : values) {
        if (value > best) { other = best; best = value; }
        else if (value > other && value != best) other = value;
    }
    return other;
}
"""


def test_names_comments_and_layout_are_no_part_of_a_program() -> None:
    other = re.sub(r"/\*.*?\*/|//[^\n]*", "", C_LIKE, flags=re.DOTALL)
    for old, new in (("second", "f"), ("values", "a"), ("best", "m1"), ("other", "m2"), (r"value\b", "x")):
        other = re.sub(rf"\b{old}", new, other)
    other = re.sub(r"\s+", " ", other.replace("import java.util.*;", ""))
    for one, two in ((C_LIKE, other), (C_LIKE, C_LIKE.replace("    ", "\t").replace("{", "\n{\n"))):
        (a, told), (b, _) = runs_of(tokens_of(one)), runs_of(tokens_of(two))
        assert told.sum() > 25 and set(a[told].tolist()) <= set(b.tolist())
    changed = C_LIKE.replace("value > other", "value < other")
    assert not set(runs_of(tokens_of(C_LIKE))[0].tolist()) <= set(runs_of(tokens_of(changed))[0].tolist())


BOILERPLATE = ['''
import argparse, os, sys
from pathlib import Path

def main():
    parser = argparse.ArgumentParser(description="x")
    parser.add_argument("--input", type=str, default="a.txt")
    parser.add_argument("--output", type=str, required=True)
    args = parser.parse_args()
    with open(args.input) as f:
        data = f.read()
    print(len(data))

if __name__ == "__main__":
    main()
''', '''
class Person:
    def __init__(self, name, age):
        self.name = name
        self.age = age
    def get_name(self):
        return self.name
    def set_name(self, name):
        self.name = name
    def __repr__(self):
        return f"Person({self.name}, {self.age})"
''', '''
def binary_search(a, key):
    low, high = 0, len(a) - 1
    while low <= high:
        mid = (low + high) // 2
        if a[mid] == key:
            return mid
        elif a[mid] < key:
            low = mid + 1
        else:
            high = mid - 1
    return -1
''', '''
for i in range(1, 101):
    if i % 15 == 0:
        print("FizzBuzz")
    elif i % 3 == 0:
        print("Fizz")
    elif i % 5 == 0:
        print("Buzz")
    else:
        print(i)
''', '''
def gcd(x, y):
    while y:
        x, y = y, x % y
    return x

def is_prime(num):
    if num < 2:
        return False
    for d in range(2, num):
        if num % d == 0:
            return False
    return True

def fib(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a

def is_palindrome(s):
    return s == s[::-1]

def factorial(n):
    return 1 if n <= 1 else n * factorial(n - 1)

def bubble_sort(arr):
    n = len(arr)
    for i in range(n):
        for j in range(0, n - i - 1):
            if arr[j] > arr[j + 1]:
                arr[j], arr[j + 1] = arr[j + 1], arr[j]
    return arr
''']


def test_renamed_and_undocumented_programs_are_not_clean() -> None:
    items, prose = humaneval(), web_text(step=400)
    programs = [item.fields["code"] + item.fields["answer"] for item in items]
    edits = {"renamed": renamed, "without docstring": undocumented,
             "both": lambda source: undocumented(renamed(source)), "one line of comments": lambda source: re.sub(
                 r"(?m)^(\s+)(return)", r"\1# a note\n\1\2", source)}
    for name, edit in edits.items():
        edited = [edit(source) for source in programs]
        found, _ = audit(items, [f"{prose[k % len(prose)]}\n\n{text}" for k, text in enumerate(edited)])
        told = found["verdict"].value_counts().to_dict()
        tokens = np.array([len(tokens_of(source)) for source in programs])
        long = tokens >= 50
        missed = (found["verdict"] == "clean").to_numpy()
        print(f"{name}: {told}; clean of {long.sum()} with 50 tokens and more: {missed[long].sum()}; tokens of the "
              f"clean: {sorted(tokens[missed].tolist())}")
        assert missed[long].mean() <= 0.06 and missed.mean() <= (0.4 if name == "both" else 0.2)


def test_a_long_file_of_one_program_takes_no_time() -> None:
    items = humaneval()
    source = items[0].fields["code"] + items[0].fields["answer"]
    found, _ = audit(items, [renamed(source) * 1_000, "x = [" + "(1, 2), " * 60_000 + "]"])
    assert found["verdict"][0] == "contaminated"  # its documentation stands there, too


def test_boilerplate_and_known_algorithms_are_no_copies() -> None:
    items = humaneval()
    classics = [Item("own", str(k), {"question": f"Write the program number {k} of the course book.", "answer": text})
                for k, text in enumerate(BOILERPLATE)]
    corpus = [*BOILERPLATE * 8, *(path.read_text(errors="replace") for path in SOURCES)]
    found, _ = audit([*items, *classics], corpus)
    print("boilerplate:", found[found["verdict"] != "clean"][["item_id", "verdict", "rule"]].to_dict("records"))
    assert set(found["verdict"][: len(items)]) == {"clean"}
    apart = [renamed(text, f"{letter}{{}}") for text in BOILERPLATE for letter in "abcdefghk"]
    found, _ = audit(classics, apart)
    print("the same algorithms by nine hands:", found["verdict"].tolist())
    assert set(found["verdict"]) <= {"clean", "untestable"}
