// Activations and gated activations.
//
// Elementwise and bound by memory. Bytes an element of the result, of size s: activation 2 s forward, 3 s backward;
// gated 3 s forward, 5 s backward. About 10 (silu) to 40 (gelu, with erf) FLOPs.
#include "cuda/device/activations.h"

#include "cuda/launch.h"

namespace mixtape {
namespace cuda {
namespace {

template <class T, int N>
struct ActivateBody {
  Rows<T> y;
  Rows<const T> x;
  Unary kind;
  __device__ void operator()(int64_t row, int64_t item) const {
    float v[N];
    load(v, x[row] + item * N);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = activate(kind, v[i]);
    store(y[row] + item * N, v);
  }
};

template <class T, int N>
struct ActivateBackwardBody {
  Rows<T> dx;
  Rows<const T> dy, x;
  Unary kind;
  bool accumulate;
  __device__ void operator()(int64_t row, int64_t item) const {
    float v[N], d[N];
    load(v, x[row] + item * N);
    load(d, dy[row] + item * N);
#pragma unroll
    for (int i = 0; i < N; ++i) d[i] *= slope_of(kind, v[i]).derivative;
    put(dx[row] + item * N, d, accumulate);
  }
};

// x holds the gate's columns, then as many of `up`.
template <class T, int N>
struct GatedBody {
  Rows<T> y;
  Rows<const T> x;
  int64_t width;
  Unary kind;
  __device__ void operator()(int64_t row, int64_t item) const {
    float gate[N], up[N];
    load(gate, x[row] + item * N);
    load(up, x[row] + width + item * N);
#pragma unroll
    for (int i = 0; i < N; ++i) up[i] *= activate(kind, gate[i]);
    store(y[row] + item * N, up);
  }
};

template <class T, int N>
struct GatedBackwardBody {
  Rows<T> dx;
  Rows<const T> dy, x;
  int64_t width;
  Unary kind;
  bool accumulate;
  __device__ void operator()(int64_t row, int64_t item) const {
    float gate[N], up[N], d[N];
    load(gate, x[row] + item * N);
    load(up, x[row] + width + item * N);
    load(d, dy[row] + item * N);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const Slope s = slope_of(kind, gate[i]);
      gate[i] = d[i] * up[i] * s.derivative;
      up[i] = d[i] * s.value;
    }
    put(dx[row] + item * N, gate, accumulate);
    put(dx[row] + width + item * N, up, accumulate);
  }
};

// [rows, width] for the result of a gated activation, where each half of x begins at a vector.
template <class T, class Body>
void dispatch_gated(const Tensor& narrow, const Tensor& wide, const Tensor& also_wide, Body&& body) {
  const Extent e{narrow.rows(), narrow.cols()};
  dispatch_vectors<T>(e, {narrow, wide, also_wide}, [&]<int N>() { body.template operator()<N>(e); });
}

void refuse_none(Unary kind) {
  if (kind == Unary::none) throw Error("activation: none was given");
}

}  // namespace
}  // namespace cuda

void CudaActivation::activation(const Activate& a) {
  if (backend_.planning()) return;
  cuda::refuse_none(a.kind);
  const cuda::Extent e = cuda::extent_of({a.x, a.y});
  dispatch<float, fp16, bf16>(a.x.dtype(), "activation", [&]<class T>() {
    cuda::dispatch_vectors<T>(e, {a.x, a.y}, [&]<int N>() {
      cuda::elementwise(backend_.runtime(), e.rows, e.cols / N,
                        cuda::ActivateBody<T, N>{cuda::rows_of<T>(a.y), cuda::rows_of<const T>(a.x), a.kind});
    });
  });
}

void CudaActivation::activation_backward(const ActivateBackward& a) {
  if (backend_.planning() || !a.dx) return;
  cuda::refuse_none(a.kind);
  const cuda::Extent e = cuda::extent_of({a.x, a.dy, a.dx.tensor});
  dispatch<float, fp16, bf16>(a.x.dtype(), "activation_backward", [&]<class T>() {
    cuda::dispatch_vectors<T>(e, {a.x, a.dy, a.dx.tensor}, [&]<int N>() {
      cuda::elementwise(backend_.runtime(), e.rows, e.cols / N,
                        cuda::ActivateBackwardBody<T, N>{cuda::rows_of<T>(a.dx.tensor), cuda::rows_of<const T>(a.dy),
                                                         cuda::rows_of<const T>(a.x), a.kind, a.dx.accumulates()});
    });
  });
}

void CudaActivation::gated(const Activate& a) {
  if (backend_.planning()) return;
  cuda::refuse_none(a.kind);
  dispatch<float, fp16, bf16>(a.x.dtype(), "gated_activation", [&]<class T>() {
    cuda::dispatch_gated<T>(a.y, a.x, {}, [&]<int N>(const cuda::Extent& e) {
      cuda::elementwise(backend_.runtime(), e.rows, e.cols / N,
                        cuda::GatedBody<T, N>{cuda::rows_of<T>(a.y), cuda::rows_of<const T>(a.x), e.cols, a.kind});
    });
  });
}

void CudaActivation::gated_backward(const ActivateBackward& a) {
  if (backend_.planning() || !a.dx) return;
  cuda::refuse_none(a.kind);
  dispatch<float, fp16, bf16>(a.x.dtype(), "gated_activation_backward", [&]<class T>() {
    cuda::dispatch_gated<T>(a.dy, a.x, a.dx.tensor, [&]<int N>(const cuda::Extent& e) {
      cuda::elementwise(backend_.runtime(), e.rows, e.cols / N,
                        cuda::GatedBackwardBody<T, N>{cuda::rows_of<T>(a.dx.tensor), cuda::rows_of<const T>(a.dy),
                                                      cuda::rows_of<const T>(a.x), e.cols, a.kind, a.dx.accumulates()});
    });
  });
}

}  // namespace mixtape
