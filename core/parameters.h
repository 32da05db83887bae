// Parameters as flat buffers: a layout that is pure data, and the memory that follows from it.
//
// All weights of a model are one allocation of one type; likewise gradients, master weights and both moments. A
// parameter is a name, a shape and a range. Parameters are ordered by when backward finishes their gradients (the
// reverse of their order in forward), so that buckets of the flat buffer fill front to back.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "core/backend.h"
#include "core/ops/optimizer.h"

namespace mixtape {

struct Init {
  enum Kind { zeros, ones, normal } kind = zeros;
  float std = 0;
  // Of a projection that begins with its queries: how many elements those are, and the factor of their std.
  int64_t queries = 0;
  float query_scale = 1;
};

struct ParameterEntry {
  std::string name;
  Shape shape;
  Init init;
  int64_t offset = 0;  // in elements, a multiple of Layout::alignment
  int64_t count() const { return shape.count(); }
  // Weight decay applies to matrices and tables, not to biases and norm weights.
  bool decays() const { return shape.rank() >= 2; }
};

class ParameterLayout {
 public:
  static constexpr int64_t alignment = 64;  // elements

  // In the order of forward. Returns the parameter's id.
  int add(std::string name, Shape shape, Init init);
  // Assigns offsets; no parameter can be added after.
  void finish();

  int size() const { return int(entries_.size()); }
  const ParameterEntry& operator[](int id) const { return entries_[id]; }
  const std::vector<ParameterEntry>& entries() const { return entries_; }
  // The id of a name; throws Error if there is none.
  int find(const std::string& name) const;
  // How many numbers the model learns, without padding.
  int64_t parameter_count() const;
  // The length of a flat buffer, padding included.
  int64_t flat_count() const { return flat_count_; }

 private:
  std::vector<ParameterEntry> entries_;
  std::unordered_map<std::string, int> ids_;
  int64_t flat_count_ = 0;
};

// Which buffers there are, and of what type.
struct ParameterStorage {
  DType weights = DType::f32;
  bool master = false;    // a float32 copy that the optimizer updates
  bool gradients = true;  // training
  bool moments = true;    // AdamW's m and v
};

class Parameters {
 public:
  Parameters(const ParameterLayout& layout, ParameterStorage storage, Backend& backend);

  const ParameterLayout& layout() const { return layout_; }
  const ParameterStorage& storage() const { return storage_; }

  Tensor weight(int id) const { return slice(weights, id); }
  Tensor master_weight(int id) const { return slice(storage_.master ? master : weights, id); }
  Tensor gradient_tensor(int id) const { return slice(gradients, id); }
  // Where the next gradient of the parameter goes: overwrite for the first since new_step(), then accumulate.
  Grad gradient(int id);
  void new_step() { written_.assign(written_.size(), false); }
  bool was_written(int id) const { return written_[id]; }
  void freeze(int id) { frozen_[id] = true; }

  // Fills master (or the weights) by the layout's initialisation: a function of (seed, name, element) alone.
  void initialise(uint64_t seed);
  // The weights as the rounded copy of the master.
  void refresh_weights();
  // A host array of float32 into a parameter, and back (the master where there is one).
  void load(int id, const float* values);
  void store(int id, float* values) const;

  // The ranges of the optimizer's kernels: one treatment each, none across a chunk.
  std::vector<UpdateRange> update_ranges(float weight_decay) const;

  Tensor weights, master, gradients, m, v;  // flat

 private:
  Tensor slice(const Tensor& flat, int id) const;
  const ParameterLayout& layout_;
  ParameterStorage storage_;
  Backend& backend_;
  std::vector<bool> written_, frozen_;
};

}  // namespace mixtape
