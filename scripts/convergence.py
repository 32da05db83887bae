"""Validation losses of every mode. Started by scripts/convergence, which says what it does."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / "convergence"
SEEDS = (1234, 1, 2, 3, 4)
MODEL = "{n_layers: 3, d_model: 128, n_heads: 4, vocab_size: 4096, max_positions: 128}"
BATCH, LENGTH = 16, 128


@dataclass
class Mode:
    name: str
    settings: list = field(default_factory=list)
    bar: float = 0.005  # of fp32's loss; 0: none


BF16 = ["precision.mode=bf16"]
BARE = BF16 + ["precision.master=none"]
MODES = [
    Mode("fp32", bar=0),
    Mode("fp32, bf16 moments", ["precision.moments=bf16"]),
    Mode("fp32, int8 moments", ["precision.moments=int8"], 0.015),
    Mode("fp32, fp8 moments", ["precision.moments=fp8"], 0.015),
    Mode("bf16, fp32 master", BF16),
    Mode("bf16, remainder", BF16 + ["precision.master=remainder16"]),
    Mode("bf16, remainder, bf16 gradients and moments",
         BF16 + ["precision.master=remainder16", "precision.gradients=bf16", "precision.moments=bf16"]),
    Mode("bf16, no master", BARE),
    Mode("bf16, no master, bf16 moments", BARE + ["precision.moments=bf16"]),
    Mode("bf16, no master, bf16 gradients and moments", BARE + ["precision.gradients=bf16", "precision.moments=bf16"]),
    Mode("bf16, no master, int8 moments", BARE + ["precision.moments=int8"], 0.015),
    Mode("bf16, no master, fp8 moments", BARE + ["precision.moments=fp8"], 0.015),
    Mode("bf16, no master, int8 moments, gradients fused",
         BARE + ["precision.gradients=fused", "precision.moments=int8", "train.on_nonfinite.policy=stop"], 0.015),
    Mode("fp16", ["precision.mode=fp16"]),
    Mode("fp8", ["precision.mode=fp8"], 0.015),
    Mode("int8", ["precision.mode=int8_qat"], 0.015),
    Mode("Adam", ["optimizer.name=adam", "optimizer.weight_decay=1e-4"], 0),
    Mode("Lion", ["optimizer.name=lion", "optimizer.lr=1e-3", "optimizer.betas=[0.9, 0.99]"], 0),
    Mode("Lion, int8 moment",
         ["optimizer.name=lion", "optimizer.lr=1e-3", "optimizer.betas=[0.9, 0.99]", "precision.moments=int8"], 0),
    Mode("Muon", ["optimizer.name=muon", "optimizer.lr=1e-2"], 0),
    Mode("Adafactor", ["optimizer.name=adafactor", "optimizer.lr=0.02"], 0),
    Mode("SGD", ["optimizer.name=sgd", "optimizer.lr=0.3", "optimizer.weight_decay=1e-4"], 0),
]


def name_of(mode, seed):
    return "".join(c if c.isalnum() else "-" for c in mode.name.lower()) + f"-{seed}"


def loss_of(run, steps):
    """The loss of the validation at the end, or None."""
    metrics = RUNS / run / "metrics.jsonl"
    for line in metrics.read_text().splitlines() if metrics.exists() else []:
        event = json.loads(line)
        if event.get("event") == "eval" and event.get("step") == steps:
            return event["loss"]
    return None


def train(mode, seed, arguments):
    """The validation loss, or why there is none."""
    run = name_of(mode, seed)
    if (loss := loss_of(run, arguments.steps)) is not None:
        return loss
    settings = [
        f"model={MODEL}", "data.tokenizer=data/quickstart/tokenizer.json",
        "data.sources=[{path: data/quickstart/fortunes}, {path: data/quickstart/gcide}]",
        "data.validation_split=0.01", f"data.seq_length={LENGTH}", f"train.micro_batch_size={BATCH}",
        f"train.global_batch_size={BATCH}", f"train.max_steps={arguments.steps}", "optimizer.lr=3e-3",
        "optimizer.betas=[0.9, 0.95]", "schedule={name: cosine, warmup_steps: 30, min_lr: 1e-5}",
        f"eval={{interval: {arguments.steps}, tokens: 65536}}", f"checkpoint.interval={arguments.steps}",
        "logging={interval: 50, sample_interval: 0, tensorboard: false}", "run.dir=runs/convergence",
        f"run.name={run}", f"seed={seed}", f"runtime.threads={arguments.threads}"
    ]
    done = subprocess.run([ROOT / "build" / "mixtape", "train", *settings, *mode.settings],
                          cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 2:
        return done.stderr.strip().splitlines()[-1]
    if done.returncode:
        sys.exit(f"{mode.name}, seed {seed}: exit code {done.returncode}\n{done.stderr}")
    return loss_of(run, arguments.steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("modes", nargs="*")
    arguments = parser.parse_args()
    chosen = [m for m in MODES if m.name == "fp32" or not arguments.modes or any(w in m.name for w in arguments.modes)]
    seeds = SEEDS[:arguments.seeds]
    print(f"{arguments.steps} steps of {BATCH * LENGTH} tokens, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}\n")
    print("| mode | validation loss | spread | beside fp32 | bar |\n|---|---|---|---|---|")
    base, missed = {}, []
    for mode in chosen:
        losses = {seed: train(mode, seed, arguments) for seed in seeds}
        reasons = [x for x in losses.values() if not isinstance(x, float)]
        if reasons:
            print(f"| {mode.name} | refused: {reasons[0]} | | | |", flush=True)
            continue
        base = base or losses
        mean, fp32 = statistics.mean(losses.values()), statistics.mean(base.values())
        difference = mean / fp32 - 1
        if mode.bar and difference > mode.bar:
            missed.append(mode.name)
        bar = f"{100 * mode.bar:g} %{' missed' if mode.name in missed else ''}" if mode.bar else ""
        print(f"| {mode.name} | {mean:.4f} | {max(losses.values()) - min(losses.values()):.4f} | "
              f"{100 * difference:+.2f} % | {bar} |", flush=True)
    if missed:
        sys.exit("bars missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
