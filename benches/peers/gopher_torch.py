"""The same Gopher training step in PyTorch: the peer that benches/step.rs runs side by side.

Protocol: prints one JSON line when ready (after the first steps), then answers each line "N" on standard input with the
milliseconds of each of N steps as a JSON list, and "end" with its peak memory in bytes.

score_ij = ((q_i+u).k_j + (q_i+v).(W_r r_{i-j})) / sqrt(d_head), j <= i
"""
import argparse, json, math, resource, sys, time
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass(frozen=True)
class Cfg:
    layers: int
    heads: int
    d_head: int
    d_model: int
    vocab: int
    seq: int
    batch: int
    rms_eps: float = 1e-6


def sinusoid(seq, d):
    """r_t for t = seq-1 .. 0 (descending distance); [sin | cos] halves; f64 then f32."""
    t = torch.arange(seq - 1, -1, -1, dtype=torch.float64)
    inv = 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    a = t[:, None] * inv[None, :]
    return torch.cat([a.sin(), a.cos()], -1).float()


class RelShift(torch.autograd.Function):
    """x[..., i, p] with p the column of distance S-1-p to y[..., i, j] = x[..., i, S-1-(i-j)], without a copy.
    Its backward relies on the incoming gradient being 0 for j > i, true below a causal softmax."""
    @staticmethod
    def forward(ctx, x):
        B, H, S, _ = x.shape
        return x.as_strided((B, H, S, S), (H * S * S, S * S, S - 1, 1), x.storage_offset() + S - 1)

    @staticmethod
    def backward(ctx, g):
        B, H, S, _ = g.shape
        out = g.new_empty(B, H, S, S + 1)
        flat = out.view(B, H, S * (S + 1))
        flat[..., :S].zero_()
        flat[..., S:].view(B, H, S, S).copy_(g)
        return out[..., 1:]


class Block(nn.Module):
    def __init__(self, c, std=0.02):
        super().__init__()
        self.c = c
        D = c.heads * c.d_head
        n = lambda *s: nn.Parameter(torch.randn(*s) * std)
        self.norm1 = nn.Parameter(torch.ones(c.d_model))
        self.wqkv = n(3 * D, c.d_model)
        self.wr = n(D, c.d_model)
        self.u = n(c.heads, c.d_head)
        self.v = n(c.heads, c.d_head)
        self.wo = n(c.d_model, D)
        self.norm2 = nn.Parameter(torch.ones(c.d_model))
        self.w1 = n(4 * c.d_model, c.d_model)
        self.w2 = n(c.d_model, 4 * c.d_model)

    def attend(self, x, r, mask):
        c = self.c
        B, S, _ = x.shape
        h = F.rms_norm(x, (c.d_model,), self.norm1, c.rms_eps)
        qkv = F.linear(h, self.wqkv).view(B, S, 3, c.heads, c.d_head)
        q, k, val = (t.transpose(1, 2) for t in qkv.unbind(2))
        rel = F.linear(r, self.wr).view(S, c.heads, c.d_head).permute(1, 2, 0)
        scale = 1.0 / math.sqrt(c.d_head)
        bd = torch.matmul((q + self.v[:, None]) * scale, rel)
        qu = (q + self.u[:, None]) * scale
        s = torch.matmul(qu, k.transpose(-1, -2)) + RelShift.apply(bd) + mask
        o = torch.matmul(torch.softmax(s, -1), val)
        return F.linear(o.transpose(1, 2).reshape(B, S, -1), self.wo)

    def forward(self, x, r, mask):
        x = x + self.attend(x, r, mask)
        h = F.rms_norm(x, (self.c.d_model,), self.norm2, self.c.rms_eps)
        return x + F.linear(F.gelu(F.linear(h, self.w1), approximate="tanh"), self.w2)


class Gopher(nn.Module):
    def __init__(self, c, std=0.02):
        super().__init__()
        self.c = c
        self.embed = nn.Parameter(torch.randn(c.vocab, c.d_model) * std)
        self.blocks = nn.ModuleList(Block(c, std) for _ in range(c.layers))
        self.norm_f = nn.Parameter(torch.ones(c.d_model))
        self.register_buffer("r", sinusoid(c.seq, c.d_model), persistent=False)
        self.register_buffer("mask", torch.full((c.seq, c.seq), -math.inf).triu(1), persistent=False)

    def forward(self, tokens, targets):
        x = F.embedding(tokens, self.embed)
        for b in self.blocks:
            x = b(x, self.r, self.mask)
        x = F.rms_norm(x, (self.c.d_model,), self.norm_f, self.c.rms_eps)
        return F.cross_entropy(F.linear(x, self.embed).view(-1, self.c.vocab), targets.view(-1))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--shape", type=int, nargs=7, metavar=("L", "H", "K", "D", "V", "S", "B"))
    p.add_argument("--mode", choices=["eager", "compile"], default="eager")
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    c = Cfg(*a.shape)
    torch.manual_seed(0)
    model = Gopher(c)
    no_decay = ("norm1", "norm2", "norm_f", "u", "v")
    groups = {True: [], False: []}
    for name, w in model.named_parameters():
        groups[name.split(".")[-1] not in no_decay].append(w)
    opt = torch.optim.AdamW(
        [{"params": groups[True], "weight_decay": 0.1}, {"params": groups[False], "weight_decay": 0.0}],
        lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
    forward = torch.compile(model) if a.mode == "compile" else model
    tok = torch.randint(0, c.vocab, (c.batch, c.seq + 1))
    x, y = tok[:, :-1].contiguous(), tok[:, 1:].contiguous()
    params = list(model.parameters())

    def step():
        loss = forward(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    print(json.dumps({"ready": True, "version": torch.__version__}), flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        times = []
        for _ in range(int(line)):
            t = time.perf_counter()
            step()
            times.append((time.perf_counter() - t) * 1e3)
        print(json.dumps(times), flush=True)
    print(json.dumps({"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


main()
