"""A group whose commands are loaded when they are wanted, since a whole proxy is a lot to load for one question to it."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """`later` has for each command the module below `edgeproxy.cli` and the name that it has there."""

    def __init__(self, *arguments: Any, later: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._later = later

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*super().list_commands(ctx), *self._later})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name, if there is one."""
        if (place := self._later.get(cmd_name)) is None:
            return super().get_command(ctx, cmd_name)
        found: click.Command = getattr(importlib.import_module(f"edgeproxy.cli.{place[0]}"), place[1])
        return found
