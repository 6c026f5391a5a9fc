#!/usr/bin/env bash
# Installs Debian's Chromium for the tests of the report's page, if it is missing, apt exists and
# root runs this. Never fails: without Chromium those tests are skipped, and say so.
set -euo pipefail

for browser in chromium chromium-browser google-chrome; do
    command -v "$browser" >/dev/null && exit 0
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no Chromium, and no right to install it: the tests of the report's page are skipped"
    exit 0
fi
apt=(env DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq
    -o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15)
if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends chromium; } \
    >/dev/null 2>&1; then
    echo "Chromium cannot be installed: the tests of the report's page are skipped"
fi
