"""Who signs what: Ed25519 (RFC 8032) signatures over an in-toto statement in a DSSE envelope, one envelope per signer.

    envelope = sign(statement, key)
    checked(envelope, trusted)           # the statement, and the trusted key that signed it

The bytes that are signed are DSSE's pre-authentication encoding of the payload as it lies in the envelope, so
nothing has to be canonical. Which keys are trusted is never read from the envelope: its `keyid` is a hint that anybody
can write.
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from trainvitals.errors import UsageError
from trainvitals.untrusted import parse_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://trainvitals.dev/release-review/v1"
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Signed:
    """What an envelope says, and whether anybody who is trusted says so."""

    statement: Mapping[str, Any]
    key: str
    """Fingerprint of the trusted key that signed; empty where none did."""
    claimed: bool = False
    """It names a trusted key that did not sign it."""


def encoded(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type.encode()), payload_type.encode(), len(payload), payload)


def sign(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The envelope."""
    payload = json.dumps(statement, sort_keys=True, allow_nan=False).encode()
    signature = key.sign(encoded(PAYLOAD_TYPE, payload))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": fingerprint(key.public_key()), "sig": base64.b64encode(signature).decode()}],
    }


def checked(data: bytes, trusted: Mapping[str, Ed25519PublicKey]) -> Signed:
    """The statement of an envelope. Raises ValueError for what is no envelope of a statement."""
    raw = parse_json(data, MOST_BYTES)
    try:
        payload = base64.b64decode(raw["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in raw["signatures"]]
        kind = str(raw["payloadType"])
    except (KeyError, TypeError, binascii.Error, ValueError) as error:
        raise ValueError("it is no DSSE envelope") from error
    if kind != PAYLOAD_TYPE:
        raise ValueError(f"its payload is {kind[:60]!r}, not {PAYLOAD_TYPE}")
    statement = parse_json(payload, MOST_BYTES)
    if (
        not isinstance(statement, dict)
        or statement.get("_type") != STATEMENT_TYPE
        or statement.get("predicateType") != PREDICATE_TYPE
    ):
        raise ValueError("it signs no release review")
    message = encoded(kind, payload)
    for name, public in trusted.items():
        for signature in signatures:
            if _holds(public, signature, message):
                return Signed(statement, name)
    return Signed(statement, "", any(str(one.get("keyid")) in trusted for one in raw["signatures"]))


def _holds(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def fingerprint(public: Ed25519PublicKey) -> str:
    """SHA-256 of the raw key, 16 hexadecimal digits: a name for people, not a proof."""
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def read_private_key(path: Path, password: str | None) -> Ed25519PrivateKey:
    """A private key in PEM, as `openssl genpkey -algorithm ed25519 -out key.pem` makes it. Raises UsageError."""
    try:
        key = serialization.load_pem_private_key(_bytes(path), password.encode() if password else None)
    except TypeError as error:
        need = (
            "is encrypted: set TRAINVITALS_KEY_PASSWORD"
            if password is None
            else "is not encrypted: unset TRAINVITALS_KEY_PASSWORD"
        )
        raise UsageError(f"{path} {need}.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} is no private key in PEM, or its password is another. Make one with "
            "`openssl genpkey -algorithm ed25519 -out key.pem`."
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is a key of another kind. Make an Ed25519 one: `openssl genpkey -algorithm ed25519`.")
    return key


def read_trusted(paths: tuple[Path, ...]) -> dict[str, Ed25519PublicKey]:
    """Fingerprint -> public key, from PEM files or folders of them. Raises UsageError."""
    found: dict[str, Ed25519PublicKey] = {}
    for path in (one for given in paths for one in (sorted(given.glob("*.pem")) if given.is_dir() else [given])):
        try:
            key = serialization.load_pem_public_key(_bytes(path))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UsageError(
                f"{path} is no public key in PEM. Write one with `openssl pkey -in key.pem -pubout`."
            ) from error
        if not isinstance(key, Ed25519PublicKey):
            raise UsageError(f"{path} is a key of another kind than Ed25519.")
        found[fingerprint(key)] = key
    return found


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}). Give a key file in PEM.") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} is no key file: it has {len(data) / 1e6:.0f} MB.")
    return data
