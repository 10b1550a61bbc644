# Written without a Docker engine at hand: never built yet. `docker compose config` and a first build are to be checked.
FROM python:3.12-slim AS install
WORKDIR /app
RUN python -m venv /venv
COPY requirements.lock .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
COPY . .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .

FROM python:3.12-slim
RUN useradd --uid 1000 --create-home platform \
    && install -d -o platform /app /app/.state
COPY --from=install /venv /venv
COPY --from=install --chown=platform /app /app
USER platform
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 MINI_PLATFORM_HOST=0.0.0.0
EXPOSE 3000 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/api/health/', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["mini-platform", "up"]
