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
from dataclasses import dataclass

BATCH, LENGTH, RATE = 16, 64, 5e-4
FILES = ["computers", "love", "people", "politics", "science", "songs-poems", "startrek", "work"]


@dataclass
class Base:
    """A recipe whose small model is pre-trained first."""
    recipe: str
    like: str  # its tokenizer
    model: str


SIZE = "d_model: 256, n_heads: 4, vocab_size: 8192, dropout: 0.1, attention_dropout: 0.1"
BERT = Base("bert-base", "bert", "{preset: bert-base, n_layers: 4, %s}" % SIZE)
BART = Base("bart-base", "bart", "{preset: bart-base, n_layers: 3, n_decoder_layers: 3, %s}" % SIZE)
GPT2 = Base("gpt2-124m", "gpt2", "{preset: gpt2, n_layers: 4, %s}" % SIZE)


@dataclass
class Task:
    base: Base
    score: str
    labels: list
    keys: tuple  # of an example


TASKS = {
    "classify": Task(BERT, "macro_f1", FILES, ("text", "label")),
    "tag": Task(BERT, "micro_f1", ["O", "CAPITAL"], ("tokens", "tags")),
    "seq2seq": Task(BART, "token_accuracy", [], ("source", "target")),
    "instruct": Task(GPT2, "exact_match", [], ("prompt", "response")),
}


def fortunes(name):
    text = pathlib.Path("/usr/share/games/fortunes", name).read_text(errors="replace")
    return [t for t in (part.strip() for part in text.split("\n%\n")) if t]


def examples(task):
    if task == "classify":
        return [(" ".join(t.split()), name) for name in FILES for t in fortunes(name)]
    if task == "instruct":
        return [(" ".join(t.split()[:30]) + "\nFile:", " " + name) for name in FILES for t in fortunes(name)]
    rows = []
    for text in fortunes("people") + fortunes("science") + fortunes("politics"):
        words = text.split()[:40 if task == "tag" else 20]
        lower = [w.lower() for w in words]
        if task == "tag":
            rows.append((lower, ["CAPITAL" if w[:1].isupper() else "O" for w in words]))
        else:
            rows.append((" ".join(lower), " ".join(words)))
    return rows


