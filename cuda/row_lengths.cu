// The lengths of rows from the list of segments: 16 bytes a segment, a thread each. What lies behind the end of a row
// is zeroed at 2 bytes an element, and nothing else touched.
#include "cuda/row_lengths.h"

#include "cuda/launch.h"

namespace mixtape::cuda {
namespace {

struct RowLengthsBody {
  int32_t *queries, *keys;
  const int32_t* segments;  // q_start, q_len, k_start, k_len
  const int32_t* n_segments;
  int most_queries, most_keys, sequences;
  __device__ void operator()(int64_t, int64_t i) const {
    if (i >= *n_segments) return;
    const int32_t* s = segments + 4 * i;
    const int row = s[0] / most_queries;
    require(row < sequences && s[0] == row * most_queries && s[2] == row * most_keys,
            "attention by cuDNN: a document that does not begin where a row does");
    require(s[1] <= most_queries && s[3] <= most_keys, "attention by cuDNN: a document longer than a row");
    queries[row] = s[1];
    keys[row] = s[3];
  }
};

template <class T, int N>
struct ClearEndsBody {
  Rows<T> x;
  const int32_t* lengths;
  int64_t most;
  __device__ void operator()(int64_t row, int64_t item) const {
    constexpr float zeros[N] = {};
    if (row % most >= lengths[row / most]) store(x[row] + item * N, zeros);
  }
};

}  // namespace

void clear_row_ends(CudaBackend& backend, const Tensor& x, const Tensor& lengths, int64_t most) {
  dispatch<fp16, bf16>(x.dtype(), "clear_row_ends", [&]<class T>() {
    dispatch_vectors<T>({x.rows(), x.cols()}, {x}, [&]<int N>() {
      elementwise(backend.runtime(), x.rows(), x.cols() / N,
                  ClearEndsBody<T, N>{rows_of<T>(x), lengths.data<int32_t>(), most});
    });
  });
}

void row_lengths(CudaBackend& backend, const RowLengths& to, const Tensor& segments, const Tensor& n_segments) {
  backend.zero(to.queries);
  backend.zero(to.keys);
  elementwise(
      backend.runtime(), 1, segments.rows(),
      RowLengthsBody{to.queries.data<int32_t>(), to.keys.data<int32_t>(), segments.data<int32_t>(),
                     n_segments.data<int32_t>(), int(to.most_queries), int(to.most_keys), int(to.queries.count())});
}

}  // namespace mixtape::cuda
