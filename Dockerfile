# syntax=docker/dockerfile:1
#   docker build -t ctr-serving .                     the service
#   docker build -t ctr-serving-training --target training .
# The default index has a CUDA build of torch for Linux. For a smaller CPU-only image pass the CPU index that
# pytorch.org names under "Get started": --build-arg TORCH_INDEX_URL=...

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv
RUN useradd --system --uid 10001 --home-dir /srv ctr \
    && mkdir -p model_store .ctr runs \
    && chown ctr model_store .ctr runs

# torch in a layer of its own: it is the largest by far and changes least.
FROM base AS runtime
ARG TORCH_INDEX_URL=
COPY constraints.txt ./
RUN pip install --constraint constraints.txt torch==2.13.0 setuptools ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
# The packages before the source, so that a changed line of it does not install them again.
COPY pyproject.toml README.md ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
open('runtime.txt', 'w').write('\n'.join(p['dependencies'])); \
open('training.txt', 'w').write('\n'.join(p['optional-dependencies']['training']))" \
    && pip install --constraint constraints.txt --requirement runtime.txt

FROM runtime AS training
RUN pip install --constraint constraints.txt --requirement training.txt \
    && pip install --constraint constraints.txt --no-deps recbole
COPY app ./app
RUN pip install --no-deps --no-build-isolation .
ENV MPLCONFIGDIR=/tmp/matplotlib
USER ctr
VOLUME /srv/model_store
ENTRYPOINT ["ctr"]
CMD ["train", "--dataset", "movielens", "--publish"]

FROM runtime AS service
COPY app ./app
RUN pip install --no-deps --no-build-isolation .
USER ctr
ENV CTR_HOST=0.0.0.0 \
    CTR_PORT=8000
VOLUME /srv/model_store
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['CTR_PORT'] + '/health/live', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["ctr"]
CMD ["serve"]