def write_data(task, folder):
    rows = examples(task)
    random.Random(1).shuffle(rows)
    held_out = len(rows) // 5
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("validation", rows[:held_out]), ("train", rows[held_out:])):
        lines = (json.dumps(dict(zip(TASKS[task].keys, row)), ensure_ascii=False) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return rows[held_out:], rows[:held_out]


def mixtape(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"compare_finetuning: mixtape {arguments[0]}: {done.stderr}")
    return done.stdout


def pretrain(program, base):
    if not pathlib.Path("data", base.like, "manifest.json").exists():
        print(f"preparing data/{base.like}", flush=True)
        mixtape(program, "data", "prepare", "--new-tokenizer", base.like, "--vocab-size", 8192, "--separator", "%",
                "-o", f"data/{base.like}", "data/quickstart/text")
    if not pathlib.Path("runs", base.recipe, "model/model.safetensors").exists():
        print(f"pre-training configs/{base.recipe}.yaml", flush=True)
        mixtape(program, "train", f"configs/{base.recipe}.yaml")


def ours(program, name, folder, steps, seed):
    task = TASKS[name]
    run = f"{name}-{seed}"
    shutil.rmtree(folder / "runs" / run, ignore_errors=True)
    labels = f", labels: [{', '.join(task.labels)}]" if task.labels else ""
    (folder / f"{run}.yaml").write_text(f"""
run: {{name: {run}, dir: {folder}/runs, init_from: runs/{task.base.recipe}}}
seed: {seed}
model: {task.base.model}
objective: {{name: {name}{labels}}}
data:
  tokenizer: data/{task.base.like}/tokenizer.json
  sources: [{{path: {folder}/train.jsonl, validation: {folder}/validation.jsonl}}]
  seq_length: {LENGTH}
  pack: false
train: {{micro_batch_size: {BATCH}, global_batch_size: {BATCH}, max_steps: {steps}}}
optimizer: {{lr: {RATE}, betas: [0.9, 0.999], weight_decay: 0.01}}
schedule: {{name: linear, warmup_steps: {steps // 10}, min_lr: 0}}
eval: {{interval: {steps}, tokens: 1000000}}
checkpoint: {{interval: 0}}
""")
    mixtape(program, "train", folder / f"{run}.yaml")
    lines = [json.loads(line) for line in (folder / "runs" / run / "metrics.jsonl").open()]
    return [line for line in lines if line["event"] == "eval"][-1][task.score]


def encode(tokenizer, name, rows):
    """Ids and labels of each example; -100 where nothing is to be predicted."""
    cut = dict(truncation=True, max_length=LENGTH)
    out = []
    for a, b in rows:
        if name == "classify":
            out.append((tokenizer(a, **cut)["input_ids"], [FILES.index(b)]))
        elif name == "seq2seq":
            out.append((tokenizer(a, **cut)["input_ids"], tokenizer(b, **cut)["input_ids"]))
        elif name == "instruct":
            prompt, response = (tokenizer(text)["input_ids"] for text in (a, b))
            ids = (prompt + response + [tokenizer.eos_token_id])[:LENGTH + 1]
            labels = [-100] * len(prompt) + ids[len(prompt):]
            if len(ids) > len(prompt):
                out.append((ids, labels))
        else:  # of a word the first token has its tag
            encoded = tokenizer(a, is_split_into_words=True, **cut)
            words = encoded.word_ids()
            tags = [-100 if w is None or w == before else TASKS[name].labels.index(b[w])
                    for before, w in zip([None] + words, words)]
            out.append((encoded["input_ids"], tags))
    return out


def collate(batch, name, pad_id):
    import torch

    def padded(values, fill):
        longest = max(map(len, values))
        return torch.tensor([v + [fill] * (longest - len(v)) for v in values])
    ids, labels = zip(*batch)
    return dict(input_ids=padded(ids, pad_id), attention_mask=padded([[1] * len(i) for i in ids], 0),
                labels=padded(labels, -100).squeeze(-1) if name == "classify" else padded(labels, -100))


def f1(name, pairs):
    """macro_f1 over the labels that occur or were predicted; of tags micro_f1 without the first label."""
    counts = [[sum(p == k == t for p, t in pairs), sum(p == k for p, _ in pairs), sum(t == k for _, t in pairs)]
              for k in range(len(TASKS[name].labels))]
    if name == "tag":
        counts = [[sum(c) for c in zip(*counts[1:])]]
    return statistics.mean(2 * hit / (made + real) for hit, made, real in counts if made + real)


def score(name, texts):
    """Of pairs of guess and truth, a list for each example."""
    if TASKS[name].labels:
        return f1(name, [pair for text in texts for pair in text])
    if name == "instruct":
        return statistics.mean(all(p == t for p, t in text) for text in texts)
    return statistics.mean(p == t for text in texts for p, t in text)


def predictions(model, name, examples, pad_id):
    import torch

    texts = []
    for i in range(0, len(examples), 64):
        batch = collate(examples[i:i + 64], name, pad_id)
        with torch.no_grad():
            guess = model(**batch).logits.argmax(-1)
        truth = batch["labels"]
        if name == "classify":
            guess, truth = guess[:, None], truth[:, None]
        elif name == "instruct":  # logits are of the next token
            guess, truth = guess[:, :-1], truth[:, 1:]
        texts += [[(p, t) for p, t in zip(*both) if t >= 0] for both in zip(guess.tolist(), truth.tolist())]
    return texts


def model_of(name, labels, folder):
    import transformers

    kind, dropout = {
        "classify": ("SequenceClassification", ["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        "tag": ("TokenClassification", ["hidden_dropout_prob", "attention_probs_dropout_prob"]),
        "seq2seq": ("Seq2SeqLM", ["dropout", "attention_dropout"]),
        "instruct": ("CausalLM", ["resid_pdrop", "embd_pdrop", "attn_pdrop"]),
    }[name]
    settings = dict.fromkeys(dropout, 0.1)
    if labels:
        settings["num_labels"] = len(labels)
    return getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder, **settings)


def theirs(name, train, validation, steps, seed):
    import torch
    from transformers import AutoTokenizer, logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    folder = f"runs/{TASKS[name].base.recipe}/model"
    model = model_of(name, TASKS[name].labels, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pad_id = tokenizer.pad_token_id or 0
    train, validation = (encode(tokenizer, name, rows) for rows in (train, validation))
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
        model(**collate(batch, name, pad_id)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(), schedule.step(), optimizer.zero_grad()
    model.eval()
    return score(name, predictions(model, name, validation, pad_id))


def compare(program, name, seeds, steps):
    pretrain(program, TASKS[name].base)
    folder = pathlib.Path("data/finetuning") / name
    train, validation = write_data(name, folder)
    scores = []
    start = f"{name:<9} {TASKS[name].score:<14}"
    for seed in range(1, seeds + 1):
        scores.append((ours(program, name, folder, steps, seed), theirs(name, train, validation, steps, seed)))
        print(f"{start} {seed:>4} {scores[-1][0]:>8.3f} {scores[-1][1]:>13.3f}", flush=True)
    mean = [statistics.mean(side) for side in zip(*scores)]
    spread = [statistics.pstdev(side) for side in zip(*scores)]
    print(f"{start} mean {mean[0]:>8.3f} {mean[1]:>13.3f}   deviation {spread[0]:.3f}, {spread[1]:.3f}; "
          f"{len(train)} examples to train on, {len(validation)} to validate", flush=True)


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
    print(f"{'task':<9} {'score':<14} {'seed':>4} {'Mixtape':>8} {'transformers':>13}", flush=True)
    for task in a.tasks or TASKS:
        compare(a.mixtape, task, a.seeds, a.steps)


if __name__ == "__main__":
    main()
