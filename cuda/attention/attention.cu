// Attention: which kernels take it. Those are in flash*.h (tensor cores: fp16 and bf16, head dimensions to 128),
// hopper*.h (the same on Hopper) and tiled.h (everything). docs/kernels/attention.md tells what binds them.
#include "cuda/attention/flash.h"
#include "cuda/attention/hopper.h"
#include "cuda/attention/tiled.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int64_t widest_head = 256;

// The table of T5's buckets by distance, made on the host so that all devices agree on its edges.
struct Buckets {
  int64_t reach = 0;
  Tensor memory;

  Buckets(CudaBackend& backend, const AttentionSpec& spec, int64_t rows) {
    if (spec.relative_buckets == 0) return;
    reach = std::min(spec.relative_distance, rows);
    memory = backend.workspace({2 * reach + 1}, DType::i32);
  }
  void fill(CudaBackend& backend, const AttentionSpec& spec) const {
    if (!memory) return;
    std::vector<int32_t> buckets(size_t(memory.count()));
    for (int64_t d = -reach; d <= reach; ++d) buckets[size_t(d + reach)] = int32_t(relative_bucket(d, spec));
    backend.copy_from_host(memory, buckets.data());
  }
};

// Fills in what Attention and AttentionBackward have in common.
template <class T, class A>
void fill_common(AttentionArguments<T>& k, const A& a, const Buckets& buckets) {
  const AttentionSpec& s = a.spec;
  k.q = rows_of<const T>(a.q);
  k.k = rows_of<const T>(a.k);
  k.v = rows_of<const T>(a.v);
  k.lse = data_of<float>(a.lse);
  k.segments = reinterpret_cast<const Segment*>(a.segments.template data<int32_t>());
  k.visibility = {int(s.window), s.causal};
  k.bias = {data_of<float>(a.slopes), rows_of<const T>(a.relative), data_of<int32_t>(buckets.memory),
            int(buckets.reach)};
  k.dropout = {s.dropout_threshold,
               int(s.heads_of_all()),
               int(s.first_head),
               a.site,
               a.state,
               1.f / (1.f - float(s.dropout_threshold) / 256.f)};
  k.n_heads = int(s.n_heads);
  k.n_kv_heads = int(s.n_kv_heads);
  k.head_dim = int(s.head_dim);
  k.rows_q = a.q.rows();
  k.scale = s.scale;
}
template <class T>
AttentionArguments<T> arguments_of(const Attention& a, const Buckets& buckets) {
  AttentionArguments<T> k{};
  fill_common(k, a, buckets);
  k.out = rows_of<T>(a.out);
  return k;
}
template <class T>
AttentionBackwardArguments<T> arguments_of(const AttentionBackward& a, const Buckets& buckets, const Tensor& delta) {
  AttentionBackwardArguments<T> k{};
  fill_common(k, a, buckets);
  k.dout = rows_of<const T>(a.dout);
  k.delta = delta.data<float>();
  k.dq = a.dq ? rows_of<T>(a.dq.tensor) : Rows<T>{};
  k.dk = a.dk ? rows_of<T>(a.dk.tensor) : Rows<T>{};
  k.dv = a.dv ? rows_of<T>(a.dv.tensor) : Rows<T>{};
  k.add_dq = a.dq.accumulates();
  k.add_dk = a.dk.accumulates();
  k.add_dv = a.dv.accumulates();
  return k;
}

// What the tensor cores' kernels take: rows of whole 16-byte pieces.
bool takes_flash(const AttentionSpec& s, std::initializer_list<Tensor> tensors) {
  if (s.head_dim > 128 || s.head_dim % 8) return false;
  for (const Tensor& t : tensors)
    if (t && (size_of(t.dtype()) != 2 || t.row_stride() % 8 || reinterpret_cast<uintptr_t>(t.raw()) % 16)) return false;
  return true;
}
// The same on Hopper, compute capability 9.0: later GPUs do not have its instructions. TMA takes no empty tensor.
bool is_hopper(const Runtime& runtime, const Tensor& k) { return runtime.compute_capability() == 90 && k.rows() > 0; }
Tensor tensor_of(const Grad& g) { return g ? g.tensor : Tensor{}; }

