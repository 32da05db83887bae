// Matrix products by cuBLASLt.
//
// It thinks in columns: a row-major matrix is the transpose of what it sees, so c = op(a) op(b) is computed as
// c^T = op(b)^T op(a)^T, with b first. A product is planned once: its descriptors, and the algorithm that the library's
// heuristic names first, are kept for the process by shapes, types and alignments. So the steady state makes nothing,
// and the same product takes the same algorithm and gives the same bits. Parts of a sum that are made apart (split k)
// are added as float32 whatever c's type.
#include <cublasLt.h>

#include <array>
#include <bit>
#include <compare>
#include <map>
#include <optional>

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
    case DType::e4m3:
      return CUDA_R_8F_E4M3;
    case DType::e5m2:
      return CUDA_R_8F_E5M2;
    default:
      throw Error("product: no kernel for {}; it takes fp32, fp16, bf16, e4m3, e5m2", type);
  }
}

// The largest power of two, up to 256, that divides where the rows of a tensor begin; 0 of none.
uint32_t alignment_of(const Tensor& t) {
  if (!t) return 0;
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

// What the plan of a product follows from.
struct Key {
  std::array<int64_t, 7> sizes;
  std::array<uint32_t, 5> alignments;
  DType type, b_type, c_type;
  Unary activation;
  bool transpose_a, transpose_b, bias, pre, a_sums;
  auto operator<=>(const Key&) const = default;
};
Key key_of(const Product& p) {
  const Tensor& vector = p.bias ? p.bias : p.a_sums;
  return {.sizes = {p.m(), p.n(), p.k(), p.a.row_stride(), p.b.row_stride(), p.c.row_stride(), p.pre.row_stride()},
          .alignments = {alignment_of(p.a), alignment_of(p.b), alignment_of(p.c), alignment_of(p.pre),
                         alignment_of(vector)},
          .type = p.a.dtype(),
          .b_type = p.b.dtype(),
          .c_type = p.c.dtype(),
          .activation = p.activation,
          .transpose_a = p.transpose_a,
          .transpose_b = p.transpose_b,
          .bias = bool(p.bias),
          .pre = bool(p.pre),
          .a_sums = bool(p.a_sums)};
}

struct Plan {
  Description product;
  Layout a, b, c;
  cublasLtMatmulAlgo_t algorithm{};
  bool found = false;
};

// op(a) is the second operand in columns, whence the sums of B.
cublasLtEpilogue_t epilogue_of(const Product& p) {
  if (p.a_sums) return CUBLASLT_EPILOGUE_BGRADB;
  switch (p.activation) {
    case Unary::relu:
      return p.bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
    case Unary::gelu_tanh:
      if (p.pre) return p.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
      return p.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    default:
      return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  }
}

// Addresses are set at each call; the heuristic reads their alignment.
void set_addresses(const Description& d, const Product& p) {
  if (const Tensor& vector = p.bias ? p.bias : p.a_sums; vector)
    set(d, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(vector.raw()));
  if (p.pre) set(d, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<const void*>(p.pre.raw()));
  if (!p.of_codes()) return;
  set(d, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<const void*>(p.b_scale.raw()));
  set(d, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<const void*>(p.a_scale.raw()));
}

void describe(Description& d, const Product& p, cublasComputeType_t compute) {
  check(cublasLtMatmulDescCreate(&d.value, compute, CUDA_R_32F), "describing a product");
  set(d, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(d, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(d, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue_of(p));
  if (const Tensor& vector = p.bias ? p.bias : p.a_sums; vector)
    set(d, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(type_of(vector.dtype())));
  if (p.pre) {
    set(d, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.pre.row_stride());
    set(d, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, int32_t(type_of(p.pre.dtype())));
  }
  set_addresses(d, p);
}

}  // namespace

struct Products::State {
  State(Runtime& runtime, ProductOptions options)
      : runtime(runtime), compute(options.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F) {
    check(cublasLtCreate(&handle), "its handle");
  }
  ~State() { cublasLtDestroy(handle); }

  Plan& plan_of(const Product& p);
  void choose(Plan& plan, const Key& key);
  bool finds_products_of_codes();

  Runtime& runtime;
  cublasComputeType_t compute;  // of float32
  std::optional<bool> multiplies_codes;
  cublasLtHandle_t handle = nullptr;
  std::map<Key, Plan> plans;
};

Plan& Products::State::plan_of(const Product& p) {
  const Key key = key_of(p);
  const auto [place, is_new] = plans.try_emplace(key);
  Plan& plan = place->second;
  if (!is_new) return plan;
  describe(plan.product, p, p.a.dtype() == DType::f32 ? compute : CUBLAS_COMPUTE_32F);
  describe(plan.a, p.a);
  describe(plan.b, p.b);
  describe(plan.c, p.c);
  choose(plan, key);
  return plan;
}

void Products::State::choose(Plan& plan, const Key& key) {
  constexpr uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  Preference preference;
  check(cublasLtMatmulPreferenceCreate(&preference.value), "a preference");
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(scratch_bytes));
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignments[1]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignments[0]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignments[2]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignments[2]);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  // "Not supported" is an answer: then there is no plan.
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, plan.product.value, plan.b.value, plan.a.value, plan.c.value, plan.c.value,
                                     preference.value, 1, &result, &count);
  if (status != CUBLAS_STATUS_NOT_SUPPORTED) check(status, "choosing an algorithm");
  plan.found = status == CUBLAS_STATUS_SUCCESS && count > 0;
  plan.algorithm = result.algo;
}

