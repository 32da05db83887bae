"""See scripts/kernel_report."""
import argparse
import glob
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

ARCHITECTURES = ["sm_80", "sm_89", "sm_90a", "sm_100"]
WARPS = {"sm_80": 64, "sm_89": 48, "sm_90a": 64, "sm_100": 64}  # of a multiprocessor
REPORT, SPILLS = "docs/kernels/report.md", "docs/kernels/spills.txt"


def find_nvcc():
    for nvcc in (os.environ.get("NVCC"), "nvcc", "/usr/local/cuda/bin/nvcc"):
        if nvcc and subprocess.run(["which", nvcc], capture_output=True).returncode == 0:
            return nvcc
    sys.exit("kernel_report: nvcc was not found; put it on the PATH or name it in NVCC")


def compile_file(nvcc, file, arch):
    """What ptxas says about the kernels of one file."""
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [nvcc, "-std=c++20", "-O3", "-I.", f"-arch={arch}", "--expt-relaxed-constexpr", "-DFMT_USE_CONSTEXPR=1",
             "-DFMT_CONSTEVAL=", "--Werror=all-warnings", "-Xptxas", "-v", "-cubin", file, "-o", f"{folder}/kernel.cubin"], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"kernel_report: {file} does not compile for {arch}:\n{run.stderr}")
    return run.stderr


def demangle(names):
    run = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, run.stdout.split("\n")))


def short(name):
    """The kernel's name and template arguments, without namespaces, return type and parameters."""
    name = re.sub(r"\(anonymous namespace\)::", "", name)
    name = re.sub(r"mixtape::(cuda::)?", "", name)
    name = re.sub(r"^void ", "", name)
    depth = 0
    for i, c in enumerate(name):  # up to the parameters
        depth += c == "<"
        depth -= c == ">" and name[i - 1] != "-"
        if c == "(" and depth == 0:
            return name[:i]
    return name


def kernels(text):
    """(mangled name, registers, shared bytes, spilled bytes) of each entry function."""
    found = []
    pattern = re.compile(
        r"Compiling entry function '(\S+)'.*?"
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers([^\n]*)", re.S)
    for m in pattern.finditer(text):
        shared = re.search(r"(\d+) bytes smem", m[6])
        found.append((m[1], int(m[5]), int(shared[1]) if shared else 0, int(m[3]) + int(m[4])))
    return found


def occupancy(registers, arch):
    a_warp = (registers * 32 + 255) // 256 * 256
    return min(WARPS[arch], 65536 // a_warp // 4 * 4) / WARPS[arch]


def report(files, architectures):
    """{(file, kernel): {arch: (registers, shared, spills)}}"""
    nvcc = find_nvcc()
    jobs = [(file, arch) for file in files for arch in architectures]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        texts = list(pool.map(lambda job: compile_file(nvcc, *job), jobs))
    table = {}
    for (file, arch), text in zip(jobs, texts):
        found = kernels(text)
        names = demangle([k[0] for k in found]) if found else {}
        for name, registers, shared, spills in found:
            table.setdefault((file, short(names[name])), {})[arch] = (registers, shared, spills)
    return table


def markdown(table, architectures):
    lines = ["# What nvcc makes of the kernels", "",
             "Written by `scripts/kernel_report --update`. Registers of a thread; in brackets the share of a "
             "multiprocessor's warps that they leave room for; bytes spilled, where there are any. Shared memory is asked "
             "for at the launch and not shown.", "",
             "| kernel | " + " | ".join(architectures) + " |", "|---" * (len(architectures) + 1) + "|"]
    file_before = None
    for (file, kernel), by_arch in sorted(table.items()):
        if file != file_before:
            lines.append(f"| **{file}** |" + " |" * len(architectures))
            file_before = file
        cells = []
        for arch in architectures:
            if arch not in by_arch:
                cells.append("")
                continue
            registers, _, spills = by_arch[arch]
            cells.append(f"{registers} ({occupancy(registers, arch):.0%})" + (f", {spills} B spilled" if spills else ""))
        lines.append(f"| `{kernel}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def explained():
    """The kernels (beginnings of names, _ for a blank) whose spills are known; each line: NAME REASON."""
    if not os.path.exists(SPILLS):
        return []
    lines = [line for line in open(SPILLS) if line.strip() and not line.startswith("#")]
    return [line.split()[0].replace(",_", ", ") for line in lines]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--arch", action="append")
    parser.add_argument("--file", action="append")
    a = parser.parse_args()
    architectures = a.arch or ARCHITECTURES
    table = report(a.file or sorted(glob.glob("cuda/*.cu") + glob.glob("cuda/*/*.cu")), architectures)
    text = markdown(table, architectures)
    if a.update:
        os.makedirs(os.path.dirname(REPORT), exist_ok=True)
        open(REPORT, "w").write(text)
    else:
        print(text)
    known = explained()
    bad = [f"{kernel} on {arch}: {spills} bytes" for (_, kernel), by_arch in table.items()
           for arch, (_, _, spills) in by_arch.items() if spills and not any(kernel.startswith(k) for k in known)]
    if a.check and bad:
        sys.exit("kernel_report: spills that docs/kernels/spills.txt does not explain:\n" + "\n".join(bad))


main()
