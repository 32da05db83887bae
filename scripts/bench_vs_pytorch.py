"""PyTorch's and Mixtape's training steps in turns. Started by scripts/bench_vs_pytorch.

A step is forward, backward, clipping of the norm to 1 and AdamW (PyTorch's fused one), on random tokens, without dropout.
PyTorch's best way counts: for GPT a module in nanoGPT's style, for the others the one of transformers, each in eager mode
and under torch.compile. Each side is a process of its own, and after PyTorch's step comes at once one of Mixtape's: a machine
that slows down slows both, and no core falls idle between. The ratio is the median over these pairs, beside it the range
that holds the middle half of them. Memory is the peak resident size less what the process held when its imports were done.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

# Mixtape's configuration, a file or overrides; PyTorch's model by the same numbers. `steps`: of a turn. `goal`: PyTorch's time / Mixtape's.
GPT2 = dict(make="gpt", config=["model.preset=gpt2"], layers=12, width=768, heads=12, vocabulary=50257, positions=1024, bias=True)
LLAMA = dict(make="llama", config="configs/llama-134m.yaml", layers=12, width=768, heads=12, vocabulary=32000, positions=1024, inner=2048)
BERT = dict(make="bert", config=["model.preset=bert-base", "objective.name=masked_lm"], vocabulary=30522)
T5 = dict(make="t5", config=["model.preset=t5-small", "objective.name=span_corruption"], vocabulary=32128)
MODEL_10M = dict(make="gpt", config="configs/10m.yaml", layers=6, width=384, heads=6, vocabulary=257, positions=256, bias=False)
CHAR = dict(make="gpt", config="configs/char.yaml", layers=4, width=128, heads=4, vocabulary=257, positions=64, bias=False)
CASES = {
    "gpt2-4x64": dict(GPT2, rows=4, length=64, steps=2, goal=1.3),
    "gpt2-4x256": dict(GPT2, rows=4, length=256, steps=1, goal=1.25),
    "gpt2-1x1024": dict(GPT2, rows=1, length=1024, steps=1, goal=1.25),
    "gpt2-8x512": dict(GPT2, rows=8, length=512, steps=1, goal=1.3),
    "llama-4x256": dict(LLAMA, rows=4, length=256, steps=1, goal=1.15),
    "10m-64x256": dict(MODEL_10M, rows=64, length=256, steps=1, goal=1.35),
    "bert-8x128": dict(BERT, rows=8, length=128, targets=19, steps=1, goal=1.35),
    "t5-4x512": dict(T5, rows=4, length=512, decoder_length=114, steps=1, goal=1.35),
    "char-12x64": dict(CHAR, rows=12, length=64, steps=20, goal=1.8),
}
MODES = ["eager", "compile"]


class Side:
    """A process that takes a number of steps whenever it is told to."""

    def __init__(self, name, command):
        self.name = name
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(list(map(str, command)), text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors)
        self.setup = self.read()
        self.seconds = []

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            sys.exit(f"bench_vs_pytorch: {self.name}: {self.errors.read()[-2000:].decode()}")
        return json.loads(line)

    def turn(self, steps):
        print(steps, file=self.process.stdin, flush=True)
        answer = self.read()
        self.seconds.append(answer["seconds_per_step"])
        self.memory = answer["peak_resident_bytes"] - self.setup["resident_before_bytes"]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def mixtape_side(mixtape, case, precision):
    rows = case["rows"]
    config = [case["config"]] if isinstance(case["config"], str) else case["config"]
    return Side("Mixtape", [mixtape, "bench", "train", *config, f"data.seq_length={case['length']}",
                            f"train.micro_batch_size={rows}", f"train.global_batch_size={rows}", "model.dropout=0",
                            "model.attention_dropout=0", f"precision.mode={precision}", "--turns"])


def pytorch_side(name, mode, precision):
    return Side(f"PyTorch, {name}, {mode}", [sys.executable, __file__, "--worker", name, mode, precision])


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


def bert(case):
    import torch
    from transformers import BertConfig, BertForMaskedLM

    class Bert(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = BertForMaskedLM(BertConfig(hidden_dropout_prob=0, attention_probs_dropout_prob=0))

        def forward(self, tokens, targets):
            return self.model(input_ids=tokens, labels=targets).loss

    return Bert()


def t5(case):
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    class T5(torch.nn.Module):
        def __init__(self):
            super().__init__()
            # The numbers of t5-small are T5Config's own.
            self.model = T5ForConditionalGeneration(T5Config(dropout_rate=0, pad_token_id=0, decoder_start_token_id=0, use_cache=False))

        def forward(self, tokens, targets):
            return self.model(input_ids=tokens, labels=targets).loss

    return T5()


MODELS = dict(gpt=gpt, llama=llama, bert=bert, t5=t5)


def draw_batch(case):
    """Inputs and targets: the next tokens; BERT's have few targets, T5's are another text."""
    import torch

    tokens = torch.randint(case["vocabulary"], (case["rows"], case["length"] + 1))
    if "decoder_length" in case:
        return tokens[:, 1:].contiguous(), torch.randint(case["vocabulary"], (case["rows"], case["decoder_length"]))
    targets = tokens[:, 1:].clone()
    targets[:, case.get("targets", case["length"]):] = -100
    return tokens[:, :-1].contiguous(), targets


def worker(name, mode, precision):
    import torch
    import torch._dynamo

    case = CASES[name]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(1)
    if case["make"] != "gpt":
        from transformers import BertForMaskedLM, LlamaForCausalLM, T5ForConditionalGeneration  # no part of the model
    torch.ones(64, 64) @ torch.ones(64, 64)
    before = resident("VmRSS")
    model = MODELS[case["make"]](case)
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    inputs, targets = draw_batch(case)
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
    print(json.dumps(dict(resident_before_bytes=before, parameters=parameters)), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(json.dumps(dict(seconds_per_step=(time.perf_counter() - start) / int(line),
                              peak_resident_bytes=resident("VmHWM"))), flush=True)


# The comparison


def fastest_mode(name, precision, steps):
    """The process of PyTorch's faster mode, by two turns of each."""
    best = None
    for mode in MODES:
        side = pytorch_side(name, mode, precision)
        side.turn(steps), side.turn(steps)
        side.mode = mode
        slower = max((side, best), key=lambda s: min(s.seconds)) if best else None
        best = side if slower is not side else best
        if slower:
            slower.end()
    best.seconds.clear()
    return best


