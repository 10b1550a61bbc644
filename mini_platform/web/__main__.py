"""`python -m mini_platform.web`: the process that `mini-platform up` starts."""

from mini_platform.web.app import main

main()
