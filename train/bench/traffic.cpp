#include "train/bench/traffic.h"

#include <algorithm>

namespace mixtape {

// A sum of which each process gets its part takes (W - 1) / W of the bytes, and so does giving all of them all parts.
StepTraffic step_traffic(const Config& config, const EngineOptions& options, const Transformer& model, int world) {
  const int sharing = options.layers->size(), groups = world / sharing;
  const double once = double(groups - 1) / groups * double(model.layout().learning_flat_count());
  StepTraffic t{.rounds = double(config.train.global_batch_size / (config.train.micro_batch_size * groups)),
                .stage = config.parallel.zero_stage};
  t.layers = t.rounds * model.rank_traffic(options.lengths(), double(options.rows), options.recompute)
                            .bytes(sharing, options.types.compute);
  t.gradients = 4 * once * (t.stage == 0 ? 2 : t.stage == 1 ? 1 : t.rounds);
  t.weights = double(size_of(options.types.compute)) * once * (t.stage == 0 ? 0 : t.stage == 3 ? 2 * t.rounds : 1);
  return t;
}

// Of stages 0 and 1 the last micro-batch's backward, two thirds of it, hides the sums; of stages 2 and 3 forward and
// backward hide what belongs to them. Of layers that ranks share out nothing is hidden, as each needs what comes of the
// one before. The update is left out, which takes little beside them.
double step_seconds(const StepTraffic& t, double compute, double bytes_per_second) {
  compute += t.layers / bytes_per_second;
  const double gradients = t.gradients / bytes_per_second, weights = t.weights / bytes_per_second;
  if (t.stage <= 1) return compute + std::max(0.0, gradients - compute / t.rounds * 2 / 3) + weights;
  if (t.stage == 2) return std::max(compute, compute / 3 + gradients) + weights;
  return std::max({compute, compute / 3 + gradients + weights / 2, gradients + weights});
}

}  // namespace mixtape
