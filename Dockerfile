# One image for every process; what it runs is said by whoever starts it (docker-compose.yml, Procfile).
# Nothing secret goes in: .dockerignore lets through what is named here and nothing else.

FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements-image.lock ./
RUN python -m venv /opt/dispatcher \
    && /opt/dispatcher/bin/pip install --no-cache-dir --require-hashes -r requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY dispatcher dispatcher
COPY workers workers
# setuptools, from the lock too, builds it; neither it nor pip is needed afterwards.
RUN /opt/dispatcher/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/dispatcher/bin/pip uninstall --yes setuptools pip

FROM python:3.13-slim
ENV PATH=/opt/dispatcher/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/dispatcher /opt/dispatcher
# The base image has no bytecode of the standard library, and where nothing can be written it would be compiled anew by
# every start and every health check. What of it cannot be compiled is never imported.
RUN python -m compileall -q -j 0 /usr/local/lib/python3.13 > /dev/null || true
# Nobody: no home, nothing it may write to. As a number, so that an orchestrator sees that it is not root.
USER 65534:65534
WORKDIR /tmp
CMD ["dispatcher", "--help"]
