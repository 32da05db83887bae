// Attention by cuDNN: a graph for each shape, built once and kept for the process by cudnn-frontend's headers, which
// also choose the engine. Backward is asked for its deterministic form.
#include "cuda/cudnn.h"

#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <compare>
#include <map>

#include "cuda/backend.h"
#include "cuda/row_lengths.h"

namespace mixtape::cuda {
namespace {

namespace fe = cudnn_frontend;
using Value = std::shared_ptr<fe::graph::Tensor_attributes>;

void check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) throw Error("cudnn: {}: {}", what, cudnnGetErrorString(status));
}
void check(fe::error_t error, const char* what) {
  if (error.is_bad()) throw Error("cudnn: {}: {}", what, error.get_message());
}

// Names of the graph's tensors.
enum Id : int64_t { q_id = 1, k_id, v_id, out_id, lse_id, dout_id, dq_id, dk_id, dv_id, q_lengths_id, k_lengths_id };

// What a graph follows from.
struct Key {
  std::array<int64_t, 14> sizes;
  DType type;
  float scale;
  bool causal, backward;
  auto operator<=>(const Key&) const = default;
};

struct Plan {
  fe::graph::Graph graph;
  int64_t workspace = 0;
  std::unordered_map<int64_t, void*> addresses;  // kept, so that a call makes nothing
};

// [sequences, heads, length, head_dim] of rows of `row_stride` elements, a head beside the other.
fe::graph::Tensor_attributes matrices(Id id, const RowBatch& b, int64_t length, int64_t heads, int64_t width,
                                      int64_t row_stride) {
  return fe::graph::Tensor_attributes()
      .set_uid(id)
      .set_dim({b.sequences, heads, length, width})
      .set_stride({length * row_stride, width, row_stride, 1});
}

// Of the log-sum-exp: float32, a row of queries for each head of each sequence.
void describe_lse(fe::graph::Tensor_attributes& lse, const RowBatch& b, int64_t heads) {
  lse.set_uid(lse_id)
      .set_dim({b.sequences, heads, b.queries, 1})
      .set_stride({heads * b.queries, b.queries, 1, 1})
      .set_data_type(fe::DataType_t::FLOAT);
}

fe::graph::Tensor_attributes lengths(Id id, const RowBatch& b) {
  return fe::graph::Tensor_attributes()
      .set_uid(id)
      .set_dim({b.sequences, 1, 1, 1})
      .set_stride({1, 1, 1, 1})
      .set_data_type(fe::DataType_t::INT32);
}

// The row strides of what a graph reads and writes.
struct Strides {
  int64_t q, k, v, out, dout = 0, dq = 0, dk = 0, dv = 0;
};

class GraphMaker {
 public:
  GraphMaker(const AttentionSpec& spec, const RowBatch& batch, DType type, const Strides& strides)
      : spec_(spec), b_(batch), strides_(strides), type_(type) {}

  void forward(fe::graph::Graph& g) const {
    begin(g);
    auto options = fe::graph::SDPA_attributes().set_name("attention").set_generate_stats(true);
    auto [out, lse] = g.sdpa(queries(g, q_id, strides_.q), keys(g, k_id, strides_.k), keys(g, v_id, strides_.v),
                             with_masks(g, options));
    describe(*out, out_id, b_.queries, spec_.n_heads, strides_.out);
    describe_lse(lse->set_output(true), b_, spec_.n_heads);
  }

  void backward(fe::graph::Graph& g) const {
    begin(g);
    auto options = fe::graph::SDPA_backward_attributes().set_name("attention_backward");
    options.set_deterministic_algorithm(true);
    fe::graph::Tensor_attributes lse;
    describe_lse(lse, b_, spec_.n_heads);
    auto [dq, dk, dv] = g.sdpa_backward(queries(g, q_id, strides_.q), keys(g, k_id, strides_.k),
                                        keys(g, v_id, strides_.v), queries(g, out_id, strides_.out),
                                        queries(g, dout_id, strides_.dout), g.tensor(lse), with_masks(g, options));
    describe(*dq, dq_id, b_.queries, spec_.n_heads, strides_.dq);
    describe(*dk, dk_id, b_.keys, spec_.n_kv_heads, strides_.dk);
    describe(*dv, dv_id, b_.keys, spec_.n_kv_heads, strides_.dv);
  }

