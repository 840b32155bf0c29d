"""The board's server process: the app behind its gate. `dashboard.server.launch` starts it; it lies beside the app
because Streamlit looks for its `.streamlit/config.toml` there.

    TRAINVITALS_RUNS=runs TRAINVITALS_TOKEN=... python -m dashboard.asgi APP --port 8501

The token comes by the environment, which on Linux only its owner can read; arguments are shown to everybody.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import streamlit as st
import uvicorn.config
from starlette.middleware import Middleware

from dashboard.failing import say_failed
from dashboard.server.gate import Gate
from dashboard.server.launch import HOST, TOKEN_VARIABLE


def settings(port: int, base_path: str) -> dict[str, Any]:
    """Streamlit's options that no file or variable of the user's may change."""
    return {
        "server.port": port,
        "server.address": HOST,
        "server.baseUrlPath": base_path.strip("/"),
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": False,
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.enableCORS": True,
        "server.corsAllowedOrigins": [],
        "server.allowedHosts": [],
        "server.enableXsrfProtection": True,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.allowedOrigins": [],
        "logger.hideWelcomeMessage": True,
    }


def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base-path", default="/")
    parser.add_argument("--host-name", action="append", default=[])
    given = parser.parse_args()
    token = os.environ.pop(TOKEN_VARIABLE, "")
    gate = Middleware(Gate, token=token, names=tuple(given.host_name), cookie_path=given.base_path)
    # Its lines about every connection would tell the terminal nothing, and a mistyped address with a token too much.
    uvicorn.config.LOGGING_CONFIG["loggers"]["uvicorn.error"]["level"] = "WARNING"
    app = st.App(given.app, middleware=[gate], on_script_error=say_failed)
    app.run(config=settings(given.port, given.base_path))


if __name__ == "__main__":
    main()
