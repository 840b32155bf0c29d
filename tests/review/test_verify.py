"""Signing and verification: what was edited is named, and a signature counts only where its key is trusted."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from checks.review import signing
from checks.review.bundle import digest
from tests.review.staged import POLICY, command, reviewed, staged
from trainvitals.errors import UsageError

RFC_8032 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def key_files(folder: Path, name: str, key: Ed25519PrivateKey | None = None) -> tuple[Path, Path]:
    """A key pair in PEM: private, public."""
    key = key or Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.key", folder / f"{name}.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def sign(folder: Path, private: Path, name: str = "Ann") -> Any:
    return command("--sign", folder, "--key", private, "--name", name, "--role", "release manager")


def verified(folder: Path, *more: object) -> tuple[int, dict[str, Any]]:
    done = command("--verify", folder, "--json", *more)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def review(tmp_path: Path) -> Path:
    reviewed(tmp_path, staged(tmp_path))
    return tmp_path / "out"


def test_the_encoding_and_the_key_are_those_of_the_specifications() -> None:
    assert (
        signing.encoded("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    raw = RFC_8032.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    assert raw.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"


def test_a_signed_go_verifies_with_the_trusted_key_only(review: Path, tmp_path: Path) -> None:
    private, public = key_files(tmp_path, "ann")
    _, stranger = key_files(tmp_path, "stranger")
    assert verified(review)[0] == 3
    assert sign(review, private).exit_code == 0
    code, said = verified(review, "--trusted-keys", public)
    assert code == 0 and said["whole"] and said["signers"][0].startswith("Ann (release manager)")
    code, said = verified(review, "--trusted-keys", stranger)
    assert code == 3 and "its signer is unknown" in said["open"][0]
    assert verified(review)[0] == 3
    assert verified(review, "--trusted-keys", public, "--needed", 2)[0] == 3


def test_one_key_twice_is_one_signer_and_two_are_two(review: Path, tmp_path: Path) -> None:
    (ann, ann_public), (bob, bob_public) = key_files(tmp_path, "ann"), key_files(tmp_path, "bob")
    sign(review, ann)
    envelope = next((review / "signatures").iterdir())
    (review / "signatures" / "again.json").write_bytes(envelope.read_bytes())
    both = ("--trusted-keys", ann_public, "--trusted-keys", bob_public, "--needed", 2)
    assert verified(review, *both)[0] == 3
    sign(review, bob, "Bob")
    assert verified(review, *both)[0] == 0


def tampered_evidence(folder: Path) -> None:
    path = max((folder / "evidence" / "candidate").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])


def removed_evidence(folder: Path) -> None:
    max((folder / "evidence" / "candidate").rglob("*.parquet")).unlink()


def added_evidence(folder: Path) -> None:
    (folder / "evidence" / "more.json").write_text("{}")


def linked_evidence(folder: Path) -> None:
    (folder / "evidence" / "link.json").symlink_to("/etc/hostname")


def edited_policy(folder: Path) -> None:
    path = folder / "policy.toml"
    path.write_text(path.read_text().replace("0.05", "0.15"))


def edited_report(folder: Path) -> None:
    path = folder / "report.html"
    path.write_text(path.read_text().replace("points over", "points, over"))


def edited_row(folder: Path) -> None:
    path = folder / "decision.json"
    raw = json.loads(path.read_text())
    raw["rows"][0]["n"] += 1
    path.write_text(json.dumps(raw))


def reindexed_evidence(folder: Path) -> None:
    """Somebody edits the facts, and mends the index and the decision's digest of it."""
    path = folder / "evidence" / "facts.json"
    path.write_text(path.read_text().replace('"copies": {}', '"copies": {"qa": "step-1"}'))
    raw = json.loads((folder / "index.json").read_text())
    raw["files"]["evidence/facts.json"]["sha256"] = digest(path)
    (folder / "index.json").write_text(json.dumps(raw))
    decision = json.loads((folder / "decision.json").read_text())
    decision["digests"]["index.json"] = digest(folder / "index.json")
    (folder / "decision.json").write_text(json.dumps(decision))


