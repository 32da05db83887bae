#include "train/resume.h"

#include <algorithm>
#include <deque>

#include "train/report/console.h"

namespace mixtape {
namespace {

Extents extents_of(const Shape& shape) {
  Extents extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  return extents;
}

// Whether a flat buffer has a part of its own for the parameter: a short one ends before those that do not learn.
bool holds(const Tensor& flat, const ParameterEntry& entry) { return entry.offset < flat.count(); }

// All parameters of one flat buffer, as the checkpoint sees them. `held` keeps what had to be copied from the device.
std::vector<ConstTensorRef> views(Engine& engine, const Tensor& flat, std::deque<std::vector<std::byte>>& held) {
  std::vector<ConstTensorRef> list;
  const auto* base = static_cast<const std::byte*>(engine.backend().host_view(flat, held.emplace_back()));
  for (const ParameterEntry& entry : engine.model().layout().entries())
    if (holds(flat, entry))
      list.push_back({entry.name, flat.dtype(), extents_of(entry.shape), base + entry.offset * size_of(flat.dtype())});
  return list;
}

// Reads all parameters of one flat buffer through a host copy; the padding between them stays 0.
template <class Read>
void fill(Engine& engine, const Tensor& flat, Read&& read) {
  std::vector<std::byte> host(size_t(flat.bytes()));
  std::vector<TensorRef> list;
  for (const ParameterEntry& entry : engine.model().layout().entries())
    if (holds(flat, entry))
      list.push_back(
          {entry.name, flat.dtype(), extents_of(entry.shape), host.data() + entry.offset * size_of(flat.dtype())});
  read(std::span<const TensorRef>(list));
  engine.backend().copy_from_host(flat, host.data());
}

}  // namespace

std::filesystem::path save_run(Engine& engine, TrainingStep& step, RunState& state,
                               const CheckpointDirectory& directory, const SpecialIds& ids,
                               const std::vector<std::filesystem::path>& tokenizer_files) {
  const LossScaler& scaler = step.scaler();
  state.loss_scaler = {.scale = scaler.scale(),
                       .growth_tracker = scaler.growth_tracker(),
                       .hysteresis_left = scaler.hysteresis_left(),
                       .overflows = scaler.overflows()};
  state.matmul_table = engine.backend().choices();
  Parameters& p = engine.parameters();
  std::deque<std::vector<std::byte>> held;
  CheckpointContents contents{.spec = engine.model().spec(),
                              .lora = engine.options().lora,
                              .model = views(engine, p.weights, held),
                              .m = views(engine, p.m, held),
                              .v = views(engine, p.v, held),
                              .state = state,
                              .ids = ids,
                              .tokenizer_files = tokenizer_files};
  if (p.master) contents.master = views(engine, p.master, held);
  return save_checkpoint(directory, contents);
}

RunState load_run(Engine& engine, TrainingStep& step, const CheckpointReader& checkpoint) {
  Parameters& p = engine.parameters();
  fill(engine, p.weights, [&](std::span<const TensorRef> list) { checkpoint.read_model(list); });
  if (p.master) fill(engine, p.master, [&](std::span<const TensorRef> list) { checkpoint.read_master(list); });
  fill(engine, p.m, [&](std::span<const TensorRef> list) { checkpoint.read_m(list); });
  fill(engine, p.v, [&](std::span<const TensorRef> list) { checkpoint.read_v(list); });
  const RunState& state = checkpoint.state();
  engine.state().attempts = uint64_t(state.attempts);
  engine.state().updates = uint64_t(state.updates);
  engine.upload_state();
  step.scaler().restore(float(state.loss_scaler.scale), state.loss_scaler.growth_tracker,
                        state.loss_scaler.hysteresis_left, state.loss_scaler.overflows);
  engine.backend().set_choices(state.matmul_table);
  return state;
}

void load_weights(Engine& engine, const HfModel& model) {
  model.expect_complete();
  std::vector<float> values;
  const ParameterLayout& layout = engine.model().layout();
  for (int id = 0; id < layout.size(); ++id) {
    if (is_adapter(layout[id].name) || std::ranges::binary_search(model.fresh, layout[id].name)) continue;
    values.resize(size_t(layout[id].count()));
    model.read(layout[id].name, values);
    engine.parameters().load(id, values.data());
  }
  engine.parameters().refresh_weights();
}

std::filesystem::path find_model(const std::filesystem::path& path) {
  if (is_huggingface_directory(path)) return path;
  const CheckpointDirectory checkpoints(std::filesystem::is_directory(path / "checkpoints") ? path / "checkpoints"
                                                                                            : path);
  const auto newest = checkpoints.newest_whole([](const std::string& text) { console().warn(text); });
  if (newest) return newest->path;
  throw CheckpointError(
      "{}: no model there; expected a run directory, a checkpoint, or a Hugging Face directory "
      "(config.json and model.safetensors)",
      path.string());
}

}  // namespace mixtape
