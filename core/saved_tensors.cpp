#include "core/saved_tensors.h"

#include <algorithm>

namespace mixtape {

SavedTensors::Handle SavedTensors::keep(const Tensor& tensor) {
  if (!tensor) return none;
  saved_.push_back({.tensor = tensor});
  return Handle(saved_.size()) - 1;
}

Tensor SavedTensors::get(Handle handle) {
  if (handle == none) return {};
  const Saved& saved = saved_[size_t(handle)];
  if (saved.parcel != none) settle(parcels_[size_t(saved.parcel)]);
  return saved.tensor;
}

// Nothing may be on its way to or from memory that others get.
void SavedTensors::drop(Handle& handle) {
  if (handle == none) return;
  Saved& saved = saved_[size_t(handle)];
  if (saved.parcel != none) {
    Parcel& parcel = parcels_[size_t(saved.parcel)];
    if (parcel.state == Parcel::coming) settle(parcel);
    if (parcel.state == Parcel::leaving && outside_) outside_->wait_for_stores();
  }
  saved.tensor = {};
  handle = none;
}

void SavedTensors::clear() {
  const auto on_its_way = [](const Parcel& p) { return p.state == Parcel::leaving || p.state == Parcel::coming; };
  if (outside_ && std::ranges::any_of(parcels_, on_its_way)) {
    try {
      outside_->finish();
    } catch (const Error&) {  // nothing is on its way then
    }
  }
  saved_.clear();
  parcels_.clear();
  sections_.assign(1, {});
  section_ = 0;
  leaving_ = none;
  used_ = 0;
}

void SavedTensors::offload(const OffloadRoom& room) {
  offloads_ = true;
  room_ = room.bytes;
  if (!backend_.planning()) outside_ = backend_.offload(room);
}

std::span<SavedTensors::Saved> SavedTensors::saved_of(int section) {
  const size_t begin = sections_[size_t(section)].saved, next = size_t(section) + 1;
  return {saved_.begin() + int64_t(begin), (next < sections_.size() ? sections_[next].saved : saved_.size()) - begin};
}

std::span<SavedTensors::Parcel> SavedTensors::parcels_of(int section) {
  const size_t begin = sections_[size_t(section)].parcels, next = size_t(section) + 1;
  return {parcels_.begin() + int64_t(begin),
          (next < sections_.size() ? sections_[next].parcels : parcels_.size()) - begin};
}

template <class Visit>
int SavedTensors::for_each_in(const Parcel& parcel, const Visit& visit) {
  int n = 0;
  for (Saved& saved : saved_of(parcel.section)) {
    if (!saved.tensor || saved.parcel != int(&parcel - parcels_.data())) continue;
    visit(saved);
    ++n;
  }
  return n;
}

void SavedTensors::begin_section() {
  let_go_of_leaving();
  const bool last_follows = section_ + 2 == sections_before_;
  if (!last_follows) send_section();
  sections_.push_back({saved_.size(), parcels_.size()});
  ++section_;
}

// Tensors that share memory go as one.
void SavedTensors::send_section() {
  const std::span<Saved> all = saved_of(section_);
  for (size_t i = 0; i < all.size(); ++i) {
    Saved& saved = all[i];
    const Storage& memory = saved.tensor.storage();
    if (memory.bytes() < least_bytes) continue;
    saved.offset = saved.tensor.storage_offset();
    const auto same = [&](const Saved& other) { return other.tensor.storage() == memory; };
    if (const auto found = std::ranges::find_if(all.first(i), same); found != all.begin() + int64_t(i)) {
      saved.parcel = found->parcel;
      continue;
    }
    saved.parcel = int(parcels_.size());
    parcels_.push_back({.at = used_, .bytes = memory.bytes(), .section = section_});
    used_ += offload_room(memory.bytes());
    if (!outside_) continue;
    if (used_ > room_) throw Error("memory.offload: a micro-batch keeps {} bytes, but {} were planned", used_, room_);
    outside_->store(parcels_.back().at, Tensor(memory, {memory.bytes()}, DType::u8));
  }
  most_outside_ = std::max(most_outside_, used_);
  leaving_ = section_;
}

// What others hold too would only be there twice.
void SavedTensors::let_go_of_leaving() {
  if (leaving_ == none) return;
  if (outside_) outside_->wait_for_stores();
  for (Parcel& parcel : parcels_of(leaving_)) {
    int owners = 0;
    const int kept = for_each_in(parcel, [&](Saved& saved) { owners = saved.tensor.storage().owners(); });
    parcel.state = kept == owners ? Parcel::outside : Parcel::here;
    if (parcel.state == Parcel::outside)
      for_each_in(parcel, [](Saved& saved) { saved.tensor = saved.tensor.in({}, 0); });
  }
  leaving_ = none;
}

void SavedTensors::go_back_to(int section) {
  if (section >= section_) return;
  if (section_ + 1 == int(sections_.size())) sections_before_ = int(sections_.size());
  section_ = section;
  if (leaving_ >= section) {  // it has not been let go of yet, and need not be
    if (outside_) outside_->wait_for_stores();
    for (Parcel& parcel : parcels_of(leaving_)) parcel.state = Parcel::here;
    leaving_ = none;
  }
  fetch_section(section);
  if (section > 0) fetch_section(section - 1);
}

// What was kept last is wanted first.
void SavedTensors::fetch_section(int section) {
  const std::span<Parcel> all = parcels_of(section);
  for (size_t i = all.size(); i-- > 0;)
    if (all[i].state == Parcel::outside && for_each_in(all[i], [](Saved&) {}) > 0) fetch(all[i]);
}

void SavedTensors::fetch(Parcel& parcel) {
  const Tensor memory = backend_.make({parcel.bytes}, DType::u8);
  for_each_in(parcel, [&](Saved& saved) { saved.tensor = saved.tensor.in(memory.storage(), saved.offset); });
  if (outside_) parcel.ticket = outside_->fetch(memory, parcel.at);
  parcel.state = Parcel::coming;
}

void SavedTensors::settle(Parcel& parcel) {
  if (parcel.state == Parcel::outside) fetch(parcel);  // wanted out of turn
  if (parcel.state != Parcel::coming) return;
  if (outside_) outside_->wait(parcel.ticket);
  parcel.state = Parcel::here;
}

}  // namespace mixtape
