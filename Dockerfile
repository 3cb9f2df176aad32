# One image for every role: worker (the default), producer tools, and with
# --build-arg EXTRAS=[sandbox] the stand-in ComfyUI.
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
RUN useradd --create-home --uid 10001 comfyfleet
COPY --from=build /opt/comfyfleet /opt/comfyfleet
ENV PATH=/opt/comfyfleet/bin:$PATH PYTHONUNBUFFERED=1
USER comfyfleet
WORKDIR /home/comfyfleet
CMD ["celery", "-A", "workers", "worker"]
