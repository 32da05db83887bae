// Operations that memory bounds: lookups, norms, activations, dropout, rotation, sums and casts.
#include "core/model/rotary.h"
#include "core/ops/activation.h"
#include "core/ops/cast.h"
#include "core/ops/dropout.h"
#include "core/ops/embedding.h"
#include "core/ops/norm.h"
#include "core/ops/position.h"
#include "train/bench/operation_cases.h"

namespace mixtape {
namespace {

constexpr float eps = 1e-5f;

std::string matrix(int64_t rows, int64_t cols, std::string_view what = "") {
  return fmt::format("{} x {}{}{}", rows, cols, what.empty() ? "" : ", ", what);
}

double bytes_of(const CaseSizes& s, int64_t width) { return double(s.rows() * width * size_of(s.type)); }

// A leaf that is a parameter: its gradient is float32.
Tensor parameter(Tape& tape, const Tensor& weight) { return tape.leaf(weight, DType::f32); }

OperationCase embedding_case(const CaseSizes& s) {
  const int64_t rows = s.rows(), d = s.model.d_model, vocabulary = s.model.vocab_size, length = s.length;
  return {.operation = "embedding",
          .shape = fmt::format("{} of {} x {}, positions", rows, vocabulary, d),
          .forward = embedding_work(rows, d, size_of(s.type), 2),
          .backward = embedding_gradient_work(rows, d, size_of(s.type), vocabulary + length),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor tokens = random_tensor(c, {vocabulary, d}, type);
            const Tensor positions = random_tensor(c, {length, d}, type);
            const Tensor ids = integer_tensor(c, {rows}, [=](int64_t i) { return random_token(i, vocabulary); });
            const Tensor at = integer_tensor(c, {rows}, [=](int64_t i) { return i % length; });
            return [=](Tape& tape) -> Tensors {
              return {embedding(tape, {.tokens = ids, .positions = at},
                                {.tokens = parameter(tape, tokens), .positions = parameter(tape, positions)}, {})};
            };
          }};
}

// One row in seven, as masked language models pick them (15 %). Other rows' gradients are zero, and are written.
OperationCase gather_rows_case(const CaseSizes& s) {
  const int64_t rows = s.rows(), d = s.model.d_model, picked = (rows + 6) / 7;
  const double some = double(picked * d * size_of(s.type));
  return {.operation = "gather_rows",
          .shape = fmt::format("{} of {} x {}", picked, rows, d),
          .forward = pass_work(some, some),
          .backward = pass_work(some, bytes_of(s, d)),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, type);
            const Tensor index = integer_tensor(c, {picked}, [](int64_t i) { return 7 * i; });
            return [=](Tape& tape) -> Tensors { return {gather_rows(tape, tape.leaf(x), index)}; };
          }};
}

OperationCase norm_case(const CaseSizes& s, NormKind kind) {
  const int64_t rows = s.rows(), d = s.model.d_model;
  const bool layer = kind == NormKind::layernorm;
  return {.operation = "norm",
          .shape = matrix(rows, d, name_of(kind)),
          .forward = norm_work(bytes_of(s, d), false),
          .backward = norm_work(bytes_of(s, d), true),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, type), w = random_tensor(c, {d}, type);
            return [=](Tape& tape) -> Tensors {
              const Tensor in = tape.leaf(x), weight = parameter(tape, w);
              return {layer ? layer_norm(tape, in, weight, parameter(tape, w), eps) : rms_norm(tape, in, weight, eps)};
            };
          }};
}

OperationCase residual_norm_case(const CaseSizes& s, NormKind kind) {
  const int64_t rows = s.rows(), d = s.model.d_model;
  const bool layer = kind == NormKind::layernorm;
  return {.operation = "residual_norm",
          .shape = matrix(rows, d, name_of(kind)),
          .forward = residual_norm_work(bytes_of(s, d), false),
          .backward = residual_norm_work(bytes_of(s, d), true),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, type), branch = random_tensor(c, {rows, d}, type);
            const Tensor w = random_tensor(c, {d}, type);
            return [=](Tape& tape) -> Tensors {
              const Tensor in = tape.leaf(x), sum = tape.leaf(branch), weight = parameter(tape, w);
              const Residual r = layer ? residual_layer_norm(tape, in, sum, weight, parameter(tape, w), eps)
                                       : residual_rms_norm(tape, in, sum, weight, eps);
              return {r.h, r.y};
            };
          }};
}

OperationCase activation_case(const CaseSizes& s, Unary kind, std::string_view name) {
  const int64_t rows = s.rows(), ff = s.model.ff_width();
  return {.operation = "activation",
          .shape = matrix(rows, ff, name),
          .forward = activation_work(bytes_of(s, ff), false),
          .backward = activation_work(bytes_of(s, ff), true),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, ff}, type);
            return [=](Tape& tape) -> Tensors { return {activation(tape, tape.leaf(x), kind)}; };
          }};
}

