"""Supervisor: `mini-platform up`, `down` and `status`. Starts, watches and stops the platform's processes together.

Here: the order of start and stop, restarts of processes that end, the pid file, background operation.
Not here: the command line itself (`cli/`), Postgres (`warehouse/embedded.py`), what each process does.

    supervisor ─┬─ code server                    Postgres (embedded) belongs to the home, not to this tree;
                ├─ api (with the dashboard)       it is stopped last, and only if `up` had started it
                ├─ webserver
                ├─ watchdog
                └─ daemon ── processes of runs
"""