 private:
  void begin(fe::graph::Graph& g) const {
    g.set_io_data_type(type_ == DType::f16 ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
  }
  Value queries(fe::graph::Graph& g, Id id, int64_t stride) const {
    return g.tensor(matrices(id, b_, b_.queries, spec_.n_heads, spec_.head_dim, stride));
  }
  Value keys(fe::graph::Graph& g, Id id, int64_t stride) const {
    return g.tensor(matrices(id, b_, b_.keys, spec_.n_kv_heads, spec_.head_dim, stride));
  }
  void describe(fe::graph::Tensor_attributes& t, Id id, int64_t length, int64_t heads, int64_t stride) const {
    t.set_output(true)
        .set_uid(id)
        .set_dim({b_.sequences, heads, length, spec_.head_dim})
        .set_stride({length * stride, spec_.head_dim, stride, 1});
  }
  template <class Options>
  Options& with_masks(fe::graph::Graph& g, Options& options) const {
    options.set_attn_scale(spec_.scale)
        .set_padding_mask(true)
        .set_seq_len_q(g.tensor(lengths(q_lengths_id, b_)))
        .set_seq_len_kv(g.tensor(lengths(k_lengths_id, b_)));
    if (spec_.causal) options.set_diagonal_band_right_bound(0);
    return options;
  }

  const AttentionSpec& spec_;
  RowBatch b_;
  Strides strides_;
  DType type_;
};

}  // namespace

struct Cudnn::State {
  explicit State(CudaBackend& backend) : backend(backend) {
    check(cudnnCreate(&handle), "its handle");
    check(cudnnSetStream(handle, static_cast<cudaStream_t>(backend.runtime().stream())), "its stream");
  }
  ~State() { cudnnDestroy(handle); }

  Plan& plan_of(const AttentionSpec& spec, const RowBatch& batch, DType type, const Strides& strides, bool backward);

  CudaBackend& backend;
  cudnnHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
};

Plan& Cudnn::State::plan_of(const AttentionSpec& spec, const RowBatch& batch, DType type, const Strides& s,
                            bool backward) {
  const Key key{.sizes = {batch.sequences, batch.queries, batch.keys, spec.n_heads, spec.n_kv_heads, spec.head_dim, s.q,
                          s.k, s.v, s.out, s.dout, s.dq, s.dk, s.dv},
                .type = type,
                .scale = spec.scale,
                .causal = spec.causal,
                .backward = backward};
  const auto [place, is_new] = plans.try_emplace(key);
  Plan& plan = place->second;
  if (!is_new) return plan;
  const GraphMaker maker(spec, batch, type, s);
  backward ? maker.backward(plan.graph) : maker.forward(plan.graph);
  check(plan.graph.validate(), "attention");
  check(plan.graph.build_operation_graph(handle), "attention's graph");
  check(plan.graph.create_execution_plans({fe::HeurMode_t::A}), "plans for attention");
  check(plan.graph.check_support(handle), "attention on this GPU");
  check(plan.graph.build_plans(handle), "building attention");
  check(plan.graph.get_workspace_size(plan.workspace), "attention's workspace");
  return plan;
}

