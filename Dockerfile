# The server with its page and its embedding model, and nothing that is needed only to build them.
#   docker build -t stagecast .                                      (BuildKit, or buildah)
#   docker build -t stagecast --build-arg EXTRA=traces .   (or eval: an extra of pyproject.toml)

FROM node:24-trixie-slim AS page
WORKDIR /src/ui
COPY ui/package.json ui/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --no-audit --no-fund
COPY ui ./
RUN npm run build

FROM python:3.13-slim-trixie AS python

FROM python AS installed
RUN pip install --no-cache-dir uv==0.13.8
ENV UV_PROJECT_ENVIRONMENT=/opt/stagecast UV_PYTHON=/usr/local/bin/python UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /src
ARG EXTRA=""
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-default-groups --group model ${EXTRA:+--extra "$EXTRA"} --no-install-project
COPY README.md LICENSE ./
COPY alembic alembic
COPY pipeline pipeline
COPY plugins plugins
COPY api api
COPY --from=page /src/api/page api/page
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --locked --no-default-groups --group model ${EXTRA:+--extra "$EXTRA"} --no-editable

FROM python
# The account has a name, for PostgreSQL makes no cluster for one without; as a number it is one that is seen not to be root.
RUN useradd --no-log-init --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin stagecast \
    && install --directory --owner=stagecast --group=stagecast --mode=700 /data
COPY --from=installed /opt/stagecast /opt/stagecast
ENV PATH=/opt/stagecast/bin:$PATH STAGECAST_DATA_DIR=/data PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=2m --retries=3 \
    CMD ["python", "-c", "from http.client import HTTPConnection as C; c = C('127.0.0.1', 8000, timeout=8); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["stagecast"]
CMD ["serve", "--host", "0.0.0.0"]
