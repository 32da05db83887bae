#include "core/cpu/onednn.h"

#include <oneapi/dnnl/dnnl.hpp>

#include <map>
#include <memory>
#include <mutex>
#include <tuple>

namespace mixtape::onednn {
namespace {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

struct Shape3 {
  bool transpose_a, transpose_b, adds;
  int64_t m, n, k, lda, ldb, ldc;
  auto fields() const { return std::tie(m, n, k, lda, ldb, ldc, transpose_a, transpose_b, adds); }
  bool operator<(const Shape3& other) const { return fields() < other.fields(); }
};

memory::desc matrix(int64_t rows, int64_t cols, memory::data_type type, bool transposed, int64_t ld) {
  return transposed ? memory::desc({rows, cols}, type, {1, ld}) : memory::desc({rows, cols}, type, {ld, 1});
}

struct Primitive {
  memory::desc a, b, c;
  dnnl::matmul matmul;
};

// In oneDNN C += A B is a post-operation that adds the destination's old value.
Primitive make(const Gemm& p) {
  Primitive made;
  made.a = matrix(p.m, p.k, memory::data_type::bf16, p.transpose_a, p.lda);
  made.b = matrix(p.k, p.n, memory::data_type::bf16, p.transpose_b, p.ldb);
  made.c = matrix(p.m, p.n, memory::data_type::f32, false, p.ldc);
  dnnl::primitive_attr attributes;
  if (p.beta != 0) {
    dnnl::post_ops add;
    add.append_sum(1.f);
    attributes.set_post_ops(add);
  }
  made.matmul = dnnl::matmul({{made.a, made.b, made.c}, attributes, engine()});
  return made;
}

// Primitives are never dropped, so a reference stays valid without the lock.
const Primitive& primitive(const Gemm& p) {
  static std::mutex mutex;
  static std::map<Shape3, Primitive> made;
  const Shape3 shape{p.transpose_a, p.transpose_b, p.beta != 0, p.m, p.n, p.k, p.lda, p.ldb, p.ldc};
  const std::lock_guard lock(mutex);
  auto found = made.find(shape);
  if (found == made.end()) found = made.emplace(shape, make(p)).first;
  return found->second;
}

}  // namespace

bool multiplies_bf16() {
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
}

void bf16_gemm(const Gemm& p) {
  if (p.alpha != 1 || (p.beta != 0 && p.beta != 1)) throw Error("bf16_gemm: alpha {} and beta {}", p.alpha, p.beta);
  try {
    const Primitive& use = primitive(p);
    thread_local dnnl::stream stream(engine());
    use.matmul.execute(stream, {{DNNL_ARG_SRC, memory(use.a, engine(), const_cast<void*>(p.a))},
                                {DNNL_ARG_WEIGHTS, memory(use.b, engine(), const_cast<void*>(p.b))},
                                {DNNL_ARG_DST, memory(use.c, engine(), p.c)}});
    stream.wait();
  } catch (const dnnl::error& e) {
    throw Error("matmul: oneDNN refuses bf16 {} x {} x {}: {}", p.m, p.n, p.k, e.message);
  }
}

}  // namespace mixtape::onednn
