"""The process that `mini-platform up --detach` leaves in the background: python -m mini_platform.supervisor."""

import sys

from mini_platform.supervisor.commands import up_here

if __name__ == "__main__":
    sys.exit(up_here())
