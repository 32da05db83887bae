// Rounding through 8-bit codes: operands that keep their type, operands that become codes, and the scales of the next
// step.
//
// Bound by memory: n elements of x are read once where their scale is known, twice where it follows from them, and
// written once in their own type, or as a byte, or as two (codes by rows and by columns).
#include "core/base/code_scale.h"
#include "cuda/encode.h"
#include "cuda/largest.h"

namespace mixtape {
namespace cuda {
namespace {

// Where what was found in all parts raises what was known before.
__global__ void raise_to_parts_kernel(float* amax, const int* parts, int count) {
  int most = magnitude_bits(*amax);
  for (int i = int(threadIdx.x); i < count; i += amax_threads) most = std::max(most, parts[i]);
  most = block_largest(most);
  if (threadIdx.x == 0) memcpy(amax, &most, sizeof most);
}

// The scale of all of x, which is known but in the first step, or of each row: a block each. 1 where nothing says one.
template <class T, int N>
__global__ void scales_kernel(float* scales, Rows<const T> x, const float* known, DType codes, int64_t rows,
                              int64_t items) {
  const float before = known ? *known : 0;
  int most = 0;
  if (before == 0) {
    // With a scale a row, the grid's rows are one each; else one block sees them all.
    const int64_t first = gridDim.x > 1 ? blockIdx.x : 0, last = gridDim.x > 1 ? first + 1 : rows;
    for (int64_t row = first; row < last; ++row)
      for (int64_t i = threadIdx.x; i < items; i += amax_threads) {
        float v[N];
        load(v, x[row] + i * N);
#pragma unroll
        for (int j = 0; j < N; ++j) most = std::max(most, magnitude_bits(v[j]));
      }
  }
  most = block_largest(most);
  if (threadIdx.x > 0) return;
  float amax;
  memcpy(&amax, &most, sizeof amax);
  const float scale = before == 0 ? code_scale(codes, amax) : before;
  scales[blockIdx.x] = scale == 0 ? 1 : scale;
}

// parts: as above, or null.
template <class Code, class T, int N>
__global__ void quantise_kernel(Rows<T> y, Rows<const T> x, const float* scales, bool by_rows, int* parts, int64_t rows,
                                int64_t items) {
  int most = 0;
  for (int64_t i = int64_t(blockIdx.x) * amax_threads + threadIdx.x; i < rows * items;
       i += int64_t(gridDim.x) * amax_threads) {
    const int64_t row = rows == 1 ? 0 : i / items, item = i - row * items;
    const float scale = scales[by_rows ? row : 0], by = 1 / scale;
    float v[N];
    load(v, x[row] + item * N);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int bits = magnitude_bits(v[j]);
      most = std::max(most, bits);
      if (bits < 0x7f800000) v[j] = to_float(from_float<Code>(v[j] * by)) * scale;
    }
    store(y[row] + item * N, v);
  }
  if (!parts) return;
  most = block_largest(most);
  if (threadIdx.x == 0) parts[blockIdx.x] = most;
}

// Tiles of 64 x 64, of which a thread codes 16 neighbours: n codes of 16 bytes each way, none of the elements twice.
// Where codes are wanted by columns they go through shared memory, whose rows are 17 banks apart.
constexpr int code_tile = 64, code_piece = 16, code_tile_row = code_tile + 4;

template <class Code, class T>
struct EncodeOf {
  Rows<Code> codes, transposed;
  Rows<const T> x;
  const float* scale;
  int* parts;  // or null
  int64_t rows, cols;
};

// Block (tile of columns, tile of rows). An infinity, too, becomes NaN: e4m3 has none.
template <class Code, class T>
__global__ void __launch_bounds__(amax_threads) encode_kernel(EncodeOf<Code, T> a) {
  struct Storage {
    int warps[amax_threads / warp_size];  // of block_largest
    alignas(4) uint8_t codes[code_tile][code_tile_row];
  };
  Storage& s = shared_memory<Storage>();
  const int major = int(threadIdx.x) / 4, minor = int(threadIdx.x) % 4 * code_piece;
  const int64_t first_row = int64_t(blockIdx.y) * code_tile, first_col = int64_t(blockIdx.x) * code_tile;
  int most = 0;
  if (first_row + major < a.rows && first_col + minor < a.cols) {
    constexpr int N = 16 / sizeof(T);
    const float by = 1 / *a.scale;
    Vec<uint8_t, code_piece> codes;
#pragma unroll
    for (int part = 0; part < code_piece; part += N) {
      float v[N];
      load(v, a.x[first_row + major] + first_col + minor + part);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int bits = magnitude_bits(v[j]);
        most = std::max(most, bits);
        codes.v[part + j] = bits < 0x7f800000 ? from_float<Code>(v[j] * by).code : Code::nan_code;
      }
    }
    if (a.codes) *reinterpret_cast<Vec<uint8_t, code_piece>*>(a.codes[first_row + major] + first_col + minor) = codes;
#pragma unroll
    for (int j = 0; j < code_piece; j += 4)
      memcpy(__builtin_assume_aligned(&s.codes[major][minor + j], 4), &codes.v[j], 4);
  }
  if (a.parts) {
    most = block_largest(most);
    if (threadIdx.x == 0) a.parts[blockIdx.y * gridDim.x + blockIdx.x] = most;
  }
  if (!a.transposed) return;
  __syncthreads();
  if (first_col + major >= a.cols || first_row + minor >= a.rows) return;
  Vec<uint8_t, code_piece> codes;
#pragma unroll
  for (int j = 0; j < code_piece; ++j) codes.v[j] = s.codes[minor + j][major];
  *reinterpret_cast<Vec<uint8_t, code_piece>*>(a.transposed[first_col + major] + first_row + minor) = codes;
}

// A block an operand.
__global__ void update_scales_kernel(const StepState* state, Rows<float> history, float* scale, float* amax, int length,
                                     std::array<DType, 3> codes, int margin) {
  float* const mine = history[blockIdx.x];
  const float now = amax[blockIdx.x];
  int most = 0;
  if (state->finite) {
    const int at = int(state->updates % uint64_t(length));
    for (int i = int(threadIdx.x); i < length; i += amax_threads) {
      const int bits = magnitude_bits(i == at ? now : mine[i]);
      const bool finite = bits < 0x7f800000;
      if (i == at) mine[i] = finite ? now : 0;
      if (finite) most = std::max(most, bits);
    }
  }
  most = block_largest(most);  // after which all have read amax
  if (threadIdx.x > 0) return;
  if (state->finite) {
    float largest;
    memcpy(&largest, &most, sizeof largest);
    scale[blockIdx.x] = code_scale(codes[blockIdx.x % 3], largest, margin);
  }
  amax[blockIdx.x] = 0;
}

void raise_to_parts(Runtime& runtime, const Tensor& amax, const Tensor& parts) {
  launch(runtime, raise_to_parts_kernel, dim3(1), dim3(amax_threads), amax_shared, amax.data<float>(),
         parts.data<int32_t>(), int(parts.count()));
}

template <class Code, class T>
void quantise(Runtime& runtime, const Quantise& a, const Tensor& scales, const Tensor& parts) {
  const Extent e = a.by_rows ? Extent{a.x.rows(), a.x.cols()} : extent_of({a.x, a.y});
  const int64_t blocks = amax_blocks_for(a.x.count());
  dispatch_vectors<T>(e, {a.x, a.y}, [&]<int N>() {
    launch(runtime, scales_kernel<T, N>, dim3(unsigned(scales.count())), dim3(amax_threads), amax_shared,
           scales.data<float>(), rows_of<const T>(a.x), data_of<const float>(a.scale), a.codes, e.rows, e.cols / N);
    launch(runtime, quantise_kernel<Code, T, N>, dim3(unsigned(blocks)), dim3(amax_threads), amax_shared,
           rows_of<T>(a.y), rows_of<const T>(a.x), scales.data<float>(), a.by_rows, data_of<int32_t>(parts), e.rows,
           e.cols / N);
  });
  if (parts) raise_to_parts(runtime, a.amax, parts);
}

int64_t tiles_of(const Tensor& x) { return divide_up(x.rows(), code_tile) * divide_up(x.cols(), code_tile); }

template <class Code, class T>
void encode(Runtime& runtime, const Encode& a, const Tensor& parts) {
  launch(runtime, scales_kernel<T, 16 / sizeof(T)>, dim3(1), dim3(amax_threads), amax_shared, a.scale.data<float>(),
         rows_of<const T>(a.x), data_of<const float>(a.given), dtype_of<Code>, a.x.rows(),
         a.x.cols() / int64_t(16 / sizeof(T)));
  const EncodeOf<Code, T> tiles{.codes = rows_of<Code>(a.codes),
                                .transposed = rows_of<Code>(a.transposed),
                                .x = rows_of<const T>(a.x),
                                .scale = a.scale.data<float>(),
                                .parts = data_of<int32_t>(parts),
                                .rows = a.x.rows(),
                                .cols = a.x.cols()};
  launch(runtime, encode_kernel<Code, T>,
         dim3(unsigned(divide_up(a.x.cols(), code_tile)), unsigned(divide_up(a.x.rows(), code_tile))),
         dim3(amax_threads), amax_shared + code_tile * code_tile_row, tiles);
  if (parts) raise_to_parts(runtime, a.amax, parts);
}

}  // namespace