// body.operator()<R, DI>(): rows that a warp owns, and values of a head that a lane holds.
template <class Body>
void dispatch_head(int64_t head_dim, Body&& body) {
  if (head_dim <= 32) return body.template operator()<4, 1>();
  if (head_dim <= 128) return body.template operator()<4, 4>();
  body.template operator()<2, 8>();
}
int rows_of_warp(int64_t head_dim) { return head_dim <= 128 ? 4 : 2; }

void check_head(int64_t head_dim) {
  if (head_dim > widest_head)
    throw Error("attention: head_dim {}, the CUDA back end takes at most {}", head_dim, widest_head);
}

constexpr int mark_threads = 256, rows_to_clear = 64;

// covered[row] = 1 for the rows of the segments, of queries or of keys. A block a segment.
__global__ void __launch_bounds__(mark_threads)
    mark_rows_kernel(uint8_t* covered, const Segment* segments, const int* n_segments, bool keys) {
  for (int i = int(blockIdx.x); i < *n_segments; i += int(gridDim.x)) {
    const Segment s = segments[i];
    uint8_t* mine = covered + (keys ? s.k_start : s.q_start);
    for (int row = int(threadIdx.x); row < (keys ? s.k_len : s.q_len); row += mark_threads) mine[row] = 1;
  }
}

template <class T>
__global__ void __launch_bounds__(mark_threads)
    clear_rows_kernel(Rows<T> to, const uint8_t* covered, int64_t rows, int64_t cols) {
  const int64_t first = int64_t(blockIdx.x) * rows_to_clear, end = std::min(rows, first + rows_to_clear);
  for (int64_t row = first; row < end; ++row) {
    if (covered[row]) continue;
    for (int64_t col = threadIdx.x; col < cols; col += mark_threads) to[row][col] = from_float<T>(0.f);
  }
}

// Zeroes the rows that are in no segment, mostly none. The others are written by the kernels that own them: to zero
// those, too, would cost as much as a fifth of the attention.
class OtherRows {
 public:
  OtherRows(CudaBackend& backend, int64_t rows) : backend_(backend), covered_(backend.workspace({rows}, DType::u8)) {}

  void mark(const Tensor& segments, const Tensor& n_segments, bool keys) const {
    backend_.zero(covered_);
    launch(backend_.runtime(), mark_rows_kernel, dim3(unsigned(std::clamp<int64_t>(segments.rows(), 1, 1024))),
           dim3(mark_threads), 0, covered_.data<uint8_t>(), reinterpret_cast<const Segment*>(segments.data<int32_t>()),
           n_segments.data<int32_t>(), keys);
  }
  void clear(const Tensor& t) const {
    dispatch<float, fp16, bf16>(t.dtype(), "attention", [&]<class T>() {
      launch(backend_.runtime(), clear_rows_kernel<T>, dim3(unsigned(divide_up(t.rows(), rows_to_clear))),
             dim3(mark_threads), 0, rows_of<T>(t), covered_.data<uint8_t>(), t.rows(), t.cols());
    });
  }
  void clear(const Grad& g) const {
    if (g && !g.accumulates()) clear(g.tensor);
  }

 private:
  CudaBackend& backend_;
  Tensor covered_;
};

// drelative[bucket, head] = (or +=) sum over tiles of parts[tile, head, bucket], in their order.
template <class G>
struct RelativeSumBody {
  Rows<G> to;
  const float* parts;
  const int* tiles;
  int heads, buckets;
  bool accumulate;
  __device__ void operator()(int64_t bucket, int64_t head) const {
    float sum = 0;
    for (int64_t t = 0; t < *tiles; ++t) sum += parts[(t * heads + head) * buckets + bucket];
    put(to[bucket] + head, sum, accumulate);
  }
};

size_t forward_shared(int64_t D, int rows) {
  const int64_t queries = tiled_warps * rows;
  return size_t(queries * D + other_rows * (2 * D + 1) + queries * other_rows) * sizeof(float);
}
size_t dq_shared(int64_t D, int rows, int64_t buckets) {
  const int64_t queries = tiled_warps * rows;
  return size_t(2 * queries * D + 2 * other_rows * (D + 1) + queries * other_rows + tiled_warps * buckets) *
         sizeof(float);
}
size_t dkv_shared(int64_t D, int rows) {
  const int64_t keys = tiled_warps * rows;
  return size_t(2 * keys * D + 2 * other_rows * (D + 1) + 2 * keys * other_rows) * sizeof(float);
}

