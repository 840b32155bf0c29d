"""Who signed a review, its waivers, what changed since the last one, and its files to take away."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import streamlit as st

from checks.review.verify import Verified
from dashboard.charts import text
from dashboard.page import card
from dashboard.release.reviews import Review, file_of

FILES = (
    ("report.html", "HTML report", "text/html"),
    ("decision.json", "JSON", "application/json"),
    ("policy.toml", "Policy", "application/toml"),
    ("model_card.md", "Model card", "text/markdown"),
)
MOST_LINES = 20


def signatures(review: Review, found: Verified | str) -> None:
    """What `trainvitals review --verify` says."""
    needed = review.record["needed_signers"]
    with card("Signatures and verification", f"the policy asks for {text.plural(max(needed, 1), 'trusted signer')}"):
        if isinstance(found, str):
            st.markdown(f":red[:material/gpp_bad:] {text.md(found, 500)}")
            return
        if found.changed:
            st.markdown(f":red[:material/gpp_bad: **Changed since it was judged**], "
                        f"{text.plural(len(found.changed), 'difference')}:")
            for line in found.changed[:MOST_LINES]:
                st.caption(text.md(line, 400))
        else:
            st.markdown(":green[:material/verified_user: **Whole**]: evidence, rows and report are what was judged.")
        for line in found.signers:
            st.markdown(f":green[:material/signature:] Signed by {text.md(line, 300)}")
        for line in found.open[:MOST_LINES]:
            st.markdown(f":orange[:material/pending:] {text.md(line, 400)}")
        st.caption("Trusted keys never come from the review itself: add public keys in the sidebar. A signature is "
                   "made where the private key is:")
        st.code(f"trainvitals review --sign {review.path} --key key.pem --name NAME --role ROLE\n"
                f"trainvitals review --verify {review.path} --trusted-keys KEYS", language="bash", wrap_lines=True)


def trusted_keys() -> tuple[str, ...]:
    """Public keys in PEM that this viewer trusts; they stay in the viewer's session."""
    with st.sidebar:
        given = st.file_uploader("Trusted public keys", type=["pem", "pub"], accept_multiple_files=True, key="keys",
                                 max_upload_size=1, help="PEM files of people whose signature counts for you.")
    return tuple(sorted(one.getvalue().decode("utf-8", "replace") for one in given))


def waivers(review: Review) -> None:
    """The policy's waivers, and whether they are in force today."""
    listed = review.record["waivers"]
    if not listed:
        return
    today = dt.datetime.now(dt.UTC).date().isoformat()
    waived = {row.name for row in review.rows if row.verdict == "waived"}
    data = pd.DataFrame([
        {"Row": text.plain(w["row"], 120),
         "State": "expired" if w["expires"] < today else "in force" if w["row"] in waived else "lifts nothing",
         "Expires": text.plain(w["expires"], 20), "Reason": text.plain(w["reason"], 600),
         "Owner": text.plain(w["owner"], 80), "Approver": text.plain(w["approver"], 80)} for w in listed
    ])  # fmt: skip
    with card("Waivers", "each with its last day, UTC"):
        st.dataframe(data, hide_index=True, key="waivers", height="content", row_height=28, alt="Waivers of the policy",
                     column_config={"Reason": st.column_config.TextColumn(width="large")})


def last(review: Review) -> None:
    """What is another answer than in the review before."""
    before = review.record["last"]
    if before is None:
        return
    with card("Since the last review", f"it said {text.md(before['decision'], 20)}"):
        lines = [*before["changed"], *(f"{name}: asked for now" for name in before["added"]),
                 *(f"{name}: no longer asked for" for name in before["gone"])]  # fmt: skip
        if not lines:
            st.markdown("No row has another answer.")
        for line in lines[:MOST_LINES]:
            st.markdown(f"- {text.md(line, 300)}")


def export(review: Review) -> None:
    """The review's files, as they lie there."""
    with st.container(horizontal=True, gap="small"):
        for name, label, kind in FILES:
            data = file_of(review.path, name)
            if data is not None:
                st.download_button(label, data, name, kind, icon=":material/download:", key=f"get-{name}",
                                   on_click="ignore")