bool can_encode(const Tensor& x) {
  return x.rows() % code_piece == 0 && x.cols() % code_piece == 0 && x.rows() > 0 &&
         vectors_fit({x.rows(), x.cols()}, 16 / size_of(x.dtype()), {x});
}

void encode(CudaBackend& backend, const Encode& a) {
  const Tensor parts = a.amax ? backend.workspace({tiles_of(a.x)}, DType::i32) : Tensor();
  if (backend.planning()) return;
  const DType code = (a.codes ? a.codes : a.transposed).dtype();
  dispatch<e4m3, e5m2>(code, "encode", [&]<class Code>() {
    dispatch<fp16, bf16>(a.x.dtype(), "encode", [&]<class T>() { encode<Code, T>(backend.runtime(), a, parts); });
  });
}

}  // namespace cuda

void CudaCast::quantise(const Quantise& a) {
  const Tensor scales = backend_.workspace({a.by_rows ? a.x.rows() : 1}, DType::f32);
  const Tensor parts = a.amax ? backend_.workspace({cuda::amax_blocks_for(a.x.count())}, DType::i32) : Tensor();
  if (backend_.planning()) return;
  dispatch<e4m3, e5m2, int8_t>(a.codes, "quantise", [&]<class Code>() {
    dispatch<float, fp16, bf16>(a.x.dtype(), "quantise",
                                [&]<class T>() { cuda::quantise<Code, T>(backend_.runtime(), a, scales, parts); });
  });
}

void CudaCast::update_scales(const UpdateScales& a) {
  if (backend_.planning()) return;
  cuda::launch(backend_.runtime(), cuda::update_scales_kernel, dim3(unsigned(a.amax.count())), dim3(cuda::amax_threads),
               cuda::amax_shared, a.state, cuda::rows_of<float>(a.history), a.scale.data<float>(), a.amax.data<float>(),
               int(a.history.cols()), a.codes, a.margin);
}

}  // namespace mixtape