CASES: list[tuple[Callable[[Path], None], str]] = [
    (tampered_evidence, "was changed"),
    (removed_evidence, "is gone"),
    (added_evidence, "evidence/more.json was added"),
    (linked_evidence, "is a link"),
    (edited_policy, "policy.toml was changed"),
    (edited_report, "report.html was changed"),
    (edited_row, "task.qa: n is 601, and the evidence gives 600"),
    (reindexed_evidence, "decision is 'GO', and the evidence gives 'UNDECIDED'"),
]


@pytest.mark.parametrize(("change", "words"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_what_was_changed_is_named_and_is_no_go(
    review: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    private, public = key_files(tmp_path, "ann")
    sign(review, private)
    change(review)
    code, said = verified(review, "--trusted-keys", public)
    assert code == 2 and not said["whole"]
    assert sum(words in one for one in said["changed"]) == 1, said["changed"]
    done = sign(review, private)
    assert isinstance(done.exception, UsageError) and "Nothing was signed" in str(done.exception)


def test_forged_signatures_are_named(review: Path, tmp_path: Path) -> None:
    private, public = key_files(tmp_path, "ann")
    sign(review, private)
    path = next((review / "signatures").iterdir())
    whole = json.loads(path.read_text())
    payload = json.loads(base64.b64decode(whole["payload"]))
    payload["predicate"]["signer"]["name"] = "The Board"
    forged = {**whole, "payload": base64.b64encode(json.dumps(payload).encode()).decode()}
    path.write_text(json.dumps(forged))
    code, said = verified(review, "--trusted-keys", public)
    assert code == 2 and "is forged: it says The Board" in said["changed"][0]
    for damage in (
        "{}",
        "[]",
        "not json",
        json.dumps({**whole, "signatures": "x"}),
        json.dumps({**whole, "payloadType": "text/plain"}),
    ):
        path.write_text(damage)
        code, said = verified(review, "--trusted-keys", public)
        assert code == 2 and "is no signature of a review" in said["changed"][0]


def test_a_signature_of_another_review_does_not_count(review: Path, tmp_path: Path) -> None:
    private, public = key_files(tmp_path, "ann")
    other = tmp_path / "other"
    other.mkdir()
    reviewed(other, staged(other), POLICY.replace("0.05", "0.06"))
    sign(other / "out", private)
    (other / "out" / "signatures").rename(review / "signatures")
    code, said = verified(review, "--trusted-keys", public)
    assert code == 2 and "signed another policy.toml" in said["changed"][0]


def test_a_waiver_that_expired_since_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as dt

    from checks.review.verify import verify

    soon = dt.datetime.now(dt.UTC).date()
    waiver = (
        f'[latency.qa]\np95_s = 0.1\n[[waivers]]\nrow = "latency.qa.p95"\nreason = "r"\nowner = "o"\n'
        f"expires = {soon + dt.timedelta(days=1)}\n"
    )
    assert reviewed(tmp_path, staged(tmp_path), POLICY + waiver)["decision"] == "GO"
    assert verify(tmp_path / "out", {}, None, soon).changed == ()
    later = verify(tmp_path / "out", {}, None, soon + dt.timedelta(days=2))
    assert not later.changed and later.exit_code == 3 and "Today the decision is NO-GO" in later.open[0]


def test_keys_of_other_kinds_are_one_line(tmp_path: Path, review: Path) -> None:
    (tmp_path / "bad.key").write_text("no key")
    done = sign(review, tmp_path / "bad.key")
    assert isinstance(done.exception, UsageError) and "no private key" in str(done.exception)
    with pytest.raises(UsageError, match="no public key"):
        verified(review, "--trusted-keys", tmp_path / "bad.key")