OperationCase gated_case(const CaseSizes& s, Unary kind, std::string_view name) {
  const int64_t rows = s.rows(), ff = s.model.ff_width();
  return {.operation = "gated_activation",
          .shape = fmt::format("{} x (2 x {}), {}", rows, ff, name),
          .forward = gated_activation_work(bytes_of(s, ff), false),
          .backward = gated_activation_work(bytes_of(s, ff), true),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, 2 * ff}, type);
            return [=](Tape& tape) -> Tensors { return {gated_activation(tape, tape.leaf(x), kind)}; };
          }};
}

// In place, as in a model: the tensor belongs to nobody but the operation while it runs.
OperationCase rope_case(const CaseSizes& s) {
  const int64_t rows = s.rows(), length = s.length, width = s.model.head_width(), even = width / 2 * 2;
  const int64_t rotated = s.model.n_heads + s.model.kv_heads(), all = (rotated + s.model.kv_heads()) * width;
  const double bytes = bytes_of(s, rotated * even);
  return {.operation = "rope",
          .shape = fmt::format("{} x ({} x {})", rows, rotated, width),
          .forward = pass_work(bytes, bytes),
          .backward = pass_work(bytes, bytes),
          .prepare = [=, model = s.model, type = s.type](const CaseContext& c) {
            const auto x = std::make_shared<Tensor>(random_tensor(c, {rows, all}, type));
            const Tensor at = integer_tensor(c, {rows}, [=](int64_t i) { return i % length; });
            const Tensor table = c.backend.make({length, even}, DType::f32);
            c.backend.copy_from_host(table, rotary_table(model, even, length).data());
            return [=](Tape& tape) -> Tensors {
              Tensor in = tape.leaf(*x);
              *x = {};
              Tensor y =
                  rope(tape, std::move(in), at, table, {.heads = rotated, .head_dim = width, .rotary_dim = even});
              *x = y.as_value(-1);
              return {y};
            };
          }};
}

OperationCase dropout_case(const CaseSizes& s) {
  const int64_t rows = s.rows(), d = s.model.d_model;
  const double bytes = bytes_of(s, d);
  return {.operation = "dropout",
          .shape = matrix(rows, d, "p = 0.1"),
          .forward = pass_work(bytes, bytes),
          .backward = pass_work(bytes, bytes),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, type);
            return [=](Tape& tape) -> Tensors { return {dropout(tape, tape.leaf(x), dropout_threshold(0.1))}; };
          }};
}

// Backward hands the gradient on and does nothing.
OperationCase add_case(const CaseSizes& s) {
  const int64_t rows = s.rows(), d = s.model.d_model;
  return {.operation = "add",
          .shape = matrix(rows, d),
          .forward = add_work(bytes_of(s, d)),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, type), y = random_tensor(c, {rows, d}, type);
            return [=](Tape& tape) -> Tensors { return {add(tape, tape.leaf(x), tape.leaf(y))}; };
          }};
}

// Backward is the cast the other way.
OperationCase cast_case(const CaseSizes& s, DType from, DType to) {
  const int64_t rows = s.rows(), d = s.model.d_model, count = rows * d;
  const double wide = double(count * size_of(from)), narrow = double(count * size_of(to));
  return {.operation = "cast",
          .shape = matrix(rows, d, fmt::format("{} to {}", from, to)),
          .forward = pass_work(wide, narrow),
          .backward = pass_work(narrow, wide),
          .prepare = [=](const CaseContext& c) {
            const Tensor x = random_tensor(c, {rows, d}, from);
            return [=](Tape& tape) -> Tensors { return {cast(tape, tape.leaf(x), to)}; };
          }};
}

}  // namespace

void add_row_cases(const CaseSizes& s, std::vector<OperationCase>& cases) {
  cases.push_back(embedding_case(s));
  cases.push_back(gather_rows_case(s));
  for (const NormKind kind : {NormKind::layernorm, NormKind::rmsnorm}) {
    cases.push_back(norm_case(s, kind));
    cases.push_back(residual_norm_case(s, kind));
  }
  cases.push_back(activation_case(s, Unary::relu, "relu"));
  cases.push_back(activation_case(s, Unary::gelu, "gelu"));
  cases.push_back(activation_case(s, Unary::gelu_tanh, "gelu_tanh"));
  cases.push_back(activation_case(s, Unary::silu, "silu"));
  cases.push_back(activation_case(s, Unary::tanh, "tanh"));
  cases.push_back(gated_case(s, Unary::silu, "swiglu"));
  cases.push_back(gated_case(s, Unary::gelu, "geglu"));
  cases.push_back(gated_case(s, Unary::gelu_tanh, "geglu_tanh"));
  if (s.model.head_width() > 1) cases.push_back(rope_case(s));
  cases.push_back(dropout_case(s));
  cases.push_back(add_case(s));
  cases.push_back(cast_case(s, DType::f32, DType::bf16));
  cases.push_back(cast_case(s, DType::f32, DType::f16));
}

}  // namespace mixtape
