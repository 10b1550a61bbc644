"""HTTP: the API, the dashboard, and access control. Not here: names of datasets, Dagster, use cases.

app.py          the app, and the process that serves it
serving.py      uvicorn with https, proxies, and limits of connections
site.py         state shared by all routes: settings, datasets, read-only connections
secret.py       the secret that encrypts cursors
problems.py     errors as `application/problem+json`
envelope.py     request ids, security headers and the access log; head.py answers HEAD
runs.py         requests runs from Dagster for files that have just been landed
auth/           keys, sessions, scopes and browser origins
api/            the HTTP API for programs
pages/          the dashboard
"""
