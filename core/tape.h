// The tape: what a step did, as data, and how to go back along it.
//
// An operation is a free function on tensors. It describes itself by an `Operation` (name, forward, backward, what
// backward reads), and calls `tape.run`, which allocates the outputs, computes them and records a node. A node is plain
// data: the lambdas capture nothing, so they can neither keep memory alive unseen nor dangle, and the tape can be
// printed, planned and replayed.
//
// Memory. Inputs and outputs of nodes are value ids; only tensors that some backward reads are kept, and the last
// reader frees them; whether they are in the device's memory all the time is another's care (saved_tensors.h).
// Parameters are handles, resolved when they are read. A gradient is stored by its first writer and added to by later
// ones; nothing is zeroed. A parameter's is complete when every node that read it in forward has gone backward, and the
// buckets of Parameters are told so at that moment.
//
// Recomputation. With RecomputePolicy::selective an output that its operation can `remake` from what its own backward
// keeps anyhow (a norm's output, an activation's) is dropped after forward and remade when backward wants it. The
// block-level form is `recompute()`: it keeps a block's inputs only and runs the block again in backward. Both are
// exact to the bit, since randomness is by counter.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/backend.h"
#include "core/parameters.h"
#include "core/saved_tensors.h"

namespace mixtape {

class Tape;
class Forward;
class Backward;
class Quantisation;  // core/model/quantisation.h

enum class RecomputePolicy { none, selective, full };

// A few small indices, usable in constant expressions.
struct Indices {
  std::array<int8_t, 4> list{};
  int8_t count = 0;
  constexpr Indices() = default;
  constexpr Indices(std::initializer_list<int> indices) {
    for (int i : indices) list[count++] = int8_t(i);
  }
  const int8_t* begin() const { return list.data(); }
  const int8_t* end() const { return list.data() + count; }
};

// What backward reads besides `saved`.
struct Needs {
  Indices inputs, outputs;
};

template <class Spec>
struct Operation {
  const char* name;
  void (*forward)(const Forward&, const Spec&);
  void (*backward)(const Backward&, const Spec&);
  Needs needs = {};
  bool random = false;  // draws random numbers: forward and backward then have a site() of their own
  // Makes output `remakes` again from what backward keeps: cheap, and exact. Null where that is impossible or dear.
  void (*remake)(const Forward&, const Spec&) = nullptr;
  int remakes = 0;
};

struct Make {
  Shape shape;
  DType dtype = DType::f32;
};
inline Make like(const Tensor& t) { return {t.shape(), t.dtype()}; }

// What an operation allocates: its outputs, and tensors that only backward reads (absent when nothing is recorded).
struct Makes {
  static constexpr int max = 4;
  std::vector<Make> outputs, saved;
  bool in_place = false;  // output 0 may take input 0's memory if nobody else holds it
  // Output 0 is input 0 under another name: the same data, a gradient of its own, which of a parameter is float32.
  bool renames = false;
};

class Outputs {
 public:
  const Tensor& operator[](int i) const { return list_[i]; }
  Tensor& operator[](int i) { return list_[i]; }
  operator Tensor() && { return std::move(list_[0]); }

 private:
  std::array<Tensor, Makes::max> list_;
};

// Watches a tape run: for profiles and traces. Called around each node's work.
class TapeObserver {
 public:
  virtual ~TapeObserver() = default;
  virtual void begin(std::string_view operation, bool backward) = 0;
  virtual void end(std::string_view operation, bool backward) = 0;
};

class Tape {
 public:
  static constexpr int max_inputs = 8;
  static constexpr int spec_bytes = 128;

  // `parameters` may be null (tests of single operations); `state` is read by operations that use randomness or scales.
  Tape(Backend& backend, Parameters* parameters, const StepState* state)
      : backend_(backend), parameters_(parameters), state_(state), saved_(backend) {}
  ~Tape() { clear(); }
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // Runs and records one operation. `inputs` may hold absent tensors.
  template <class Spec>
  Outputs run(const Operation<Spec>& operation, std::initializer_list<Tensor> inputs, const Makes& makes,
              const Spec& spec) {
    static_assert(std::is_trivially_copyable_v<Spec> && sizeof(Spec) <= spec_bytes);
    Node node;
    node.operation = erase(operation);
    std::memcpy(node.spec.data(), &spec, sizeof(Spec));
    return run_node(std::move(node), {inputs.begin(), inputs.size()}, makes);
  }

  // A parameter as a value: its gradient is a slice of the flat gradient buffer.
  Tensor parameter(int id);
  // A tensor as a leaf whose gradient can be asked for after backward; of the tensor's type unless another is named.
  Tensor leaf(const Tensor& tensor, bool wants_gradient = true);
  Tensor leaf(const Tensor& tensor, DType gradient_dtype);

