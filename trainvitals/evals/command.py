"""`trainvitals evals`: what is done with results of evaluations, each where it lives."""

from __future__ import annotations

import importlib

import click

ROOMS = {
    "clusters": "checks.evals.clusters_command:clusters",
    "compare": "checks.evals.command:compare_",
    "export": "collectors.exporters.every_eval:export_",
    "import": "collectors.importers.evals.command:import_",
    "trend": "checks.evals.trend_command:trend",
}


class Group(click.Group):
    """Commands that are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names."""
        return sorted(ROOMS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of them."""
        if cmd_name not in ROOMS:
            return None
        module, _, name = ROOMS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.command(cls=Group)
def evals() -> None:
    """Import results of evaluations into a run, and compare checkpoints."""
