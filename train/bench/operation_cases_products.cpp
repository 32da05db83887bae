// Operations that arithmetic bounds: linear layers, attention, and the loss with its head.
#include <cmath>

#include "core/ops/attention.h"
#include "core/ops/dropout.h"
#include "core/ops/loss.h"
#include "core/ops/matmul.h"
#include "train/bench/operation_cases.h"

namespace mixtape {
namespace {

constexpr float weight_std = 0.02f;

// The three products of a linear layer apart: y = x W^T (NT: neither, then the second transposed), dx = dy W (NN) and
// dW = dy^T x (TN). A product that nobody asks for is not computed.
enum class Product { forward, input_gradient, weight_gradient };

OperationCase linear_case(const CaseSizes& s, const LinearSize& size, Product product) {
  const int64_t element = size_of(s.type);
  OperationCase c;
  c.operation = "linear";
  c.shape = fmt::format("{} x {} -> {}", size.rows, size.in, size.out);
  switch (product) {
    case Product::forward:
      c.shape += ", NT";
      c.forward = linear_work(size, element);
      break;
    case Product::input_gradient:
      c.shape += ", dx, NN";
      c.backward = linear_input_gradient_work(size, element);
      break;
    case Product::weight_gradient:
      c.shape += ", dW, TN";
      c.backward = linear_weight_gradient_work(size, element);
      break;
  }
  c.prepare = [=, type = s.type](const CaseContext& context) {
    const Tensor x = random_tensor(context, {size.rows, size.in}, type);
    const Tensor weight = random_tensor(context, {size.out, size.in}, type, weight_std);
    const Tensor bias = random_tensor(context, {size.out}, type);
    return [=](Tape& tape) -> Tensors {
      const Tensor in = tape.leaf(x, product == Product::input_gradient);
      if (product != Product::weight_gradient) return {linear(tape, in, weight, bias)};
      return {linear(tape, in, tape.leaf(weight, DType::f32), tape.leaf(bias, DType::f32))};
    };
  };
  return c;
}

OperationCase linear_activation_case(const CaseSizes& s) {
  const LinearSize size{s.rows(), s.model.d_model, s.model.ff_width()};
  const int64_t element = size_of(s.type);
  return {.operation = "linear_activation",
          .shape = fmt::format("{} x {} -> {}, gelu_tanh", size.rows, size.in, size.out),
          .forward = linear_work(size, element),
          .backward = linear_input_gradient_work(size, element) + linear_weight_gradient_work(size, element),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {size.rows, size.in}, type);
            const Tensor weight = random_tensor(c, {size.out, size.in}, type, weight_std);
            const Tensor bias = random_tensor(c, {size.out}, type);
            return [=](Tape& tape) -> Tensors {
              return {linear(tape, tape.leaf(x), tape.leaf(weight, DType::f32), tape.leaf(bias, DType::f32),
                             Unary::gelu_tanh)};
            };
          }};
}

// With scales that are known, as in all steps but the first. The rounding itself is no part of the work that there is.
OperationCase quantised_linear_case(const CaseSizes& s, const OperandCodes& codes) {
  const LinearSize size{s.rows(), s.model.d_model, s.model.ff_width()};
  const int64_t element = size_of(s.type);
  return {.operation = "quantised_linear",
          .shape = fmt::format("{} x {} -> {}, {}", size.rows, size.in, size.out, codes.operands),
          .forward = linear_work(size, element),
          .backward = linear_input_gradient_work(size, element) + linear_weight_gradient_work(size, element),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor x = random_tensor(c, {size.rows, size.in}, type);
            const Tensor weight = random_tensor(c, {size.out, size.in}, type, weight_std);
            const Tensor bias = random_tensor(c, {size.out}, type);
            Tensor scale, amax;
            if (!codes.by_rows) scale = random_tensor(c, {3}, DType::f32), amax = random_tensor(c, {3}, DType::f32);
            return [=](Tape& tape) -> Tensors {
              return {quantised_linear(tape, tape.leaf(x), tape.leaf(weight, DType::f32), tape.leaf(bias, DType::f32),
                                       codes, scale, amax)};
            };
          }};
}

