"""Writes the golden vectors of the instructions that kernels use: what each lane holds before and after, in hexadecimal.

They follow from the layouts in NVIDIA's PTX ISA (sections on mma, ldmatrix, stmatrix, wgmma and tensor copies), written
here a second time and by matrix instead of by lane, so that a mistake in a twin of cuda/device is not repeated. All values are small numbers of
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


def fp8_codes(exponent_bits, mantissa_bits):
    """{value: code} of the finite numbers of an fp8 format."""
    bias, codes = 2 ** (exponent_bits - 1) - 1, {}
    for code in range(256):
        exponent, mantissa = code >> mantissa_bits & 2**exponent_bits - 1, code & 2**mantissa_bits - 1
        fraction = mantissa / 2**mantissa_bits
        value = (1 + fraction) * 2.0 ** (exponent - bias) if exponent else fraction * 2.0 ** (1 - bias)
        codes.setdefault(-value if code >> 7 else value, code)  # 0 is the positive one
    return codes


def mma_by_element(name, depth, each, encode_a, encode_b, values, sums=[i / 4 for i in range(-16, 17)], encode_d=bits32):
    """m16n8k`depth` with `each` elements a register."""
    draw = numbers(depth * 31 + len(name))
    matrix = lambda rows, cols, among: [[among[next(draw) % len(among)] for _ in range(cols)] for _ in range(rows)]
    a, b, c = matrix(16, depth, values), matrix(depth, 8, values), matrix(16, 8, sums)
    d = [[c[m][n] + sum(a[m][k] * b[k][n] for k in range(depth)) for n in range(8)] for m in range(16)]
    lanes = [[0] * 14 for _ in range(32)]
    half, bits = depth // 2, 32 // each
    for k in range(depth):
        lane, upper, place = k % half // each, k // half, k % each * bits
        for m in range(16):
            lanes[m % 8 * 4 + lane][m // 8 + 2 * upper] |= encode_a(a[m][k]) << place
        for n in range(8):
            lanes[n * 4 + lane][4 + upper] |= encode_b(b[k][n]) << place
    for m in range(16):
        for n in range(8):
            register = n % 2 + 2 * (m // 8)
            lanes[m % 8 * 4 + n // 2][6 + register] = encode_d(c[m][n])
            lanes[m % 8 * 4 + n // 2][10 + register] = encode_d(d[m][n])
    write(name, "a line a lane: a0 a1 a2 a3  b0 b1  c0 c1 c2 c3  d0 d1 d2 d3", lanes)


def stmatrix(transposed):
    """Lane l names row order[l] of a memory of 32 rows; its last four words are what row l holds in the end."""
    order = [(i * 11 + 3) % 32 for i in range(32)]
    element = lambda matrix, r, c: matrix * 64 + r * 8 + c + 1
    memory = [[0] * 8 for _ in range(32)]
    lanes = [[order[lane]] + [0] * 8 for lane in range(32)]
    for matrix in range(4):
        for r in range(8):
            for c in range(8):
                memory[order[8 * matrix + r]][c] = element(matrix, r, c)
                row, col = (c, r) if transposed else (r, c)
                lanes[row * 4 + col // 2][1 + matrix] |= element(matrix, r, c) << 16 * (col % 2)
    for lane in range(32):
        lanes[lane][5:] = [memory[lane][2 * i + 1] << 16 | memory[lane][2 * i] for i in range(4)]
    header = "a line a lane: row  r0 r1 r2 r3  words of memory row l"
    write("stmatrix_transposed" if transposed else "stmatrix", header, lanes)


class Swizzled:
    """Shared memory of panes of 64 columns of 16-bit elements: piece c of row r lies at piece c ^ (r % 8)."""

    def __init__(self):
        self.pieces = {}  # by number

    def put(self, pane_rows, row, col, code):
        row_in_all = col // 64 * pane_rows + row
        piece = row_in_all * 8 + (col % 64 // 8 ^ row % 8)
        self.pieces.setdefault(piece, [0] * 8)[col % 8] = code

    def lines(self, name):
        return [f"{name} {piece} " + " ".join(f"{code:04x}" for code in codes)
                for piece, codes in sorted(self.pieces.items())]


def wgmma(kind, a_in_registers):
    """From registers: b is [k][n], two panes of 64 columns, rows 16 to 31 of 32. Else a and b are rows, columns 16 to 31."""
    draw = numbers(5 + a_in_registers)
    columns = 128 if a_in_registers else 64
    matrix = lambda rows, cols: [[(next(draw) % 9 - 4) / 2 for _ in range(cols)] for _ in range(rows)]
    a, b = matrix(64, 16), matrix(16, columns)
    left, right = Swizzled(), Swizzled()
    registers = [[0] * 4 for _ in range(128)]
    sums = [[0] * (columns // 2) for _ in range(128)]
    for m in range(64):
        for k in range(16):
            left.put(64, m, 16 + k, ENCODE[kind](a[m][k]))
            lane = m // 16 * 32 + m % 8 * 4 + k % 8 // 2
            registers[lane][m % 16 // 8 + 2 * (k // 8)] |= ENCODE[kind](a[m][k]) << 16 * (k % 2)
    for k in range(16):
        for n in range(columns):
            if a_in_registers:
                right.put(32, 16 + k, n, ENCODE[kind](b[k][n]))
            else:
                right.put(64, n, 16 + k, ENCODE[kind](b[k][n]))
    for m in range(64):
        for n in range(columns):
            lane = m // 16 * 32 + m % 8 * 4 + n % 8 // 2
            sums[lane][n // 8 * 4 + m % 16 // 8 * 2 + n % 2] = int(4 * sum(a[m][k] * b[k][n] for k in range(16)))
    with open(f"{FOLDER}/wgmma_{'registers' if a_in_registers else 'matrices'}_{kind}.txt", "w") as f:
        f.write("# a, b NUMBER: a 16-byte piece of shared memory; a LANE: registers; d LANE: 4 times the sums\n")
        if a_in_registers:
            f.writelines(f"a {i} " + " ".join(f"{v:08x}" for v in r) + "\n" for i, r in enumerate(registers))
        else:
            f.writelines(line + "\n" for line in left.lines("a"))
        f.writelines(line + "\n" for line in right.lines("b"))
        f.writelines(f"d {i} " + " ".join(map(str, r)) + "\n" for i, r in enumerate(sums))


def copied_box():
    """A tensor of 5 rows and 2 heads of 24 columns that counts up from 1; the box of 8 rows from row 2 of head 1."""
    memory = Swizzled()
    for r in range(8):
        for c in range(64):
            memory.put(8, r, c, 1 + (2 + r) * 48 + 24 + c if 2 + r < 5 and c < 24 else 0)
    with open(f"{FOLDER}/copied_box.txt", "w") as f:
        f.write("# d NUMBER: a 16-byte piece of shared memory\n")
        f.writelines(line + "\n" for line in memory.lines("d"))


for kind in ENCODE:
    mma(kind)
for transposed in (False, True):
    ldmatrix(transposed)
    stmatrix(transposed)
mma_by_element("mma_m16n8k8_tf32", 8, 1, bits32, bits32, [i / 4 for i in range(-16, 17)])
FP8 = {"e4m3": fp8_codes(4, 3), "e5m2": fp8_codes(5, 2)}
for left in FP8:
    for right in FP8:
        mma_by_element(f"mma_m16n8k32_{left}_{right}", 32, 4, FP8[left].get, FP8[right].get,
                       [-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0])
byte = lambda x: x & 0xFF
mma_by_element("mma_m16n8k32_int8", 32, 4, byte, byte, range(-128, 128), range(-70000, 70001, 7001),
               lambda x: x & 0xFFFFFFFF)
wgmma("bf16", False)
wgmma("fp16", True)
copied_box()
