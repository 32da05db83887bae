"""Hugging Face's tokenizers and Mixtape on the same text, in turns. Started by scripts/bench_tokenizer.

Both encode documents of about 8 kB that end with a line, from memory, on the same number of threads; the best pass of a
turn counts. Each side runs in a process of its own. The ids have to be equal.
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

DOCUMENT = 8192
SAMPLE = 32 << 20


def documents_of(text):
    """As `mixtape bench tokenizer` cuts them."""
    out, at = [], 0
    while at < len(text):
        end = text.find(b"\n", min(at + DOCUMENT, len(text)))
        end = len(text) if end < 0 else end + 1
        out.append(text[at:end].decode())
        at = end
    return out


def worker(tokenizer_file, text_file, seconds):
    """One turn of Hugging Face's side, on RAYON_NUM_THREADS threads; encode_batch_fast makes no offsets, which is its best."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(tokenizer_file)
    text = pathlib.Path(text_file).read_bytes()
    documents = documents_of(text)
    encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
    encode(documents[: max(1, len(documents) // 8)], add_special_tokens=False)
    best, total, passes, tokens = float("inf"), 0.0, 0, 0
    while total < seconds or passes < 1:
        start = time.perf_counter()
        encodings = encode(documents, add_special_tokens=False)
        elapsed = time.perf_counter() - start
        best, total, passes = min(best, elapsed), total + elapsed, passes + 1
        tokens = sum(len(e) for e in encodings)
    print(json.dumps(dict(bytes_per_second=len(text) / best, tokens=tokens)))


def run(command, **environment):
    output = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if output.returncode != 0:
        sys.exit(f"bench_tokenizer: {' '.join(map(str, command))}: {output.stderr[-2000:]}")
    return output.stdout


def english(path, limit):
    """Text that every Debian has, up to `limit` bytes."""
    size = 0
    with open(path, "wb") as out:
        for root in ("/usr/share/common-licenses", "/usr/share/perl", "/usr/share/doc", "/usr/share/vim", "/usr/lib/python3"):
            for file in sorted(pathlib.Path(root).rglob("*")):
                if file.suffix not in (".txt", ".pod", ".md", ".rst", ".py", "") or not file.is_file() or size >= limit:
                    continue
                try:
                    text = file.read_bytes()
                    text.decode()
                except (OSError, UnicodeDecodeError):
                    continue
                out.write(text + b"\n")
                size += len(text) + 1
    return size


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench_tokenizer", description="MB/s beside Hugging Face's tokenizers")
    parser.add_argument("mixtape")
    parser.add_argument("file", nargs="?")
    parser.add_argument("--tokenizer")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    a = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        text = a.file or f"{folder}/text"
        if not a.file:
            english(text, SAMPLE)
        data = pathlib.Path(text).read_bytes()
        data.decode()  # broken UTF-8 would mean different texts for the two
        tokenizer = a.tokenizer or f"{folder}/tokenizer.json"
        if not a.tokenizer:
            run([a.mixtape, "tokenizer", "train", "--vocab-size", "8192", "-o", tokenizer, text])
        rows = []
        print(f"{len(data) / 1e6:.1f} MB, {a.threads} threads, {a.tokenizer or 'byte-level BPE of 8192 tokens trained on it'}")
        for turn in range(a.rounds):
            hf = json.loads(run([sys.executable, __file__, "--worker", tokenizer, text, str(a.seconds)],
                                RAYON_NUM_THREADS=str(a.threads), TOKENIZERS_PARALLELISM="true"))
            ours = json.loads(run([a.mixtape, "bench", "tokenizer", tokenizer, text, "--threads", str(a.threads),
                                   "--document", str(DOCUMENT), "--seconds", str(a.seconds), "--json"]))
            if hf["tokens"] != ours["tokens"]:
                sys.exit(f"bench_tokenizer: {hf['tokens']} tokens there, {ours['tokens']} here: not the same work")
            rows.append((hf["bytes_per_second"] / 1e6, ours["bytes_per_second"] / 1e6))
            print(f"turn {turn + 1}: tokenizers {rows[-1][0]:.1f} MB/s, mixtape {rows[-1][1]:.1f} MB/s, "
                  f"ratio {rows[-1][1] / rows[-1][0]:.1f}", flush=True)
        there, here = (statistics.median(column) for column in zip(*rows))
        print(f"median: tokenizers {there:.1f} MB/s, mixtape {here:.1f} MB/s, ratio {here / there:.1f} (goal 1.5)")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--worker":
        worker(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        main()
