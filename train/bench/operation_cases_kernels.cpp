// Operations that are not on the tape: decoding, scaled conversions.
#include <cmath>

#include "core/ops/attention.h"
#include "core/ops/cast.h"
#include "core/ops/matmul.h"
#include "train/bench/operation_cases.h"

namespace mixtape {
namespace {

// One token of each of `size.rows` sequences through a layer.
OperationCase linear_rows_case(const CaseSizes& s, const LinearSize& size) {
  return {.operation = "linear_rows",
          .shape = fmt::format("{} x {} -> {}", size.rows, size.in, size.out),
          .forward = linear_work(size, size_of(s.type)),
          .on_tape = false,
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {size.rows, size.in}, type);
            const Tensor weight = random_tensor(c, {size.out, size.in}, type, 0.02f);
            const Tensor y = c.backend.make({size.rows, size.out}, type);
            return [=](Tape& tape) -> Tensors {
              tape.backend().matmul().linear_rows({.y = y, .x = x, .weight = weight});
              return {};
            };
          }};
}

// The same of codes; of many rows a prompt.
OperationCase linear_int8_case(const CaseSizes& s, const LinearSize& size) {
  return {.operation = "linear_int8",
          .shape = fmt::format("{} x {} -> {}", size.rows, size.in, size.out),
          .forward = linear_int8_work(size, size_of(s.type)),
          .on_tape = false,
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {size.rows, size.in}, type);
            const Tensor codes = c.backend.make({size.out, size.in}, DType::i8);
            const Tensor scale = random_tensor(c, {size.out}, DType::f32);
            const Tensor y = c.backend.make({size.rows, size.out}, type);
            {
              const Tensor numbers = random_tensor(c, codes.shape(), DType::f16, 40);
              c.backend.cast().convert({.y = {codes, Write::overwrite}, .x = numbers});
            }
            return [=](Tape& tape) -> Tensors {
              tape.backend().matmul().linear_int8({.y = y, .x = x, .codes = codes, .scale = scale});
              return {};
            };
          }};
}

// One query of each of `sequences` sequences over `length` keys of a cache.
OperationCase decoding_attention_case(const CaseSizes& s, int64_t sequences, int64_t length) {
  const int64_t heads = s.model.n_heads, kv = s.model.kv_heads(), width = s.model.head_width();
  const AttentionSpec spec{.n_heads = heads,
                           .n_kv_heads = kv,
                           .head_dim = width,
                           .scale = float(1 / std::sqrt(double(width))),
                           .max_q_len = 1,
                           .max_k_len = length};
  return {.operation = "attention",
          .shape = fmt::format("{} x 1 over {}, {} heads of {}", sequences, length, heads, width),
          .forward =
              attention_work({sequences, sequences * length, double(length), heads, kv, width}, size_of(s.type), false),
          .on_tape = false,
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor q = random_tensor(c, {sequences, heads * width}, type);
            const Tensor k = random_tensor(c, {sequences * length, kv * width}, type);
            const Tensor v = random_tensor(c, {sequences * length, kv * width}, type);
            const Tensor out = c.backend.make(q.shape(), type);
            const Tensor segments = segment_table(c, sequences, 1, length);
            const Tensor count = integer_tensor(c, {1}, [=](int64_t) { return sequences; });
            return [=, state = c.state](Tape& tape) -> Tensors {
              tape.backend().attention().attention({.out = out,
                                                    .q = q,
                                                    .k = k,
                                                    .v = v,
                                                    .segments = segments,
                                                    .n_segments = count,
                                                    .spec = spec,
                                                    .state = state});
              return {};
            };
          }};
}

OperationCase convert_case(const CaseSizes& s, DType from, DType to) {
  const int64_t rows = s.rows(), d = s.model.d_model;
  return {.operation = "convert",
          .shape = fmt::format("{} x {}, scaled, {} to {}", rows, d, from, to),
          .forward = pass_work(double(rows * d * size_of(from)), double(rows * d * size_of(to))),
          .on_tape = false,
          .prepare = [=](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, from), y = c.backend.make({rows, d}, to);
            return [=](Tape& tape) -> Tensors {
              tape.backend().cast().convert({.y = {y, Write::overwrite}, .x = x, .scale = 3});
              return {};
            };
          }};
}

OperationCase abs_max_case(const CaseSizes& s) {
  const int64_t rows = s.rows(), d = s.model.d_model;
  return {.operation = "abs_max",
          .shape = fmt::format("{} x {}", rows, d),
          .forward = pass_work(double(rows * d * size_of(s.type)), 0),
          .on_tape = false,
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, type), amax = c.backend.make({1}, DType::f32);
            return [=](Tape& tape) -> Tensors {
              tape.backend().cast().abs_max({.amax = amax, .x = x});
              return {};
            };
          }};
}

}  // namespace

void add_kernel_cases(const CaseSizes& s, std::vector<OperationCase>& cases) {
  for (const int64_t rows : {int64_t(1), int64_t(8)}) {
    for (const LinearSize& size : linear_sizes(s.model, rows)) cases.push_back(linear_rows_case(s, size));
    cases.push_back(linear_rows_case(s, {rows, s.model.d_model, s.model.vocab_size}));
    for (const LinearSize& size : linear_sizes(s.model, rows)) cases.push_back(linear_int8_case(s, size));
    cases.push_back(decoding_attention_case(s, rows, 4 * s.length));
  }
  for (const LinearSize& size : linear_sizes(s.model, s.rows())) cases.push_back(linear_int8_case(s, size));
  for (const DType to : {DType::e4m3, DType::e5m2, DType::i8}) cases.push_back(convert_case(s, DType::f32, to));
  cases.push_back(convert_case(s, DType::e4m3, DType::f32));
  cases.push_back(abs_max_case(s));
}

}  // namespace mixtape
