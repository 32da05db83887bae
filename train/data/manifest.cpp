#include "train/data/manifest.h"

#include <charconv>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "train/data/output_file.h"
#include "train/data/tokenizer/json_reading.h"

namespace mixtape {
namespace {

using nlohmann::ordered_json;

constexpr int manifest_version = 1;

// 64-bit hashes do not survive JSON readers that hold numbers as doubles, hence text.
std::string hex(uint64_t value) { return fmt::format("{:016x}", value); }

uint64_t parse_hex(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    throw DataError("'{}' is not a hash of 16 hexadecimal digits", text);
  return value;
}

// A manifest from elsewhere must not reach outside its directory.
std::string plain_name(const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos)
    throw DataError("'{}' is not the name of a file in this directory", name);
  return name;
}

Manifest parse(const nlohmann::json& json) {
  if (json.at("format") != "mixtape-tokens" || json.at("version") != manifest_version)
    throw DataError("format {} version {}, expected \"mixtape-tokens\" version {}", json.at("format").dump(),
                    json.at("version").dump(), manifest_version);
  Manifest manifest;
  const auto& tokenizer = json.at("tokenizer");
  manifest.tokenizer = plain_name(tokenizer.at("file").get<std::string>());
  manifest.tokenizer_description = tokenizer.at("description").get<std::string>();
  const uint64_t fingerprint = parse_hex(tokenizer.at("fingerprint").get<std::string>());
  const auto vocab_size = tokenizer.at("vocab_size").get<int32_t>();
  const auto eos_id = tokenizer.at("eos_id").is_null() ? -1 : tokenizer.at("eos_id").get<int32_t>();
  for (const auto& file : json.at("files")) {
    manifest.files.push_back({plain_name(file.at("name").get<std::string>()),
                              {.num_tokens = file.at("tokens").get<uint64_t>(),
                               .num_documents = file.at("documents").get<uint64_t>(),
                               .text_bytes = file.at("text_bytes").get<uint64_t>(),
                               .fingerprint = fingerprint,
                               .vocab_size = vocab_size,
                               .eos_id = eos_id,
                               .checksum = parse_hex(file.at("xxh3").get<std::string>())}});
  }
  if (manifest.files.empty()) throw DataError("it lists no files");
  return manifest;
}

}  // namespace

ShardInfo Manifest::total() const {
  ShardInfo sum = files.empty() ? ShardInfo{} : files.front().shard;
  sum.num_tokens = sum.num_documents = sum.text_bytes = sum.checksum = 0;
  for (const ManifestFile& file : files) {
    sum.num_tokens += file.shard.num_tokens;
    sum.num_documents += file.shard.num_documents;
    sum.text_bytes += file.shard.text_bytes;
  }
  return sum;
}

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest) {
  const ShardInfo total = manifest.total();
  ordered_json files = ordered_json::array();
  for (const ManifestFile& file : manifest.files)
    files.push_back({{"name", file.name},
                     {"tokens", file.shard.num_tokens},
                     {"documents", file.shard.num_documents},
                     {"text_bytes", file.shard.text_bytes},
                     {"xxh3", hex(file.shard.checksum)}});
  const ordered_json json = {{"format", "mixtape-tokens"},
                             {"version", manifest_version},
                             {"tokenizer",
                              {{"file", manifest.tokenizer},
                               {"description", manifest.tokenizer_description},
                               {"fingerprint", hex(total.fingerprint)},
                               {"vocab_size", total.vocab_size},
                               {"eos_id", total.eos_id < 0 ? ordered_json() : ordered_json(total.eos_id)}}},
                             {"tokens", total.num_tokens},
                             {"documents", total.num_documents},
                             {"text_bytes", total.text_bytes},
                             {"files", files}};
  write_file(directory / manifest_name, json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

Manifest read_manifest(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / manifest_name;
  std::ifstream in(path, std::ios::binary);
  if (!in) throw DataError("{}: cannot open it", path.string());
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const nlohmann::json json = parse_json(text, path.string());
  try {
    return parse(json);
  } catch (const nlohmann::json::exception& error) {
    std::string_view what = error.what();
    if (const size_t end = what.find("] "); end != what.npos) what.remove_prefix(end + 2);
    throw DataError("{}: {}", path.string(), what);
  } catch (const DataError& error) {
    throw DataError("{}: {}", path.string(), error.what());
  }
}

std::shared_ptr<const TokenSource> open_manifest(const std::filesystem::path& directory) {
  const Manifest manifest = read_manifest(directory);
  std::vector<std::shared_ptr<const TokenSource>> parts;
  for (const ManifestFile& file : manifest.files) {
    const std::filesystem::path path = directory / file.name;
    const ShardInfo found = read_shard_info(path);
    const ShardInfo& listed = file.shard;
    if (found.checksum != listed.checksum || found.num_tokens != listed.num_tokens ||
        found.num_documents != listed.num_documents || found.fingerprint != listed.fingerprint)
      throw DataError("{}: not the shard that {} lists; prepare the data again", path.string(), manifest_name);
    parts.push_back(open_shard(path));
  }
  return concatenate(std::move(parts), directory.string());
}

}  // namespace mixtape
