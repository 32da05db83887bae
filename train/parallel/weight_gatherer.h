// The weights of ZeRO-3: each rank keeps its own parts, and has a bucket whole from shortly before it is read until
// another is.
//
// In training the order in which a micro-batch reads buckets is known from the one before it: while a bucket is used
// the next one is on its way. So two are there at once, or three for a moment, as what still reads a bucket holds it.
// The first micro-batch, and validation and sampling, wait for each.
#pragma once

#include <vector>

#include "core/communicator.h"
#include "core/exchange.h"
#include "core/parameters.h"

namespace mixtape {

class WeightGatherer final : public WeightSource {
 public:
  // Takes its place as the source of the weights, while it lives. `device`: of memory that is not the host's, or null.
  WeightGatherer(Parameters& parameters, Backend& backend, Communicator& ranks, Exchange* device = nullptr);
  ~WeightGatherer() override;

  // A micro-batch of training, between the two.
  void begin_micro_batch();
  void end_micro_batch();

  Tensor weights_of(int bucket) override;
  void forget() override;

 private:
  // A bucket, gathered or on its way.
  struct Held {
    int bucket = -1;
    Tensor weights;
    int64_t job = 0;  // or the device's ticket
  };
  void fetch(Held& to, int bucket);
  int64_t gather_on_device(const Held& to);
  void wait_for(const Held& held);
  void go_to(int bucket);
  int next_in_order() const;

  Parameters& parameters_;
  Backend& backend_;
  Communicator& ranks_;
  Exchange* const device_;
  Held now_, next_;
  bool training_ = false;
  bool knows_order_ = false;
  std::vector<int> order_;  // in which a micro-batch reads buckets
  size_t at_ = 0;           // of how many it has read
};

}  // namespace mixtape
