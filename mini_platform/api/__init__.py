"""The HTTP API: what programs ask the platform, and how they hand files in.

    site.py         what all routes share: settings, datasets, connections that read
    problems.py     errors as `application/problem+json`
    guard.py        who gets in, and what is kept out; with it keys.py, sessions.py, origins.py
    envelope.py     what every response carries; logs.py, metrics.py and health.py tell of it and of the platform
    relations.py    what can be listed; query.py and keyset.py find a page of it, answers.py and export.py write it down
    datasets.py     the routes of datasets; declarations.py says what is declared
    uploads.py      files that are sent, through incoming.py; outcome.py waits for what becomes of them, runs.py asks for a run
    reference.py    the OpenAPI document as pages; openapi.py completes it

The paths of a system that a dataset replaces are not here, but beside it: `routes.py` in its folder.

It reads as a role that can write nothing, imports no Dagster, and writes only what every door writes: landed files and
rows of the schema `ops`.
"""
