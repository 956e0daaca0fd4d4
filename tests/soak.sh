#!/bin/sh
# Long runs: the same hard moment many times over. SOAK_ROUNDS says how often (make soak SOAK_ROUNDS=500).
set -u
cd "$(dirname "$0")/.." || exit 1
export SOAK_ROUNDS="${SOAK_ROUNDS:-100}"
exec "${PYTHON:-/usr/bin/python3}" -m pytest -q -p no:cacheprovider tests/e2e/soak*.py "$@"
