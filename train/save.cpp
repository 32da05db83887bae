// Saving a run: weights, masters, moments and what a resume needs beside them.
#include "train/joint_files.h"
#include "train/resume.h"

namespace mixtape {

std::filesystem::path save_run(Engine& engine, const TrainingStep& step, RunState& state,
                               const CheckpointDirectory& directory, const SpecialIds& ids,
                               const std::vector<std::filesystem::path>& tokenizer_files) {
  const StepState& now = engine.state();
  state.loss_scaler = {.scale = now.loss_scale,
                       .growth_tracker = now.growth_tracker,
                       .hysteresis_left = now.hysteresis_left,
                       .overflows = now.overflows};
  state.grad_norm = now.grad_norm;
  state.matmul_table = engine.backend().choices();
  JointFiles files(engine, step.grid());
  if (step.grid().all().rank() > 0) {
    files.follow();
    return {};
  }
  CheckpointContents contents{.spec = engine.model().spec(),
                              .lora = engine.options().lora,
                              .weights = files.weights(),
                              .optimizer = files.optimizer_tensors(),
                              .write = [&](const std::filesystem::path& path,
                                           std::vector<TensorSource> t) { return files.write(path, std::move(t)); },
                              .state = state,
                              .ids = ids,
                              .tokenizer_files = tokenizer_files};
  for (const Stored& s : parameters_of(engine.model().layout(), "", false))
    contents.model.push_back({s.name, engine.parameters().weights.dtype(), s.shape});
  try {
    const std::filesystem::path path = save_checkpoint(directory, contents);
    files.release();
    return path;
  } catch (const CheckpointError&) {
    files.release();
    throw;
  }
}

}  // namespace mixtape
