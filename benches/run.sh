#!/usr/bin/env bash
# Times fits beside scipy, and the training step beside PyTorch and JAX: `benches/run.sh [fit] [configuration...]`;
# without names the fits and all four configurations, with `fit` alone the fits only.
# Peers come from PyPI into .venv on the first call (scipy is small, the other two take about 6 GB);
# ISOFLOP_BENCH_PYTHON names another Python that has them.
set -euo pipefail
cd "$(dirname "$0")/.."

# Whole, because a bench runs in the folder of its package.
python=${ISOFLOP_BENCH_PYTHON:-$PWD/.venv/bin/python}

# need "modules to import" packages...
need() {
    local modules=$1
    shift
    "$python" -c "import $modules" 2>/dev/null && return
    if [[ -n ${ISOFLOP_BENCH_PYTHON:-} ]]; then
        echo "$python lacks one of $modules; unset ISOFLOP_BENCH_PYTHON to have them installed into .venv" >&2
        exit 1
    fi
    echo "installing $* into .venv" >&2
    [[ -x .venv/bin/python ]] || python3 -m venv .venv
    .venv/bin/pip install --quiet "$@"
}

mkdir -p studies
if [[ $# -eq 0 || $1 == fit ]]; then
    need "numpy, scipy" numpy scipy
    cargo bench --locked -p isoflop-sweeps --bench fit -- --peer "$python" --csv "$PWD/studies/bench-fit.csv"
    echo "written to studies/bench-fit.csv"
    [[ $# -eq 1 ]] && exit
    [[ $# -gt 1 ]] && shift
fi
need "torch, jax" torch jax numpy
cargo bench --locked --bench step -- "$@" --peer "$python" --csv studies/bench-step.csv
echo "written to studies/bench-step.csv"
