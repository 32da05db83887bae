"""The same fine-tuning in Mixtape and in transformers. Started by scripts/compare_finetuning.

Both start from the weights that Mixtape pre-trained and exported, and take batches of the same number of examples, AdamW
without decay of norms and biases, clipping at 1, dropout 0.1, and a rate that rises for a tenth of the steps and then falls
to 0. A seed decides the new head, the order and the dropout, in each program by its own random numbers: so single runs
differ, and what is compared are means over seeds.
"""

import argparse
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import sys

BATCH, LENGTH, RATE = 16, 64, 5e-4
FILES = ["computers", "love", "people", "politics", "science", "songs-poems", "startrek", "work"]
MODEL = "{preset: bert-base, n_layers: 4, d_model: 256, n_heads: 4, vocab_size: 8192, dropout: 0.1, attention_dropout: 0.1}"
TASKS = {"classify": ("macro_f1", FILES), "tag": ("micro_f1", ["O", "CAPITAL"])}


def fortunes(name):
    text = pathlib.Path("/usr/share/games/fortunes", name).read_text(errors="replace")
    return [t for t in (part.strip() for part in text.split("\n%\n")) if t]


def examples(task):
    if task == "classify":
        return [{"text": " ".join(t.split()), "label": name} for name in FILES for t in fortunes(name)]
    rows = []
    for t in fortunes("people") + fortunes("science") + fortunes("politics"):
        words = t.split()[:40]
        rows.append({"tokens": [w.lower() for w in words],
                     "tags": ["CAPITAL" if w[:1].isupper() else "O" for w in words]})
    return rows


def write_data(task, folder):
    rows = examples(task)
    random.Random(1).shuffle(rows)
    held_out = len(rows) // 5
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("validation", rows[:held_out]), ("train", rows[held_out:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in part))
    return rows[held_out:], rows[:held_out]


def mixtape(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"compare_finetuning: mixtape {arguments[0]}: {done.stderr}")
    return done.stdout


def pretrain(program):
    if not pathlib.Path("data/bert/manifest.json").exists():
        print("preparing data/bert", flush=True)
        mixtape(program, "data", "prepare", "--new-tokenizer", "bert", "--vocab-size", 8192, "--separator", "%",
                "-o", "data/bert", "data/quickstart/text")
    if not pathlib.Path("runs/bert-base/model/model.safetensors").exists():
        print("pre-training configs/bert-base.yaml", flush=True)
        mixtape(program, "train", "configs/bert-base.yaml")


def ours(program, task, folder, steps, seed):
    score, labels = TASKS[task]
    name = f"{task}-{seed}"
    shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    (folder / f"{name}.yaml").write_text(f"""
run: {{name: {name}, dir: {folder}/runs, init_from: runs/bert-base}}
seed: {seed}
model: {MODEL}
objective: {{name: {task}, labels: [{', '.join(labels)}]}}
data:
  tokenizer: data/bert/tokenizer.json
  sources: [{{path: {folder}/train.jsonl, validation: {folder}/validation.jsonl}}]
  seq_length: {LENGTH}
  pack: false
train: {{micro_batch_size: {BATCH}, global_batch_size: {BATCH}, max_steps: {steps}}}
optimizer: {{lr: {RATE}, betas: [0.9, 0.999], weight_decay: 0.01}}
schedule: {{name: linear, warmup_steps: {steps // 10}, min_lr: 0}}
eval: {{interval: {steps}, tokens: 1000000}}
checkpoint: {{interval: 0}}
""")
    mixtape(program, "train", folder / f"{name}.yaml")
    lines = [json.loads(line) for line in (folder / "runs" / name / "metrics.jsonl").open()]
    return [line for line in lines if line["event"] == "eval"][-1][score]


def encode(tokenizer, task, rows, labels):
    """Ids and labels of each example; of a word the first token has its tag."""
    out = []
    for row in rows:
        if task == "classify":
            out.append((tokenizer(row["text"], truncation=True, max_length=LENGTH)["input_ids"], labels.index(row["label"])))
            continue
        encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=LENGTH)
        tags, before = [], None
        for word in encoded.word_ids():
            tags.append(-100 if word is None or word == before else labels.index(row["tags"][word]))
            before = word
        out.append((encoded["input_ids"], tags))
    return out


