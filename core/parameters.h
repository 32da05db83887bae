// Parameters as flat buffers: a layout that is pure data, and the memory that follows from it.
//
// All weights of a model are one allocation of one type; likewise gradients, master weights and both moments, and where
// weights of layers are int8 codes (inference), codes and their scales. A parameter is a name, a shape and a range.
// Parameters are ordered by when backward finishes their gradients (the reverse of their order in forward), so that
// buckets of the flat buffer fill front to back (gradient_buckets.h). Frozen parameters come after all others, and
// buffers of gradients, masters and moments end before them: one offset serves all buffers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/backend.h"
#include "core/flat_state.h"
#include "core/gradient_buckets.h"
#include "core/ops/optimizer.h"
#include "core/ops/optimizer_state.h"
#include "core/shards.h"

namespace mixtape {

struct Init {
  enum Kind { zeros, ones, normal } kind = zeros;
  float std = 0;
  // Of a projection that begins with its queries: how many elements those are, and the factor of their std.
  int64_t queries = 0;
  float query_scale = 1;
};

// How ranks that share out each layer (tensor parallelism, docs/parallelism.md) have one of its tensors.
enum class Cut {
  none,     // each rank has it whole
  rows,     // each has a run of the rows of each of its pieces
  columns,  // each has a run of its columns
  first     // the first rank alone has it
};

struct ParameterEntry {
  std::string name;
  Shape shape;  // of what is here, as all that is not called whole
  Init init;
  // Tensors that are stored as one because one product reads them, such as queries, keys and values: the rows of each.
  // Update rules that look at a tensor as a whole take them apart. Empty: it is one.
  std::vector<int64_t> pieces;
  int64_t offset = 0;  // in elements, a multiple of Layout::alignment
  bool learns = true;  // false: frozen
  // Of its factored second moments, if it learns: those of columns, piece by piece, then of rows.
  int64_t factored_offset = 0;
  // The tensor that the ranks share out, and its offset in the flat buffer of a model that is not cut.
  Cut cut = Cut::none;
  Shape whole;
  std::vector<int64_t> whole_pieces;
  int64_t whole_offset = 0;
  int64_t second_offset = 0;  // of its second moments, if hidden matrices have none
  // Inference with int8 weights: its place is among codes and scales in place of weights, `offset` that of its codes.
  bool coded = false;
  int64_t scale_offset = 0;
  int64_t count() const { return shape.count(); }
  bool is_matrix() const { return shape.rank() >= 2; }
  // A matrix inside of a layer: no table of embeddings, no head.
  bool is_hidden_matrix() const { return is_matrix() && name.find("layers.") != std::string::npos; }
  // The weight of a linear layer inside of a layer: what is rounded to 8 bits, where anything is.
  bool is_layer_weight() const { return is_hidden_matrix() && name.ends_with(".weight"); }
  int64_t n_pieces() const { return pieces.empty() ? 1 : int64_t(pieces.size()); }
  int64_t factored_count() const { return is_matrix() ? n_pieces() * shape.cols() + shape.rows() : count(); }
  // Weight decay applies to matrices and tables, not to biases and norm weights.
  bool decays() const { return is_matrix(); }
};

class ParameterLayout {
 public:
  // Elements. A block of moments that has a scale of its own thus is of one parameter, and of one chunk.
  static constexpr int64_t alignment = moment_block;

  // Of one of several ranks that share out each layer.
  explicit ParameterLayout(Sharding slice = {}) : slice_(slice) {}

  // In the order of forward. Shape, initialisation and pieces are the whole tensor's. Returns the parameter's id.
  int add(std::string name, Shape shape, Init init, std::vector<int64_t> pieces = {}, Cut cut = Cut::none);
  // Assigns offsets; no parameter can be added after.
  void finish();
  // Before there are buffers: these parameters, by name, do not learn. Throws ConfigError if none does then.
  void freeze(const std::vector<std::string>& names);
  // Before there are buffers: the weights of linear layers are int8 codes with a scale for each row, for inference.
  void code_layer_weights();

