#include "train/bench/operation_cases.h"

#include "core/base/dispatch.h"

namespace mixtape {

std::vector<OperationCase> operation_cases(const CaseSizes& sizes) {
  std::vector<OperationCase> cases;
  add_row_cases(sizes, cases);
  add_product_cases(sizes, cases);
  add_update_cases(sizes, cases);
  add_kernel_cases(sizes, cases);
  return cases;
}

Tensor random_tensor(const CaseContext& context, Shape shape, DType type, float std) {
  const Tensor tensor = context.backend.make(shape, type);
  if (context.backend.planning()) return tensor;
  // Drawing hundreds of millions of numbers takes longer than what is timed on them: a block is repeated, of a length
  // that no row has.
  constexpr int64_t block = 8191;
  dispatch<float, fp16, bf16, e4m3, e5m2>(type, "bench", [&]<class T>() {
    std::vector<T> values(size_t(tensor.count()));
    for (int64_t i = 0; i < tensor.count(); ++i) {
      if (i >= block) {
        values[i] = values[i - block];
        continue;
      }
      const auto bits = philox(philox_key(1), uint64_t(i), 0, Purpose::sampling);
      values[i] = T(std * normal(bits[0], bits[1]));
    }
    context.backend.copy_from_host(tensor, values.data());
  });
  return tensor;
}

Tensor integer_tensor(const CaseContext& context, Shape shape, const std::function<int64_t(int64_t)>& value) {
  const Tensor tensor = context.backend.make(shape, DType::i32);
  std::vector<int32_t> values(size_t(tensor.count()));
  for (int64_t i = 0; i < tensor.count(); ++i) values[i] = int32_t(value(i));
  context.backend.copy_from_host(tensor, values.data());
  return tensor;
}

Tensor segment_table(const CaseContext& context, int64_t sequences, int64_t queries, int64_t keys) {
  return integer_tensor(context, {sequences, 4}, [=](int64_t i) {
    const int64_t sequence = i / 4;
    return std::array<int64_t, 4>{sequence * queries, queries, sequence * keys, keys}[size_t(i % 4)];
  });
}

int64_t random_token(int64_t index, int64_t vocabulary) {
  return int64_t(philox(philox_key(2), uint64_t(index), 0, Purpose::sampling)[0] % uint64_t(vocabulary));
}

}  // namespace mixtape
