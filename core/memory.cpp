#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace mixtape {

std::string_view name_of(Category category) {
  static constexpr std::string_view names[category_count] = {"parameters",  "master",    "gradients", "optimizer",
                                                             "activations", "workspace", "reordered", "batch"};
  return names[int(category)];
}

std::byte* Storage::data() const {
  if (!arena_ || !arena_->base_) return nullptr;
  return arena_->base_ + arena_->slots_[slot_].offset;
}

// Atomic, because kernels make views (which share ownership) in their worker threads.
int Storage::owners() const {
  return arena_ ? std::atomic_ref(arena_->slots_[slot_].owners).load(std::memory_order_relaxed) : 0;
}

int64_t Storage::bytes() const { return arena_ ? arena_->slots_[slot_].asked : 0; }

void Storage::retain() {
  if (arena_) std::atomic_ref(arena_->slots_[slot_].owners).fetch_add(1, std::memory_order_relaxed);
}

void Storage::release() {
  if (arena_ && std::atomic_ref(arena_->slots_[slot_].owners).fetch_sub(1, std::memory_order_acq_rel) == 1)
    arena_->give_back(slot_);
  arena_ = nullptr;
}

Storage Arena::allocate(int64_t bytes, Category category) {
  if (bytes < 0) throw Error("{}: a request of {} bytes", context_, bytes);
  const int64_t asked = bytes;
  bytes = std::max<int64_t>(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (guards_) bytes += alignment;
  ++requests_;

  // Best fit, the lowest offset among equals; a hole's rest stays a hole. Holes never touch the end (give_back), so
  // what is live alone decides, not what was live before.
  int64_t offset = end_;
  if (auto hole = holes_by_size_.lower_bound({bytes, -1}); hole != holes_by_size_.end()) {
    const auto [size, at] = *hole;
    offset = at;
    holes_by_size_.erase(hole);
    holes_by_offset_.erase(at);
    if (size > bytes) {
      holes_by_offset_[at + bytes] = size - bytes;
      holes_by_size_.insert({size - bytes, at + bytes});
    }
  } else {
    if (end_ + bytes > capacity_)
      throw Error(
          "{}: out of memory: {:.1f} MiB of {} asked for, {:.1f} of {:.1f} MiB in use; "
          "lower train.micro_batch_size or data.seq_length, or set memory.recompute",
          context_, double(bytes) / (1 << 20), name_of(category), double(in_use_) / (1 << 20),
          double(capacity_) / (1 << 20));
    end_ += bytes;
  }

  int slot;
  if (free_slots_.empty()) {
    // Other threads find the slots of their views meanwhile, so slots stay where they are; so many are never live.
    if (slots_.empty()) slots_.reserve(size_t(1) << 16);
    slot = int(slots_.size());
    slots_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  slots_[slot] = {offset, bytes, asked, 1, category};
  if (guards_) set_guards(slots_[slot]);
  in_use_ += bytes;
  by_category_[int(category)] += bytes;
  peak_ = std::max(peak_, end_);
  if (in_use_ > most_in_use_) {
    most_in_use_ = in_use_;
    at_peak_ = by_category_;
  }
  return Storage(this, slot);
}

void Arena::give_back(int slot) {
  if (guards_) check_guards(slots_[slot]);
  auto [offset, bytes, asked, owners, category] = slots_[slot];
  in_use_ -= bytes;
  by_category_[int(category)] -= bytes;
  free_slots_.push_back(slot);

  // Join the neighbours: holes are always maximal.
  auto next = holes_by_offset_.lower_bound(offset);
  if (next != holes_by_offset_.end() && next->first == offset + bytes) {
    bytes += next->second;
    holes_by_size_.erase({next->second, next->first});
    next = holes_by_offset_.erase(next);
  }
  if (next != holes_by_offset_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      bytes += previous->second;
      holes_by_size_.erase({previous->second, previous->first});
      holes_by_offset_.erase(previous);
    }
  }
  if (offset + bytes == end_) {
    end_ = offset;
    return;
  }
  holes_by_offset_[offset] = bytes;
  holes_by_size_.insert({bytes, offset});
}

namespace {
constexpr std::byte poison{0xff};  // NaN in every floating type, -1 in every integer
constexpr std::byte guard{0xa5};
}  // namespace

void Arena::set_guards(const Slot& slot) {
  std::fill_n(base_ + slot.offset, slot.asked, poison);
  std::fill_n(base_ + slot.offset + slot.asked, slot.bytes - slot.asked, guard);
}

void Arena::check_guards(const Slot& slot) {
  for (int64_t i = slot.asked; i < slot.bytes; ++i)
    if (base_[slot.offset + i] != guard) {
      guard_errors_.push_back(fmt::format("{}: byte {} past the end of {} bytes of {} was written", context_,
                                          i - slot.asked, slot.asked, name_of(slot.category)));
      return;
    }
}

HostMemory::HostMemory(int64_t bytes) : bytes_(std::max<int64_t>(bytes, 4096)) {
  void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw Error("memory: cannot reserve {:.1f} MiB: {}", double(bytes_) / (1 << 20), std::strerror(errno));
  madvise(p, bytes_, MADV_HUGEPAGE);  // a hint: a refusal costs speed only
  data_ = static_cast<std::byte*>(p);
}

HostMemory::~HostMemory() {
  if (data_) munmap(data_, bytes_);
}

}  // namespace mixtape
