// Attention: the launchers. The kernels are in flash.h (tensor cores: fp16 and bf16, head dimensions to 128), hopper*.h
// (the same on Hopper) and tiled.h (everything). docs/kernels/attention.md tells what binds them.
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
  k.dropout = {s.dropout_threshold, int(s.n_heads), a.site, a.state, 1.f / (1.f - float(s.dropout_threshold) / 256.f)};
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

template <class T>
struct ZeroElement {
  Rows<T> to;
  __device__ void operator()(int64_t row, int64_t col) const { to[row][col] = from_float<T>(0.f); }
};
void zero(Runtime& runtime, const Tensor& t) {
  dispatch<float, fp16, bf16>(t.dtype(), "attention", [&]<class T>() {
    elementwise(runtime, t.rows(), t.cols(), ZeroElement<T>{rows_of<T>(t)});
  });
}
void prepare(Runtime& runtime, const Grad& g) {
  if (g.write == Write::overwrite) zero(runtime, g.tensor);
}

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
  Buckets buckets;

  BackwardMemory(CudaBackend& backend, const AttentionBackward& a)
      : delta(backend.workspace({a.spec.n_heads, a.q.rows()}, DType::f32)),
        queries(backend, tiles_of(a.spec, a.q, a.segments)),
        keys(backend, tiles_of(a.spec, a.k, a.segments)),
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

template <int D, class T>
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
      launch(runtime, flash_dq_kernel<D, T>, dim3(memory.queries.blocks(), unsigned(a.spec.n_heads)),
             dim3(flash_threads), sizeof(FlashQueries<D, T>), b);
  }
  if (!a.dk && !a.dv) return;
  b.list = memory.keys.list(runtime, a.segments, a.n_segments, tile, true);
  if (hopper) return launch_hopper_dkv(runtime, b, a);
  launch(runtime, flash_dkv_kernel<D, T>, dim3(memory.keys.blocks(), unsigned(a.spec.n_kv_heads)), dim3(flash_threads),
         sizeof(FlashKeys<D, T>), b);
}

template <class T>
void backward(CudaBackend& backend, const AttentionBackward& a, const BackwardMemory& memory) {
  launch(backend.runtime(), attention_delta_kernel<T>,
         dim3(unsigned(divide_up(a.q.rows(), tiled_warps)), unsigned(a.spec.n_heads)), dim3(tiled_threads), 0,
         memory.delta.template data<float>(), rows_of<const T>(a.dout), rows_of<const T>(a.out), a.q.rows(),
         int(a.spec.head_dim));
  if constexpr (sizeof(T) == 2)
    if (takes_flash(a.spec, {a.q, a.k, a.v, a.dout, tensor_of(a.dq), tensor_of(a.dk), tensor_of(a.dv)}))
      return a.spec.head_dim <= 64 ? backward_flash<64, T>(backend, a, memory)
                                   : backward_flash<128, T>(backend, a, memory);
  backward_tiled<T>(backend, a, memory, a.dq || a.drelative, a.dk || a.dv);
}

template <int D, class T>
void forward_flash(Runtime& runtime, const Attention& a, const TileMemory& tiles, const Buckets& buckets) {
  auto f = arguments_of<T>(a, buckets);
  const bool hopper = is_hopper(runtime, a.k);
  f.list = tiles.list(runtime, a.segments, a.n_segments, hopper ? hopper_rows : flash_rows, false);
  if (hopper) return launch_hopper_forward(runtime, f, a);
  launch(runtime, flash_forward_kernel<D, T>, dim3(tiles.blocks(), unsigned(a.spec.n_heads)), dim3(flash_threads),
         sizeof(FlashStorage<D, T>), f);
}

template <class T>
void forward(Runtime& runtime, const Attention& a, const TileMemory& tiles, const Buckets& buckets) {
  if constexpr (sizeof(T) == 2)
    if (takes_flash(a.spec, {a.q, a.k, a.v, a.out}))
      return a.spec.head_dim <= 64 ? forward_flash<64, T>(runtime, a, tiles, buckets)
                                   : forward_flash<128, T>(runtime, a, tiles, buckets);
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
  const cuda::Buckets buckets(backend_, a.spec, std::max(a.q.rows(), a.k.rows()));
  if (backend_.planning() || a.q.rows() == 0) return;
  buckets.fill(backend_, a.spec);
  cuda::zero(backend_.runtime(), a.out);  // rows in no segment
  dispatch<float, fp16, bf16>(a.q.dtype(), "attention",
                              [&]<class T>() { cuda::forward<T>(backend_.runtime(), a, tiles, buckets); });
}

void CudaAttention::attention_backward(const AttentionBackward& a) {
  if (backend_.cudnn() && cuda::cudnn_takes(a)) return backend_.cudnn()->attention_backward(a);
  cuda::check_head(a.spec.head_dim);
  const cuda::BackwardMemory memory(backend_, a);
  if (backend_.planning() || a.q.rows() == 0) return;
  memory.buckets.fill(backend_, a.spec);
  for (const Grad& g : {a.dq, a.dk, a.dv}) cuda::prepare(backend_.runtime(), g);
  dispatch<float, fp16, bf16>(a.q.dtype(), "attention_backward",
                              [&]<class T>() { cuda::backward<T>(backend_, a, memory); });
}

}  // namespace mixtape
