# The package with its programs; --gpus all gives a container the GPUs of the machine.
#     docker build -t brloss_d2 .
#     docker run --rm --gpus all --shm-size 8g -v "$PWD:/data" brloss_d2 brloss-env
FROM python:3.12-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
COPY . /opt/brloss_d2
RUN make -C /opt/brloss_d2 install
ENV PATH="/opt/brloss_d2/.venv/bin:$PATH"
WORKDIR /data
CMD ["brloss-env"]