namespace {

// A call's scratch: what the graph asks for, and the lengths of the rows.
struct Scratch {
  Tensor workspace, lengths;
  RowLengths rows;
  Scratch(CudaBackend& backend, const Plan& plan, const RowBatch& b)
      : workspace(backend.workspace({plan.workspace}, DType::u8)),
        lengths(backend.workspace({2, b.sequences}, DType::i32)),
        rows{lengths.slice(0, 1), lengths.slice(1, 1), b.queries, b.keys} {}
};

using Addresses = std::initializer_list<std::pair<Id, Tensor>>;

void run(Cudnn::State& s, Plan& plan, const Scratch& scratch, const Addresses& addresses) {
  for (const auto& [id, t] : addresses) plan.addresses[id] = t.raw();
  plan.addresses[q_lengths_id] = scratch.rows.queries.raw();
  plan.addresses[k_lengths_id] = scratch.rows.keys.raw();
  check(plan.graph.execute(s.handle, plan.addresses, scratch.workspace.raw()), "attention");
}

// Where cuDNN, which only stores, puts a gradient: in its place, or in scratch from where it is added.
Tensor target_of(CudaBackend& backend, const Grad& grad, const Tensor& like) {
  const bool in_place = grad.write == Write::overwrite && grad.tensor.dtype() == like.dtype() &&
                        grad.tensor.row_stride() % 8 == 0 && reinterpret_cast<uintptr_t>(grad.tensor.raw()) % 16 == 0;
  return in_place ? grad.tensor : backend.workspace(like.shape(), like.dtype());
}

}  // namespace

Cudnn::Cudnn(CudaBackend& backend) : state_(std::make_unique<State>(backend)) {}
Cudnn::~Cudnn() = default;

void Cudnn::attention(const Attention& a) {
  CudaBackend& backend = state_->backend;
  const RowBatch batch = row_batch(a.spec, a.q, a.k);
  const Strides strides{a.q.row_stride(), a.k.row_stride(), a.v.row_stride(), a.out.row_stride()};
  Plan& plan = state_->plan_of(a.spec, batch, a.q.dtype(), strides, false);
  const Scratch scratch(backend, plan, batch);
  if (backend.planning()) return;
  row_lengths(backend, scratch.rows, a.segments, a.n_segments);
  run(*state_, plan, scratch, {{q_id, a.q}, {k_id, a.k}, {v_id, a.v}, {out_id, a.out}, {lse_id, a.lse}});
  clear_row_ends(backend, a.out, scratch.rows.queries, batch.queries);
}

void Cudnn::attention_backward(const AttentionBackward& a) {
  CudaBackend& backend = state_->backend;
  const RowBatch batch = row_batch(a.spec, a.q, a.k);
  const Tensor dq = target_of(backend, a.dq, a.q), dk = target_of(backend, a.dk, a.k),
               dv = target_of(backend, a.dv, a.v);
  const Strides strides{.q = a.q.row_stride(),
                        .k = a.k.row_stride(),
                        .v = a.v.row_stride(),
                        .out = a.out.row_stride(),
                        .dout = a.dout.row_stride(),
                        .dq = dq.row_stride(),
                        .dk = dk.row_stride(),
                        .dv = dv.row_stride()};
  Plan& plan = state_->plan_of(a.spec, batch, a.q.dtype(), strides, true);
  const Scratch scratch(backend, plan, batch);
  if (backend.planning()) return;
  row_lengths(backend, scratch.rows, a.segments, a.n_segments);
  run(*state_, plan, scratch,
      {{q_id, a.q},
       {k_id, a.k},
       {v_id, a.v},
       {out_id, a.out},
       {lse_id, a.lse},
       {dout_id, a.dout},
       {dq_id, dq},
       {dk_id, dk},
       {dv_id, dv}});
  clear_row_ends(backend, dq, scratch.rows.queries, batch.queries);
  for (const Tensor& t : {dk, dv}) clear_row_ends(backend, t, scratch.rows.keys, batch.keys);
  for (const auto& [grad, t] : {std::pair{a.dq, dq}, {a.dk, dk}, {a.dv, dv}})
    if (grad && t.raw() != grad.tensor.raw()) backend.cast().convert({.y = grad, .x = t});
}

}  // namespace mixtape::cuda