  int size() const { return int(entries_.size()); }
  const ParameterEntry& operator[](int id) const { return entries_[id]; }
  const std::vector<ParameterEntry>& entries() const { return entries_; }
  // The id of a name; throws Error if there is none.
  int find(const std::string& name) const;
  // How many numbers the whole model has, without padding.
  int64_t parameter_count() const;
  // How many of them change.
  int64_t learning_count() const;
  const Sharding& slice() const { return slice_; }
  // The elements of the whole parameter that are here, where they lie one run behind another.
  std::vector<Run> runs(int id) const;
  // The length of a flat buffer, padding included: of weights, and of what only those have that learn.
  int64_t flat_count() const { return flat_count_; }
  int64_t learning_flat_count() const { return learning_flat_count_; }
  // The same of a model that is not cut.
  int64_t whole_flat_count() const { return whole_flat_count_; }
  int64_t whole_learning_flat_count() const { return whole_learning_flat_count_; }
  // The length of a buffer of factored second moments, and of those of all but hidden matrices.
  int64_t factored_count() const { return factored_count_; }
  int64_t without_hidden_count() const { return without_hidden_count_; }
  // The lengths of the buffers of codes and of their scales.
  int64_t coded_count() const { return coded_count_; }
  int64_t code_scales_count() const { return code_scales_count_; }

 private:
  void assign_offsets();

  Sharding slice_;
  std::vector<ParameterEntry> entries_;
  std::unordered_map<std::string, int> ids_;
  int64_t flat_count_ = 0, learning_flat_count_ = 0, factored_count_ = 0, without_hidden_count_ = 0;
  int64_t whole_flat_count_ = 0, whole_learning_flat_count_ = 0;
  int64_t coded_count_ = 0, code_scales_count_ = 0;
};

// How the update of a parameter differs from the others'.
struct ParameterFactors {
  float lr = 1, weight_decay = 1;
};

// What an optimizer keeps of the gradients so far: an average of each, and one of its square, or as Adafactor of rows
// and columns of squares. Muon has none of hidden matrices.
enum class SecondMoments { none, full, without_hidden, factored };
struct Moments {
  bool first = false;
  SecondMoments second = SecondMoments::none;
  MomentFormat format = MomentFormat::fp32;  // of what is kept for each element
};

// Which buffers there are, and of what type.
struct ParameterStorage {
  DType weights = DType::f32;
  MasterWeights master = MasterWeights::none;  // what the optimizer keeps beside 16-bit weights
  bool gradients = true;                       // training
  GradientMemory gradient_memory = {};
  Moments moments;
  // Of several ranks each has its shards of masters and moments, with `sums` of gradients, too, and with
  // `shards_weights` of the weights that learn.
  Sharding sharding;
  bool sums = false;  // beside transient gradients: their sums, in the rank's own parts
  bool shards_weights = false;
  // Masters, and moments of every element, are outside of the device's memory.
  bool offload = false;
  OffloadPlace offload_place = {};
};

// The weights that learn, bucket by bucket, where a rank keeps its own parts of them only.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // All of a bucket's, [run.count]. Memory that lives as long as the tensor.
  virtual Tensor weights_of(int bucket) = 0;
  // Between micro-batches: nobody reads any.
  virtual void forget() = 0;
};

class Parameters {
 public:
  Parameters(const ParameterLayout& layout, ParameterStorage storage, Backend& backend);

  const ParameterLayout& layout() const { return layout_; }
  const ParameterStorage& storage() const { return storage_; }

