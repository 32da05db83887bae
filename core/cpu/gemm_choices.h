// Which library and which partition multiply a shape, in fast mode: timed on first use and then kept.
//
// The table is text, one choice a line, so that a run directory and a checkpoint can keep it and a rerun or a resume
// computes the same bits:
//
//   nt 256 768 3072 store openblas 1x4
//   tn 3072 768 256 add onednn threads
//
// layout (n: as stored, t: transposed; A then B), m, n, k, whether C is stored or added to, the library, and either the
// parts that rows and columns of C are cut into, or `threads` for the library's own threading. The former gives the
// same bits on any number of threads, the latter only on the same number.
#pragma once

#include <string>
#include <string_view>

#include "core/cpu/gemm.h"

namespace mixtape {

enum class GemmLibrary : uint8_t { openblas, onednn };

struct GemmChoice {
  GemmLibrary library = GemmLibrary::openblas;
  bool own_threads = false;          // the library's threading; the bits then depend on the number of threads
  int row_parts = 1, col_parts = 1;  // otherwise: the partition of C
  friend bool operator==(const GemmChoice&, const GemmChoice&) = default;
};

// All choices of this process, in the order of their shapes.
std::string matmul_choices();
// Adds choices, in place of timing. Throws CheckpointError on a line that is none.
void set_matmul_choices(std::string_view text);

// A function of the shape alone.
GemmChoice static_choice(const Gemm& product);
// The table's choice; times the candidates on scratch memory if the shape is new.
GemmChoice timed_choice(const Gemm& product);

// Computes by a choice; what gemm() does after choosing.
void run_gemm(const Gemm& product, const GemmChoice& choice, TileDone done = {});

}  // namespace mixtape
