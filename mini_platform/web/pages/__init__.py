"""The dashboard: server-rendered pages for people who do not use Dagster.

It reads through the modules of the API; the URL is the whole state of a page.
"""
