"""The process that `mini-platform up --detach` leaves in the background: python -m mini_platform.cli.supervisor."""

import sys

from mini_platform.cli.supervisor.commands import run_in_foreground

if __name__ == "__main__":
    sys.exit(run_in_foreground())
