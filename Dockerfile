# Three images of one program, IMAGE being operator, tools or trainer: they differ in what they need, and in nothing
# else. `make images` builds them all; by hand:
#   buildah build --layers --build-arg IMAGE=operator --build-arg BASE_IMAGE=python:3.12-slim --tag gog-operator .
# Environments lie below the code, so that a change of code rebuilds and loads in seconds. Versions come from
# pyproject.toml alone. Any base with Python 3.11 to 3.13, venv and pip does. How pip reaches its index is the
# builder's affair: a secret `pip.conf` (and `ca.crt`, which it may name as /run/secrets/ca.crt) is mounted while
# packages are fetched and stays out of the images.
ARG BASE_IMAGE=python:3.12-slim

# What the image needs, as a list: a stage of its own, so that another change of pyproject.toml fetches nothing again.
FROM ${BASE_IMAGE} AS list
ARG IMAGE
COPY pyproject.toml /
RUN case "$IMAGE" in \
        operator) extras="s3 operator" ;; \
        tools) extras="s3 tools ocr traces" ;; \
        trainer) extras="s3 tools recipes traces" ;; \
        *) echo "IMAGE: '$IMAGE' is none of operator, tools, trainer (--build-arg IMAGE=operator)" >&2; exit 2 ;; \
    esac; \
    python3 -c "import sys, tomllib; project = tomllib.load(open('/pyproject.toml', 'rb'))['project']; \
extras = [line for name in sys.argv[1:] for line in project['optional-dependencies'][name]]; \
print(*project['dependencies'], *extras, sep='\n')" $extras >/requirements.txt

FROM ${BASE_IMAGE} AS base
RUN python3 -m venv --without-pip /opt/gog \
    && echo 'gog:x:10001:10001::/tmp:/usr/sbin/nologin' >>/etc/passwd && echo 'gog:x:10001:' >>/etc/group
# The root file system is read-only in a pod: nothing is compiled or cached there at run time.
ENV PATH=/opt/gog/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=gog PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# Our own packages, installed without what they depend on; only this stage sees the sources.
FROM base AS code
COPY pyproject.toml README.md /src/
COPY core /src/core
COPY console /src/console
COPY operator /src/operator
COPY recipes /src/recipes
COPY tool_servers /src/tool_servers
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt \
    PIP_CONFIG_FILE=/run/secrets/pip.conf \
    pip --python /opt/gog/bin/python install --quiet --no-cache-dir --no-deps /src

FROM base
COPY --from=list /requirements.txt /opt/gog/requirements.txt
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.crt \
    PIP_CONFIG_FILE=/run/secrets/pip.conf \
    pip --python /opt/gog/bin/python install --quiet --no-cache-dir --requirement /opt/gog/requirements.txt \
    && find /opt/gog/lib -type d -name tests -prune -exec rm -rf {} +
COPY --from=code /opt/gog /opt/gog
WORKDIR /tmp
USER 10001:10001
ENTRYPOINT ["gog"]
