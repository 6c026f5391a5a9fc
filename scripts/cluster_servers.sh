#!/usr/bin/env bash
# Installs Debian's PostgreSQL and Redis for `make cluster-test`, if they are missing, apt exists
# and root runs this. Never fails: without them the tests are skipped, and say so.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null ||
    missing+=(postgresql)
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no ${missing[*]}, and no right to install it: the cluster's tests are skipped"
    exit 0
fi
# In runlevel 1 the packages start no service of their own.
apt=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 timeout 300 apt-get -qq
    -o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15)
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } \
    >/dev/null 2>&1; then
    echo "${missing[*]} cannot be installed: the cluster's tests are skipped"
fi
