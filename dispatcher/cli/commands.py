"""How a group of commands runs: its errors name what was typed."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperGroup

from dispatcher.errors import InvalidRequest

#: What the command line calls otherwise than Python does.
_OTHERWISE: Final = {"code_ttl": "ttl", "options": "option"}


class Commands(TyperGroup):
    """The commands, whose errors name what was typed: --send-at, not `send_at`."""

    def invoke(self, ctx: Any) -> Any:
        """Run what was asked for."""
        try:
            return super().invoke(ctx)
        except InvalidRequest as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            options = {one.name: max(one.opts, key=len) for one in getattr(command, "params", ())}
            typed = options.get(_OTHERWISE.get(error.field, error.field), "")
            if not typed.startswith("-"):
                raise
            raise InvalidRequest(typed, error.reason, error.value) from None
