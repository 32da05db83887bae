// What backward will read: tensors that the tape keeps from forward until their last reader lets go of them, in the
// device's memory, or outside of it in between.
//
// Forward is cut into sections, by the model a layer each, and backward goes back through them. With an offload a
// section's tensors are stored while the next section is computed, and their memory is given back at the end of that;
// in backward they are fetched while the section behind is gone through. So those of two sections are in memory at
// once. What a section holds that others hold too (the output of an encoder, which all layers of a decoder read) stays
// where it is, as do the last section and the one before, which backward wants at once, and what is small.
//
// All of it is decided by shapes and by the order of operations: a plan makes the same requests as the run.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/offload.h"

namespace mixtape {

class SavedTensors {
 public:
  using Handle = int;  // until drop() or clear()
  static constexpr Handle none = -1;
  // Below a page a request takes longer than what it moves.
  static constexpr int64_t least_bytes = 4096;

  explicit SavedTensors(Backend& backend) : backend_(backend) {}
  ~SavedTensors() { clear(); }
  SavedTensors(const SavedTensors&) = delete;
  SavedTensors& operator=(const SavedTensors&) = delete;

  // Absent tensors have no handle.
  Handle keep(const Tensor& tensor);
  // The device finds in it what was kept. Absent for no handle.
  Tensor get(Handle handle);
  // Leaves none in `handle`.
  void drop(Handle& handle);
  // Forgets all, when a micro-batch is done or given up.
  void clear();

  // From the next micro-batch on. In `room.bytes` bytes outside, which a plan has found (most_outside); in a plan there
  // is nothing behind it.
  void offload(const OffloadRoom& room);
  bool offloads() const { return offloads_; }
  Offload* outside() const { return outside_.get(); }  // null: none, or a plan's
  // Bytes outside that the micro-batches so far have needed at most.
  int64_t most_outside() const { return most_outside_; }

  // In forward, if there is an offload: what is kept from now on belongs to the next section.
  void begin_section();
  // The one that is computed, or gone back through.
  int section() const { return section_; }
  // In backward: nothing of a later section is read any more.
  void go_back_to(int section);

 private:
  // Memory that goes out as a whole. Several tensors may lie in it.
  struct Parcel {
    int64_t at = 0, bytes = 0;
    int section = 0;
    enum { leaving, outside, coming, here } state = leaving;
    Offload::Ticket ticket = 0;  // of what is coming
  };
  struct Saved {
    Tensor tensor;       // without memory while it is outside
    int64_t offset = 0;  // in the parcel
    int parcel = none;
  };
  // Where a section begins in the lists.
  struct Section {
    size_t saved = 0, parcels = 0;
  };

  std::span<Saved> saved_of(int section);
  std::span<Parcel> parcels_of(int section);
  // Calls visit(saved) with each tensor of the parcel that is still kept; says how many.
  template <class Visit>
  int for_each_in(const Parcel& parcel, const Visit& visit);
  void send_section();
  void let_go_of_leaving();
  void fetch_section(int section);
  void fetch(Parcel& parcel);
  void settle(Parcel& parcel);

  Backend& backend_;
  std::unique_ptr<Offload> outside_;
  bool offloads_ = false;
  int64_t room_ = 0, used_ = 0, most_outside_ = 0;
  std::vector<Saved> saved_;
  std::vector<Parcel> parcels_;
  std::vector<Section> sections_ = {{}};
  int section_ = 0;
  int leaving_ = none;  // the section whose parcels are
  // Of the micro-batch before, none at first: the last section but one is not worth storing.
  int sections_before_ = 0;
};

}  // namespace mixtape