// The most tiles of either path: tiled.h's are the smaller ones.
int64_t tiles_of(const AttentionSpec& s, const Tensor& rows, const Tensor& segments) {
  return most_tiles(rows.rows(), segments.rows(), tiled_warps * rows_of_warp(s.head_dim));
}

// The workspace of backward, the same for both paths.
struct BackwardMemory {
  Tensor delta, parts;
  TileMemory queries, keys;
  OtherRows other_queries, other_keys;
  Buckets buckets;

  BackwardMemory(CudaBackend& backend, const AttentionBackward& a)
      : delta(backend.workspace({a.spec.n_heads, a.q.rows()}, DType::f32)),
        queries(backend, tiles_of(a.spec, a.q, a.segments)),
        keys(backend, tiles_of(a.spec, a.k, a.segments)),
        other_queries(backend, a.q.rows()),
        other_keys(backend, a.k.rows()),
        buckets(backend, a.spec, std::max(a.q.rows(), a.k.rows())) {
    if (a.drelative)
      parts =
          backend.workspace({tiles_of(a.spec, a.q, a.segments), a.spec.n_heads, a.spec.relative_buckets}, DType::f32);
  }
};

// Backward by the kernels of tiled.h; `dq` and `dkv` say which of them.
template <class T>
void backward_tiled(CudaBackend& backend, const AttentionBackward& a, const BackwardMemory& memory, bool dq, bool dkv) {
  Runtime& runtime = backend.runtime();
  const AttentionSpec& s = a.spec;
  const int tile = tiled_warps * rows_of_warp(s.head_dim);
  auto b = arguments_of<T>(a, memory.buckets, memory.delta);
  b.relative_parts = data_of<float>(memory.parts);
  b.buckets = memory.parts ? int(s.relative_buckets) : 0;
  dispatch_head(s.head_dim, [&]<int R, int DI>() {
    if (dq) {
      b.list = memory.queries.list(runtime, a.segments, a.n_segments, tile, false);
      launch(runtime, attention_dq_kernel<T, R, DI>, dim3(memory.queries.blocks(), unsigned(s.n_heads)),
             dim3(tiled_threads), dq_shared(s.head_dim, R, b.buckets), b);
    }
    if (a.drelative)
      dispatch<float, fp16, bf16>(a.drelative.tensor.dtype(), "attention_backward", [&]<class G>() {
        elementwise(runtime, s.relative_buckets, s.n_heads,
                    RelativeSumBody<G>{rows_of<G>(a.drelative.tensor), b.relative_parts, b.list.count, int(s.n_heads),
                                       b.buckets, a.drelative.accumulates()});
      });
    if (!dkv) return;
    b.list = memory.keys.list(runtime, a.segments, a.n_segments, tile, true);
    launch(runtime, attention_dkv_kernel<T, R, DI>, dim3(memory.keys.blocks(), unsigned(s.n_kv_heads)),
           dim3(tiled_threads), dkv_shared(s.head_dim, R), b);
  });
}

template <class T>
void backward_flash(CudaBackend& backend, const AttentionBackward& a, const BackwardMemory& memory) {
  Runtime& runtime = backend.runtime();
  const bool hopper = is_hopper(runtime, a.k);
  const int tile = hopper ? hopper_rows : flash_rows;
  auto b = arguments_of<T>(a, memory.buckets, memory.delta);
  if (a.drelative) {
    backward_tiled<T>(backend, a, memory, true, false);  // T5's table: its gradient is a sum of ds by bucket
  } else if (a.dq) {
    b.list = memory.queries.list(runtime, a.segments, a.n_segments, tile, false);
    if (hopper)
      launch_hopper_dq(runtime, b, a);
    else
      launch_flash_dq(runtime, b, memory.queries.blocks());
  }
  if (!a.dk && !a.dv) return;
  b.list = memory.keys.list(runtime, a.segments, a.n_segments, tile, true);
  if (hopper) return launch_hopper_dkv(runtime, b, a);
  launch_flash_dkv(runtime, b, memory.keys.blocks());
}