  // Where weights are shared out, from the source. Of a coded parameter the codes.
  Tensor weight(int id) const;
  // Of a coded parameter, float32 [rows]; absent of the others.
  Tensor code_scale(int id) const;
  // The weights of all that learn, as long as the other buffers, if they are whole.
  Tensor learning_weights() const { return Tensor(weights.raw(), {layout_.learning_flat_count()}, weights.dtype()); }
  // Null: none. Not owned.
  void set_weight_source(WeightSource* source) { source_ = source; }
  WeightSource* weight_source() const { return source_; }
  // Whose masters and moments are where; of one rank, all are its own.
  const Shards& shards() const { return *shards_; }
  // What is here of the flat buffers of a model that is not cut, in order: of all weights, or without the frozen ones;
  // and of what only those have that learn, a number for each so many elements.
  std::vector<Shards::Part> weight_parts(bool with_frozen = true) const;
  std::vector<Shards::Part> learning_parts(int64_t each = 1) const;
  // Elements [run.begin, run.end()) of a flat buffer; absent of what is absent.
  static Tensor part(const Tensor& flat, Run run);
  // Of the rank's own parts, in whichever buffer they are: of weights, summed gradients, and masters or moments.
  Tensor own_weights(const Shards::Part& own) const {
    return part(weights, storage_.shards_weights ? own.place() : own.run);
  }
  // Of the optimizer's state what is in the device's memory: of a run of the rank's own buffers, and whole of moments
  // that not every element has.
  UpdateState held_state(Run place) const;
  // Bytes that are outside of it.
  int64_t offloaded_bytes() const { return offloaded_bytes_; }
  Offload* outside() const { return outside_.get(); }  // null: nothing is
  Tensor own_gradients(const Shards::Part& own) const {
    return sums ? part(sums, own.place()) : part(gradients, own.run);
  }
  // Of what learns, if there are gradients (storage().gradients).
  GradientBuckets& buckets() { return *buckets_; }
  const GradientBuckets& buckets() const { return *buckets_; }

  // Fills weights and masters by the layout's initialisation: a function of (seed, name, element) alone.
  void initialise(uint64_t seed);
  // A whole parameter, a host array of float32: what is here of it into the weights and their masters.
  void load(int id, const float* whole);
  // A coded parameter, on the host.
  void load_codes(int id, const int8_t* codes, const float* scales);
  // What is here of a parameter, of the master where there is one; it must not be shared out then.
  void store(int id, float* values) const;

  // The ranges of the optimizer's kernels: one treatment each, none across a chunk. `factors`: of each parameter, or
  // none.
  std::vector<UpdateRange> update_ranges(float weight_decay, const std::vector<ParameterFactors>& factors = {}) const;
  // The same by tensor, for update rules that look at one as a whole, and the ranges of those tensors.
  std::vector<UpdateTensor> update_tensors(float weight_decay, const std::vector<ParameterFactors>& factors = {}) const;
  static std::vector<UpdateRange> ranges_of(const std::vector<UpdateTensor>& tensors);

  // Flat. Weights: of all, or the rank's own parts of what learns and behind them what does not. The others: of what
  // learns; master, sums, m and v the rank's own parts of it. Gradients are absent where they are transient. master:
  // float32 or uint16 remainders.
  Tensor weights, gradients, sums;
  FlatState master;
  MomentState m, v;
  Tensor codes, code_scales;  // int8 and float32, of what is coded

 private:
  // Of every element: outside where the storage says so.
  FlatState make_state(DType type, int64_t count, Category category);
  MomentState make_moment(DType type);
  void take_outside();
  Tensor slice(const Tensor& flat, int id) const;
  // Parts of the flat buffers as they are here in terms of a model that is not cut.
  std::vector<Shards::Part> in_whole(const std::vector<Shards::Part>& parts) const;
  // Where frozen weights begin in `weights`.
  int64_t frozen_at(int id) const;
  // All that learns, a tensor each, in the order of offsets.
  std::vector<std::pair<const ParameterEntry*, UpdateTensor>> learning_tensors(
      float weight_decay, const std::vector<ParameterFactors>& factors) const;
  const ParameterLayout& layout_;
  ParameterStorage storage_;
  Backend& backend_;
  std::optional<GradientBuckets> buckets_;
  std::optional<Shards> shards_;
  WeightSource* source_ = nullptr;
  std::unique_ptr<Offload> outside_;
  int64_t offloaded_bytes_ = 0;
};

}  // namespace mixtape
