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
RUN groupadd --system --gid 10001 ctr \
    && useradd --system --uid 10001 --gid ctr --home-dir /srv ctr \
    && mkdir -p model_store events .ctr runs \
    && chown ctr:ctr model_store events .ctr runs

# torch in a layer of its own: it is the largest by far and changes least.
FROM base AS runtime
ARG TORCH_INDEX_URL=
COPY constraints.txt ./
RUN pip install --constraint constraints.txt torch==2.13.0 setuptools ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"}
# The packages before the source, so that a changed line of it does not install them again. The extra `signing` (16 MB)
# is in both images: a service that is given CTR_TRUSTED_KEYS does not start without it, and cannot install it where the
# root file system is read-only.
COPY pyproject.toml README.md ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = p['optional-dependencies']; \
open('runtime.txt', 'w').write('\n'.join(p['dependencies'] + extras['signing'] + extras['events-s3'])); \
open('training.txt', 'w').write('\n'.join(extras['training']))" \
    && pip install --constraint constraints.txt --requirement runtime.txt

# The wheel is built aside: the C compiler that it takes is as large as all the rest, and no image needs it.
FROM base AS wheel
COPY constraints.txt ./
RUN pip install --constraint constraints.txt setuptools ziglang
COPY pyproject.toml setup.py README.md LICENSE ./
COPY app ./app
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM runtime AS training
RUN pip install --constraint constraints.txt --requirement training.txt \
    && pip install --constraint constraints.txt --no-deps recbole
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl
ENV MPLCONFIGDIR=/tmp/matplotlib
USER ctr
VOLUME /srv/model_store
ENTRYPOINT ["ctr"]
CMD ["train", "--dataset", "movielens", "--publish"]

FROM runtime AS service
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl
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
