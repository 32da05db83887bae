// The arena: one block of device memory, from which everything of a run is taken, named by category.
//
// Offsets come from a deterministic best-fit allocator, so a dry run on a null arena (no memory behind it) that makes
// the same requests in the same order gives the exact peak and the same offsets as the run itself: `mixtape plan`
// knows a run's memory without running it, addresses are stable, and the steady state asks the system for nothing.
// Requests are rounded up to 256 bytes. One thread, the tape's, allocates and gives back; others may make and drop
// views of what that thread holds meanwhile.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace mixtape {

enum class Category { parameters, master, gradients, optimizer, activations, workspace, reordered, batch };
inline constexpr int category_count = 8;
std::string_view name_of(Category category);

using CategoryBytes = std::array<int64_t, category_count>;

class Arena;

// Shared ownership of one allocation of an arena; the last owner gives it back.
class Storage {
 public:
  Storage() = default;
  Storage(const Storage& other) : arena_(other.arena_), slot_(other.slot_) { retain(); }
  Storage(Storage&& other) noexcept : arena_(other.arena_), slot_(other.slot_) { other.arena_ = nullptr; }
  Storage& operator=(Storage other) noexcept {
    std::swap(arena_, other.arena_);
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~Storage() { release(); }

  explicit operator bool() const { return arena_ != nullptr; }
  // Null if the arena has no memory behind it.
  std::byte* data() const;
  // True if no other tensor shares the memory, so that it may be overwritten.
  bool unique() const { return owners() == 1; }
  int owners() const;     // 0 for none
  int64_t bytes() const;  // as asked for; 0 for none
  friend bool operator==(const Storage&, const Storage&) = default;

 private:
  friend class Arena;
  Storage(Arena* arena, int slot) : arena_(arena), slot_(slot) {}
  void retain();
  void release();

  Arena* arena_ = nullptr;
  int slot_ = 0;
};

class Arena {
 public:
  static constexpr int64_t alignment = 256;

  // A null arena: counts, has no memory.
  Arena() = default;
  // An arena over memory that the caller owns and keeps alive. With guards (tests; host memory only) every allocation
  // starts as NaN and is followed by guard bytes, which are checked when it is given back.
  enum class Guards { off, on };
  Arena(std::byte* base, int64_t capacity, Guards guards = Guards::off)
      : base_(base), capacity_(capacity), guards_(guards == Guards::on) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Throws Error when the capacity does not suffice: names what asked (set_context), how much and what is in use.
  Storage allocate(int64_t bytes, Category category);

  bool planning() const { return base_ == nullptr; }
  int64_t in_use() const { return in_use_; }
  // The end of the highest allocation ever made: the capacity that this sequence of requests needs.
  int64_t peak() const { return peak_; }
  // What each category held when the bytes in use were highest.
  const CategoryBytes& at_peak() const { return at_peak_; }
  const CategoryBytes& by_category() const { return by_category_; }
  // The number of requests so far; two equal steps make equally many.
  int64_t requests() const { return requests_; }
  // What the guards found, a line each.
  const std::vector<std::string>& guard_errors() const { return guard_errors_; }
  // Who is asking, for error messages; the view must outlive the requests.
  void set_context(std::string_view name) { context_ = name; }

 private:
  friend class Storage;
  struct Slot {
    int64_t offset = 0, bytes = 0;
    int64_t asked = 0;  // before rounding up
    int32_t owners = 0;
    Category category{};
  };
  void give_back(int slot);
  void set_guards(const Slot& slot);
  void check_guards(const Slot& slot);

  std::byte* base_ = nullptr;
  int64_t capacity_ = INT64_MAX;
  std::vector<Slot> slots_;
  std::vector<int> free_slots_;
  std::map<int64_t, int64_t> holes_by_offset_;           // offset -> bytes, below end_
  std::set<std::pair<int64_t, int64_t>> holes_by_size_;  // (bytes, offset)
  int64_t end_ = 0, peak_ = 0, in_use_ = 0, most_in_use_ = 0, requests_ = 0;
  CategoryBytes by_category_{}, at_peak_{};
  std::string_view context_ = "start";
  bool guards_ = false;
  std::vector<std::string> guard_errors_;
};

// Host memory by mmap: zeroed, not resident until touched, huge pages where the system offers them.
class HostMemory {
 public:
  explicit HostMemory(int64_t bytes);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace mixtape
