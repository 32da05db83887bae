#include "core/ops/optimizer.h"

#include <span>

namespace mixtape {
namespace {

// What every update rule asks of its flat buffers.
void check_buffers(const char* op, const Tensor& weights, std::initializer_list<const Tensor*> buffers) {
  const int64_t n = weights.count();
  for (const Tensor* t : buffers) {
    if (*t && t->count() != n) throw Error("{}: a buffer has {} elements, the weights {}", op, t->count(), n);
    if (*t && t->dtype() != DType::f32) throw Error("{}: a state buffer is {}, expected fp32", op, t->dtype());
  }
}

// What rules ask of their buffers that treat each element alone; m and v: absent, or in any format.
void check_elementwise(const char* op, const Tensor& weights, const Tensor& master, const Tensor& gradients,
                       std::initializer_list<const Moment*> moments, std::span<const UpdateRange> ranges) {
  const int64_t n = weights.count();
  const auto expect_count = [&](const Tensor& t, int64_t count) {
    if (t && t.count() != count) throw Error("{}: a buffer has {} elements, expected {}", op, t.count(), count);
  };
  expect_count(master, n);
  expect_count(gradients, n);
  if (gradients.dtype() != DType::f32 && gradients.dtype() != DType::bf16)
    throw Error("{}: gradients are {}, expected fp32 or bf16", op, gradients.dtype());
  const bool remainder = master && master.dtype() == DType::u16;
  if (master && !remainder && master.dtype() != DType::f32)
    throw Error("{}: the master is {}, expected fp32 or remainders", op, master.dtype());
  if (remainder && weights.dtype() != DType::bf16)
    throw Error("{}: {} weights with 16-bit remainders, which complete bf16", op, weights.dtype());
  for (const Moment* m : moments) {
    if (!*m) continue;
    expect_count(m->values, n);
    if (!m->blocks()) continue;
    if (!m->scales || m->scales.dtype() != DType::f32) throw Error("{}: 8-bit moments without scales", op);
    expect_count(m->scales, Moment::blocks_of(n));
    for (const UpdateRange& r : ranges)
      if (r.offset % moment_block != 0)
        throw Error("{}: a range begins at element {}, inside of a block of {} with one scale", op, r.offset,
                    moment_block);
  }
}

// A moment's type, which is one of two formats' (int8: of a first or of a second moment).
void expect_type(const char* op, const char* which, const Moment& m, DType (*of)(MomentFormat)) {
  for (const auto format : {MomentFormat::fp32, MomentFormat::bf16, MomentFormat::int8, MomentFormat::fp8})
    if (!m || m.values.dtype() == of(format)) return;
  throw Error("{}: the {} moment is {}, which no format of moments has", op, which, m.values.dtype());
}

void expect_master(const char* op, const Tensor& weights, const Tensor& master) {
  if (weights.dtype() != DType::f32 && !master)
    throw Error("{}: {} weights without a master copy", op, weights.dtype());
}

void check_scales(const char* op, const Tensor& scales, int64_t least_count) {
  if (!scales) return;
  if (scales.dtype() != DType::f32 || scales.count() < least_count)
    throw Error("{}: scales are {} {}, expected fp32 for {} tensors", op, scales.dtype(), scales.shape(), least_count);
}

void check_gradients(const char* op, const Tensor& gradients) {
  if (gradients.dtype() != DType::f32 && gradients.dtype() != DType::bf16)
    throw Error("{}: gradients are {}, expected fp32 or bf16", op, gradients.dtype());
}

void check_squares(const char* op, const Tensor& squares, int64_t n_ranges) {
  if (squares.dtype() != DType::i64 || squares.count() != n_ranges)
    throw Error("{}: squares are {} {}, expected i64 for {} ranges", op, squares.dtype(), squares.shape(), n_ranges);
}

}  // namespace

void gradient_norm(Backend& backend, const GradientNorm& a) {
  if (a.squares) {
    check_squares("gradient_norm", a.squares, a.n_ranges);
  } else {
    check_gradients("gradient_norm", a.gradients);
  }
  backend.optimizer().gradient_norm(a);
}

void range_squares(Backend& backend, const RangeSquares& a) {
  check_squares("range_squares", a.squares, a.n_ranges);
  check_gradients("range_squares", a.gradients);
  backend.optimizer().range_squares(a);
}

void parameter_scales(Backend& backend, const ParameterScales& a) {
  if (a.weights.dtype() != DType::f32)
    throw Error("parameter_scales: weights are {}, expected fp32", a.weights.dtype());
  check_scales("parameter_scales", a.scales, a.n_tensors);
  backend.optimizer().parameter_scales(a);
}

void adamw(Backend& backend, const AdamW& a) {
  const std::span ranges(a.ranges, size_t(a.n_ranges));
  if (a.v.values.count() == a.weights.count()) {
    check_elementwise("adamw", a.weights, a.master, a.gradients, {&a.m, &a.v}, ranges);
  } else {  // some elements have no second moment
    check_elementwise("adamw", a.weights, a.master, a.gradients, {&a.m}, ranges);
    for (const UpdateRange& r : ranges)
      if (r.v_shift > r.offset || r.offset - r.v_shift + r.count > a.v.values.count() || a.v.blocks())
        throw Error("adamw: a range's second moments, from element {} on, are not in a buffer of {}",
                    r.offset - r.v_shift, a.v.values.count());
  }
  expect_type("adamw", "first", a.m, first_moment_type);
  expect_type("adamw", "second", a.v, second_moment_type);
  int64_t tensors = 0;
  for (int64_t i = 0; a.scales && i < a.n_ranges; ++i) tensors = std::max<int64_t>(tensors, a.ranges[i].tensor + 1);
  check_scales("adamw", a.scales, tensors);
  backend.optimizer().adamw(a);
}

void sgd(Backend& backend, const Sgd& a) {
  check_elementwise("sgd", a.weights, a.master, a.gradients, {&a.m}, {a.ranges, size_t(a.n_ranges)});
  expect_type("sgd", "first", a.m, first_moment_type);
  if (!a.m && a.momentum != 0) throw Error("sgd: a momentum of {} without a buffer for it", a.momentum);
  backend.optimizer().sgd(a);
}

void lion(Backend& backend, const Lion& a) {
  check_elementwise("lion", a.weights, a.master, a.gradients, {&a.m}, {a.ranges, size_t(a.n_ranges)});
  expect_type("lion", "first", a.m, first_moment_type);
  backend.optimizer().lion(a);
}

void muon_direction(Backend& backend, const MuonDirection& a) {
  if (a.direction.dtype() != DType::f32)
    throw Error("muon_direction: the direction is {}, expected fp32", a.direction.dtype());
  check_elementwise("muon_direction", a.direction, {}, a.gradients, {&a.m}, {a.ranges, size_t(a.n_ranges)});
  if (!a.m || a.m.blocks()) throw Error("muon_direction: the moment is absent or of 8 bits, expected fp32 or bf16");
  backend.optimizer().muon_direction(a);
}

void divide_by_norm(Backend& backend, const DivideByNorm& a) {
  if (a.x.dtype() != DType::f32 || a.root_mean_square.dtype() != DType::f32 || a.root_mean_square.count() != 1)
    throw Error("divide_by_norm: {} by {} {}, expected fp32 by fp32 [1]", a.x.dtype(), a.root_mean_square.dtype(),
                a.root_mean_square.shape());
  backend.optimizer().divide_by_norm(a);
}

void follow(Backend& backend, const Follow& a) {
  check_elementwise("follow", a.weights, a.master, a.direction, {}, {a.ranges, size_t(a.n_ranges)});
  backend.optimizer().follow(a);
}

void adafactor(Backend& backend, const Adafactor& a) {
  check_buffers("adafactor", a.weights, {&a.master, &a.gradients, &a.m});
  expect_master("adafactor", a.weights, a.master);
  check_scales("adafactor", a.scales, a.n_tensors);
  if (a.v.dtype() != DType::f32) throw Error("adafactor: the second moments are {}, expected fp32", a.v.dtype());
  for (int64_t i = 0; i < a.n_tensors; ++i) {
    const UpdateTensor& t = a.tensors[i];
    const int64_t end = std::max(t.column_moments + t.cols, t.rows > 1 ? t.row_moments + t.rows : 0);
    if (end > a.v.count())
      throw Error("adafactor: {} second moments, but tensor {} has its up to number {}", a.v.count(), i, end);
  }
  backend.optimizer().adafactor(a);
}

void finish_micro_batch(Backend& backend, const FinishMicroBatch& a) {
  if (a.mean.dtype() != DType::f32 || a.mean.count() != 1)
    throw Error("finish_micro_batch: the loss is {} {}, expected fp32 [1]", a.mean.dtype(), a.mean.shape());
  backend.optimizer().finish_micro_batch(a);
}

void finish_attempt(Backend& backend, const FinishAttempt& a) { backend.optimizer().finish_attempt(a); }

}  // namespace mixtape