struct AttentionVariant {
  int64_t length = 0;
  int64_t kv_heads = 0;
  bool causal = true, alibi = false, relative = false;
  int64_t window = 0;
  double dropout = 0;
};

std::string text_of(const AttentionVariant& v, const ModelSpec& m, int64_t sequences) {
  std::string text = fmt::format("{} x {}, {} heads of {}", sequences, v.length, m.n_heads, m.head_width());
  if (v.kv_heads != m.n_heads) text += fmt::format(", {} of k and v", v.kv_heads);
  if (!v.causal) text += ", bidirectional";
  if (v.window > 0) text += fmt::format(", window {}", v.window);
  if (v.alibi) text += ", ALiBi";
  if (v.relative) text += ", relative positions";
  if (v.dropout > 0) text += fmt::format(", dropout {}", v.dropout);
  return text;
}

OperationCase attention_case(const CaseSizes& s, const AttentionVariant& v) {
  const int64_t sequences = std::max<int64_t>(1, s.rows() / v.length), rows = sequences * v.length;
  const int64_t heads = s.model.n_heads, width = s.model.head_width();
  const AttentionSize size{rows, rows, keys_seen(v.length, v.causal, v.window), heads, v.kv_heads, width};
  const AttentionSpec spec{.n_heads = heads,
                           .n_kv_heads = v.kv_heads,
                           .head_dim = width,
                           .scale = float(1 / std::sqrt(double(width))),
                           .causal = v.causal,
                           .window = v.window,
                           .dropout_threshold = dropout_threshold(v.dropout),
                           .max_q_len = v.length,
                           .relative_buckets = v.relative ? 32 : 0,
                           .relative_distance = v.relative ? 128 : 0};
  return {.operation = "attention",
          .shape = text_of(v, s.model, sequences),
          .forward = attention_work(size, size_of(s.type), false),
          .backward = attention_work(size, size_of(s.type), true),
          .beside_cudnn = !v.alibi && !v.relative && v.window == 0 && v.dropout == 0 && width % 8 == 0 && width <= 128,
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor qkv = random_tensor(c, {rows, (heads + 2 * v.kv_heads) * width}, type);
            const Tensor segments = segment_table(c, sequences, v.length, v.length);
            const Tensor count = integer_tensor(c, {1}, [=](int64_t) { return sequences; });
            const Tensor table = v.relative ? random_tensor(c, {32, heads}, type) : Tensor();
            Tensor slopes;
            if (v.alibi) {
              std::vector<float> values(size_t(heads), 0.f);
              alibi_slopes(values.data(), heads);
              slopes = c.backend.make({heads}, DType::f32);
              c.backend.copy_from_host(slopes, values.data());
            }
            return [=](Tape& tape) -> Tensors {
              const Tensor bias = table ? tape.leaf(table, DType::f32) : slopes;
              return {attention(tape, tape.leaf(qkv), segments, count, bias, spec)};
            };
          }};
}

// A decoder's rows over an encoder's output of twice the length.
OperationCase cross_attention_case(const CaseSizes& s) {
  const int64_t sequences = s.sequences, length = s.length, memory = 2 * s.length;
  const int64_t heads = s.model.n_heads, width = s.model.head_width();
  const AttentionSize size{sequences * length, sequences * memory, double(memory), heads, heads, width};
  const AttentionSpec spec{.n_heads = heads,
                           .n_kv_heads = heads,
                           .head_dim = width,
                           .scale = float(1 / std::sqrt(double(width))),
                           .causal = false,
                           .max_q_len = length,
                           .max_k_len = memory};
  return {.operation = "cross_attention",
          .shape = fmt::format("{} x {} over {}, {} heads of {}", sequences, length, memory, heads, width),
          .forward = attention_work(size, size_of(s.type), false),
          .backward = attention_work(size, size_of(s.type), true),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor q = random_tensor(c, {sequences * length, heads * width}, type);
            const Tensor kv = random_tensor(c, {sequences * memory, 2 * heads * width}, type);
            const Tensor segments = segment_table(c, sequences, length, memory);
            const Tensor count = integer_tensor(c, {1}, [=](int64_t) { return sequences; });
            return [=](Tape& tape) -> Tensors {
              return {cross_attention(tape, tape.leaf(q), tape.leaf(kv), segments, count, spec)};
            };
          }};
}

