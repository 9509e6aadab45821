"""Approach 3 with scipy's L-BFGS-B and a gradient written by hand: fit_scipy.py RUNS.csv {grid|refits} COUNT.

grid: the published starts, all 4,500 or every so many; refits: COUNT resamples, each from the best fit. Prints one JSON
object: seconds of wall-clock time, the least objective (SUM of Huber terms of the log residuals), how many were run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import csv
import itertools
import json
import sys
import time

import numpy as np
from scipy.optimize import minimize

DELTA = 1e-3


def objective(theta, log_n, log_d, log_l):
    """The sum over runs of Huber(log of the law - log loss), and its gradient in (e, a, b, alpha, beta)."""
    e, a, b, alpha, beta = theta
    terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
    top = terms.max(axis=0)
    shares = np.exp(terms - top)
    total = shares.sum(axis=0)
    shares /= total
    r = top + np.log(total) - log_l
    psi = np.clip(r, -DELTA, DELTA)
    p = psi * shares
    gradient = np.array([p[0].sum(), p[1].sum(), p[2].sum(), -(p[1] @ log_n), -(p[2] @ log_d)])
    return (psi * (r - 0.5 * psi)).sum(), gradient


def fit(start, data):
    return minimize(objective, start, args=data, jac=True, method="L-BFGS-B")


def main():
    path, mode, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with open(path, newline="") as file:
        rows = [(float(r["params"]), float(r["tokens"]), float(r["validation_loss"])) for r in csv.DictReader(file)]
    data = tuple(np.log(np.array(rows)).T)
    half, five = [0, 0.5, 1, 1.5, 2], [0, 5, 10, 15, 20, 25]
    grid = list(itertools.product([-1, -0.5, 0, 0.5, 1], five, five, half, half))
    np.seterr(all="ignore")
    if mode == "grid":
        starts = grid[:: max(1, len(grid) // count)]
        begin = time.perf_counter()
        ends = [fit(np.array(s, float), data) for s in starts]
        seconds = time.perf_counter() - begin
        best = min(e.fun for e in ends if np.isfinite(e.fun))
        print(json.dumps(dict(seconds=seconds, objective=best, count=len(starts))))
        return
    ends = [fit(np.array(s, float), data) for s in grid[::45]]
    best = min((e for e in ends if np.isfinite(e.fun)), key=lambda e: e.fun)
    random = np.random.default_rng(0)
    begin = time.perf_counter()
    for _ in range(count):
        chosen = random.integers(0, len(rows), len(rows))
        fit(best.x, tuple(v[chosen] for v in data))
    print(json.dumps(dict(seconds=time.perf_counter() - begin, objective=best.fun, count=count)))


if __name__ == "__main__":
    main()
