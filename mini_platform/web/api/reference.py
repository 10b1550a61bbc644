"""The API reference: the OpenAPI document, and Swagger UI, served without requests to other hosts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from mini_platform.web.auth.guard import allowed, readable
from mini_platform.web.site import SiteDep

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Mini Platform: API</title>
<link rel="icon" href="swagger/favicon.png">
<link rel="stylesheet" href="swagger/swagger-ui.css">
</head>
<body>
<div id="reference"><noscript>This page needs JavaScript; the document that it shows is at /openapi.json.</noscript></div>
<script src="swagger/swagger-ui-bundle.js"></script>
<script src="reference.js"></script>
</body>
</html>
"""
# A separate file, as the policy of our pages forbids inline scripts. Without validatorUrl Swagger UI would send the document
# to a server of its authors.
SCRIPT = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
  tryItOutEnabled: true,
  onComplete: () => { document.body.dataset.ready = "true"; },
});
"""

router = APIRouter(dependencies=[Depends(allowed("read", several=True))], include_in_schema=False)


@router.get("/openapi.json")
def document(request: Request, site: SiteDep) -> JSONResponse:
    """Return the OpenAPI document, without the columns of datasets that the caller may not read."""
    complete = request.app.openapi()
    hidden = tuple(f"/api/datasets/{name}/" for name in site.datasets.keys() - readable(request).keys())
    paths = {path: item for path, item in complete["paths"].items() if not path.startswith(hidden)}
    return JSONResponse({**complete, "paths": paths})


@router.get("/api/docs")
def page() -> HTMLResponse:
    """Return the page with Swagger UI."""
    return HTMLResponse(PAGE)


@router.get("/api/reference.js")
def script() -> Response:
    """Return the script that starts Swagger UI."""
    return Response(SCRIPT, media_type="text/javascript")


def _lead(old_path: str, path: str) -> None:
    """Make a path of a replaced system lead to the reference."""
    router.add_api_route(old_path, lambda: RedirectResponse(path), name=old_path)


for _old_path in ("/docs", "/redoc", "/api/redoc/"):
    _lead(_old_path, "/api/docs")
_lead("/api/schema/", "/openapi.json")


def serve_swagger(app: FastAPI) -> None:
    """Serve the files of Swagger UI from the package that ships them."""
    package = importlib.util.find_spec("fastapi_offline")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("fastapi_offline")
    app.mount("/api/swagger", StaticFiles(directory=Path(package.origin).parent / "static"), name="swagger")