  // The gradient of `value` is summed in float32 and rounded once, when what made it takes it: for a value with many
  // readers, such as an encoder's output under the cross-attention of every layer. Its readers must be operations that
  // can write such a gradient: `linear`, `gather_rows`.
  void sum_gradient_in_float32(const Tensor& value);

  // A block of the model as a function: reads `inputs`, fills `outputs`. `model` and `index` say which block.
  using Block = void (*)(Tape& tape, const void* model, int64_t index, std::span<const Tensor> inputs,
                         std::span<Tensor> outputs);
  // Runs the block without keeping anything but its inputs; backward runs it again.
  void recompute(Block block, const void* model, int64_t index, std::span<const Tensor> inputs,
                 std::span<Tensor> outputs);

  // A layer begins: what layers keep for backward may be offloaded a layer at a time (saved_tensors.h).
  void begin_section();

  // The gradient that flows into a value from outside the tape; without any, the loss operations have set their own.
  void seed(const Tensor& value, const Tensor& gradient);
  // Visits the nodes in reverse. Frees everything that backward held.
  void backward();
  // After backward: the gradient of a leaf (absent if nothing flowed into it).
  Tensor gradient(const Tensor& leaf) const { return values_[leaf.value()].grad; }

  // Forgets all nodes and values; call between micro-batches, when no tensors of the last one are held.
  void clear();

  Backend& backend() const { return backend_; }
  Parameters* parameters() const { return parameters_; }
  const StepState* state() const { return state_; }

  // Records for backward (training), or just computes. Dropout is active only when training.
  bool training() const { return training_; }
  void set_training(bool training) { training_ = training; }
  // Generation: every row of a linear layer is computed alone, so its bits do not depend on the batch.
  bool decoding() const { return decoding_; }
  void set_decoding(bool decoding) { decoding_ = decoding; }
  // Layers that round their operands; null: none. Not owned.
  const Quantisation* quantisation() const { return quantisation_; }
  void set_quantisation(const Quantisation* quantisation) { quantisation_ = quantisation; }
  RecomputePolicy policy() const { return policy_; }
  void set_policy(RecomputePolicy policy) { policy_ = policy; }
  TapeObserver* observer() const { return observer_; }
  void set_observer(TapeObserver* observer) { observer_ = observer; }
  int64_t node_count() const { return int64_t(nodes_.size()); }
  SavedTensors& saved() { return saved_; }
  const SavedTensors& saved() const { return saved_; }

 private:
  friend class Forward;
  friend class Backward;

  // An Operation<Spec> without its type: pointers to functions of the type, and how to call them.
  struct Erased {
    const char* name = nullptr;
    const void* operation = nullptr;
    void (*forward)(const void* operation, const Forward&, const void* spec) = nullptr;
    void (*backward)(const void* operation, const Backward&, const void* spec) = nullptr;
    void (*remake)(const void* operation, const Forward&, const void* spec) = nullptr;
    Needs needs;
    bool random = false;
    int remakes = 0;
  };
  template <class Spec>
  static Erased erase(const Operation<Spec>& operation) {
    using Op = Operation<Spec>;
    Erased e{.name = operation.name,
             .operation = &operation,
             .needs = operation.needs,
             .random = operation.random,
             .remakes = operation.remakes};
    e.forward = [](const void* op, const Forward& f, const void* spec) {
      static_cast<const Op*>(op)->forward(f, *static_cast<const Spec*>(spec));
    };
    e.backward = [](const void* op, const Backward& b, const void* spec) {
      static_cast<const Op*>(op)->backward(b, *static_cast<const Spec*>(spec));
    };
    if (operation.remake)
      e.remake = [](const void* op, const Forward& f, const void* spec) {
        static_cast<const Op*>(op)->remake(f, *static_cast<const Spec*>(spec));
      };
    return e;
  }

  struct Input {
    int value = -1;
    Tensor constant;  // inputs that are no values: ids, tables
  };
  struct Node {
    Erased operation;
    alignas(16) std::array<std::byte, spec_bytes> spec{};
    std::array<Input, max_inputs> inputs;
    int n_inputs = 0;
    std::array<int, Makes::max> outputs{-1, -1, -1, -1};
    int n_outputs = 0;
    std::array<SavedTensors::Handle, Makes::max> saved{-1, -1, -1, -1};
    int section = 0;
    uint32_t site = 0;
    Block block = nullptr;  // set: this node is a recomputed block
    const void* model = nullptr;
    int64_t index = 0;
  };
  struct Value {
    Shape shape;
    DType dtype = DType::f32, grad_dtype = DType::f32;
    int node = -1, output = 0;  // what made it
    int parameter = -1;
    int renamed = -1;  // the value whose data this is
    bool wants_gradient = false;
    // Nodes whose backward will read the data; of a parameter those that have read it and have not gone backward yet.
    int readers = 0;
    SavedTensors::Handle kept = SavedTensors::none;
    Tensor grad;
  };

