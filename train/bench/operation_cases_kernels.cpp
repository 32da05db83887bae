// Operations that are not on the tape: the update of weights, decoding, scaled conversions.
#include <cmath>

#include "core/ops/attention.h"
#include "core/ops/cast.h"
#include "core/ops/matmul.h"
#include "core/ops/optimizer.h"
#include "train/bench/operation_cases.h"

namespace mixtape {
namespace {

// A flat buffer in chunks, as parameters have it.
std::vector<UpdateRange> chunks(int64_t count) {
  std::vector<UpdateRange> ranges;
  for (int64_t at = 0; at < count; at += chunk_elements)
    ranges.push_back({.offset = at, .count = std::min(chunk_elements, count - at), .weight_decay = 0.1f});
  return ranges;
}

std::string numbers(int64_t count) { return fmt::format("{} parameters", count); }

OperationCase gradient_norm_case(int64_t count) {
  return {.operation = "gradient_norm",
          .shape = numbers(count),
          .forward = gradient_norm_work(count, 4),
          .on_tape = false,
          .prepare = [=](const CaseContext& c) {
            const Tensor gradients = random_tensor(c, {count}, DType::f32);
            return [=, state = c.state, ranges = chunks(count)](Tape& tape) -> Tensors {
              gradient_norm(tape.backend(), {.state = state,
                                             .gradients = gradients,
                                             .ranges = ranges.data(),
                                             .n_ranges = int64_t(ranges.size()),
                                             .clip = 1});
              return {};
            };
          }};
}

// Narrower weights are the rounded copy of a float32 master.
OperationCase adamw_case(int64_t count, DType weights) {
  const bool master = weights != DType::f32;
  return {.operation = "adamw",
          .shape = numbers(count) + (master ? fmt::format(", {} with a master", weights) : ""),
          .forward = update_work(count, {.weight = weights, .master = master ? 4.0 : 0.0}),
          .on_tape = false,
          .prepare = [=](const CaseContext& c) {
            AdamW a{.state = c.state,
                    .weights = random_tensor(c, {count}, weights),
                    .gradients = random_tensor(c, {count}, DType::f32),
                    .m = c.backend.make({count}, DType::f32),
                    .v = c.backend.make({count}, DType::f32),
                    .beta1 = 0.9f,
                    .beta2 = 0.95f,
                    .eps = 1e-8f};
            if (master) a.master = random_tensor(c, {count}, DType::f32);
            c.backend.zero(a.m.values);
            c.backend.zero(a.v.values);
            return [=, ranges = chunks(count)](Tape& tape) -> Tensors {
              AdamW now = a;
              now.ranges = ranges.data();
              now.n_ranges = int64_t(ranges.size());
              adamw(tape.backend(), now);
              return {};
            };
          }};
}

// `count` parameters as matrices of d_model columns and four times as many rows, as in a feed-forward layer.
std::vector<UpdateTensor> matrices(int64_t count, int64_t d_model) {
  std::vector<UpdateTensor> tensors;
  int64_t moments = 0;
  for (int64_t at = 0; at < count;) {
    const int64_t rows = std::clamp<int64_t>((count - at) / d_model, 1, 4 * d_model);
    const UpdateTensor& t = tensors.emplace_back(UpdateTensor{.offset = at,
                                                              .rows = rows,
                                                              .cols = std::min(d_model, count - at),
                                                              .weight_decay = 0.1f,
                                                              .column_moments = moments,
                                                              .row_moments = moments + d_model});
    moments += d_model + rows, at += t.count();
  }
  return tensors;
}

OperationCase adafactor_case(const CaseSizes& s, int64_t count) {
  const bool master = s.type != DType::f32;
  return {.operation = "adafactor",
          .shape = numbers(count) + (master ? fmt::format(", {} with a master", s.type) : ""),
          .forward = adafactor_work(count, master ? size_of(s.type) : 0, false),
          .on_tape = false,
          .prepare = [=, tensors = matrices(count, s.model.d_model), type = s.type](const CaseContext& c) {
            const UpdateTensor& last = tensors.back();
            Adafactor a{.state = c.state,
                        .weights = random_tensor(c, {count}, type),
                        .gradients = random_tensor(c, {count}, DType::f32),
                        .v = c.backend.make({last.row_moments + last.rows}, DType::f32)};
            if (master) a.master = random_tensor(c, {count}, DType::f32);
            c.backend.zero(a.v);
            return [=](Tape& tape) -> Tensors {
              Adafactor now = a;
              now.tensors = tensors.data();
              now.n_tensors = int64_t(tensors.size());
              adafactor(tape.backend(), now);
              return {};
            };
          }};
}

OperationCase parameter_scales_case(const CaseSizes& s, int64_t count) {
  return {.operation = "parameter_scales",
          .shape = numbers(count),
          .forward = parameter_scales_work(count),
          .on_tape = false,
          .prepare = [=, tensors = matrices(count, s.model.d_model)](const CaseContext& c) {
            const auto n = int64_t(tensors.size());
            const Tensor weights = random_tensor(c, {count}, DType::f32), scales = c.backend.make({n}, DType::f32);
            return [=](Tape& tape) -> Tensors {
              parameter_scales(
                  tape.backend(),
                  {.scales = scales, .weights = weights, .tensors = tensors.data(), .n_tensors = n, .least = 1e-3f});
              return {};
            };
          }};
}

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
  // Enough to fill no cache, and to leave memory to others.
  const int64_t count = std::min<int64_t>(s.parameters, int64_t(16) << 20);
  cases.push_back(gradient_norm_case(count));
  cases.push_back(adamw_case(count, s.type));
  cases.push_back(adafactor_case(s, count));
  cases.push_back(parameter_scales_case(s, count));
  for (const int64_t rows : {int64_t(1), int64_t(8)}) {
    for (const LinearSize& size : linear_sizes(s.model, rows)) cases.push_back(linear_rows_case(s, size));
    cases.push_back(linear_rows_case(s, {rows, s.model.d_model, s.model.vocab_size}));
    cases.push_back(decoding_attention_case(s, rows, 4 * s.length));
  }
  for (const DType to : {DType::e4m3, DType::e5m2, DType::i8}) cases.push_back(convert_case(s, DType::f32, to));
  cases.push_back(convert_case(s, DType::e4m3, DType::f32));
  cases.push_back(abs_max_case(s));
}

}  // namespace mixtape
