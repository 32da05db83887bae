"""See scripts/gpu_check."""
import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

LIMIT = 480  # seconds of a stage
SHARDS = 4   # parts of the operation harness
MEMORY_BAR = 0.85  # share of the copying rate that kernels bound by memory should reach

GPT2 = ["--device", "cuda", "model.preset=gpt2", "data.seq_length=1024", "precision.mode=bf16"]
GPT2_STEP = GPT2 + ["train.micro_batch_size=16", "train.global_batch_size=64"]
HEADS_OF_128 = ["model.d_model=2048", "model.n_heads=16", "model.n_layers=1"]


class Gpu:
    """The first GPU, as the driver describes it."""

    def __init__(self, name, capability):
        self.name = name
        self.architecture = capability.replace(".", "") + ("a" if capability == "9.0" else "") + "-real"


def find_gpu():
    try:
        run = subprocess.run(["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"],
                             capture_output=True, text=True)
    except FileNotFoundError:
        run = None
    lines = run.stdout.strip().splitlines() if run and run.returncode == 0 else []
    if not lines or "," not in lines[0]:
        sys.exit("gpu_check: no GPU was found (nvidia-smi names none), expected one of NVIDIA with its driver")
    name, capability = lines[0].rsplit(",", 1)
    return Gpu(name.strip(), capability.strip())


class Stage:
    def __init__(self, name, what, commands, output=None, environment=None):
        self.name, self.what = name, what
        self.commands = commands          # of the GPU and the folder
        self.output = output              # a file in the folder that gets the last command's output
        self.environment = environment or {}


def build_commands(gpu, folder):
    configure = ["cmake", "-S", ".", "-B", str(folder / "build"), "-DMIXTAPE_CUDA=ON",
                 f"-DCMAKE_CUDA_ARCHITECTURES={gpu.architecture}"]
    frontend = os.path.join(sysconfig.get_paths()["purelib"], "include")
    if os.path.exists(os.path.join(frontend, "cudnn_frontend.h")):
        configure.append(f"-DMIXTAPE_CUDNN_FRONTEND={frontend}")
    build = ["cmake", "--build", str(folder / "build"), "-j", str(os.cpu_count()), "--target", "mixtape", "test_gpu"]
    return [configure, build]


def test(*arguments):
    return lambda gpu, folder: [[str(folder / "build/test_gpu"), *arguments]]


def bench(*arguments):
    return lambda gpu, folder: [[str(folder / "build/mixtape"), "bench", *arguments, "--json"]]


def stages():
    all = [Stage("build", "mixtape and test_gpu, for this GPU", build_commands),
           Stage("instructions", "golden vectors of the instructions that kernels use", test("--gtest_filter=Gpu*:Golden*"))]
    for i in range(SHARDS):
        all.append(Stage(f"operations-{i + 1}", f"the operation harness on the GPU, part {i + 1} of {SHARDS}",
                         test("--gtest_filter=-Gpu*:Golden*"),
                         environment={"MIXTAPE_TEST_DEVICES": "cuda", "GTEST_TOTAL_SHARDS": str(SHARDS),
                                      "GTEST_SHARD_INDEX": str(i)}))
    all += [
        Stage("ops", "each kernel beside the measured copying rate or matmul rate, 16 x 1024 tokens, bf16",
              bench("ops", *GPT2, "train.micro_batch_size=16"), output="ops.json"),
        Stage("attention", "attention with heads of 128, 1k to 16k tokens",
              bench("ops", *GPT2, *HEADS_OF_128, "train.micro_batch_size=16", "--only", "attention"),
              output="attention.json"),
        Stage("train", "steps of GPT-2 124M, bf16: tokens/s and MFU", bench("train", *GPT2_STEP, "--steps", "20"),
              output="train.json"),
        Stage("train-keeps-all", "the same without recomputation, the activation in the product's epilogue",
              bench("train", *GPT2_STEP, "memory.recompute=none", "--steps", "20"), output="train-keeps-all.json"),
        Stage("train-tf32", "the same in tf32",
              bench("train", *GPT2_STEP, "precision.mode=tf32", "--steps", "10"),
              output="train-tf32.json"),
        Stage("train-fp8", "the same in fp8",
              bench("train", *GPT2_STEP, "precision.mode=fp8", "--steps", "10"),
              output="train-fp8.json"),
        Stage("train-profile", "where the time of a step goes",
              bench("train", *GPT2_STEP, "--steps", "5", "--profile"), output="train-profile.json"),
    ]
    return all


