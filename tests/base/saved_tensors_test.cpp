// What is kept for backward goes out and comes back: who has the memory meanwhile, and what stays where it is.
#include "core/saved_tensors.h"

#include <gtest/gtest.h>

#include <array>

#include "core/cpu/backend.h"
#include "tests/checkpoint/temporary_directory.h"

namespace mixtape {
namespace {

constexpr int64_t n = 2048;  // two pages of float32

struct Fixture {
  TemporaryDirectory directory;
  CpuBackend backend;
  HostMemory memory{int64_t(1) << 20};
  Arena arena{memory.data(), memory.bytes(), Arena::Guards::on};
  SavedTensors saved{backend};
  Fixture() { backend.bind(arena); }
  ~Fixture() {
    saved.clear();
    EXPECT_TRUE(arena.guard_errors().empty());
  }
  void offload(int64_t room = int64_t(1) << 20) {
    saved.offload({"activations", room, {directory.path.string(), true}});
  }
  Tensor filled(float value, int64_t count = n) {
    const Tensor t = backend.make({count}, DType::f32);
    std::fill_n(t.data<float>(), count, value);
    return t;
  }
};

bool is(const Tensor& t, float value) {
  return std::all_of(t.data<float>(), t.data<float>() + t.count(), [&](float x) { return x == value; });
}

TEST(SavedTensors, StayInMemoryWithoutAnOffload) {
  Fixture f;
  SavedTensors::Handle a = f.saved.keep(f.filled(1)), b = f.saved.keep({});
  EXPECT_EQ(b, SavedTensors::none);
  EXPECT_FALSE(f.saved.get(b));
  EXPECT_TRUE(is(f.saved.get(a), 1));
  EXPECT_EQ(f.saved.most_outside(), 0);
  f.saved.drop(a);
  EXPECT_EQ(a, SavedTensors::none);
  EXPECT_EQ(f.arena.in_use(), 0);
}

// Of the sections two at a time, in three micro-batches; the first does not know yet which is the last section.
TEST(SavedTensors, OfTwoSectionsAreInMemory) {
  Fixture f;
  f.offload();
  int64_t one = 0;
  {
    const Tensor t = f.filled(0);
    one = f.arena.in_use();
  }
  constexpr int sections = 6;
  for (int micro_batch = 0; micro_batch < 3; ++micro_batch) {
    std::array<SavedTensors::Handle, sections> handles;
    for (int s = 0; s < sections; ++s) {
      if (s > 0) f.saved.begin_section();
      EXPECT_EQ(f.saved.section(), s);
      EXPECT_LE(f.arena.in_use(), 1 * one) << "the section before";
      handles[size_t(s)] = f.saved.keep(f.filled(float(10 * micro_batch + s)));
    }
    for (int s = sections - 1; s >= 0; --s) {
      f.saved.go_back_to(s);
      EXPECT_EQ(f.arena.in_use(), (s > 0 ? 2 : 1) * one) << "this section and the one that comes";
      EXPECT_TRUE(is(f.saved.get(handles[size_t(s)]), float(10 * micro_batch + s))) << s;
      f.saved.drop(handles[size_t(s)]);
    }
    EXPECT_EQ(f.arena.in_use(), 0);
    f.saved.clear();
  }
  EXPECT_EQ(f.saved.most_outside(), (sections - 1) * n * 4);
}

TEST(SavedTensors, LastButOneIsNotStoredOnceItIsKnown) {
  Fixture f;
  f.offload();
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    SavedTensors::Handle a = f.saved.keep(f.filled(1));
    f.saved.begin_section();
    SavedTensors::Handle b = f.saved.keep(f.filled(2));
    f.saved.begin_section();
    std::array<float, 1> found{};
    f.saved.outside()->read(found.data(), n * 4, 4);
    EXPECT_EQ(found[0], micro_batch == 0 ? 2.f : 0.f);
    f.saved.go_back_to(1);
    EXPECT_TRUE(is(f.saved.get(b), 2));
    f.saved.drop(b);
    f.saved.go_back_to(0);
    EXPECT_TRUE(is(f.saved.get(a), 1));
    f.saved.drop(a);
    f.saved.clear();
    const float zero = 0;
    f.saved.outside()->write(n * 4, &zero, 4);
  }
}

// Two views of one tensor go as one and come back as views of one.
TEST(SavedTensors, ThatShareMemoryGoTogether) {
  Fixture f;
  f.offload();
  SavedTensors::Handle left, right, odd;
  {
    const Tensor both = f.backend.make({4, n}, DType::f32);
    for (int64_t i = 0; i < 4 * n; ++i) both.data<float>()[i] = float(i);
    left = f.saved.keep(both.columns(0, n / 2)), right = f.saved.keep(both.columns(n / 2, n / 2));
    odd = f.saved.keep(both.slice(3, 1));
  }
  f.saved.begin_section();
  f.saved.begin_section();
  EXPECT_EQ(f.arena.in_use(), 0);
  EXPECT_EQ(f.saved.most_outside(), 4 * n * 4);
  f.saved.begin_section();
  f.saved.go_back_to(0);
  const Tensor a = f.saved.get(left), b = f.saved.get(right), c = f.saved.get(odd);
  EXPECT_EQ(a.storage(), b.storage());
  EXPECT_EQ(b.raw() - a.raw(), n / 2 * 4);
  EXPECT_EQ(b.row_stride(), n);
  for (int64_t r = 0; r < 4; ++r)
    for (const int64_t i : {int64_t(0), n / 2 - 1}) {
      EXPECT_EQ(a.data<float>()[r * n + i], float(r * n + i));
      EXPECT_EQ(b.data<float>()[r * n + i], float(r * n + n / 2 + i));
    }
  EXPECT_EQ(c.data<float>()[1], float(3 * n + 1));
}

TEST(SavedTensors, ThatAreSmallOrHeldElsewhereStay) {
  Fixture f;
  f.offload();
  const Tensor elsewhere = f.filled(3);
  const SavedTensors::Handle held = f.saved.keep(elsewhere), small = f.saved.keep(f.filled(4, 1000));
  const std::byte* const places[] = {elsewhere.raw(), f.saved.get(small).raw()};
  for (int i = 0; i < 3; ++i) f.saved.begin_section();
  EXPECT_EQ(f.saved.most_outside(), n * 4) << "the small one does not go";
  f.saved.go_back_to(0);
  EXPECT_EQ(f.saved.get(held).raw(), places[0]);
  EXPECT_EQ(f.saved.get(small).raw(), places[1]);
  EXPECT_TRUE(is(f.saved.get(held), 3) && is(f.saved.get(small), 4));
}

// A later section reads what an earlier one has kept; and a micro-batch that is given up leaves nothing behind.
TEST(SavedTensors, ComeOutOfTurnToo) {
  Fixture f;
  f.offload();
  for (int i = 0; i < 3; ++i) {
    const SavedTensors::Handle first = f.saved.keep(f.filled(float(i)));
    for (int s = 0; s < 4; ++s) f.saved.begin_section();
    EXPECT_EQ(f.arena.in_use(), 0);
    EXPECT_TRUE(is(f.saved.get(first), float(i)));
    f.saved.clear();
    EXPECT_EQ(f.arena.in_use(), 0);
    f.saved.keep(f.filled(5));
    f.saved.begin_section();  // which is on its way
    f.saved.clear();
    EXPECT_EQ(f.arena.in_use(), 0);
  }
}

TEST(SavedTensors, NeedTheRoomThatWasPlanned) {
  Fixture f;
  f.offload(n * 4);
  f.saved.keep(f.filled(1));
  f.saved.begin_section();
  f.saved.keep(f.filled(2));
  EXPECT_THROW(f.saved.begin_section(), Error);
}

}  // namespace
}  // namespace mixtape
