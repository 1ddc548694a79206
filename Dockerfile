# Two images from one file: `api` without torch (API, reconciler, migrations), `worker` with it.
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 occluscope
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY occluscope occluscope
COPY service service
COPY workers workers
COPY migrations migrations

FROM base AS api
RUN pip install --constraint constraints.txt .
USER 10001
EXPOSE 8000
# Beyond loopback inside the container only, keys or none; docker-compose.yml publishes it on the host's loopback address.
CMD ["occluscope", "serve", "--host", "0.0.0.0", "--port", "8000", "--unprotected"]
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]

FROM base AS worker
RUN pip install --constraint constraints.txt '.[worker]'
USER 10001
CMD ["occluscope", "worker"]