  Outputs run_node(Node node, std::span<const Tensor> inputs, const Makes& makes);
  int new_value(const Tensor& tensor, int node, int output);
  // The value that has the data.
  int data_value(int value) const {
    while (values_[value].renamed >= 0) value = values_[value].renamed;
    return value;
  }
  bool wants_gradient(const Tensor& tensor) const {
    return tensor && tensor.value() >= 0 && values_[tensor.value()].wants_gradient;
  }
  bool is_learning_parameter(int value) const {
    return value >= 0 && values_[value].parameter >= 0 && values_[value].wants_gradient;
  }
  // Counts the parameters that a node reads, once whether or not it will be recomputed.
  void count_parameters(std::span<const Tensor> inputs);
  // The node has gone backward.
  void count_off_parameters(std::span<const int> parameter_values);
  // Notes that a node's backward will read the value, and keeps its data unless it can be remade.
  void keep(int value, const Tensor& data);
  void release(int value);
  Tensor data_of(int value);
  std::array<Tensor, Makes::max> saved_of(const Node& node);
  Grad gradient_of(int value);
  void give_gradient(int value, const Tensor& gradient);
  void backward_from(size_t end);
  void go_back_to(int section);
  void run_backward(size_t node_index);
  void round_gradient(int value);
  void replay_block(size_t node_index);

  Backend& backend_;
  Parameters* parameters_;
  const StepState* state_;
  std::vector<Node> nodes_;
  std::vector<Value> values_;
  SavedTensors saved_;
  std::vector<int> parameter_values_;  // parameter id -> value id of this micro-batch
  TapeObserver* observer_ = nullptr;
  const Quantisation* quantisation_ = nullptr;
  RecomputePolicy policy_ = RecomputePolicy::none;
  uint32_t next_site_ = 0;
  bool training_ = true;
  bool decoding_ = false;
  bool recording_ = true;   // off while a recomputed block runs the first time
  bool replaying_ = false;  // on while it runs again
};

// What an operation's forward sees.
class Forward {
 public:
  Backend& backend() const { return tape_.backend(); }
  const Tensor& in(int i) const { return inputs_[i]; }
  const Tensor& out(int i) const { return outputs_[i]; }
  // Absent when nothing is recorded.
  const Tensor& saved(int i) const { return saved_[i]; }
  const StepState* state() const { return tape_.state(); }
  uint32_t site() const { return site_; }
  // For operations that know their gradients already in forward (the loss): where input i's gradient goes.
  Grad grad(int i) const;

 private:
  friend class Tape;
  Forward(Tape& tape, const Tensor* inputs, const Tensor* outputs, const Tensor* saved, uint32_t site, bool records)
      : tape_(tape), inputs_(inputs), outputs_(outputs), saved_(saved), site_(site), records_(records) {}
  Tape& tape_;
  const Tensor* inputs_;
  const Tensor* outputs_;
  const Tensor* saved_;
  uint32_t site_;
  bool records_;
};

// What an operation's backward sees.
class Backward {
 public:
  Backend& backend() const { return tape_.backend(); }
  // Inputs and outputs named in `needs`, and inputs that are no values (ids, tables).
  Tensor in(int i) const;
  Tensor out(int i) const;
  Tensor saved(int i) const { return tape_.saved_.get(node().saved[i]); }
  // The gradient of output i; absent means zero.
  const Tensor& dy(int i) const { return tape_.values_[node().outputs[i]].grad; }
  // True if dy(i)'s memory is nobody else's, so that the operation may overwrite it.
  bool owns_dy(int i) const { return dy(i).storage().unique(); }
  // Where input i's gradient goes. A second call for the same input gives `accumulate`.
  Grad grad(int i) const;
  bool wants(int i) const;
  // Makes `gradient` the gradient of input i without a copy, or adds it to what is there.
  void give(int i, const Tensor& gradient) const;
  // Memory for a gradient that will be given: dy(i)'s own if nobody else holds it.
  Tensor reuse_dy(int i) const;
  const StepState* state() const { return tape_.state(); }
  uint32_t site() const { return node().site; }

 private:
  friend class Tape;
  Backward(Tape& tape, size_t node) : tape_(tape), node_(node) {}
  const Tape::Node& node() const { return tape_.nodes_[node_]; }
  Tape& tape_;
  size_t node_;
};

// Errors of operations: `rms_norm: weight is [768], expected [1024]`.
void expect_shape(const char* op, const char* argument, const Tensor& tensor, Shape expected);
void expect_dtype(const char* op, const char* argument, const Tensor& tensor, DType expected);

}  // namespace mixtape
