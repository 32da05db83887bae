#include "train/checkpoint/run_state.h"

#include "train/checkpoint/json_fields.h"

namespace mixtape {

using json_fields::Json;

std::string to_json(const RunState& state) {
  try {
    return json_fields::encode(state).dump(2) + "\n";
  } catch (const Json::exception&) {
    throw CheckpointError("the run's state holds text that is not UTF-8 (the configuration, or the name of a source)");
  }
}

RunState run_state_from_json(std::string_view text, const std::string& what) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) throw CheckpointError("{}: not valid JSON", what);
  RunState state;
  json_fields::decode(json, state, what + ": ");
  return state;
}

}  // namespace mixtape
