# One image for every process of the platform: `mini-platform serve code-server|webserver|daemon|api`.
# Linted by hadolint, its steps and commands run by hand; never built, as no engine was at hand.
FROM python:3.12.12-slim-bookworm AS install
WORKDIR /app
COPY requirements.lock mini_platform/operations/lock.py ./
# Every file that is installed has its hash in the lock; what only developers need stays out, but for the build backend.
RUN python -m venv /venv \
    && python lock.py hatchling < requirements.lock > runtime.lock \
    && /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r runtime.lock \
    && rm lock.py runtime.lock
COPY . .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable . \
    && /venv/bin/pip uninstall --yes pip

FROM python:3.12.12-slim-bookworm
RUN useradd --uid 1000 --create-home platform \
    && install -d -o platform -g platform /app/.state
COPY --from=install /venv /venv
COPY --from=install /app /app
USER 1000:1000
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MINI_PLATFORM_HOST=0.0.0.0
STOPSIGNAL SIGTERM
CMD ["mini-platform", "serve", "webserver"]
