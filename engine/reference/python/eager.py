#!/usr/bin/env python3
"""The same model in eager PyTorch, for comparison with `windtunnel engine bench` on the same GPU.

A decoder of the Llama family with random weights in bf16: RMSNorm, rotary embedding, grouped-query
attention by `scaled_dot_product_attention` over a contiguous cache, SwiGLU, greedy choice. No
`torch.compile`, no graphs. Measures decode steps at several batches and prefill steps, from token ids
to token ids, and prints JSON with the device, the versions and the shortest of several times.

    python3 eager.py --context 1024 --batches 1 2 4 8 16 32 64 --prefills 512 2048 > eager.json

Needs torch with CUDA; without it, says so and ends with status 1.
"""

import argparse
import datetime
import json
import sys


def parse():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--hidden", type=int, default=4096)
    p.add_argument("--ffn", type=int, default=14336)
    p.add_argument("--layers", type=int, default=32)
    p.add_argument("--heads", type=int, default=32)
    p.add_argument("--kv-heads", type=int, default=8)
    p.add_argument("--head-dim", type=int, default=128)
    p.add_argument("--vocab", type=int, default=128256)
    p.add_argument("--context", type=int, default=1024)
    p.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    p.add_argument("--prefills", type=int, nargs="+", default=[512, 2048])
    p.add_argument("--repeats", type=int, default=5)
    return p.parse_args()


def main():
    args = parse()
    try:
        import torch
        import torch.nn.functional as F
    except ImportError:
        sys.exit("torch is not installed")
    if not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device")
    device, kind = "cuda", torch.bfloat16
    torch.manual_seed(1)
    q_width, kv_width = args.heads * args.head_dim, args.kv_heads * args.head_dim

    def matrix(outputs, inputs):
        return torch.randn(outputs, inputs, device=device, dtype=kind) * inputs**-0.5

    layers = [
        {
            "norm": torch.ones(args.hidden, device=device, dtype=kind),
            "qkv": matrix(q_width + 2 * kv_width, args.hidden),
            "o": matrix(args.hidden, q_width),
            "post": torch.ones(args.hidden, device=device, dtype=kind),
            "gate_up": matrix(2 * args.ffn, args.hidden),
            "down": matrix(args.hidden, args.ffn),
        }
        for _ in range(args.layers)
    ]
    table, head = matrix(args.vocab, args.hidden), matrix(args.vocab, args.hidden)
    norm = torch.ones(args.hidden, device=device, dtype=kind)
    longest = max(args.context + 1, *args.prefills)
    half = args.head_dim // 2
    angles = torch.outer(
        torch.arange(longest, device=device, dtype=torch.float32),
        10000.0 ** (-torch.arange(half, device=device, dtype=torch.float32) / half),
    )
    cos, sin = angles.cos().to(kind), angles.sin().to(kind)

    def rms(x, weight):
        return F.rms_norm(x, (args.hidden,), weight, 1e-5)

    def rotate(x, start, count):
        c, s = cos[start : start + count, None, :], sin[start : start + count, None, :]
        a, b = x[..., :half], x[..., half:]
        return torch.cat((a * c - b * s, b * c + a * s), -1)

    @torch.inference_mode()
    def step(tokens, cache, start):
        batch, count = tokens.shape
        x = table[tokens]
        for layer, (keys, values) in zip(layers, cache):
            qkv = F.linear(rms(x, layer["norm"]), layer["qkv"]).view(batch, count, -1, args.head_dim)
            q, k, v = qkv.split([args.heads, args.kv_heads, args.kv_heads], 2)
            end = start + count
            keys[:, :, start:end] = rotate(k, start, count).transpose(1, 2)
            values[:, :, start:end] = v.transpose(1, 2)
            out = F.scaled_dot_product_attention(
                rotate(q, start, count).transpose(1, 2),
                keys[:, :, :end],
                values[:, :, :end],
                is_causal=count > 1,
                enable_gqa=True,
            )
            x = x + F.linear(out.transpose(1, 2).reshape(batch, count, -1), layer["o"])
            gate, up = F.linear(rms(x, layer["post"]), layer["gate_up"]).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer["down"])
        return F.linear(rms(x[:, -1], norm), head).argmax(-1)

    def measure(batch, count, start):
        shape = (batch, args.kv_heads, start + count, args.head_dim)
        cache = [
            (torch.randn(shape, device=device, dtype=kind), torch.randn(shape, device=device, dtype=kind))
            for _ in layers
        ]
        tokens = torch.randint(args.vocab, (batch, count), device=device)
        times = 20 if count == 1 else 2
        best = float("inf")
        for attempt in range(args.repeats + 1):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(times):
                step(tokens, cache, start).tolist()
            end.record()
            end.synchronize()
            if attempt:
                best = min(best, begin.elapsed_time(end) / times)
        return {"batch": batch, "tokens": count, "context": start, "ms": best}

    result = {
        "device": torch.cuda.get_device_name(),
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "arguments": vars(args),
        "decode": [measure(b, 1, args.context) for b in args.batches],
        "prefill": [measure(1, n, 0) for n in args.prefills],
    }
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