def fingerprint():
    """Of the source: stamps of another one do not count."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], capture_output=True).stdout
    return hashlib.sha256(git("rev-parse", "HEAD") + git("diff", "HEAD")).hexdigest()[:16]


class Checks:
    def __init__(self, folder):
        self.folder = folder
        self.source = fingerprint()

    def stamp(self, stage):
        return self.folder / f"{stage.name}.done"

    def done(self, stage):
        """The line that a finished stage left: seconds, GPU. None if it is to be run."""
        try:
            source, *rest = self.stamp(stage).read_text().split(maxsplit=2)
        except FileNotFoundError:
            return None
        return rest if source == self.source else None

    def run(self, stage, gpu):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stamp(stage).unlink(missing_ok=True)
        log = self.folder / f"{stage.name}.log"
        print(f"{stage.name}: {stage.what} ...", flush=True)
        start = time.time()
        with log.open("w") as out:
            for command in stage.commands(gpu, self.folder):
                code, output = self.call(command, stage, out, LIMIT - (time.time() - start))
                if code is None:
                    sys.exit(f"gpu_check: {stage.name} was not done within {LIMIT} s and was stopped; the same command "
                             f"goes on (a build where it was). Its log is {log}")
                if code != 0:
                    sys.exit(f"gpu_check: {stage.name} failed with {code}; see {log}, then give the same command again")
        if stage.output:
            (self.folder / stage.output).write_text(output)
        self.stamp(stage).write_text(f"{self.source} {time.time() - start:.0f} {gpu.name}\n")

    def call(self, command, stage, log, seconds):
        """(exit code or None when time was up, standard output)"""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
                                   env={**os.environ, **stage.environment})
        try:
            output, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, ""
        log.write(output)
        return process.returncode, output

    def result(self, name):
        """What a stage has measured, or None."""
        stage = next(s for s in stages() if s.name == name)
        return json.loads((self.folder / stage.output).read_text()) if self.done(stage) else None


def print_list(checks):
    for stage in stages():
        done = checks.done(stage)
        print(f"{stage.name:<18} {'done, ' + done[0] + ' s' if done else 'to do':<14} {stage.what}")


def print_operations(title, measured):
    limits = measured["limits"]
    print(f"\n{title}: {limits['fma'] / 1e12:.0f} TFLOP/s of products, copying {limits['copy'] / 1e9:.0f} GB/s")
    print(f"  {'operation':<18} {'shape':<52} {'pass':<9} {'rate':>14} {'of limit':>9}")
    below = 0
    for line in measured["operations"]:
        memory = line["flop"] / limits["fma"] < line["bytes"] / limits["copy"]
        rate = line["bytes"] / 1e9 if memory else line["flop"] / 1e12
        low = memory and line["share_of_limit"] < MEMORY_BAR
        below += low
        print(f"  {line['operation']:<18} {line['shape']:<52} {line['pass']:<9} "
              f"{rate / line['seconds']:>7.1f} {'GB/s' if memory else 'TFLOP/s':<7} {100 * line['share_of_limit']:>6.0f} %"
              f"{'  below' if low else ''}")
    print(f"  {below} of {len(measured['operations'])} lines are bound by memory and below {100 * MEMORY_BAR:.0f} %")


def print_training(checks):
    print(f"\n{'training':<18} {'tokens/s':>10} {'MFU':>8} {'of products':>12}")
    for name in ("train", "train-keeps-all", "train-tf32"):
        measured = checks.result(name)
        if measured is None:
            print(f"{name:<18} not measured")
            continue
        mfu = f"{100 * measured['mfu']:.1f} %" if measured["mfu"] > 0 else "unknown"
        print(f"{name:<18} {measured['tokens_per_second']:>10.0f} {mfu:>8} {100 * measured['share_of_fma']:>10.0f} %")


def print_table(checks):
    names = {done[1].strip() for done in map(checks.done, stages()) if done and len(done) > 1}
    print(f"GPU: {', '.join(sorted(names)) or 'none yet'}    {time.strftime('%Y-%m-%d')}")
    print_list(checks)
    for name in ("ops", "attention"):
        measured = checks.result(name)
        if measured:
            print_operations(name, measured)
    print_training(checks)


def main():
    parser = argparse.ArgumentParser(prog="gpu_check", description="See the head of scripts/gpu_check.")
    parser.add_argument("--list", action="store_true", help="the stages, and which are done")
    parser.add_argument("--stage", action="append", default=[], help="run this one")
    parser.add_argument("--table", action="store_true", help="print what has been measured")
    parser.add_argument("--dir", type=Path, default=Path("build-gpu/check"), help="for stamps, logs and the build")
    arguments = parser.parse_args()
    checks = Checks(arguments.dir)
    names = [s.name for s in stages()]
    for name in arguments.stage:
        if name not in names:
            sys.exit(f"gpu_check: no stage is called {name}, expected one of {', '.join(names)}")
    if arguments.list:
        return print_list(checks)
    if arguments.table:
        return print_table(checks)
    gpu = find_gpu()
    for stage in stages():
        if stage.name in arguments.stage or (not arguments.stage and not checks.done(stage)):
            checks.run(stage, gpu)
    print_table(checks)


if __name__ == "__main__":
    main()
