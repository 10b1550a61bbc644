"""The process that `mini-platform up --detach` leaves in the background: python -m mini_platform.cli.supervisor."""

import sys

from mini_platform.cli.supervisor.commands import up_here

if __name__ == "__main__":
    sys.exit(up_here())
