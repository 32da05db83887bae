#include "train/resume.h"

#include <algorithm>

#include "train/parallel/shards.h"
#include "train/parallel/world.h"
#include "train/report/console.h"
#include "train/saved_state.h"

namespace mixtape {
namespace {

// The same to be written to, in a buffer on the host; the padding between parameters stays 0.
std::vector<TensorRef> places(std::vector<std::byte>& host, int64_t elements, DType type,
                              const std::vector<Stored>& stored) {
  host.assign(size_t(elements * size_of(type)), std::byte{});
  std::vector<TensorRef> list;
  for (const Stored& s : stored) list.push_back({s.name, type, s.shape, host.data() + s.offset * size_of(type)});
  return list;
}
}  // namespace

RunState load_run(Engine& engine, const TrainingStep& step, const CheckpointReader* checkpoint) {
  Parameters& p = engine.parameters();
  Communicator& ranks = step.grid().all();
  std::vector<std::byte> host;
  const std::vector<Stored> model = parameters_of(engine.model().layout(), "", false);
  const int64_t elements = p.layout().whole_flat_count();
  if (checkpoint) checkpoint->read_model(places(host, elements, p.weights.dtype(), model));
  distribute(ranks, host.data(), elements, {engine.backend(), p.weights}, p.weight_parts());

  const auto buffers = optimizer_buffers(engine);
  std::vector<TensorRef> all;
  for (const StateBuffer& b : buffers)
    for (const Stored& s : b.stored) all.push_back({s.name, b.flat.dtype(), s.shape});
  if (checkpoint) checkpoint->expect_optimizer(all);
  host = {};
  for (const StateBuffer& b : buffers) {
    if (ranks.size() == 1) {  // from the file to where it belongs, which may be another file
      for (const Stored& s : b.stored)
        b.flat.write(s.offset, count_of(s.shape), checkpoint->optimizer_bytes(s.name).data());
      continue;
    }
    const int64_t count = whole_count(p, b);
    if (checkpoint) checkpoint->read_optimizer(places(host, count, b.flat.dtype(), b.stored));
    const std::vector<Shards::Part> whole{{{0, count}, 0}};
    distribute(ranks, host.data(), count, b.flat, is_cut(p, b) ? p.learning_parts(b.each) : whole);
  }

  const RunState state = run_state_from_json(broadcast_text(ranks, checkpoint ? to_json(checkpoint->state()) : ""),
                                             "the state from rank 0");
  StepState& now = engine.state();
  now.attempts = uint64_t(state.attempts);
  now.updates = uint64_t(state.updates);
  if (step.scales_loss()) now.loss_scale = float(state.loss_scaler.scale);
  now.growth_tracker = state.loss_scaler.growth_tracker;
  now.hysteresis_left = state.loss_scaler.hysteresis_left;
  now.overflows = state.loss_scaler.overflows;
  now.grad_norm = float(state.grad_norm.value_or(0));
  engine.upload_state();
  engine.backend().set_choices(state.matmul_table);
  return state;
}

void expect_same_shapes(const HfModel& model, const Config& config) {
  const auto texts = [](const ModelSpec& spec) {
    std::vector<std::string> list;
    for (const ParameterShape& p : parameter_shapes(spec))
      list.push_back(fmt::format("{} {}", p.name, text_of(p.shape)));
    return list;
  };
  if (texts(model.spec) == texts(config.model)) return;
  Config there = config;
  static_cast<ModelSpec&>(there.model) = model.spec;
  std::string differences;
  for (const ConfigChange& c : compare_for_resume(there, config))
    if (c.saved != "auto" && c.now != "auto" && c.key.find("dropout") == c.key.npos)
      differences +=
          fmt::format("{}{} is {} there and {} here", differences.empty() ? "" : ", ", c.key, c.saved, c.now);
  throw ConfigError("run.init_from: {} is a model of another shape: {}", *config.run.init_from, differences);
}

void load_weights(Engine& engine, const HfModel& model) {
  model.expect_complete();
  std::vector<float> values;
  std::vector<int8_t> codes;
  const ParameterLayout& layout = engine.model().layout();
  for (int id = 0; id < layout.size(); ++id) {
    if (is_adapter(layout[id].name) || std::ranges::binary_search(model.fresh, layout[id].name)) continue;
    if (layout[id].coded) {
      codes.resize(size_t(layout[id].count()));
      values.resize(size_t(layout[id].shape.rows()));
      model.read_codes(layout[id].name, codes, values);
      engine.parameters().load_codes(id, codes.data(), values.data());
      continue;
    }
    values.resize(size_t(layout[id].whole.count()));
    model.read(layout[id].name, values);
    engine.parameters().load(id, values.data());
  }
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
