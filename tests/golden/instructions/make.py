"""Writes the golden vectors of the instructions that kernels use: what each lane holds before and after, in hexadecimal.

They follow from the layouts in NVIDIA's PTX ISA (sections on mma.m16n8k16 and ldmatrix), written here a second time and
by matrix instead of by lane, so that a mistake in a twin of cuda/device is not repeated. All values are small numbers of
which every order of summation gives the same bits, on the emulator and on a GPU.
"""
import os
import struct

FOLDER = os.path.dirname(os.path.abspath(__file__))


def numbers(seed):
    while True:
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        yield seed >> 33


def bits32(x):
    return struct.unpack("<I", struct.pack("<f", x))[0]


ENCODE = {"bf16": lambda x: bits32(x) >> 16, "fp16": lambda x: struct.unpack("<H", struct.pack("<e", x))[0]}


def write(name, header, lanes):
    with open(f"{FOLDER}/{name}.txt", "w") as f:
        f.write(f"# {header}\n")
        for values in lanes:
            f.write(" ".join(f"{v:08x}" for v in values) + "\n")


def mma(kind):
    draw = numbers(len(kind) * 97 + (kind == "bf16"))
    matrix = lambda rows, cols: [[(next(draw) % 33 - 16) / 4 for _ in range(cols)] for _ in range(rows)]
    a, b, c = matrix(16, 16), matrix(16, 8), matrix(16, 8)
    d = [[c[m][n] + sum(a[m][k] * b[k][n] for k in range(16)) for n in range(8)] for m in range(16)]
    pair = lambda low, high: ENCODE[kind](high) << 16 | ENCODE[kind](low)
    lanes = [[0] * 14 for _ in range(32)]
    for m in range(16):  # who holds a[m][k], a[m][k + 1]
        for k in range(0, 16, 2):
            lanes[m % 8 * 4 + k % 8 // 2][m // 8 + 2 * (k // 8)] = pair(a[m][k], a[m][k + 1])
    for k in range(0, 16, 2):
        for n in range(8):
            lanes[n * 4 + k % 8 // 2][4 + k // 8] = pair(b[k][n], b[k + 1][n])
    for m in range(16):
        for n in range(8):
            register = n % 2 + 2 * (m // 8)
            lanes[m % 8 * 4 + n // 2][6 + register] = bits32(c[m][n])
            lanes[m % 8 * 4 + n // 2][10 + register] = bits32(d[m][n])
    write(f"mma_m16n8k16_{kind}", "a line a lane: a0 a1 a2 a3  b0 b1  c0 c1 c2 c3  d0 d1 d2 d3", lanes)


def ldmatrix(transposed):
    """Memory is 32 rows of 8 elements that count up; lane l names row order[l]."""
    order = [(i * 13 + 5) % 32 for i in range(32)]
    memory = [[r * 8 + c for c in range(8)] for r in range(32)]
    lanes = [[order[lane]] + [0] * 4 for lane in range(32)]
    for matrix in range(4):
        rows = [memory[order[8 * matrix + r]] for r in range(8)]
        if transposed:
            rows = [list(column) for column in zip(*rows)]
        for r in range(8):
            for c in range(0, 8, 2):
                lanes[r * 4 + c // 2][1 + matrix] = rows[r][c + 1] << 16 | rows[r][c]
    write("ldmatrix_transposed" if transposed else "ldmatrix", "a line a lane: row  r0 r1 r2 r3", lanes)


for kind in ENCODE:
    mma(kind)
for transposed in (False, True):
    ldmatrix(transposed)
