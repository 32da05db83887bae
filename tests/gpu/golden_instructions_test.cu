// The same tests as on the emulator, by nvcc.
#include "tests/cuda/golden_instructions_test.cpp"
