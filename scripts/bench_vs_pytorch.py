"""PyTorch's and Mixtape's training steps in turns. Started by scripts/bench_vs_pytorch.

A step is forward, backward, clipping of the norm to 1 and AdamW (PyTorch's fused one), on random tokens, without dropout.
PyTorch's best way counts: for GPT a module in nanoGPT's style, for LLaMA the one of transformers, each in eager mode and
under torch.compile. Every side runs in a process of its own and counts a step only if the machine ran at full rate right
before and after it; memory is the peak resident size less what the process held when its imports were done.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

# Mixtape's configuration and its overrides; PyTorch's model by the same numbers. `goal`: PyTorch's time / Mixtape's.
GPT2 = dict(config="configs/gpt2-124m.yaml", layers=12, width=768, heads=12, vocabulary=50257, positions=1024, bias=True)
LLAMA = dict(config="configs/llama-134m.yaml", layers=12, width=768, heads=12, vocabulary=32000, positions=1024, inner=2048)
MODEL_10M = dict(config="configs/10m.yaml", layers=6, width=384, heads=6, vocabulary=257, positions=256, bias=False)
CHAR = dict(config="configs/char.yaml", layers=4, width=128, heads=4, vocabulary=257, positions=64, bias=False)
CASES = {
    "gpt2-4x64": dict(GPT2, rows=4, length=64, steps=5, goal=1.3),
    "gpt2-4x256": dict(GPT2, rows=4, length=256, steps=3, goal=1.25),
    "gpt2-1x1024": dict(GPT2, rows=1, length=1024, steps=3, goal=1.25),
    "gpt2-8x512": dict(GPT2, rows=8, length=512, steps=2, goal=1.3),
    "llama-4x256": dict(LLAMA, rows=4, length=256, steps=3, goal=1.15),
    "10m-64x256": dict(MODEL_10M, rows=64, length=256, steps=3, goal=1.35),
    "char-12x64": dict(CHAR, rows=12, length=64, steps=40, goal=1.8),
}
MODES = ["eager", "compile"]


def mixtape_step(mixtape, case, precision):
    rows = case["rows"]
    command = [mixtape, "bench", "train", case["config"], f"data.seq_length={case['length']}",
               f"train.micro_batch_size={rows}", f"train.global_batch_size={rows}", "model.dropout=0",
               "model.attention_dropout=0", f"precision.mode={precision}", "--steps", str(case["steps"]), "--json"]
    output = subprocess.run(command, capture_output=True, text=True)
    if output.returncode != 0:
        sys.exit(f"bench_vs_pytorch: {' '.join(map(str, command))}: {output.stderr}")
    r = json.loads(output.stdout)
    return dict(seconds=r["seconds_per_step"], memory=r["peak_resident_bytes"] - r["resident_before_bytes"],
                parameters=r["parameters"], disturbed=r["disturbed"], share_of_fma=r["share_of_fma"])


def pytorch_step(name, mode, precision):
    command = [sys.executable, __file__, "--worker", name, mode, precision]
    output = subprocess.run(command, capture_output=True, text=True)
    if output.returncode != 0:
        sys.exit(f"bench_vs_pytorch: PyTorch, {name}, {mode}: {output.stderr[-2000:]}")
    return json.loads(output.stdout.splitlines()[-1])


# PyTorch's side


def resident(key):
    for line in open("/proc/self/status"):
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024


def gpt(case):
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads, bias = case["width"], case["heads"], case["bias"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width, bias=bias), nn.LayerNorm(width, bias=bias)
            self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
            self.up, self.down = nn.Linear(width, 4 * width, bias=bias), nn.Linear(4 * width, width, bias=bias)

        def forward(self, x):
            rows, length, _ = x.shape
            q, k, v = (t.view(rows, length, heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(width, 2))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(case["vocabulary"], width)
            self.positions = nn.Embedding(case["positions"], width)
            self.blocks = nn.ModuleList(Block() for _ in range(case["layers"]))
            self.norm = nn.LayerNorm(width, bias=bias)
            self.head = nn.Linear(width, case["vocabulary"], bias=False)
            self.head.weight = self.tokens.weight
            for p in self.parameters():
                if p.dim() == 2:
                    nn.init.normal_(p, std=0.02)

        def forward(self, tokens, targets):
            x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            logits = self.head(self.norm(x))
            return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    return Gpt()


def llama(case):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    class Llama(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = LlamaForCausalLM(LlamaConfig(
                vocab_size=case["vocabulary"], hidden_size=case["width"], intermediate_size=case["inner"],
                num_hidden_layers=case["layers"], num_attention_heads=case["heads"],
                max_position_embeddings=case["positions"], tie_word_embeddings=False, attn_implementation="sdpa"))

        def forward(self, tokens, targets):
            # Targets come shifted already, as in Mixtape: every position has one.
            return self.model(input_ids=tokens, labels=tokens, shift_labels=targets, use_cache=False).loss

    return Llama()


class Steady:
    """Counts a step only if the machine ran at full rate before and after it (train/bench/steady.h)."""

    def __init__(self):
        import torch

        self.a, self.b = torch.randn(768, 768), torch.randn(768, 768)
        self.best = 0.0

    def probe(self, seconds=0.012):
        start, products = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            self.a @ self.b
            products += 1
        return products / (time.perf_counter() - start)

    def measure(self, wanted, step):
        self.best = max(self.probe(0.1) for _ in range(3))
        samples = []

        def counting():
            return [s for s, probe in samples if probe >= 0.85 * self.best]

        while len(counting()) < wanted and len(samples) < 3 * wanted:
            self.probe(0.1)
            before = self.probe()
            start = time.perf_counter()
            step()
            seconds = time.perf_counter() - start
            after = self.probe()
            self.best = max(self.best, before, after)
            samples.append((seconds, min(before, after)))
        counted = counting()
        return statistics.median(counted or [s for s, _ in samples]), 2 * len(counted) < len(samples)


def worker(name, mode, precision):
    import torch
    import torch._dynamo

    case = CASES[name]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(1)
    if "inner" in case:
        import transformers.models.llama  # part of the imports, not of the model
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = resident("VmRSS")
    model = llama(case) if "inner" in case else gpt(case)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(case["vocabulary"], (case["rows"], case["length"] + 1))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    forward = torch.compile(model) if mode == "compile" else model

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = forward(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step(), step()
    # What the compiler itself needed is not the step's.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    seconds, disturbed = Steady().measure(case["steps"], step)
    print(json.dumps(dict(seconds=seconds, memory=resident("VmHWM") - before, parameters=parameters, disturbed=disturbed)))


# The comparison


def compare(mixtape, name, precision, rounds):
    case, modes, ours, theirs = CASES[name], list(MODES), [], {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode in modes:
            theirs[mode].append(pytorch_step(name, mode, precision))
        ours.append(mixtape_step(mixtape, case, precision))
        # A way that is clearly slower is not the rival.
        fastest = min(theirs[mode][0]["seconds"] for mode in modes)
        modes = [mode for mode in modes if theirs[mode][0]["seconds"] < 1.1 * fastest]
    if ours[0]["parameters"] != theirs[modes[0]][0]["parameters"]:
        sys.exit(f"bench_vs_pytorch: {name}: {ours[0]['parameters']} parameters here, "
                 f"{theirs[modes[0]][0]['parameters']} in PyTorch: not the same model")
    best = min(modes, key=lambda mode: min(r["seconds"] for r in theirs[mode]))
    # Of each side the fastest round: disturbance only ever slows.
    mine = min(ours, key=lambda r: r["seconds"])
    rival = min(theirs[best], key=lambda r: r["seconds"])
    tokens = case["rows"] * case["length"]
    return dict(case=name, mode=best, goal=case["goal"], tokens=tokens, mixtape_seconds=mine["seconds"],
                pytorch_seconds={mode: min(r["seconds"] for r in runs) for mode, runs in theirs.items() if runs},
                speed=rival["seconds"] / mine["seconds"], mixtape_memory=mine["memory"], pytorch_memory=rival["memory"],
                memory=mine["memory"] / rival["memory"], share_of_fma=mine["share_of_fma"],
                disturbed=mine["disturbed"] or rival["disturbed"])


HEADER = (f"{'case':<13} {'PyTorch':<8} {'s/step':>8} {'tokens/s':>9} {'MiB':>7}   {'Mixtape':>8} {'tokens/s':>9} {'MiB':>7}   "
          f"{'speed':>6} {'goal':>5} {'memory':>6}")


def line(r):
    rival = r["pytorch_seconds"][r["mode"]]
    text = (f"{r['case']:<13} {r['mode']:<8} {rival:>8.4f} {r['tokens'] / rival:>9,.0f} {r['pytorch_memory'] / 2**20:>7,.0f}"
            f"   {r['mixtape_seconds']:>8.4f} {r['tokens'] / r['mixtape_seconds']:>9,.0f} "
            f"{r['mixtape_memory'] / 2**20:>7,.0f}   {r['speed']:>5.2f}x {r['goal']:>5} {r['memory']:>6.2f}")
    return text + ("   MACHINE DISTURBED: most steps were dropped; says little" if r["disturbed"] else "")


def main():
    parser = argparse.ArgumentParser(prog="bench_vs_pytorch")
    parser.add_argument("mixtape")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file")
    a = parser.parse_intermixed_args()
    for name in a.cases:
        if name not in CASES:
            parser.error(f"{name} is no case; there are {', '.join(CASES)}")
    if a.rounds < 1:
        parser.error("--rounds: expected at least 1")
    os.environ.pop("OMP_NUM_THREADS", None)

    print(HEADER, flush=True)
    results = []
    for name in a.cases or CASES:
        results.append(compare(a.mixtape, name, a.precision, a.rounds))
        print(line(results[-1]), flush=True)
        if a.json:
            a.json.write_text(json.dumps(results, indent=1))
    print("speed: PyTorch's time / Mixtape's; memory: Mixtape's peak / PyTorch's, imports subtracted")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker(*sys.argv[2:])
    else:
        main()
