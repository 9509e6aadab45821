"""The same Gopher training step in JAX, jitted whole with its state donated: a peer of benches/step.rs.

Protocol as in gopher_torch.py: a JSON line when ready, then for each line "N" on standard input the milliseconds of each of
N steps as a JSON list, and for "end" the peak memory in bytes. Threads: XLA takes as many as the process may run on.
"""
import argparse, json, os, resource, sys, time

parser = argparse.ArgumentParser()
parser.add_argument("--shape", type=int, nargs=7, metavar=("L", "H", "K", "D", "V", "S", "B"))
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])

import jax
import jax.numpy as jnp
import numpy as np

layers, heads, d_head, d_model, vocab, seq, batch = args.shape
inner = heads * d_head
eps = 1e-6
lr, beta1, beta2, adam_eps, decay, clip = 3e-4, 0.9, 0.95, 1e-8, 0.1, 1.0


def parameters(rng):
    def normal(*shape):
        return jnp.asarray(0.02 * rng.standard_normal(shape), jnp.float32)

    def block():
        return {
            "norm1": jnp.ones(d_model), "wqkv": normal(d_model, 3 * inner), "wr": normal(d_model, inner),
            "u": normal(heads, d_head), "v": normal(heads, d_head), "wo": normal(inner, d_model),
            "norm2": jnp.ones(d_model), "w1": normal(d_model, 4 * d_model), "w2": normal(4 * d_model, d_model),
        }
    return {"embed": normal(vocab, d_model), "norm_f": jnp.ones(d_model), "layers": [block() for _ in range(layers)]}


def distances():
    """Sinusoids of the distances seq-1 .. 0, sines before cosines."""
    angle = np.arange(seq - 1, -1, -1)[:, None] * 10000.0 ** (-np.arange(0, d_model, 2) / d_model)
    return jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)], 1), jnp.float32)


def rms_norm(x, gain):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + eps) * gain


def attention(p, x, r):
    q, k, v = jnp.split((x @ p["wqkv"]).reshape(batch, seq, 3 * heads, d_head), 3, axis=2)
    rel = (r @ p["wr"]).reshape(seq, heads, d_head)
    scale = d_head**-0.5
    content = jnp.einsum("bihd,bjhd->bhij", (q + p["u"]) * scale, k)
    by_distance = jnp.einsum("bihd,phd->bhip", (q + p["v"]) * scale, rel)
    # Row i moves by seq-1-i columns, so that column j holds distance i-j.
    padded = jnp.pad(by_distance, ((0, 0), (0, 0), (0, 0), (1, 0)))
    position = padded.reshape(batch, heads, seq + 1, seq)[:, :, 1:]
    causal = jnp.tril(jnp.ones((seq, seq), bool))
    weights = jax.nn.softmax(jnp.where(causal, content + position, -jnp.inf), -1)
    return jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(batch, seq, inner) @ p["wo"]


def loss(p, tokens, targets, r):
    x = p["embed"][tokens]
    for layer in p["layers"]:
        x = x + attention(layer, rms_norm(x, layer["norm1"]), r)
        x = x + jax.nn.gelu(rms_norm(x, layer["norm2"]) @ layer["w1"], approximate=True) @ layer["w2"]
    logits = rms_norm(x, p["norm_f"]) @ p["embed"].T
    chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - chosen)


def train(p, m, v, count, tokens, targets, r):
    value, g = jax.value_and_grad(loss)(p, tokens, targets, r)
    norm = jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(g)))
    g = jax.tree.map(lambda x: x * jnp.minimum(1.0, clip / (norm + 1e-6)), g)
    count = count + 1
    m = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, m, g)
    v = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, v, g)

    def update(path, p, m, v):
        kept = 1 - lr * (decay if path[-1].key.startswith(("w", "embed")) else 0.0)
        return p * kept - lr * (m / (1 - beta1**count)) / (jnp.sqrt(v / (1 - beta2**count)) + adam_eps)
    return jax.tree_util.tree_map_with_path(update, p, m, v), m, v, count, value


rng = np.random.default_rng(0)
p = parameters(rng)
state = (p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), jnp.float32(0))
del p
ids = rng.integers(0, vocab, (batch, seq + 1)).astype(np.int32)
inputs = (jnp.asarray(ids[:, :-1]), jnp.asarray(ids[:, 1:]), distances())
step = jax.jit(train, donate_argnums=(0, 1, 2, 3))


def run():
    global state
    *rest, value = step(*state, *inputs)
    state = tuple(rest)
    jax.block_until_ready(state)
    return value


for _ in range(3):
    run()
print(json.dumps({"ready": True, "version": jax.__version__}), flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    times = []
    for _ in range(int(line)):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    print(json.dumps(times), flush=True)
print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)