template <class T>
void backward(CudaBackend& backend, const AttentionBackward& a, const BackwardMemory& memory) {
  launch(backend.runtime(), attention_delta_kernel<T>,
         dim3(unsigned(divide_up(a.q.rows(), tiled_warps)), unsigned(a.spec.n_heads)), dim3(tiled_threads), 0,
         memory.delta.template data<float>(), rows_of<const T>(a.dout), rows_of<const T>(a.out), a.q.rows(),
         int(a.spec.head_dim));
  if constexpr (sizeof(T) == 2)
    if (takes_flash(a.spec, {a.q, a.k, a.v, a.dout, tensor_of(a.dq), tensor_of(a.dk), tensor_of(a.dv)}))
      return backward_flash<T>(backend, a, memory);
  backward_tiled<T>(backend, a, memory, a.dq || a.drelative, a.dk || a.dv);
}

template <class T>
void forward_flash(Runtime& runtime, const Attention& a, const TileMemory& tiles, const Buckets& buckets) {
  auto f = arguments_of<T>(a, buckets);
  const bool hopper = is_hopper(runtime, a.k);
  f.list = tiles.list(runtime, a.segments, a.n_segments, hopper ? hopper_rows : flash_queries, false);
  if (hopper) return launch_hopper_forward(runtime, f, a);
  launch_flash_forward(runtime, f, tiles.blocks());
}

template <class T>
void forward(Runtime& runtime, const Attention& a, const TileMemory& tiles, const Buckets& buckets) {
  if constexpr (sizeof(T) == 2)
    if (takes_flash(a.spec, {a.q, a.k, a.v, a.out})) return forward_flash<T>(runtime, a, tiles, buckets);
  const int tile = tiled_warps * rows_of_warp(a.spec.head_dim);
  auto t = arguments_of<T>(a, buckets);
  t.list = tiles.list(runtime, a.segments, a.n_segments, tile, false);
  dispatch_head(a.spec.head_dim, [&]<int R, int DI>() {
    launch(runtime, attention_kernel<T, R, DI>, dim3(tiles.blocks(), unsigned(a.spec.n_heads)), dim3(tiled_threads),
           forward_shared(a.spec.head_dim, R), t);
  });
}

}  // namespace
}  // namespace cuda

void CudaAttention::attention(const Attention& a) {
  if (backend_.cudnn() && cuda::cudnn_takes(a)) return backend_.cudnn()->attention(a);
  cuda::check_head(a.spec.head_dim);
  const cuda::TileMemory tiles(backend_, cuda::tiles_of(a.spec, a.q, a.segments));
  const cuda::OtherRows other_rows(backend_, a.q.rows());
  const cuda::Buckets buckets(backend_, a.spec, std::max(a.q.rows(), a.k.rows()));
  if (backend_.planning() || a.q.rows() == 0) return;
  buckets.fill(backend_, a.spec);
  other_rows.mark(a.segments, a.n_segments, false);
  other_rows.clear(a.out);
  dispatch<float, fp16, bf16>(a.q.dtype(), "attention",
                              [&]<class T>() { cuda::forward<T>(backend_.runtime(), a, tiles, buckets); });
}

void CudaAttention::attention_backward(const AttentionBackward& a) {
  if (backend_.cudnn() && cuda::cudnn_takes(a)) return backend_.cudnn()->attention_backward(a);
  cuda::check_head(a.spec.head_dim);
  const cuda::BackwardMemory memory(backend_, a);
  if (backend_.planning() || a.q.rows() == 0) return;
  memory.buckets.fill(backend_, a.spec);
  memory.other_queries.mark(a.segments, a.n_segments, false);
  memory.other_queries.clear(a.dq);
  memory.other_keys.mark(a.segments, a.n_segments, true);
  for (const Grad& g : {a.dk, a.dv}) memory.other_keys.clear(g);
  dispatch<float, fp16, bf16>(a.q.dtype(), "attention_backward",
                              [&]<class T>() { cuda::backward<T>(backend_, a, memory); });
}

}  // namespace mixtape
