# One image for every role: worker (the default), producer tools, and with
# --build-arg EXTRAS=[sandbox] the stand-in ComfyUI. EXTRAS are those of pyproject.toml, several of
# them separated by commas.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
ARG EXTRAS=""
WORKDIR /src
RUN python -m venv /opt/comfyfleet
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY settings settings
COPY tasks tasks
COPY workers workers
COPY cli cli
COPY sandbox sandbox
RUN /opt/comfyfleet/bin/pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS}"

FROM python:${PYTHON_VERSION}-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="comfyfleet" \
      org.opencontainers.image.description="A fleet of ComfyUI servers behind a Celery queue" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN useradd --create-home --uid 10001 comfyfleet
COPY --from=build /opt/comfyfleet /opt/comfyfleet
ENV PATH=/opt/comfyfleet/bin:$PATH PYTHONUNBUFFERED=1
# By number: Kubernetes takes no name's word that it is not root.
USER 10001
WORKDIR /home/comfyfleet
# Of a worker with METRICS_PORT whether its loop is alive; whoever has none is taken for healthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as web; port = os.environ.get('METRICS_PORT'); port and web.build_opener(web.ProxyHandler({})).open(f'http://127.0.0.1:{port}/livez', timeout=4)"]
CMD ["celery", "-A", "workers", "worker"]
