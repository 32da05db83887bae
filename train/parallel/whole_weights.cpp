#include "train/parallel/whole_weights.h"

#include "train/parallel/shards.h"

namespace mixtape {
WholeWeights::WholeWeights(const Parameters& parameters, Backend& backend, const RankGrid& grid)
    : parameters_(parameters), grid_(grid), weights_(backend, parameters.weights), parts_(parameters.weight_parts()) {}

Communicator& WholeWeights::owners_of(const ParameterEntry& entry) const {
  return parameters_.storage().shards_weights && entry.learns ? grid_.all() : grid_.tensor();
}

void WholeWeights::bring(const std::string& parameter, int to) {
  const ParameterEntry& entry = parameters_.layout()[parameters_.layout().find(parameter)];
  Communicator& owners = owners_of(entry);
  const int sharing = grid_.tensor().size();
  if (&owners == &grid_.tensor()) {
    if (grid_.data().rank() != to / sharing) return;  // another group's
    to %= sharing;
  }
  // What each of those that share out layers has whole, the first brings.
  static const std::vector<Shards::Part> nothing;
  const bool brings = entry.cut != Cut::none || grid_.tensor().rank() == 0;
  std::vector<std::byte> whole =
      gather(owners, weights_, brings ? parts_ : nothing, {entry.whole_offset, entry.whole.count()}, to);
  if (owners.rank() != to) return;
  held_ = parameter;
  bytes_ = std::move(whole);
}

ParameterView WholeWeights::operator()(const std::string& parameter) {
  const ParameterLayout& layout = parameters_.layout();
  if (held_ != parameter && owners_of(layout[layout.find(parameter)]).size() == 1) bring(parameter, grid_.all().rank());
  if (held_ != parameter) throw Error("weights: {} is not together on rank {}", parameter, grid_.all().rank());
  return {weights_.dtype(), bytes_.data()};
}

}  // namespace mixtape
