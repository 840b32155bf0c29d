"""`trainvitals review`: judge a release, sign it, verify it."""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path

import click

from checks.review.bundle import write_review
from checks.review.decide import EXIT_CODES, Decided
from trainvitals.errors import UsageError

PASSWORD = "TRAINVITALS_KEY_PASSWORD"
SIGNS = {"pass": "ok", "warn": "warning", "fail": "FAIL", "unknown": "unknown", "waived": "waived"}


@click.command()
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--policy", type=click.Path(path_type=Path), help="Policy file (TOML). [RUN/release.toml]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write the review to.")
@click.option("--last", type=click.Path(path_type=Path), help="The review before, to tell what changed.")
@click.option("--init", is_flag=True, help="Write a policy from what the run has, to --policy.")
@click.option(
    "--sign", type=click.Path(path_type=Path), metavar="DIR", help="Sign a review, with --key, --name, --role."
)
@click.option("--key", type=click.Path(path_type=Path), help=f"Private Ed25519 key in PEM; {PASSWORD} is its password.")
@click.option("--name", help="Who signs.")
@click.option("--role", help="As what.")
@click.option("--verify", type=click.Path(path_type=Path), metavar="DIR", help="Say what changed, and who signed.")
@click.option(
    "--trusted-keys",
    "trusted",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Public key in PEM, or a folder of them; may be repeated.",
)
@click.option("--needed", type=click.IntRange(min=1), help="Signers that --verify asks for. [the policy's number]")
@click.option("--json", "as_json", is_flag=True, help="Print the decision as JSON.")
def review(
    run: Path | None,
    policy: Path | None,
    out: Path | None,
    last: Path | None,
    init: bool,
    sign: Path | None,
    key: Path | None,
    name: str | None,
    role: str | None,
    verify: Path | None,
    trusted: tuple[Path, ...],
    needed: int | None,
    as_json: bool,
) -> None:
    """Decide on a release by a policy, and write why: GO, NO-GO or UNDECIDED.

    The exit code is 0 for GO, 2 for NO-GO, 3 for UNDECIDED. With --verify, 0 means a GO that is whole and signed by
    trusted keys, 2 that something changed (or NO-GO), 3 anything between.

    Example: trainvitals review runs/x --policy runs/x/release.toml --out review-1
    """
    if sum([run is not None, sign is not None, verify is not None]) != 1:
        raise UsageError("Give one of RUN, --sign DIR and --verify DIR.")
    now = dt.datetime.now(dt.UTC)
    if verify is not None:
        sys.exit(_verify(verify, trusted, needed, now.date(), as_json))
    if sign is not None:
        _sign(sign, key, name, role, now)
        return
    assert run is not None
    policy = policy or run / "release.toml"
    if init:
        _init(run, policy)
        return
    if out is None:
        raise UsageError("A review needs a folder to be written to. Give --out DIR.")
    decided = write_review(run, policy, out, now, last)
    click.echo(_json(decided) if as_json else told(decided, out))
    sys.exit(EXIT_CODES[decided.decision])


def _json(decided: Decided) -> str:
    return json.dumps(
        {
            "decision": decided.decision,
            "reasons": decided.reasons,
            "rows": [row.to_json() for row in decided.rows],
            "what_would_change_it": decided.what_would_change_it,
        },
        indent=2,
        allow_nan=False,
    )


def told(decided: Decided, out: Path) -> str:
    """For people."""
    lines = [decided.decision, *(f"  {reason}" for reason in decided.reasons)]
    lines += [f"{SIGNS[row.verdict]:8} {row.name:32} {row.sentence}" for row in decided.rows]
    if decided.what_would_change_it:
        lines += ["What would change it:", *(f"  {one}" for one in decided.what_would_change_it)]
    return "\n".join([*lines, str(out / "report.html")])


def _init(run: Path, policy: Path) -> None:
    from checks.review.start import start

    if policy.exists():
        raise UsageError(f"{policy} is there already. Choose another --policy, or delete it.")
    made = start(run)
    policy.write_text(made.toml, encoding="utf-8")
    click.echo("\n".join([*made.words, str(policy)]))


def _sign(folder: Path, key: Path | None, name: str | None, role: str | None, now: dt.datetime) -> None:
    from checks.review.bundle import SIGNED, digest, write_json
    from checks.review.signing import PREDICATE_TYPE, STATEMENT_TYPE, fingerprint, read_private_key, sign
    from checks.review.verify import verify

    if key is None or not name or not role:
        raise UsageError("A signature needs --key, --name and --role.")
    private = read_private_key(key, os.environ.get(PASSWORD))
    found = verify(folder, {}, None, now.date())
    if found.changed:
        raise UsageError(f"{folder} is not what was judged: {found.changed[0]} Nothing was signed; judge it anew.")
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": one, "digest": {"sha256": digest(folder / one)}} for one in SIGNED],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "decision": found.decision,
            "signer": {"name": name, "role": role, "time": now.isoformat(timespec="seconds")},
        },
    }
    place = folder / "signatures"
    place.mkdir(exist_ok=True)
    path = place / f"{fingerprint(private.public_key())}.json"
    write_json(path, sign(statement, private))
    click.echo(f"{name} ({role}) signed {found.decision}.\n{path}")


def _verify(folder: Path, trusted: tuple[Path, ...], needed: int | None, today: dt.date, as_json: bool) -> int:
    from checks.review.signing import read_trusted
    from checks.review.verify import verify

    found = verify(folder, read_trusted(trusted), needed, today)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "decision": found.decision,
                    "whole": not found.changed,
                    "changed": found.changed,
                    "open": found.open,
                    "signers": found.signers,
                },
                indent=2,
            )
        )
        return found.exit_code
    lines = (
        [f"changed  {one}" for one in found.changed]
        + [f"open     {one}" for one in found.open]
        + [f"signed   {one}" for one in found.signers]
    )
    whole = "Changed since it was judged" if found.changed else "Whole: evidence, rows and report are what was judged"
    click.echo("\n".join([f"{found.decision}. {whole}.", *lines]))
    return found.exit_code
