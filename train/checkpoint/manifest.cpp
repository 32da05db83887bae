// manifest.json: the files of a checkpoint, and a hash of the list itself.
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "train/checkpoint/directory.h"

namespace mixtape {
namespace {

using nlohmann::json;

constexpr const char* format_name = "mixtape-checkpoint";
constexpr int format_version = 1;

// Over the canonical text (sorted keys, no blanks) of all but the hash.
std::string hash_of(json manifest) {
  manifest.erase("manifest_xxh3");
  const std::string text = manifest.dump();
  Hasher hasher;
  hasher.update(std::as_bytes(std::span(text)));
  return hasher.hex();
}

}  // namespace

FileRecord write_checkpoint_manifest(const std::filesystem::path& directory, const CheckpointManifest& manifest) {
  json files = json::object();
  for (const FileRecord& file : manifest.files) {
    if (files.contains(file.name)) throw Error("{}: the file '{}' was added twice", directory.string(), file.name);
    files[file.name] = {{"bytes", file.bytes}, {"xxh3", file.xxh3}};
  }
  json root = {{"format", format_name}, {"version", format_version}, {"step", manifest.step}, {"files", files}};
  root["manifest_xxh3"] = hash_of(root);
  return write_text_file(directory / "manifest.json", root.dump(2) + "\n");
}

CheckpointManifest read_checkpoint_manifest(const std::filesystem::path& directory) {
  const auto path = directory / "manifest.json";
  if (!std::filesystem::exists(path))
    throw CheckpointError("{}: no manifest.json in it; it is not a checkpoint, or an incomplete one",
                          directory.string());
  const json root = json::parse(read_text_file(path), nullptr, false);
  try {
    if (root.is_discarded() || root.at("format") != format_name || root.at("manifest_xxh3") != hash_of(root))
      throw CheckpointError("{}: not a checkpoint's manifest, or damaged", path.string());
    if (root.at("version") != format_version)
      throw CheckpointError("{}: format version {}, this program reads version {}", path.string(),
                            root["version"].dump(), format_version);
    CheckpointManifest manifest{root.at("step").get<int64_t>(), {}};
    for (const auto& [name, file] : root.at("files").items())
      manifest.files.push_back({name, file.at("bytes").get<uint64_t>(), file.at("xxh3").get<std::string>()});
    for (const FileRecord& file : manifest.files)
      if (file.name.empty() || file.name.front() == '.' || file.name.find('/') != std::string::npos)
        throw CheckpointError("{}: '{}' is not the name of a file beside it", path.string(), file.name);
    return manifest;
  } catch (const json::exception&) {
    throw CheckpointError("{}: not a checkpoint's manifest, or damaged", path.string());
  }
}

}  // namespace mixtape