def collate(batch, task):
    import torch

    longest = max(len(ids) for ids, _ in batch)
    pad = lambda values, fill: torch.tensor([v + [fill] * (longest - len(v)) for v in values])
    labels = torch.tensor([l for _, l in batch]) if task == "classify" else pad([l for _, l in batch], -100)
    return dict(input_ids=pad([ids for ids, _ in batch], 0), attention_mask=pad([[1] * len(ids) for ids, _ in batch], 0),
                labels=labels)


def f1(task, pairs, n_labels):
    """macro_f1 over the labels that occur or were predicted; of tags micro_f1 without the first label."""
    counts = [[sum(p == k == t for p, t in pairs), sum(p == k for p, _ in pairs), sum(t == k for _, t in pairs)]
              for k in range(n_labels)]
    if task == "tag":
        counts = [[sum(c) for c in zip(*counts[1:])]]
    return statistics.mean(2 * hit / (made + real) for hit, made, real in counts if made + real)


def theirs(task, train, validation, steps, seed):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer, logging

    _, labels = TASKS[task]
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    kind = AutoModelForSequenceClassification if task == "classify" else AutoModelForTokenClassification
    model = kind.from_pretrained("runs/bert-base/model", num_labels=len(labels), hidden_dropout_prob=0.1,
                                 attention_probs_dropout_prob=0.1)
    tokenizer = AutoTokenizer.from_pretrained("runs/bert-base/model")
    train, validation = (encode(tokenizer, task, rows, labels) for rows in (train, validation))
    decays = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([dict(params=decays, weight_decay=0.01), dict(params=rest, weight_decay=0)], lr=RATE)
    rise = steps // 10
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / rise if s < rise else (steps - s) / (steps - rise))
    order = random.Random(seed)
    queue = []
    model.train()
    for _ in range(steps):
        if len(queue) < BATCH:
            queue = order.sample(train, len(train))
        batch, queue = queue[:BATCH], queue[BATCH:]
        model(**collate(batch, task)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()
    model.eval()
    pairs = []
    with torch.no_grad():
        for i in range(0, len(validation), 64):
            batch = collate(validation[i:i + 64], task)
            truth = batch.pop("labels").flatten()
            guess = model(**batch).logits.argmax(-1).flatten()
            pairs += [(int(p), int(t)) for p, t in zip(guess, truth) if t >= 0]
    return f1(task, pairs, len(labels))


def main():
    parser = argparse.ArgumentParser(prog="compare_finetuning")
    parser.add_argument("mixtape")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    a = parser.parse_intermixed_args()
    for task in a.tasks:
        if task not in TASKS:
            parser.error(f"{task} is no task; there are {', '.join(TASKS)}")
    pretrain(a.mixtape)
    print(f"{'task':<9} {'score':<9} {'seed':>4} {'Mixtape':>8} {'transformers':>13}", flush=True)
    for task in a.tasks or TASKS:
        folder = pathlib.Path("data/finetuning") / task
        train, validation = write_data(task, folder)
        scores = []
        for seed in range(1, a.seeds + 1):
            scores.append((ours(a.mixtape, task, folder, a.steps, seed), theirs(task, train, validation, a.steps, seed)))
            print(f"{task:<9} {TASKS[task][0]:<9} {seed:>4} {scores[-1][0]:>8.3f} {scores[-1][1]:>13.3f}", flush=True)
        mean = [statistics.mean(side) for side in zip(*scores)]
        spread = [statistics.pstdev(side) for side in zip(*scores)]
        print(f"{task:<9} {TASKS[task][0]:<9} mean {mean[0]:>8.3f} {mean[1]:>13.3f}   deviation {spread[0]:.3f}, {spread[1]:.3f}; "
              f"{len(train)} examples to train on, {len(validation)} to validate", flush=True)


if __name__ == "__main__":
    main()
