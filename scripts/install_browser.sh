#!/usr/bin/env bash
# Installs the Chromium that the browser tests and the UI benchmark drive. Does nothing where it is there.
set -euo pipefail

if command -v chromium >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install_browser: no apt-get here; install Chromium yourself so that 'chromium' is on the PATH" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "install_browser: run as root: sudo scripts/install_browser.sh" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core