def compare(mixtape, name, precision, pairs):
    case = CASES[name]
    rival = fastest_mode(name, precision, case["steps"])
    ours = mixtape_side(mixtape, case, precision)
    if ours.setup["parameters"] != rival.setup["parameters"]:
        sys.exit(f"bench_vs_pytorch: {name}: {ours.setup['parameters']} parameters here, "
                 f"{rival.setup['parameters']} in PyTorch: not the same model")
    for _ in range(pairs):
        rival.turn(case["steps"])
        ours.turn(case["steps"])
    rival.end(), ours.end()
    ratios = sorted(theirs / mine for theirs, mine in zip(rival.seconds, ours.seconds))
    return dict(case=name, mode=rival.mode, goal=case["goal"], tokens=case["rows"] * case["length"],
                mixtape_seconds=statistics.median(ours.seconds), pytorch_seconds=statistics.median(rival.seconds),
                speed=statistics.median(ratios), speed_low=ratios[pairs // 4], speed_high=ratios[-1 - pairs // 4],
                mixtape_memory=ours.memory, pytorch_memory=rival.memory, memory=ours.memory / rival.memory)


HEADER = (f"{'case':<13} {'PyTorch':<8} {'s/step':>8} {'tokens/s':>9} {'MiB':>7}   {'Mixtape':>8} {'tokens/s':>9} {'MiB':>7}   "
          f"{'speed':>6} {'range':>12} {'goal':>5} {'memory':>6}")


def line(r):
    theirs, mine = r["pytorch_seconds"], r["mixtape_seconds"]
    return (f"{r['case']:<13} {r['mode']:<8} {theirs:>8.4f} {r['tokens'] / theirs:>9,.0f} {r['pytorch_memory'] / 2**20:>7,.0f}"
            f"   {mine:>8.4f} {r['tokens'] / mine:>9,.0f} {r['mixtape_memory'] / 2**20:>7,.0f}   {r['speed']:>5.2f}x "
            f"{r['speed_low']:>5.2f} to {r['speed_high']:.2f} {r['goal']:>5} {r['memory']:>6.2f}")


def main():
    parser = argparse.ArgumentParser(prog="bench_vs_pytorch")
    parser.add_argument("mixtape")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--pairs", type=int, default=7, help="turns of each side that are compared")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures to this file")
    a = parser.parse_intermixed_args()
    for name in a.cases:
        if name not in CASES:
            parser.error(f"{name} is no case; there are {', '.join(CASES)}")
    if a.pairs < 1:
        parser.error("--pairs: expected at least 1")
    os.environ.pop("OMP_NUM_THREADS", None)

    print(HEADER, flush=True)
    results = []
    for name in a.cases or CASES:
        results.append(compare(a.mixtape, name, a.precision, a.pairs))
        print(line(results[-1]), flush=True)
        if a.json:
            a.json.write_text(json.dumps(results, indent=1))
    print("speed: PyTorch's time / Mixtape's; memory: Mixtape's peak / PyTorch's, imports subtracted")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker(*sys.argv[2:])
    else:
        main()
