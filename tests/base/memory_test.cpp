// The arena: the plan equals the run, offsets repeat, errors name what asked.
#include "core/memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

#include "core/base/philox.h"

namespace mixtape {
namespace {

// A random walk of requests and releases, the same for every arena.
std::vector<int64_t> walk(Arena& arena, uint64_t seed, int steps) {
  std::vector<Storage> held;
  std::vector<int64_t> sizes;
  for (int i = 0; i < steps; ++i) {
    const auto bits = philox(philox_key(seed), uint64_t(i), 0, Purpose::test);
    if (held.size() > 3 && bits[0] % 5 < 2) {
      held.erase(held.begin() + bits[1] % held.size());
    } else {
      held.push_back(arena.allocate(1 + bits[2] % 5000, Category(bits[3] % category_count)));
    }
    sizes.push_back(arena.peak());
  }
  return sizes;
}

TEST(Arena, PlanEqualsRun) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Arena plan;
    walk(plan, seed, 300);
    const HostMemory memory(plan.peak());
    Arena run(memory.data(), plan.peak());
    EXPECT_NO_THROW(walk(run, seed, 300));
    EXPECT_EQ(run.peak(), plan.peak());
    EXPECT_EQ(run.at_peak(), plan.at_peak());
    EXPECT_EQ(run.requests(), plan.requests());
    EXPECT_EQ(run.in_use(), 0);
  }
}

TEST(Arena, WhatWasLiveBeforeDoesNotMatter) {
  Arena fresh, used;
  const Storage a = fresh.allocate(1000, Category::parameters), b = used.allocate(1000, Category::parameters);
  walk(used, 7, 200);
  EXPECT_EQ(walk(fresh, 9, 200).back() <= used.peak(), true);
  const int64_t before = used.peak();
  walk(used, 9, 200);
  EXPECT_EQ(used.peak(), std::max(before, fresh.peak()));
}

TEST(Arena, OneByteLessThanThePlanFails) {
  Arena plan;
  walk(plan, 3, 300);
  const HostMemory memory(plan.peak());
  Arena run(memory.data(), plan.peak() - 1);
  run.set_context("attention");
  try {
    walk(run, 3, 300);
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("attention: out of memory"), std::string::npos) << error.what();
  }
}

TEST(Arena, LiveAllocationsDoNotOverlap) {
  const HostMemory memory(1 << 20);
  Arena arena(memory.data(), memory.bytes());
  std::vector<std::pair<Storage, int>> held;
  for (int i = 0; i < 200; ++i) {
    const auto bits = philox(philox_key(5), uint64_t(i), 0, Purpose::test);
    if (held.size() > 20) {
      const size_t victim = bits[0] % held.size();
      const auto value = std::byte(held[victim].second);
      for (int b = 0; b < 256; ++b) ASSERT_EQ(held[victim].first.data()[b], value);
      held.erase(held.begin() + int64_t(victim));
    }
    held.emplace_back(arena.allocate(256 + bits[1] % 4096, Category::activations), i % 256);
    std::memset(held.back().first.data(), i % 256, 256);
  }
}

TEST(Arena, OwnersShareAndTheLastFrees) {
  Arena arena;
  Storage a = arena.allocate(100, Category::workspace);
  EXPECT_TRUE(a.unique());
  {
    const Storage b = a;
    EXPECT_EQ(a.owners(), 2);
  }
  EXPECT_TRUE(a.unique());
  a = {};
  EXPECT_EQ(arena.in_use(), 0);
  EXPECT_EQ(arena.by_category(), CategoryBytes{});
}

// Kernels make views in their worker threads; a lost count would leak, or free what is in use.
TEST(Arena, OwnersMayBeCountedByManyThreads) {
  Arena arena;
  const Storage held = arena.allocate(100, Category::workspace);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 100000; ++i) const Storage view = held;
    });
  for (std::thread& t : threads) t.join();
  EXPECT_TRUE(held.unique());
}

TEST(Arena, GuardsFindWritesPastTheEnd) {
  const HostMemory memory(1 << 16);
  Arena arena(memory.data(), memory.bytes(), Arena::Guards::on);
  {
    const Storage a = arena.allocate(100, Category::activations);
    a.data()[99] = std::byte(0);
  }
  EXPECT_TRUE(arena.guard_errors().empty());
  {
    const Storage a = arena.allocate(100, Category::activations);
    a.data()[100] = std::byte(0);
  }
  ASSERT_EQ(arena.guard_errors().size(), 1u);
}

}  // namespace
}  // namespace mixtape
