"""The HTTP API for programs: reading datasets, and uploading files.

    metrics.py      metrics for Prometheus; health.py has the health of the platform
    relations.py    everything that can be listed; query.py and keyset.py select a page, answers.py and export.py write it
    datasets.py     routes of datasets; declarations.py has the models of their declarations
    uploads.py      routes for uploads, received by incoming.py; file_status.py waits until a file is loaded
    parameters.py   refuses parameters that a route does not declare; replaced.py is the class of routes of replaced systems
    reference.py    the OpenAPI document and Swagger UI; openapi.py completes the document

Not here: the paths of a system that a dataset replaces, which are in `routes.py` in the folder of the dataset.

The API reads as a read-only role, does not import Dagster, and writes only landed files and rows of the schema `ops`, as every
channel does.
"""
