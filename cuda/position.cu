// Rotary position embedding.
//
// Bound by memory: each element is read and written once, 2 rows width sizeof(T) bytes, besides the table of angles,
// which stays in the caches; 3 FLOPs an element. A thread reads both elements of its pairs before it writes them, so y
// may be x.
#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

// Items of a row: first the pairs of all heads, then the columns that are only copied, N at a time.
template <class T, int N>
struct RopeBody {
  Rows<T> y;
  Rows<const T> x;
  Rows<const float> table;
  const int32_t* position;
  int64_t places, heads, head_dim, rotary_dim;
  float sign;
  bool accumulate;

  __device__ void operator()(int64_t row, int64_t item) const {
    const int64_t pairs = rotary_dim / 2 / N;
    if (item < heads * pairs)
      rotate(row, item / pairs * head_dim + item % pairs * N, item % pairs * N);
    else
      copy(row, item - heads * pairs);
  }
  __device__ void rotate(int64_t row, int64_t col, int64_t angle) const {
    const int64_t half = rotary_dim / 2, place = position[row];
    require(place >= 0 && place < places, "rope: a position outside the table");
    float cosine[N], sine[N], a[N], b[N];
    load(cosine, table[place] + angle);
    load(sine, table[place] + half + angle);
    load(a, x[row] + col);
    load(b, x[row] + half + col);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float s = sine[i] * sign, first = a[i] * cosine[i] - b[i] * s;
      b[i] = b[i] * cosine[i] + a[i] * s;
      a[i] = first;
    }
    put(y[row] + col, a, accumulate);
    put(y[row] + half + col, b, accumulate);
  }
  __device__ void copy(int64_t row, int64_t item) const {
    const int64_t a_head = (head_dim - rotary_dim) / N;
    const int64_t col = item < heads * a_head ? item / a_head * head_dim + rotary_dim + item % a_head * N
                                              : heads * head_dim + (item - heads * a_head) * N;
    float v[N];
    load(v, x[row] + col);
    put(y[row] + col, v, accumulate);
  }
};

}  // namespace
}  // namespace cuda

void CudaPosition::rope(const Rope& a) {
  if (backend_.planning() || !a.y) return;
  const RopeSpec& s = a.spec;
  const int64_t half = s.rotary_dim / 2, rest = a.x.cols() - s.heads * s.rotary_dim;
  dispatch<float, fp16, bf16>(a.x.dtype(), "rope", [&]<class T>() {
    const auto run = [&]<int N>() {
      cuda::elementwise(backend_.runtime(), a.x.rows(), (s.heads * half + rest) / N,
                        cuda::RopeBody<T, N>{.y = cuda::rows_of<T>(a.y.tensor),
                                             .x = cuda::rows_of<const T>(a.x),
                                             .table = cuda::rows_of<const float>(a.table),
                                             .position = a.position.data<int32_t>(),
                                             .places = a.table.rows(),
                                             .heads = s.heads,
                                             .head_dim = s.head_dim,
                                             .rotary_dim = s.rotary_dim,
                                             .sign = a.inverse ? -1.f : 1.f,
                                             .accumulate = a.y.accumulates()});
    };
    constexpr int n = 16 / sizeof(T);
    const cuda::Extent e{a.x.rows(), a.x.cols()};
    const bool whole = half % n == 0 && (s.head_dim - s.rotary_dim) % n == 0;
    if (whole && cuda::vectors_fit(e, n, {a.x, a.y.tensor}) && cuda::vectors_fit({a.table.rows(), half}, n, {a.table}))
      run.template operator()<n>();
    else
      run.template operator()<1>();
  });
}

}  // namespace mixtape