// y, dx and dW of one layer, which is planned but never multiplied: no address is read.
bool Products::State::finds_products_of_codes() {
  const auto tensor = [](Shape shape, DType type) {
    return Tensor(reinterpret_cast<std::byte*>(uintptr_t(256)), shape, type);
  };
  const auto finds = [&](DType c, DType a, bool biased) {
    return plan_of({.c = tensor({256, 256}, c),
                    .a = tensor({256, 256}, a),
                    .b = tensor({256, 256}, DType::e4m3),
                    .bias = biased ? tensor({256}, c) : Tensor(),
                    .a_scale = tensor({1}, DType::f32),
                    .b_scale = tensor({1}, DType::f32),
                    .transpose_b = true})
        .found;
  };
  return finds(DType::bf16, DType::e4m3, true) && finds(DType::bf16, DType::e5m2, false) &&
         finds(DType::f32, DType::e5m2, false);
}

Products::Products(Runtime& runtime, ProductOptions options) : state_(std::make_unique<State>(runtime, options)) {}
Products::~Products() = default;
int64_t Products::workspace_bytes() const { return scratch_bytes; }

bool Products::multiplies_codes() {
  if (!state_->multiplies_codes)
    state_->multiplies_codes = state_->runtime.compute_capability() >= 89 && state_->finds_products_of_codes();
  return *state_->multiplies_codes;
}

bool Products::takes(const Product& p) { return extras_fit(p) && (!p.has_extras() || state_->plan_of(p).found); }

void Products::multiply(const Product& p, const Tensor& workspace) {
  check(p);
  Plan& plan = state_->plan_of(p);
  if (!plan.found) throw Error("cublasLt: no algorithm for {} times {} into {}", p.a.shape(), p.b.shape(), p.c.shape());
  set_addresses(plan.product, p);
  const float alpha = 1, beta = p.accumulate ? 1 : 0;
  check(cublasLtMatmul(state_->handle, plan.product.value, &alpha, p.b.raw(), plan.b.value, p.a.raw(), plan.a.value,
                       &beta, p.c.raw(), plan.c.value, p.c.raw(), plan.c.value, &plan.algorithm, workspace.raw(),
                       size_t(scratch_bytes), static_cast<cudaStream_t>(state_->runtime.stream())),
        "a product");
}

}  // namespace mixtape::cuda
