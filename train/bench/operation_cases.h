// Every operation of core/ops at the shapes that a model gives it, ready to be run alone.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/model/spec.h"
#include "core/tape.h"
#include "train/bench/work.h"

namespace mixtape {

using Tensors = std::vector<Tensor>;

// Where a case takes its tensors from, and the state that its operations read.
struct CaseContext {
  Backend& backend;
  StepState* state;
};

struct OperationCase {
  std::string operation;  // the tape's name, or the kernel's if the operation is not on the tape
  std::string shape;
  Work forward, backward;  // unknown (all 0): not shown
  bool on_tape = true;
  bool beside_cudnn = false;  // attention that cuDNN has, too
  // Makes the tensors, and gives what runs the operation and returns the outputs that gradients flow into.
  std::function<std::function<Tensors(Tape&)>(const CaseContext&)> prepare;
};

// What the shapes follow from.
struct CaseSizes {
  ModelSpec model;
  int64_t sequences = 0, length = 0;
  DType type = DType::f32;  // of weights and activations
  int64_t parameters = 0;
  int64_t rows() const { return sequences * length; }
};
std::vector<OperationCase> operation_cases(const CaseSizes& sizes);

// Its parts, a file each.
void add_row_cases(const CaseSizes& sizes, std::vector<OperationCase>& cases);      // norms, activations, lookups
void add_product_cases(const CaseSizes& sizes, std::vector<OperationCase>& cases);  // linear, attention, loss
void add_update_cases(const CaseSizes& sizes, std::vector<OperationCase>& cases);   // norm of gradients, update rules
void add_kernel_cases(const CaseSizes& sizes, std::vector<OperationCase>& cases);   // what else is not on the tape

// The linear layers of a block: q, k and v; the attention's output; up (and gate); down.
std::vector<LinearSize> linear_sizes(const ModelSpec& model, int64_t rows);
// Normal numbers, the same every time.
Tensor random_tensor(const CaseContext& context, Shape shape, DType type, float std = 1);
Tensor integer_tensor(const CaseContext& context, Shape shape, const std::function<int64_t(int64_t)>& value);
// Segments of attention: sequences of `queries` rows, each with `keys` rows of its own.
Tensor segment_table(const CaseContext& context, int64_t sequences, int64_t queries, int64_t keys);
// A token that is drawn evenly from the vocabulary.
int64_t random_token(int64_t index, int64_t vocabulary);

}  // namespace mixtape
