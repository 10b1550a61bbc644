"""The HTTP API: what programs ask the platform, and how they hand files in.

    site.py         what all routes share: settings, datasets, connections that read
    problems.py     errors as `application/problem+json`

It reads as a role that can write nothing, imports no Dagster, and writes only what every door writes: landed files and
rows of the schema `ops`.
"""
