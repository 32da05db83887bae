#include "core/state_stage.h"

#include <algorithm>
#include <utility>

namespace mixtape {

StateStage::StateStage(const Parameters& parameters, Backend& backend, std::vector<Run> pieces)
    : parameters_(parameters),
      buffers_{&parameters.master, &parameters.m.values, &parameters.m.scales, &parameters.v.values,
               &parameters.v.scales},
      pieces_(std::move(pieces)),
      after_(pieces_.size()) {
  int64_t largest = 0;
  for (const Run& run : pieces_) largest = std::max(largest, run.count);
  for (size_t p = 0; p < pieces_.size(); ++p) after_[p] = int((p + 1) % pieces_.size());
  for (size_t b = 0; b < buffers_.size(); ++b) {
    if (!buffers_[b]->offloaded()) continue;
    outside_ = buffers_[b]->outside();
    const bool scales = buffers_[b] == &parameters.m.scales || buffers_[b] == &parameters.v.scales;
    for (Place& place : places_)
      place.memory[b] = backend.make({scales ? Moment::blocks_of(largest) : largest}, buffers_[b]->dtype(),
                                     b == 0 ? Category::master : Category::optimizer);
  }
}

// What is on its way would else meet whoever gets the memory next.
StateStage::~StateStage() {
  try {
    if (outside_) outside_->finish();
  } catch (const Error&) {  // nothing is on its way then
  }
}

// Of scales: those of the piece's blocks.
Run StateStage::run_of(int buffer, int piece) const {
  const Run& run = pieces_[size_t(piece)];
  const bool scales = buffer == 2 || buffer == 4;
  return scales ? Run{run.begin / moment_block, Moment::blocks_of(run.count)} : run;
}

Tensor StateStage::part(const Place& place, int buffer, int piece) const {
  const Tensor& memory = place.memory[size_t(buffer)];
  return memory ? Parameters::part(memory, {0, run_of(buffer, piece).count}) : Tensor{};
}

StateStage::Place* StateStage::place_of(int piece) {
  const auto found = std::ranges::find(places_, piece, &Place::piece);
  return found == places_.end() ? nullptr : &*found;
}

void StateStage::fetch(Place& place, int piece) {
  place.piece = piece;
  for (int b = 0; b < int(buffers_.size()); ++b)
    if (const Tensor to = part(place, b, piece))
      place.ticket = outside_->fetch(to, buffers_[size_t(b)]->place_of(run_of(b, piece).begin));
}

// Into a free place the piece after the one that the other has.
void StateStage::fetch_ahead() {
  for (size_t i = 0; i < places_.size(); ++i) {
    const int other = places_[1 - i].piece, next = after_[size_t(other >= 0 ? other : last_)];
    if (places_[i].piece < 0 && next != other) fetch(places_[i], next);
  }
}

UpdateState StateStage::take(int piece) {
  const UpdateState held = parameters_.held_state(pieces_[size_t(piece)]);
  if (taken_ >= 0) throw Error("state: piece {} is asked for before {} was given back", piece, taken_);
  taken_ = piece;
  if (last_ >= 0) after_[size_t(last_)] = piece;
  last_ = piece;
  Place* place = &places_[0];
  if (outside_) {
    place = place_of(piece);
    if (!place || writes_seen_ != outside_->writes()) {  // not what was expected, or loaded since
      for (Place& p : places_) p.piece = -1;
      fetch(*(place = &places_[0]), piece);
      writes_seen_ = outside_->writes();
    }
    fetch_ahead();
    outside_->wait(place->ticket);
  }
  const auto of = [&](int buffer, const Tensor& if_held) {
    return buffers_[size_t(buffer)]->offloaded() ? part(*place, buffer, piece) : if_held;
  };
  return {
      of(0, held.master), {of(1, held.m.values), of(2, held.m.scales)}, {of(3, held.v.values), of(4, held.v.scales)}};
}

void StateStage::give_back() {
  const int piece = std::exchange(taken_, -1);
  if (!outside_) return;
  Place& place = *place_of(piece);
  for (int b = 0; b < int(buffers_.size()); ++b)
    if (const Tensor from = part(place, b, piece))
      outside_->store(buffers_[size_t(b)]->place_of(run_of(b, piece).begin), from);
  place.piece = -1;
  fetch_ahead();
}

}  // namespace mixtape
