// Models in one safetensors file or in shards with an index.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "train/checkpoint/safetensors.h"

namespace mixtape {
namespace {

using nlohmann::json;
using Placement = std::map<std::string, std::string>;  // tensor -> shard

// A name that leaves the directory would let an index read any file of the user's.
bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos && name.ends_with(".safetensors");
}

Placement read_index(const std::filesystem::path& path) {
  constexpr int max_depth = 3;
  std::vector<std::set<std::string>> keys(max_depth + 1);
  const auto guard = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > max_depth) throw CheckpointError("{}: nested too deeply", path.string());
    if (event == json::parse_event_t::object_start && depth < max_depth) keys[size_t(depth) + 1].clear();
    if (event == json::parse_event_t::key && !keys[size_t(depth)].insert(value.get<std::string>()).second)
      throw CheckpointError("{}: the key '{}' occurs twice", path.string(), value.get<std::string>());
    return true;
  };
  json root;
  try {
    root = json::parse(read_text_file(path, 100'000'000), guard);
  } catch (const json::exception&) {
    throw CheckpointError("{}: not valid JSON", path.string());
  }
  const auto map = root.is_object() ? root.find("weight_map") : root.end();
  if (!root.is_object() || map == root.end() || !map->is_object() || map->empty())
    throw CheckpointError("{}: no 'weight_map' of tensor names to file names in it", path.string());
  Placement placement;
  for (const auto& [name, shard] : map->items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get<std::string>()))
      throw CheckpointError(
          "{}: tensor '{}' is said to lie in {}, expected the name of a .safetensors file beside the index",
          path.string(), name, shard.dump());
    placement[name] = shard.get<std::string>();
  }
  return placement;
}

}  // namespace

SafetensorsModel SafetensorsModel::open(const std::filesystem::path& directory) {
  SafetensorsModel model;
  model.what_ = directory.string();
  const auto single = directory / "model.safetensors", index = directory / "model.safetensors.index.json";
  Placement placement;
  std::set<std::string> shards = {"model.safetensors"};
  if (!std::filesystem::exists(single)) {
    if (!std::filesystem::exists(index))
      throw CheckpointError("{}: neither model.safetensors nor model.safetensors.index.json is in it",
                            directory.string());
    placement = read_index(index);
    shards.clear();
    for (const auto& [name, shard] : placement) shards.insert(shard);
  }
  // All files stand in the vector before pointers into them are taken.
  for (const std::string& shard : shards) model.files_.push_back(SafetensorsFile::open(directory / shard));
  auto shard = shards.begin();
  for (const SafetensorsFile& file : model.files_) {
    for (const StoredTensor& tensor : file.tensors()) {
      const auto placed = placement.find(tensor.name);
      if (!placement.empty() && (placed == placement.end() || placed->second != *shard))
        throw CheckpointError("{}: tensor '{}' lies in {}, where the index does not have it", directory.string(),
                              tensor.name, *shard);
      model.index_[tensor.name] = &tensor;
    }
    ++shard;
  }
  for (const auto& [name, file] : placement)
    if (!model.index_.contains(name))
      throw CheckpointError("{}: tensor '{}' is not in {}, where the index has it", directory.string(), name, file);
  return model;
}

std::vector<std::string> SafetensorsModel::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : index_) names.push_back(name);
  return names;
}

const StoredTensor* SafetensorsModel::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : found->second;
}

const StoredTensor& SafetensorsModel::at(std::string_view name) const {
  if (const StoredTensor* tensor = find(name)) return *tensor;
  throw CheckpointError("{}: there is no tensor '{}' in it", what_, name);
}

std::vector<FileRecord> write_safetensors_model(const std::filesystem::path& directory,
                                                std::vector<TensorSource> tensors, uint64_t max_shard_bytes,
                                                const TensorWriter& write) {
  std::ranges::sort(tensors, {}, &TensorSource::name);
  std::vector<std::vector<TensorSource>> shards(1);
  uint64_t total = 0, in_shard = 0;
  for (TensorSource& tensor : tensors) {
    const uint64_t bytes = uint64_t(count_of(tensor.shape) * size_of(tensor.type));
    if (in_shard > 0 && in_shard + bytes > max_shard_bytes) shards.emplace_back(), in_shard = 0;
    shards.back().push_back(std::move(tensor));
    in_shard += bytes;
    total += bytes;
  }
  if (shards.size() == 1) return {write(directory / "model.safetensors", std::move(shards[0]))};

  std::vector<FileRecord> records;
  json map = json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    for (const TensorSource& tensor : shards[i]) map[tensor.name] = name;
    records.push_back(write(directory / name, std::move(shards[i])));
  }
  const json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  records.push_back(write_text_file(directory / "model.safetensors.index.json", index.dump(2) + "\n"));
  return records;
}

}  // namespace mixtape
