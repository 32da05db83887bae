// Updates of weights, in each way that their state is stored.
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

OperationCase gradient_norm_case(int64_t count, DType type) {
  return {.operation = "gradient_norm",
          .shape = numbers(count) + (type == DType::f32 ? "" : fmt::format(", {}", type)),
          .forward = gradient_norm_work(count, size_of(type)),
          .on_tape = false,
          .prepare = [=](const CaseContext& c) {
            const Tensor gradients = random_tensor(c, {count}, type);
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

// What an update that treats each element alone finds in memory.
struct StoredAs {
  const char* name;
  DType weights = DType::f32;
  MasterWeights master = MasterWeights::none;
  DType gradients = DType::f32;
  MomentFormat moments = MomentFormat::fp32;
};

double bytes_of(MomentFormat format) {
  const Moment m(Tensor(nullptr, {moment_block}, first_moment_type(format)));
  return double(size_of(m.values.dtype())) + (m.blocks() ? double(sizeof(float)) / moment_block : 0);
}

Work work_of(int64_t count, const StoredAs& s, int moments) {
  const double master = s.master == MasterWeights::fp32 ? 4 : s.master == MasterWeights::remainder16 ? 2 : 0;
  return update_work(count, {.weight = s.weights,
                             .master = master,
                             .gradient = double(size_of(s.gradients)),
                             .moments = moments * bytes_of(s.moments)});
}

// The buffers that all of these rules have.
template <class Rule>
Rule with_buffers(const CaseContext& c, int64_t count, const StoredAs& s) {
  Rule rule{.state = c.state,
            .weights = random_tensor(c, {count}, s.weights, 0.02f),
            .gradients = random_tensor(c, {count}, s.gradients)};
  if (s.master == MasterWeights::fp32) rule.master = random_tensor(c, {count}, DType::f32, 0.02f);
  if (s.master == MasterWeights::remainder16) c.backend.zero(rule.master = c.backend.make({count}, DType::u16));
  return rule;
}

Moment moment(const CaseContext& c, int64_t count, DType type) {
  Moment m(c.backend.make({count}, type));
  c.backend.zero(m.values);
  if (m.blocks()) c.backend.zero(m.scales = c.backend.make({Moment::blocks_of(count)}, DType::f32));
  return m;
}

// Runs it on all chunks.
template <class Rule>
std::function<Tensors(Tape&)> over_chunks(Rule rule, int64_t count, void (*update)(Backend&, const Rule&)) {
  return [=, ranges = chunks(count)](Tape& tape) -> Tensors {
    Rule now = rule;
    now.ranges = ranges.data();
    now.n_ranges = int64_t(ranges.size());
    update(tape.backend(), now);
    return {};
  };
}

OperationCase update_case(const char* operation, int64_t count, const StoredAs& s, int moments,
                          std::function<std::function<Tensors(Tape&)>(const CaseContext&)> prepare) {
  return {.operation = operation,
          .shape = numbers(count) + ", " + s.name,
          .forward = work_of(count, s, moments),
          .on_tape = false,
          .prepare = std::move(prepare)};
}

OperationCase adamw_case(int64_t count, const StoredAs& s) {
  return update_case("adamw", count, s, 2, [=](const CaseContext& c) {
    AdamW a = with_buffers<AdamW>(c, count, s);
    a.m = moment(c, count, first_moment_type(s.moments));
    a.v = moment(c, count, second_moment_type(s.moments));
    a.beta1 = 0.9f, a.beta2 = 0.95f, a.eps = 1e-8f;
    return over_chunks<AdamW>(a, count, adamw);
  });
}

OperationCase lion_case(int64_t count, const StoredAs& s) {
  return update_case("lion", count, s, 1, [=](const CaseContext& c) {
    Lion a = with_buffers<Lion>(c, count, s);
    a.m = moment(c, count, first_moment_type(s.moments));
    a.beta1 = 0.9f, a.beta2 = 0.99f;
    return over_chunks<Lion>(a, count, lion);
  });
}

OperationCase sgd_case(int64_t count, const StoredAs& s) {
  return update_case("sgd", count, s, 1, [=](const CaseContext& c) {
    Sgd a = with_buffers<Sgd>(c, count, s);
    a.m = moment(c, count, first_moment_type(s.moments));
    a.momentum = 0.9f;
    return over_chunks<Sgd>(a, count, sgd);
  });
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

}  // namespace

void add_update_cases(const CaseSizes& s, std::vector<OperationCase>& cases) {
  // Enough to fill no cache, and to leave memory to others.
  const int64_t count = std::min<int64_t>(s.parameters, int64_t(16) << 20);
  const StoredAs fp32{"fp32"}, bf16_master{"bf16, fp32 master", DType::bf16, MasterWeights::fp32};
  cases.push_back(gradient_norm_case(count, DType::f32));
  cases.push_back(gradient_norm_case(count, DType::bf16));
  for (const StoredAs& stored : {
           fp32,
           StoredAs{"fp32, int8 moments", DType::f32, MasterWeights::none, DType::f32, MomentFormat::int8},
           bf16_master,
           StoredAs{"bf16, remainder, bf16 gradients and moments", DType::bf16, MasterWeights::remainder16, DType::bf16,
                    MomentFormat::bf16},
           StoredAs{"bf16, no master, bf16 gradients and moments", DType::bf16, MasterWeights::none, DType::bf16,
                    MomentFormat::bf16},
           StoredAs{"bf16, no master, bf16 gradients, int8 moments", DType::bf16, MasterWeights::none, DType::bf16,
                    MomentFormat::int8},
           StoredAs{"bf16, no master, bf16 gradients, fp8 moments", DType::bf16, MasterWeights::none, DType::bf16,
                    MomentFormat::fp8},
       })
    cases.push_back(adamw_case(count, stored));
  for (const StoredAs& stored : {fp32, bf16_master}) {
    cases.push_back(lion_case(count, stored));
    cases.push_back(sgd_case(count, stored));
  }
  cases.push_back(adafactor_case(s, count));
  cases.push_back(parameter_scales_case(s, count));
}

}  // namespace mixtape
