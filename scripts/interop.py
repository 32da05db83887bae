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
# With int8 weights: compressed-tensors scales inputs by their largest / 127.5, Mixtape (as vLLM) by that / 127, so that
# many a code differs by one.
INT8_TOLERANCE = 0.05

TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "It was the best of times, it was the worst of times; nobody wrote 1859 on it.",
    "Naïve café, déjà vu: text beyond ASCII — with dashes, “quotes” and 中文.",
]

COMMON = """
run: {{name: {name}, dir: {work}/runs}}
seed: 7
determinism: fast
objective: {{name: {objective}}}
data:
  tokenizer: {work}/{tokenizer}/tokenizer
  sources: [{{name: text, path: {work}/{tokenizer}/{data}}}]
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

# How `mixtape tokenizer train` is told to make each.
TOKENIZERS = {
    "bpe": [],
    "roberta": ["--special", "<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "wordpiece": ["--type", "wordpiece"],
    "unigram": ["--type", "unigram", "--sentinels", "100"],
}

LLAMA = "position: rope, norm: rmsnorm, activation: swiglu, d_ff: 56, n_kv_heads: 2, norm_eps: 1.0e-6, bias: false"
POST = "norm_placement: post, final_norm: false, embedding_norm: true, activation: gelu"
MLM = POST + ", family: encoder, mlm_head: true, lm_head_bias: true"
T5 = "family: encoder_decoder, position: relative_bias, norm: rmsnorm, norm_eps: 1.0e-6, bias: false, attention_scale: 1"
MODELS = {
    "gpt2": "position: learned, activation: gelu_tanh",
    "llama": LLAMA + ", tied_embeddings: false, rope_theta: 5.0e5, rope_scaling: {type: llama3, factor: 8, "
    "low_freq_factor: 1, high_freq_factor: 4, original_max_positions: 16}",
    "mistral": LLAMA + ", tied_embeddings: false, window: 5",
    "qwen2": LLAMA + ", qkv_bias: true, rope_theta: 1.0e6",
    "opt": "position: learned, position_offset: 2, activation: relu, d_ff: 96",
    "bloom": "position: alibi, activation: gelu_tanh, embedding_norm: true",
    "bert": MLM + ", token_types: 2, norm_eps: 1.0e-12, pad_id: 0",
    "roberta": MLM + ", token_types: 1, position_offset: 2, pad_id: 1",
    "t5": T5 + ", n_decoder_layers: 3, head_dim: 6, activation: relu, logit_scale: 0",
    "t5-v1.1": T5 + ", relative_buckets: 16, relative_distance: 20, activation: geglu_tanh, tied_embeddings: false",
    "bart": POST + ", family: encoder_decoder, position_offset: 2, pad_id: 1",
}
MODELS |= {f"{family}-{task}": MODELS[family] for family in ("bert", "roberta") for task in ("classify", "tag")}
# Objective, tokenizer and class of those that are no decoders.
MASKED_LM, SEQ2SEQ = transformers.AutoModelForMaskedLM, transformers.AutoModelForSeq2SeqLM
SEQUENCES, TOKENS = transformers.AutoModelForSequenceClassification, transformers.AutoModelForTokenClassification
LABELS = ", labels: [first, second, third]"
OTHERS = {
    "bert": ("masked_lm", "wordpiece", MASKED_LM),
    "roberta": ("masked_lm", "roberta", MASKED_LM),
    "t5": ("span_corruption", "unigram", SEQ2SEQ),
    "t5-v1.1": ("span_corruption", "unigram", SEQ2SEQ),
    "bart": ("denoising", "roberta", SEQ2SEQ),
    "bert-classify": ("classify" + LABELS, "wordpiece", SEQUENCES),
    "bert-tag": ("tag" + LABELS, "wordpiece", TOKENS),
    "roberta-classify": ("classify" + LABELS, "roberta", SEQUENCES),
    "roberta-tag": ("tag" + LABELS, "roberta", TOKENS),
}


def run(*command):
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"interop: {' '.join(map(str, command))}: exit {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


def prepare(mixtape, work, kind):
    """A tokenizer and shards, once for the families that share them."""
    folder = work / kind
    if folder.exists():
        return
    folder.mkdir()
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXT * 60))
    examples = [{"text": line, "label": i % 3, "tokens": line.split(), "tags": [i % 3 for i in range(len(line.split()))]}
                for i, line in enumerate(TEXT * 4)]
    (folder / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in examples))
    tokenizer = folder / "tokenizer"
    run(mixtape, "tokenizer", "train", text, "-o", tokenizer, "--vocab-size", 320, *TOKENIZERS[kind])
    run(mixtape, "data", "prepare", text, "-t", tokenizer, "-o", folder / "shards")


def tensors_in(path):
    stored = {}
    for file in path.glob("*.safetensors"):
        stored |= load_file(file)
    return stored


def check_parameters(model, report, path):
    stored = tensors_in(path)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], f"{kind}: {report[kind]}"
    loaded = model.state_dict()
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], tensor), f"{name} differs"
    return len(stored)


def random_inputs(model):
    """A batch with padding at a row's end where there is no causal mask, types and a decoder's side where there are."""
    config, generator = model.config, torch.Generator().manual_seed(3)

    def ids(limit, length):
        # From 5 on: a padding token among the others would be none.
        return torch.randint(min(5, limit - 1), limit, (2, length), generator=generator)

    inputs = {"input_ids": ids(config.vocab_size, 32)}
    if config.model_type in {**OTHERS, "t5": 0}:
        inputs["attention_mask"] = torch.ones(2, 32, dtype=torch.int64)
        inputs["attention_mask"][1, 27:] = 0
    if config.model_type == "bert":
        inputs["token_type_ids"] = torch.randint(0, config.type_vocab_size, (2, 32), generator=generator)
    if config.model_type == "roberta":
        inputs["input_ids"][1, 27:] = config.pad_token_id  # its positions count what is not padding
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids(config.vocab_size, 13)
    return inputs


def check_logits(mixtape, model, path, work, tolerance=LOGIT_TOLERANCE):
    inputs = random_inputs(model)
    save_file(inputs, work / "inputs.safetensors")
    run(mixtape, "forward", path, "--inputs", work / "inputs.safetensors", "--output", work / "outputs.safetensors")
    ours = load_file(work / "outputs.safetensors")["logits"]
    if "SequenceClassification" in type(model).__name__:
        ours = ours[:, 0]  # the others are of tokens that are not the first
    with torch.no_grad():
        theirs = model(**inputs).logits
    assert ours.shape == theirs.shape, f"logits {tuple(ours.shape)}, expected {tuple(theirs.shape)}"
    differences = (ours - theirs).abs()
    if "attention_mask" in inputs and "decoder_input_ids" not in inputs and theirs.dim() == 3:
        differences = differences[inputs["attention_mask"] == 1]  # what padding attends to is nobody's affair
    difference = (differences.max() / theirs.abs().max()).item()
    assert difference < tolerance, f"logits differ by {difference:.2e} of the largest"
    return difference


def check_tokens(mixtape, path, family):
    # For some families the AutoTokenizer of transformers 5 takes a class of theirs, which splits text in its own way
    # whatever tokenizer.json and tokenizer_config.json say.
    own = family == "qwen2" or family in OTHERS
    loader = transformers.PreTrainedTokenizerFast if own else transformers.AutoTokenizer
    tokenizer = loader.from_pretrained(path)
    if family not in OTHERS:
        assert tokenizer.eos_token == "<|endoftext|>", f"end of text is {tokenizer.eos_token!r}"
    for line in TEXT:
        ours = [int(i) for i in run(mixtape, "tokenizer", "encode", path, "--text", line).split()]
        theirs = tokenizer(line, add_special_tokens=False)["input_ids"]
        assert ours == theirs, f"token ids of {line!r}: {ours}, transformers has {theirs}"


def check_int8(mixtape, family, loader, work):
    """Codes stand for the weights, and transformers with compressed-tensors computes the same, or refuses (GPT-2)."""
    path = work / "exports" / f"{family}-int8"
    run(mixtape, "export", work / "runs" / family, path, "--int8")
    if family == "gpt2":  # its layers are no torch.nn.Linear: a directory for Mixtape alone
        try:
            loader.from_pretrained(path)
        except ValueError:
            return "refused"
        raise AssertionError("int8 weights of Conv1D were not refused")
    stored, weights, count = tensors_in(path), tensors_in(work / "exports" / family), 0
    for name, codes in stored.items():
        if codes.dtype != torch.int8:
            continue
        scale = stored[name + "_scale"]
        assert ((weights[name] - codes * scale).abs() <= 0.501 * scale).all(), f"{name}: not the nearest codes"
        count += 1
    assert count > 0, "no codes"
    model = loader.from_pretrained(path, torch_dtype=torch.float32, attn_implementation="eager")
    difference = check_logits(mixtape, model.eval(), path, work, INT8_TOLERANCE)
    return f"{count} codes, logits within {difference:.1e}"


def check_family(mixtape, family, work):
    causal = ("causal_lm", "bpe", transformers.AutoModelForCausalLM)
    objective, tokenizer, loader = OTHERS.get(family, causal)
    prepare(mixtape, work, tokenizer)
    config = work / f"{family}.yaml"
    config.write_text(
        COMMON.format(
            name=family, work=work, objective=objective, tokenizer=tokenizer, model=MODELS[family],
            data="examples.jsonl" if LABELS in objective else "shards",
        )
    )
    run(mixtape, "train", config)
    path = work / "exports" / family
    run(mixtape, "export", work / "runs" / family, path)
    model, report = loader.from_pretrained(
        path, torch_dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert model.config.model_type == family.split("-")[0], f"exported as {model.config.model_type}"
    if LABELS in objective:
        assert list(model.config.id2label.values()) == ["first", "second", "third"], model.config.id2label
    tensors = check_parameters(model, report, path)
    difference = check_logits(mixtape, model.eval(), path, work)
    check_tokens(mixtape, path, family)
    int8 = check_int8(mixtape, family, loader, work)
    print(f"{family:16} {tensors} tensors equal, logits within {difference:.1e}, token ids equal; int8: {int8}", flush=True)


def main():
    mixtape, families = sys.argv[1], sys.argv[2:] or list(MODELS)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for family in families:
            try:
                check_family(mixtape, family, work)
                passed += 1
            except AssertionError as error:
                print(f"{family:16} FAILED: {error}", flush=True)
                failed += 1
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
