"""Train, export, load in transformers, compare. Started by scripts/interop."""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

transformers.utils.logging.disable_progress_bar()

LOGIT_TOLERANCE = 1e-4  # of the largest logit

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "It was the best of times, it was the worst of times; nobody wrote 1859 on it.",
    "Naïve café, déjà vu: text beyond ASCII — with dashes, “quotes” and 中文.",
]

COMMON = """
run: {{name: {name}, dir: {work}/runs}}
seed: 7
determinism: fast
data:
  tokenizer: {work}/tokenizer
  sources: [{{name: text, path: {work}/shards}}]
  validation_split: 0
  seq_length: 32
train: {{micro_batch_size: 2, global_batch_size: 2, max_steps: 4}}
optimizer: {{lr: 1.0e-2}}
schedule: {{name: constant, warmup_steps: 1}}
eval: {{interval: 0}}
checkpoint: {{interval: 0}}
logging: {{interval: 1, tensorboard: false, sample_interval: 0}}
model: {{n_layers: 2, d_model: 32, n_heads: 4, vocab_size: 320, max_positions: 48, init_std: 0.1, {model}}}
"""

LLAMA = "position: rope, norm: rmsnorm, activation: swiglu, d_ff: 56, n_kv_heads: 2, norm_eps: 1.0e-6, bias: false"
MODELS = {
    "gpt2": "position: learned, activation: gelu_tanh",
    "llama": LLAMA + ", tied_embeddings: false, rope_theta: 5.0e5, rope_scaling: {type: llama3, factor: 8, "
    "low_freq_factor: 1, high_freq_factor: 4, original_max_positions: 16}",
    "mistral": LLAMA + ", tied_embeddings: false, window: 5",
    "qwen2": LLAMA + ", qkv_bias: true, rope_theta: 1.0e6",
    "opt": "position: learned, position_offset: 2, activation: relu, d_ff: 96",
    "bloom": "position: alibi, activation: gelu_tanh, embedding_norm: true",
}


def run(*command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"interop: {' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def prepare(mixtape, work):
    """A tokenizer and shards that all families share."""
    text = work / "text.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXT * 60))
    run(mixtape, "tokenizer", "train", text, "-o", work / "tokenizer", "--vocab-size", 320)
    run(mixtape, "data", "prepare", text, "-t", work / "tokenizer", "-o", work / "shards")


def check_parameters(model, report, path):
    stored = {}
    for file in path.glob("*.safetensors"):
        stored |= load_file(file)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], f"{kind}: {report[kind]}"
    loaded = model.state_dict()
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], tensor), f"{name} differs"
    return len(stored)


def check_logits(mixtape, model, path, work):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, model.config.vocab_size, (2, 32), generator=generator)
    save_file({"input_ids": ids}, work / "inputs.safetensors")
    run(mixtape, "forward", path, "--inputs", work / "inputs.safetensors", "--output", work / "outputs.safetensors")
    ours = load_file(work / "outputs.safetensors")["logits"]
    with torch.no_grad():
        theirs = model(input_ids=ids).logits
    assert ours.shape == theirs.shape, f"logits {tuple(ours.shape)}, expected {tuple(theirs.shape)}"
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert difference < LOGIT_TOLERANCE, f"logits differ by {difference:.2e} of the largest"
    return difference


def check_tokens(mixtape, path):
    # For qwen2 the AutoTokenizer of transformers 5 takes its own Qwen2Tokenizer, which splits text in Qwen's way
    # whatever tokenizer.json and tokenizer_config.json say.
    loader = transformers.PreTrainedTokenizerFast if path.name == "qwen2" else transformers.AutoTokenizer
    tokenizer = loader.from_pretrained(path)
    assert tokenizer.eos_token == "<|endoftext|>", f"end of text is {tokenizer.eos_token!r}"
    for line in TEXT:
        ours = [int(i) for i in run(mixtape, "tokenizer", "encode", path, "--text", line).split()]
        theirs = tokenizer(line, add_special_tokens=False)["input_ids"]
        assert ours == theirs, f"token ids of {line!r}: {ours}, transformers has {theirs}"


def check_family(mixtape, family, work):
    config = work / f"{family}.yaml"
    config.write_text(COMMON.format(name=family, work=work, model=MODELS[family]))
    run(mixtape, "train", config)
    path = work / "exports" / family
    run(mixtape, "export", work / "runs" / family, path)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        path, torch_dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert model.config.model_type == family, f"exported as {model.config.model_type}"
    tensors = check_parameters(model, report, path)
    difference = check_logits(mixtape, model.eval(), path, work)
    check_tokens(mixtape, path)
    print(f"{family:8} {tensors} tensors equal, logits within {difference:.1e}, token ids equal", flush=True)


def main():
    mixtape, families = sys.argv[1], sys.argv[2:] or list(MODELS)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        prepare(mixtape, work)
        for family in families:
            try:
                check_family(mixtape, family, work)
                passed += 1
            except AssertionError as error:
                print(f"{family:8} FAILED: {error}", flush=True)
                failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
