// What tests of update rules share: golden traces, and flat buffers in a guarded arena.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/philox.h"
#include "core/cpu/backend.h"
#include "core/cpu/parallel.h"
#include "core/ops/optimizer.h"

namespace mixtape {

using Floats = std::vector<float>;

inline nlohmann::json golden_optim(const std::string& name) {
  std::ifstream file(std::string(MIXTAPE_GOLDEN) + "/optim/" + name);
  return nlohmann::json::parse(file);
}

// A vector or a matrix of the golden files, flat.
inline std::vector<double> flat(const nlohmann::json& j) {
  std::vector<double> values;
  for (const auto& x : j)
    if (x.is_array()) {
      const auto row = flat(x);
      values.insert(values.end(), row.begin(), row.end());
    } else {
      values.push_back(x.get<double>());
    }
  return values;
}

inline Floats random(int64_t n, uint64_t seed) {
  Floats values(n);
  for (int64_t i = 0; i < n; ++i) {
    const auto r = philox(philox_key(seed), uint64_t(i), 0, Purpose::test);
    values[i] = normal(r[0], r[1]);
  }
  return values;
}

class OptimizerFixture : public testing::Test {
 protected:
  OptimizerFixture() { backend.bind(arena); }
  ~OptimizerFixture() override { EXPECT_TRUE(arena.guard_errors().empty()); }

  Tensor upload(const Floats& values, DType type = DType::f32) {
    const Tensor t = backend.make({int64_t(values.size())}, type);
    for (size_t i = 0; i < values.size(); ++i) {
      if (type == DType::f32)
        t.data<float>()[i] = values[i];
      else if (type == DType::f16)
        t.data<fp16>()[i] = fp16(values[i]);
      else
        t.data<bf16>()[i] = bf16(values[i]);
    }
    return t;
  }
  static Floats values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.count()}; }
  static std::vector<std::byte> bits(const Tensor& t) { return {t.raw(), t.raw() + t.bytes()}; }

  CpuBackend backend;
  HostMemory memory{1 << 26};
  Arena arena{memory.data(), memory.bytes(), Arena::Guards::on};
  StepState state;
};

}  // namespace mixtape
