// What a checkpoint has of a run's weights and optimizer: tensors in flat buffers.
#pragma once

#include <string>
#include <vector>

#include "train/checkpoint/checkpoint.h"
#include "train/engine.h"

namespace mixtape {

// A tensor of the checkpoint and its place in a flat buffer of a model that is not cut.
struct Stored {
  std::string name;
  Extents shape;
  int64_t offset = 0;  // elements
};

// A flat buffer that an optimizer updates beside the weights, and what is in it.
struct StateBuffer {
  FlatState flat;
  std::vector<Stored> stored;
  int64_t each = 1;     // elements of the parameters that a number is for
  bool shared = false;  // every rank has all of it, whatever else is cut into shards
};

// The weights, or of a buffer as long, under `prefix`; `learning`: of those alone that learn.
std::vector<Stored> parameters_of(const ParameterLayout& layout, const std::string& prefix, bool learning);
// Masters, moments and their scales, and the scales of 8-bit operands.
std::vector<StateBuffer> optimizer_buffers(Engine& engine);

// Whether no rank has everything; and of one buffer, and how long that is when it is whole.
bool is_shared_out(const Parameters& p);
bool is_cut(const Parameters& p, const StateBuffer& buffer);
int64_t whole_count(const Parameters& p, const StateBuffer& buffer);

}  // namespace mixtape
