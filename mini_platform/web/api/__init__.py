"""The HTTP API: what programs ask the platform, and how they hand files in.

    metrics.py      figures for Prometheus; health.py says how the platform is
    relations.py    what can be listed; query.py and keyset.py find a page of it, answers.py and export.py write it down
    datasets.py     the routes of datasets; declarations.py says what is declared
    uploads.py      files that are sent, through incoming.py; file_status.py waits for what becomes of them
    reference.py    the OpenAPI document as pages; openapi.py completes it

The paths of a system that a dataset replaces are not here, but beside it: `routes.py` in its folder.

It reads as a role that can write nothing, imports no Dagster, and writes only what every channel writes: landed files and
rows of the schema `ops`.
"""
