"""The example at the end of each command's help: the paragraph of its docstring that begins with `Example:`."""

from __future__ import annotations

from typing import Any

MARK = "\n\nExample: "


def end_with_example(command: Any) -> None:
    """Move the example of a command below its options, and so for the commands of a group, which has that of its first."""
    for member in getattr(command, "commands", {}).values():
        end_with_example(member)
        command.epilog = command.epilog or member.epilog
    text, mark, example = (command.help or "").partition(MARK)
    if mark:
        command.help, command.epilog = text, f"Example: {' '.join(example.split())}"
