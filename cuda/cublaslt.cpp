// Matrix products by cuBLASLt.
//
// It thinks in columns: a row-major matrix is the transpose of what it sees, so c = op(a) op(b) is computed as
// c^T = op(b)^T op(a)^T, with b first. The algorithm for a product is its heuristic's first answer, kept for the
// process: the same shapes, types and alignments take the same algorithm, and so give the same bits.
#include <cublasLt.h>

#include <bit>
#include <map>
#include <tuple>

#include "cuda/error.h"
#include "cuda/products.h"

namespace mixtape::cuda {
namespace {

constexpr int64_t scratch_bytes = int64_t(32) << 20;

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error("cublasLt: {}: {}", what, cublasLtGetStatusString(status));
}

cudaDataType_t type_of(DType type) {
  switch (type) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::f16:
      return CUDA_R_16F;
    case DType::bf16:
      return CUDA_R_16BF;
    default:
      throw Error("product: no kernel for {}; it takes fp32, fp16, bf16", type);
  }
}

// The largest power of two, up to 256, that divides where the rows of a tensor begin.
uint32_t alignment_of(const Tensor& t) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(t.raw()) | uintptr_t(t.row_stride() * size_of(t.dtype())) | 256;
  return uint32_t(1) << std::countr_zero(bits);
}

// Owns a descriptor of the library.
template <class T, cublasStatus_t (*destroy)(T)>
struct Owned {
  T value = nullptr;
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (value) destroy(value);
  }
};
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class T>
void set(const Description& d, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check(cublasLtMatmulDescSetAttribute(d.value, attribute, &value, sizeof value), "describing a product");
}
template <class T>
void set(const Preference& p, cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
  check(cublasLtMatmulPreferenceSetAttribute(p.value, attribute, &value, sizeof value), "a preference");
}

void describe(Layout& layout, const Tensor& t) {
  check(cublasLtMatrixLayoutCreate(&layout.value, type_of(t.dtype()), uint64_t(t.cols()), uint64_t(t.rows()),
                                   t.row_stride()),
        "describing a matrix");
}

using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, DType, DType, bool, bool, bool, uint32_t,
                       uint32_t, uint32_t>;
Key key_of(const Product& p) {
  return {p.m(),
          p.n(),
          p.k(),
          p.a.row_stride(),
          p.b.row_stride(),
          p.c.row_stride(),
          p.a.dtype(),
          p.c.dtype(),
          p.transpose_a,
          p.transpose_b,
          bool(p.bias),
          alignment_of(p.a),
          alignment_of(p.b),
          alignment_of(p.c)};
}

}  // namespace

struct Products::State {
  explicit State(Runtime& runtime) : runtime(runtime) { check(cublasLtCreate(&handle), "its handle"); }
  ~State() { cublasLtDestroy(handle); }

  cublasLtMatmulAlgo_t algorithm_of(const Product& p, const Description& product, const Layout& a, const Layout& b,
                                    const Layout& c);

  Runtime& runtime;
  cublasLtHandle_t handle = nullptr;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms;
};

cublasLtMatmulAlgo_t Products::State::algorithm_of(const Product& p, const Description& product, const Layout& a,
                                                   const Layout& b, const Layout& c) {
  const auto known = algorithms.find(key_of(p));
  if (known != algorithms.end()) return known->second;
  Preference preference;
  check(cublasLtMatmulPreferenceCreate(&preference.value), "a preference");
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(scratch_bytes));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.c));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.c));
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  check(cublasLtMatmulAlgoGetHeuristic(handle, product.value, b.value, a.value, c.value, c.value, preference.value, 1,
                                       &result, &found),
        "choosing an algorithm");
  if (found == 0) throw Error("cublasLt: no algorithm for {} times {} into {}", p.a.shape(), p.b.shape(), p.c.shape());
  return algorithms[key_of(p)] = result.algo;
}

Products::Products(Runtime& runtime) : state_(std::make_unique<State>(runtime)) {}
Products::~Products() = default;
int64_t Products::workspace_bytes() const { return scratch_bytes; }

void Products::multiply(const Product& p, const Tensor& workspace) {
  check(p);
  Description product;
  check(cublasLtMatmulDescCreate(&product.value, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describing a product");
  set(product, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(product, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias) {
    const void* bias = p.bias.raw();
    set(product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(type_of(p.bias.dtype())));
  }
  Layout a, b, c;
  describe(a, p.a);
  describe(b, p.b);
  describe(c, p.c);
  const cublasLtMatmulAlgo_t algorithm = state_->algorithm_of(p, product, a, b, c);
  const float alpha = 1, beta = p.accumulate ? 1 : 0;
  check(cublasLtMatmul(state_->handle, product.value, &alpha, p.b.raw(), b.value, p.a.raw(), a.value, &beta, p.c.raw(),
                       c.value, p.c.raw(), c.value, &algorithm, workspace.raw(), size_t(scratch_bytes),
                       static_cast<cudaStream_t>(state_->runtime.stream())),
        "a product");
}

}  // namespace mixtape::cuda
