"""The web process: the API and the dashboard as one FastAPI app.

Run by `mini-platform up` as `python -m mini_platform.web`.
"""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from mini_platform.api import datasets
from mini_platform.api.guard import protect
from mini_platform.api.head import Head
from mini_platform.api.openapi import describe
from mini_platform.api.problems import handle_problems
from mini_platform.api.site import Site


def create_app(site: Site | None = None) -> FastAPI:
    """The app over a site; without one, over the platform that the settings name."""
    app = FastAPI(title="Mini Platform", version="1", docs_url=None, redoc_url=None)
    app.state.site = site or Site()
    handle_problems(app)
    app.include_router(datasets.router)
    describe(app, app.state.site)
    app.add_middleware(Head)
    protect(app, app.state.site.settings)
    return app


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    site = Site()
    uvicorn.run(create_app(site), host=site.settings.host, port=site.settings.api_port, log_level="warning")


if __name__ == "__main__":
    main()
