#!/usr/bin/env bash
# Times the training step beside PyTorch and JAX: `benches/run.sh [configuration...]`, all four without names.
# Both come from PyPI into .venv on the first call (about 6 GB); ISOFLOP_BENCH_PYTHON names another Python that has them.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${ISOFLOP_BENCH_PYTHON:-.venv/bin/python}
if ! "$python" -c 'import torch, jax' 2>/dev/null; then
    if [[ -n ${ISOFLOP_BENCH_PYTHON:-} ]]; then
        echo "$python lacks torch or jax; unset ISOFLOP_BENCH_PYTHON to have both installed into .venv" >&2
        exit 1
    fi
    echo "installing PyTorch and JAX into .venv" >&2
    python3 -m venv .venv
    .venv/bin/pip install --quiet torch jax numpy
    python=.venv/bin/python
fi
mkdir -p studies
cargo bench --locked --bench step -- "$@" --peer "$python" --csv studies/bench-step.csv
echo "written to studies/bench-step.csv"
