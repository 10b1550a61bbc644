"""The dashboard: pages made on the server, for people who never open Dagster.

It reads through the API's rooms, never around them; the URL is the whole state of a page.
"""
