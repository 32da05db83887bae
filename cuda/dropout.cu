// Dropout by counter: the mask is made where it is used.
//
// Elementwise and bound by memory: 2 n sizeof(T) bytes. One Philox call (10 rounds, about 100 integer operations)
// serves 16 elements, so a thread takes 16.
#include "core/base/philox.h"
#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

constexpr int per_counter = 16;  // bytes of one Philox call, and so elements

struct Mask {
  int threshold;
  uint32_t site;
  const StepState* state;
  float scale;        // of what is kept
  int64_t first = 0;  // the number of the first element

  __device__ std::array<uint32_t, 4> words(int64_t counter) const {
    return philox(state->philox, uint64_t(counter), site, Purpose::dropout);
  }
  __device__ float apply(float x, const std::array<uint32_t, 4>& words, int byte) const {
    return int(words[byte / 4] >> (8 * (byte % 4)) & 255) < threshold ? 0.f : x * scale;
  }
};

// Elements of one long row, 16 a thread.
template <class T, int N>
struct DropoutBody {
  T* y;
  const T* x;
  int64_t count;
  Mask mask;
  bool accumulate;
  __device__ void operator()(int64_t, int64_t item) const {
    const auto words = mask.words(mask.first / per_counter + item);
    const int64_t first = item * per_counter;
    if (first + per_counter > count) {
      for (int64_t i = first; i < count; ++i) put(y + i, mask.apply(to_float(x[i]), words, int(i - first)), accumulate);
      return;
    }
#pragma unroll
    for (int i = 0; i < per_counter; i += N) {
      float v[N];
      load(v, x + first + i);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] = mask.apply(v[j], words, i + j);
      put(y + first + i, v, accumulate);
    }
  }
};

// Views: element (row, column) of a tensor that is `cols` wide.
template <class T>
struct DropoutOfViewBody {
  Rows<T> y;
  Rows<const T> x;
  int64_t cols;
  Mask mask;
  bool accumulate;
  __device__ void operator()(int64_t row, int64_t col) const {
    const int64_t element = mask.first + row * cols + col;
    put(y[row] + col, mask.apply(to_float(x[row][col]), mask.words(element / per_counter), int(element % per_counter)),
        accumulate);
  }
};

bool aligned(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0; }

}  // namespace
}  // namespace cuda

void CudaDropout::dropout(const Dropout& a) {
  if (backend_.planning() || !a.y) return;
  const cuda::Mask mask{a.threshold, a.site, a.state, float(1 / (1 - a.threshold / 256.0)), a.first_element};
  const bool one_row = a.x.contiguous() && a.y.tensor.contiguous() && a.first_element % cuda::per_counter == 0;
  dispatch<float, fp16, bf16>(a.x.dtype(), "dropout", [&]<class T>() {
    if (!one_row)
      return cuda::elementwise(backend_.runtime(), a.x.rows(), a.x.cols(),
                               cuda::DropoutOfViewBody<T>{cuda::rows_of<T>(a.y.tensor), cuda::rows_of<const T>(a.x),
                                                          a.x.cols(), mask, a.y.accumulates()});
    const auto run = [&]<int N>() {
      cuda::elementwise(
          backend_.runtime(), 1, cuda::divide_up(a.x.count(), cuda::per_counter),
          cuda::DropoutBody<T, N>{a.y.tensor.data<T>(), a.x.data<T>(), a.x.count(), mask, a.y.accumulates()});
    };
    if (cuda::aligned(a.x) && cuda::aligned(a.y.tensor))
      run.template operator()<16 / sizeof(T)>();
    else
      run.template operator()<1>();
  });
}

}  // namespace mixtape