void add_attention_cases(const CaseSizes& s, std::vector<OperationCase>& cases) {
  const int64_t heads = s.model.n_heads, kv = s.model.kv_heads(), longer = 4 * s.length;
  for (const int64_t length : {s.length, longer, 16 * s.length})
    cases.push_back(attention_case(s, {.length = length, .kv_heads = kv}));
  cases.push_back(attention_case(s, {.length = longer, .kv_heads = kv, .causal = false}));
  cases.push_back(attention_case(s, {.length = longer, .kv_heads = kv, .window = s.length}));
  cases.push_back(attention_case(s, {.length = longer, .kv_heads = kv, .alibi = true}));
  cases.push_back(attention_case(s, {.length = longer, .kv_heads = kv, .causal = false, .relative = true}));
  cases.push_back(attention_case(s, {.length = longer, .kv_heads = kv, .dropout = 0.1}));
  if (kv == heads && heads % 4 == 0) cases.push_back(attention_case(s, {.length = longer, .kv_heads = heads / 4}));
  cases.push_back(cross_attention_case(s));
}

// Training, where forward delivers the gradients, and evaluation.
OperationCase loss_case(const CaseSizes& s, bool gradients) {
  const int64_t rows = s.rows(), d = s.model.d_model, vocabulary = s.model.vocab_size;
  return {.operation = "cross_entropy",
          .shape = fmt::format("{} x {} -> {}{}", rows, d, vocabulary, gradients ? ", with gradients" : ""),
          .forward = cross_entropy_work(rows, d, vocabulary, size_of(s.type), gradients),
          .prepare = [=, type = s.type](const CaseContext& c) {
            const Tensor hidden = random_tensor(c, {rows, d}, type);
            const Tensor weight = random_tensor(c, {vocabulary, d}, type, weight_std);
            const Tensor targets = integer_tensor(c, {rows}, [=](int64_t i) { return random_token(i, vocabulary); });
            return [=](Tape& tape) -> Tensors {
              const Tensor h = gradients ? tape.leaf(hidden) : hidden;
              const Tensor w = gradients ? tape.leaf(weight, DType::f32) : weight;
              cross_entropy(tape, h, w, {}, targets, {});
              return {};
            };
          }};
}

}  // namespace

std::vector<LinearSize> linear_sizes(const ModelSpec& m, int64_t rows) {
  const int64_t d = m.d_model, heads = m.n_heads * m.head_width(), kv = m.kv_heads() * m.head_width();
  return {{rows, d, heads + 2 * kv},
          {rows, heads, d},
          {rows, d, is_gated(m.activation) ? 2 * m.ff_width() : m.ff_width()},
          {rows, m.ff_width(), d}};
}

void add_product_cases(const CaseSizes& s, std::vector<OperationCase>& cases) {
  for (const Product product : {Product::forward, Product::input_gradient, Product::weight_gradient})
    for (const LinearSize& size : linear_sizes(s.model, s.rows())) cases.push_back(linear_case(s, size, product));
  cases.push_back(linear_activation_case(s));
  cases.push_back(quantised_linear_case(s, {}));
  cases.push_back(quantised_linear_case(s, {.operands = DType::i8, .gradient = DType::f32, .by_rows = true}));
  add_attention_cases(s, cases);
  for (const bool gradients : {true, false}) cases.push_back(loss_case(s, gradients));
}

}  // namespace mixtape
