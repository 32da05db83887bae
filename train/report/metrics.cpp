// Events as lines of JSON.
#include "train/report/metrics.h"

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

namespace mixtape {
namespace {

using Json = nlohmann::ordered_json;

class Line {
 public:
  Line(const char* event, int64_t step, int64_t tokens) {
    json_["event"] = event;
    json_["step"] = step;
    json_["tokens"] = tokens;
  }

  Line& put(const char* key, double value) {
    if (std::isfinite(value)) {
      json_[key] = value;
    } else {
      json_[key] = nullptr;
      nonfinite_[key] = std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
    }
    return *this;
  }
  Line& put(const char* key, const std::optional<double>& value) { return value ? put(key, *value) : *this; }
  Line& put(const char* key, int64_t value) { return json_[key] = value, *this; }
  Line& put(const char* key, int value) { return json_[key] = value, *this; }
  Line& put(const char* key, bool value) { return json_[key] = value, *this; }
  Line& put(const char* key, const std::string& value) { return json_[key] = value, *this; }
  Line& put(const char* key, Json value) { return json_[key] = std::move(value), *this; }

  std::string text() {
    if (!nonfinite_.empty()) json_["nonfinite"] = nonfinite_;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    json_["time"] = double(std::chrono::duration_cast<std::chrono::milliseconds>(now).count()) / 1000;
    // A document may be no valid UTF-8 where a sample cuts it; the line must be valid JSON all the same.
    return json_.dump(-1, ' ', false, Json::error_handler_t::replace);
  }

 private:
  Json json_, nonfinite_ = Json::object();
};

}  // namespace

std::string json_line(const StartEvent& e) {
  const Json memory{{"parameters", e.memory.parameters},
                    {"gradients", e.memory.gradients},
                    {"optimizer", e.memory.optimizer},
                    {"activations", e.memory.activations},
                    {"workspace", e.memory.workspace}};
  return Line("start", e.step, e.tokens)
      .put("name", e.name)
      .put("command", e.command)
      .put("device", e.device)
      .put("precision", e.precision)
      .put("parameters", e.parameters)
      .put("learning_parameters", e.learning > 0 ? e.learning : e.parameters)
      .put("flops_per_token", e.flops_per_token)
      .put("tokens_per_step", e.tokens_per_step)
      .put("max_tokens", e.max_tokens)
      .put("max_steps", e.max_steps)
      .put("world_size", e.world_size)
      .put("threads", e.threads)
      .put("memory", memory)
      .text();
}

std::string json_line(const StepMetrics& e) {
  Line line(e.skipped ? "skip" : "step", e.step, e.tokens);
  line.put("attempt", e.attempt)
      .put("loss", e.loss)
      .put("grad_norm", e.grad_norm)
      .put("lr", e.lr)
      .put("tokens_per_second", e.tokens_per_second)
      .put("step_seconds", e.step_seconds)
      .put("data_wait_share", e.data_wait_share)
      .put("memory_bytes", e.memory_bytes);
  if (e.loss_scale != 1 || e.skipped) line.put("loss_scale", e.loss_scale);
  if (e.model_flops_per_second > 0) line.put("model_flops_per_second", e.model_flops_per_second);
  if (!e.sources.empty()) {
    Json sources = Json::object();
    for (const SourceShare& source : e.sources)
      sources[source.name] = Json{{"share", source.share}, {"epochs", source.epochs}};
    line.put("sources", std::move(sources));
  }
  return line.text();
}

std::string json_line(const EvalMetrics& e) {
  Line line("eval", e.step, e.tokens);
  line.put("loss", e.loss).put("perplexity", e.perplexity).put("bits_per_byte", e.bits_per_byte);
  for (const Score& score : e.scores) line.put(score.name.c_str(), score.value);
  if (!e.sources.empty()) {
    Json sources = Json::object();
    for (const SourceLoss& source : e.sources) sources[source.name] = source.loss;
    line.put("sources", std::move(sources));
  }
  return line.put("eval_tokens", e.eval_tokens).put("seconds", e.seconds).put("best", e.best).text();
}

std::string json_line(const CheckpointEvent& e) {
  Line line("checkpoint", e.step, e.tokens);
  line.put("path", e.path).put("bytes", e.bytes).put("seconds", e.seconds);
  if (!e.error.empty()) line.put("error", e.error);
  return line.text();
}

std::string json_line(const ResumeEvent& e) { return Line("resume", e.step, e.tokens).put("path", e.path).text(); }

std::string json_line(const StopEvent& e) {
  return Line("stop", e.step, e.tokens).put("reason", e.reason).put("seconds", e.seconds).text();
}

std::string json_line(const SampleEvent& e) {
  return Line("sample", e.step, e.tokens).put("prompt", e.prompt).put("text", e.text).text();
}

std::string json_line(const WarningEvent& e) { return Line("warning", e.step, e.tokens).put("text", e.text).text(); }

}  // namespace mixtape
