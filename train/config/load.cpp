// Files, presets and overrides, composed into one configuration.
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <sstream>

#include "train/config/schema.h"

namespace mixtape {
namespace fs = std::filesystem;
namespace {

constexpr size_t most_bytes = 1 << 20;

std::string read_text(const fs::path& file) {
  std::error_code error;
  if (fs::is_directory(file, error)) throw ConfigError("{}: a directory, expected a YAML file", file.string());
  std::ifstream stream(file, std::ios::binary);
  if (!stream)
    throw ConfigError("{}: cannot be opened ({}); expected a YAML file, or key=value", file.string(),
                      std::strerror(errno));
  // One byte more than is allowed, so that read_yaml sees that there is more; a device file may have no end.
  std::string text(most_bytes + 1, '\0');
  stream.read(text.data(), std::streamsize(text.size()));
  text.resize(size_t(stream.gcount()));
  return text;
}

// The places that may hold presets, in the order of the search.
std::vector<fs::path> preset_directories(const std::string& beside) {
  std::vector<fs::path> places;
  if (!beside.empty()) places.push_back(fs::path(beside).parent_path() / "presets");
  if (const char* configured = std::getenv("MIXTAPE_CONFIG_DIR")) places.push_back(fs::path(configured) / "presets");
  places.push_back(fs::path(MIXTAPE_CONFIGS) / "presets");
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) places.push_back(program.parent_path().parent_path() / "share/mixtape/configs/presets");
  return places;
}

std::vector<std::string> names_in(const std::vector<fs::path>& directories) {
  std::vector<std::string> names;
  std::error_code error;
  for (const fs::path& directory : directories)
    for (const auto& entry : fs::directory_iterator(directory, error))
      if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

[[noreturn]] void refuse_preset(const Tree& name, const std::vector<fs::path>& searched) {
  Key all;
  for (const std::string& known : names_in(searched)) all.keys.push_back({.name = known});
  std::string list, places;
  for (const Key& key : all.keys) list += (list.empty() ? "" : ", ") + key.name;
  for (const fs::path& place : searched) places += (places.empty() ? "" : ", ") + place.string();
  throw ConfigError("{}: model.preset is {}, which is in none of {}{}; known: {}", name.origin.text(), name.shown(),
                    places, suggestion(name.text, all), list.empty() ? "none" : list);
}

Tree read_preset(const Tree& name) {
  const bool in_file = name.origin.kind == Origin::file;
  const std::vector<fs::path> places = preset_directories(in_file ? name.origin.source : "");
  const bool simple = name.kind == Tree::scalar && !name.text.empty() && name.text[0] != '.' &&
                      name.text.find('/') == std::string::npos;
  std::error_code error;
  for (const fs::path& place : places) {
    const fs::path file = place / (name.text + ".yaml");
    if (!simple || !fs::is_regular_file(file, error)) continue;
    Tree preset = read_yaml(read_text(file), {Origin::preset, file.string(), 0});
    use_proper_names(preset, *schema().find("model"), "model");
    if (const Tree* inner = preset.find("preset"))
      throw ConfigError("{}: model.preset is {}, but a preset cannot be made of another; give its keys",
                        inner->origin.text(), inner->shown());
    return preset;
  }
  refuse_preset(name, places);
}

// Puts the preset's keys under those that are given.
void expand_preset(Tree& tree) {
  Tree* model = tree.find("model");
  const Tree* name = model ? model->find("preset") : nullptr;
  if (!name || (name->kind == Tree::scalar && name->text.empty())) return;
  Tree below = read_preset(*name);
  merge(below, std::move(*model));
  *model = std::move(below);
}

// `a.b=value`, also `--a.b=value`, as a tree with one leaf.
Tree read_override(std::string_view argument) {
  const Origin origin{Origin::command_line, "", 0};
  const std::string_view text = argument.starts_with("--") ? argument.substr(2) : argument;
  const size_t equals = text.find('=');
  if (equals == text.npos || equals == 0)
    throw ConfigError("command line: '{}' is neither a file nor key=value, such as optimizer.lr=1e-3", argument);
  Tree tree = read_yaml(text.substr(equals + 1), origin);
  std::string_view path = text.substr(0, equals);
  if (std::count(path.begin(), path.end(), '.') > 8) throw ConfigError("command line: '{}': no key lies so deep", path);
  while (!path.empty()) {
    const size_t dot = path.rfind('.');
    Tree map;
    map.kind = Tree::map;
    map.origin = origin;
    map.entries.push_back({std::string(dot == path.npos ? path : path.substr(dot + 1)), std::move(tree)});
    tree = std::move(map);
    path = dot == path.npos ? "" : path.substr(0, dot);
  }
  return tree;
}

// The head is the objective's to say. A preset's or a checkpoint's axes of another head have no effect then.
void fill_head(ResolvedConfig& resolved) {
  ModelConfig& m = resolved.config.model;
  const ObjectiveConfig& o = resolved.config.objective;
  const auto set = [&](const char* key, auto& value, auto derived) {
    if (resolved.origins.contains(key) || value == derived) return;
    value = derived;
    resolved.origins[key] = {Origin::derived, "", 0};
  };
  set("model.head", m.head, head_of(o.name));
  set("model.n_labels", m.n_labels, predicts_labels(o.name) ? int64_t(o.labels.size()) : int64_t(0));
}

// The values that zeros and empty texts of the model and the sources stand for.
void fill_derived(ResolvedConfig& resolved) {
  ModelConfig& m = resolved.config.model;
  fill_head(resolved);
  const auto fill = [&](const char* key, int64_t& value, int64_t derived) {
    if (value != 0) return;
    value = derived;
    resolved.origins[key] = {Origin::derived, "", 0};
  };
  fill("model.n_kv_heads", m.n_kv_heads, m.n_heads);
  if (m.d_model % m.n_heads == 0) fill("model.head_dim", m.head_dim, m.d_model / m.n_heads);
  fill("model.d_ff", m.d_ff, 4 * m.d_model);
  if (m.family == Family::encoder_decoder) fill("model.n_decoder_layers", m.n_decoder_layers, m.n_layers);
  for (size_t i = 0; i < resolved.config.data.sources.size(); ++i) {
    SourceConfig& source = resolved.config.data.sources[i];
    if (!source.name.empty()) continue;
    source.name = fs::path(source.path).filename().string();
    resolved.origins[fmt::format("data.sources[{}].name", i)] = {Origin::derived, "", 0};
  }
}

ResolvedConfig compose(std::vector<Tree> layers, const std::vector<std::string>& overrides, bool presets) {
  for (const std::string& argument : overrides) layers.push_back(read_override(argument));
  Tree tree;
  tree.kind = Tree::map;
  for (Tree& layer : layers) {
    use_proper_names(layer, schema(), "");
    merge(tree, std::move(layer));
  }
  if (presets) expand_preset(tree);
  ResolvedConfig resolved;
  resolved.config = config_from_tree(tree, resolved.origins);
  fill_derived(resolved);
  return resolved;
}

}  // namespace

ResolvedConfig load_config(const std::vector<fs::path>& files, const std::vector<std::string>& overrides) {
  std::vector<Tree> layers;
  for (const fs::path& file : files) layers.push_back(read_yaml(read_text(file), {Origin::file, file.string(), 0}));
  return compose(std::move(layers), overrides, true);
}

ResolvedConfig load_arguments(const std::vector<std::string>& arguments) {
  std::vector<fs::path> files;
  std::vector<std::string> overrides;
  for (const std::string& argument : arguments) {
    if (argument.find('=') != argument.npos)
      overrides.push_back(argument);
    else if (argument.starts_with('-'))
      throw ConfigError("command line: '{}' is no option of this command; a setting is --section.key=value", argument);
    else
      files.push_back(argument);
  }
  return load_config(files, overrides);
}

ResolvedConfig parse_config(std::string_view yaml, const std::string& name, const std::vector<std::string>& overrides) {
  return compose({read_yaml(yaml, {Origin::file, name, 0})}, overrides, true);
}

Config parse_resolved(std::string_view yaml, const std::string& name) {
  return compose({read_yaml(yaml, {Origin::file, name, 0})}, {}, false).config;
}

Config read_resolved(const fs::path& file) { return parse_resolved(read_text(file), file.string()); }

Head head_of(ObjectiveKind kind) {
  switch (kind) {
    case ObjectiveKind::classify:
      return Head::sequence_labels;
    case ObjectiveKind::tag:
      return Head::token_labels;
    default:
      return Head::vocabulary;
  }
}

std::vector<std::string> preset_names() { return names_in(preset_directories("")); }

namespace {

struct Length {
  int64_t steps = 0, samples = 0;
};

int64_t product(int64_t a, int64_t b) {
  int64_t all;
  return __builtin_mul_overflow(a, b, &all) ? INT64_MAX : all;
}

int64_t sum(int64_t a, int64_t b) { return a > INT64_MAX - b ? INT64_MAX : a + b; }

// As many steps as `goes_on(steps, samples)` wants of a batch that grows; the rest, of the full one, by division.
Length ramp_length(const Config& c, const std::function<bool(const Length&)>& goes_on) {
  Length length;
  for (int64_t batch; goes_on(length) && (batch = c.batch_size_at(length.samples)) < c.train.global_batch_size;) {
    length.samples += batch;
    ++length.steps;
  }
  return length;
}

Length length_of(const Config& c) {
  const int64_t full = c.train.global_batch_size;
  if (c.train.max_steps) {
    const Length ramp = ramp_length(c, [&](const Length& l) { return l.steps < *c.train.max_steps; });
    return {*c.train.max_steps, sum(ramp.samples, product(*c.train.max_steps - ramp.steps, full))};
  }
  if (!c.train.max_tokens) return {};
  const int64_t wanted = (*c.train.max_tokens + c.data.seq_length - 1) / c.data.seq_length;
  const Length ramp = ramp_length(c, [&](const Length& l) { return l.samples < wanted; });
  const int64_t rest = std::max<int64_t>(0, (wanted - ramp.samples + full - 1) / full);
  return {ramp.steps + rest, sum(ramp.samples, product(rest, full))};
}

}  // namespace

int64_t Config::total_steps() const { return length_of(*this).steps; }
int64_t Config::total_samples() const { return length_of(*this).samples; }
int64_t Config::total_tokens() const { return product(total_samples(), data.seq_length); }

int64_t Config::batch_size_at(int64_t samples) const {
  const double share =
      train.batch_ramp.tokens > 0 ? double(samples) * double(data.seq_length) / double(train.batch_ramp.tokens) : 1;
  const int64_t unit = train.micro_batch_size, full = train.global_batch_size;
  if (share >= 1) return full;
  const int64_t start = train.batch_ramp.start.value_or(unit);
  return std::min(full, (start + int64_t(share * double(full - start))) / unit * unit);
}

double DataConfig::greatest_weight(size_t source) const {
  double weight = sources[source].weight;
  for (const StageConfig& stage : stages)
    if (source < stage.weights.size()) weight = std::max(weight, stage.weights[source]);
  return weight;
}

}  // namespace mixtape
