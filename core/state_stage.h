// The optimizer's state on its way through the device's memory: while a piece of it is updated, the next one is fetched
// and the one before is stored.
//
// There are two places, each for the largest piece. Pieces go through them in turns: the place of one that was updated
// is stored and then takes the piece after the next. In which order pieces are asked for is the same in each step, and
// is learned in the first: in backward the one with a large table may be the first to begin and the last to be updated.
#pragma once

#include <array>
#include <vector>

#include "core/parameters.h"

namespace mixtape {

class StateStage {
 public:
  // `pieces`: runs of the rank's own buffers, as they are expected to be asked for. Memory from the back end's arena.
  StateStage(const Parameters& parameters, Backend& backend, std::vector<Run> pieces);
  ~StateStage();
  StateStage(const StateStage&) = delete;
  StateStage& operator=(const StateStage&) = delete;

  // The state of a piece, of which what is not offloaded lies where it always does. One at a time: give_back() before
  // the next.
  UpdateState take(int piece);
  void give_back();

 private:
  struct Place {
    std::array<Tensor, 5> memory;  // of buffers_, for the largest piece; absent of what is absent
    int piece = -1;                // what is there, or on its way
    Offload::Ticket ticket = 0;
  };
  Tensor part(const Place& place, int buffer, int piece) const;
  Run run_of(int buffer, int piece) const;
  void fetch(Place& place, int piece);
  void fetch_ahead();
  Place* place_of(int piece);

  const Parameters& parameters_;
  std::array<const FlatState*, 5> buffers_;  // master, m and v: values and scales
  std::vector<Run> pieces_;
  std::vector<int> after_;  // by piece: which is asked for next
  std::array<Place, 2> places_;
  Offload* outside_ = nullptr;
  int64_t writes_seen_ = 0;
  int taken_ = -1, last_ = -1;
};

}  // namespace mixtape
