"""HTTP: the API, the pages, and who gets in. Not here: the name of a dataset, Dagster, what a use case is.

app.py          the app as a whole, and the process that serves it
site.py         what all routes share: settings, datasets, connections that read
problems.py     errors as `application/problem+json`
envelope.py     what every response carries, and its line in the log; head.py answers HEAD
runs.py         asks Dagster for a run that loads what has just been landed
auth/           who gets in, and what is kept out
api/            what programs ask, and how they hand files in
pages/          the dashboard, for people who never open Dagster
"""
