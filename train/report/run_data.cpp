#include "train/report/run_data.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "train/report/units.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr size_t most_text = 4 << 20;  // of one small file, and of one line

double number(const Json& json, const char* key, double otherwise = nan) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : otherwise;
}

int64_t integer(const Json& json, const char* key) {
  const double value = number(json, key, 0);
  return value > -9e15 && value < 9e15 ? int64_t(value) : 0;
}

std::string text(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string read_small(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::string content(most_text, '\0');
  in.read(content.data(), std::streamsize(content.size()));
  content.resize(size_t(std::max<std::streamsize>(in.gcount(), 0)));
  return content;
}

// A step that is logged again (after a resume) replaces what was there from that step on.
void append(Series& series, double step, double value) {
  while (!series.step.empty() && series.step.back() >= step) {
    series.step.pop_back();
    series.value.pop_back();
  }
  series.step.push_back(step);
  series.value.push_back(value);
}

StartEvent start_of(const Json& json) {
  StartEvent start;
  start.step = integer(json, "step");
  start.name = text(json, "name");
  start.command = text(json, "command");
  start.device = text(json, "device");
  start.precision = text(json, "precision");
  start.parameters = integer(json, "parameters");
  start.flops_per_token = number(json, "flops_per_token", 0);
  start.tokens_per_step = integer(json, "tokens_per_step");
  start.max_steps = integer(json, "max_steps");
  start.world_size = int(integer(json, "world_size"));
  start.threads = int(integer(json, "threads"));
  if (const auto memory = json.find("memory"); memory != json.end() && memory->is_object())
    start.memory = {integer(*memory, "parameters"), integer(*memory, "gradients"), integer(*memory, "optimizer"),
                    integer(*memory, "activations"), integer(*memory, "workspace")};
  return start;
}

constexpr size_t most_sources = 8;

class Reader {
 public:
  explicit Reader(RunData& run) : run_(run) {}

  void line(const std::string& line) {
    const Json json = line.size() > most_text ? Json() : Json::parse(line, nullptr, false);
    if (!json.is_object()) {
      ++run_.unreadable_lines;
      return;
    }
    const std::string event = text(json, "event");
    const double time = number(json, "time", 0);
    if (run_.first_time == 0) run_.first_time = time;
    if (time > 0) run_.last_time = time;
    if (event == "step") return step(json);
    if (event == "eval") return eval(json);
    if (event == "start") {
      run_.start = start_of(json);
      run_.has_start = true;
      run_.status.clear();
    } else if (event == "sample") {
      run_.samples.push_back(
          {integer(json, "step"), integer(json, "tokens"), text(json, "prompt"), text(json, "text")});
    } else {
      if (event == "skip") skip(json);
      if (event == "stop") stop(json);
      if (const std::string words = description(event, json); !words.empty())
        run_.events.push_back({event, integer(json, "step"), time, words});
    }
  }

 private:
  void step(const Json& json) {
    const int64_t step = integer(json, "step");
    const double at = double(step);
    append(run_.loss, at, number(json, "loss"));
    append(run_.lr, at, number(json, "lr"));
    append(run_.grad_norm, at, number(json, "grad_norm"));
    append(run_.tokens_per_second, at, number(json, "tokens_per_second"));
    append(run_.memory_bytes, at, number(json, "memory_bytes"));
    append(run_.data_wait_share, at, number(json, "data_wait_share"));
    if (json.contains("loss_scale")) append(run_.loss_scale, at, number(json, "loss_scale"));
    run_.last_step = step;
    run_.last_tokens = integer(json, "tokens");
    run_.training_seconds += std::max(0.0, number(json, "step_seconds", 0));
    sources(json);
  }

  void sources(const Json& json) {
    const auto sources = json.find("sources");
    if (sources == json.end() || !sources->is_object()) return;
    run_.sources.clear();
    for (const auto& [name, source] : sources->items())
      if (source.is_object()) run_.sources.push_back({name, number(source, "share"), number(source, "epochs")});
  }

  void eval(const Json& json) {
    const double step = double(integer(json, "step"));
    append(run_.validation_loss, step, number(json, "loss"));
    const auto sources = json.find("sources");
    if (sources == json.end() || !sources->is_object()) return;
    for (const auto& [name, loss] : sources->items()) {
      auto known = std::find_if(run_.source_losses.begin(), run_.source_losses.end(),
                                [&](const auto& s) { return s.first == name; });
      if (known == run_.source_losses.end() && run_.source_losses.size() < most_sources)
        known = run_.source_losses.insert(known, {name, {}});
      if (known != run_.source_losses.end()) append(known->second, step, number(*sources, name.c_str()));
    }
  }

  void skip(const Json& json) {
    ++run_.skipped_steps;
    if (json.contains("loss_scale")) append(run_.loss_scale, double(integer(json, "step")), number(json, "loss_scale"));
  }

  void stop(const Json& json) {
    const std::string reason = text(json, "reason");
    run_.status = reason == "finished" ? reason : "stopped: " + reason;
  }

  // A value that was not finite stands under "nonfinite".
  static std::string value_text(const Json& json, const char* key) {
    const double value = number(json, key);
    if (std::isfinite(value)) return fmt::format("{:.4g}", value);
    const auto nonfinite = json.find("nonfinite");
    const std::string name = nonfinite != json.end() && nonfinite->is_object() ? text(*nonfinite, key) : "";
    return name.empty() ? "unknown" : name;
  }

  static std::string description(const std::string& event, const Json& json) {
    if (event == "skip")
      return fmt::format("step skipped: loss {}, gradient norm {}, loss scale {}", value_text(json, "loss"),
                         value_text(json, "grad_norm"), value_text(json, "loss_scale"));
    if (event == "checkpoint") {
      const std::string error = text(json, "error");
      if (!error.empty()) return "not saved: " + error;
      return fmt::format("{} ({} in {})", text(json, "path"), human_bytes(number(json, "bytes", 0)),
                         human_duration(number(json, "seconds", 0)));
    }
    if (event == "resume") return "from " + text(json, "path");
    if (event == "stop") return text(json, "reason");
    if (event == "warning") return text(json, "text");
    return "";
  }

  RunData& run_;
};

// A trainer holds the lock of its run directory for as long as it lives.
bool is_locked(const fs::path& run) {
  const int fd = ::open((run / ".lock").c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool locked = ::flock(fd, LOCK_SH | LOCK_NB) != 0;
  ::close(fd);
  return locked;
}

// Depth and number of keys are bounded: aliases can make a small file into an endless tree.
void flatten(const YAML::Node& node, const std::string& prefix, int depth, std::map<std::string, std::string>& out) {
  if (depth > 16 || out.size() > 5000) return;
  const auto below = [&](const std::string& key) { return prefix.empty() ? key : prefix + "." + key; };
  if (node.IsMap()) {
    for (const auto& pair : node)
      if (pair.first.IsScalar()) flatten(pair.second, below(pair.first.Scalar()), depth + 1, out);
  } else if (node.IsSequence()) {
    std::string list;
    bool scalars = true;
    for (const auto& item : node) {
      scalars = scalars && item.IsScalar();
      if (scalars) list += (list.empty() ? "" : ", ") + item.Scalar();
    }
    if (scalars) {
      out[prefix] = "[" + list + "]";
    } else {
      for (size_t i = 0; i < node.size(); ++i) flatten(node[i], below(std::to_string(i)), depth + 1, out);
    }
  } else if (!prefix.empty()) {
    out[prefix] = node.IsScalar() ? node.Scalar() : "null";
  }
}

void flatten(const Json& json, const std::string& prefix, std::vector<std::pair<std::string, std::string>>& out) {
  if (json.is_structured()) {
    if (std::count(prefix.begin(), prefix.end(), '.') > 8) return;
    for (const auto& [key, value] : json.items()) flatten(value, prefix.empty() ? key : prefix + "." + key, out);
  } else {
    out.emplace_back(prefix, json.is_string() ? json.get<std::string>() : json.dump());
  }
}

void read_config(RunData& run) {
  run.config_yaml = read_small(run.path / "config.resolved.yaml");
  try {
    flatten(YAML::Load(run.config_yaml), "", 0, run.config);
  } catch (const YAML::Exception&) {
    run.config.clear();  // the page shows the text; only the comparison of keys is lost
  }
}

}  // namespace

RunData read_run(const fs::path& path) {
  RunData run;
  run.path = path;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored))
    throw ConfigError("{}: not a directory; give the directory of a run, for example runs/NAME", path.string());
  if (!fs::exists(path / "metrics.jsonl", ignored) && !fs::exists(path / "config.resolved.yaml", ignored))
    throw ConfigError("{}: not the directory of a run: it has no metrics.jsonl and no config.resolved.yaml",
                      path.string());

  std::ifstream metrics(path / "metrics.jsonl", std::ios::binary);
  Reader reader(run);
  for (std::string line; std::getline(metrics, line);)
    if (!line.empty()) reader.line(line);

  read_config(run);
  const Json environment = Json::parse(read_small(path / "env.json"), nullptr, false);
  if (environment.is_object()) flatten(environment, "", run.environment);

  const fs::path whole = fs::absolute(path, ignored).lexically_normal();
  run.name = !run.start.name.empty() ? run.start.name
                                     : (whole.has_filename() ? whole : whole.parent_path()).filename().string();
  // A run that writes its own report still holds the lock; what it has said last counts more.
  if (run.status.empty()) run.status = is_locked(path) ? "running" : run.loss.step.empty() ? "no steps yet" : "killed";
  return run;
}

std::vector<std::pair<std::string, std::vector<std::string>>> config_differences(const std::vector<RunData>& runs) {
  std::set<std::string> keys;
  for (const RunData& run : runs)
    for (const auto& [key, value] : run.config) keys.insert(key);
  std::vector<std::pair<std::string, std::vector<std::string>>> differences;
  for (const std::string& key : keys) {
    std::vector<std::string> values;
    for (const RunData& run : runs) {
      const auto found = run.config.find(key);
      values.push_back(found == run.config.end() ? "" : found->second);
    }
    if (std::any_of(values.begin(), values.end(), [&](const std::string& v) { return v != values.front(); }))
      differences.emplace_back(key, std::move(values));
  }
  return differences;
}

}  // namespace mixtape
