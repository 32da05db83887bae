#include "train/checkpoint/directory.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <set>
#include <system_error>

#include "core/base/error.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view name_prefix = "step-";
constexpr const char* manifest_name = "manifest.json";

std::string name_of_step(int64_t step) { return fmt::format("{}{:08}", name_prefix, step); }

// The step of a complete checkpoint's name; drafts and half-removed ones have a dot in theirs.
std::optional<int64_t> step_of_name(const std::string& name) {
  if (!name.starts_with(name_prefix)) return {};
  const std::string_view digits = std::string_view(name).substr(name_prefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (error != std::errc() || end != digits.data() + digits.size() || name != name_of_step(step)) return {};
  return step;
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0)
    throw CheckpointError("cannot rename {} to {}: {}", from.string(), to.string(), std::strerror(errno));
}

// A new, empty directory NAME.SUFFIX-XXXXXX in root.
fs::path make_unique_directory(const fs::path& root, const std::string& name, const char* suffix) {
  std::string path = (root / fmt::format("{}.{}-XXXXXX", name, suffix)).string();
  if (!::mkdtemp(path.data()))
    throw CheckpointError("cannot create a directory in {}: {}", root.string(), std::strerror(errno));
  return path;
}

bool is_leftover(const std::string& name) {
  const size_t dot = name.find('.');
  return dot != std::string::npos && step_of_name(name.substr(0, dot)) &&
         (name.compare(dot, 5, ".tmp-") == 0 || name.compare(dot, 5, ".old-") == 0);
}

void create_root(const fs::path& root) {
  std::error_code error;
  fs::create_directories(root, error);
  if (error) throw CheckpointError("cannot create {}: {}", root.string(), error.message());
}

// Gives the draft the checkpoint's name and returns the path under which a checkpoint of the same step now lies, if
// there was one. Exchanging is one atomic step: at every instant one of the two has the name.
std::optional<fs::path> move_into_place(const fs::path& draft, const fs::path& place) {
  if (!fs::exists(place)) {
    rename_or_fail(draft, place);
    return {};
  }
  if (::renameat2(AT_FDCWD, draft.c_str(), AT_FDCWD, place.c_str(), RENAME_EXCHANGE) == 0) return draft;
  const fs::path old = make_unique_directory(place.parent_path(), place.filename().string(), "old");
  rename_or_fail(place, old);
  rename_or_fail(draft, place);
  return old;
}

}  // namespace

CheckpointDraft::CheckpointDraft(fs::path root, int64_t step) : root_(std::move(root)), step_(step) {
  create_root(root_);
  path_ = make_unique_directory(root_, name_of_step(step), "tmp");
  // mkdtemp makes it private; a checkpoint is as readable as the user's other files.
  const mode_t mask = ::umask(0);
  ::umask(mask);
  ::chmod(path_.c_str(), 0777 & ~mask);
}

CheckpointDraft::~CheckpointDraft() {
  std::error_code ignored;  // what cannot be removed now is a leftover, and is removed at the next start
  if (!committed_) fs::remove_all(path_, ignored);
}

fs::path CheckpointDraft::commit() {
  write_checkpoint_manifest(path_, {step_, files_});
  sync_directory(path_);
  const fs::path place = root_ / name_of_step(step_);
  const auto replaced = move_into_place(path_, place);
  committed_ = true;
  sync_directory(root_);
  std::error_code ignored;
  if (replaced) fs::remove_all(*replaced, ignored);
  return place;
}

void CheckpointDirectory::clean_leftovers() const {
  if (!fs::exists(root_)) return;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(root_))
    if (is_leftover(entry.path().filename().string())) leftovers.push_back(entry.path());
  for (const fs::path& path : leftovers) {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) throw CheckpointError("cannot remove {}: {}", path.string(), error.message());
  }
}

std::vector<CheckpointEntry> CheckpointDirectory::list() const {
  std::vector<CheckpointEntry> entries;
  if (!fs::exists(root_)) return entries;
  for (const auto& entry : fs::directory_iterator(root_))
    if (const auto step = step_of_name(entry.path().filename().string()); step && entry.is_directory())
      entries.push_back({*step, entry.path()});
  std::ranges::sort(entries, std::ranges::greater(), &CheckpointEntry::step);
  return entries;
}

std::optional<CheckpointEntry> CheckpointDirectory::newest_whole(const WarningCallback& warn) const {
  const auto entries = list();
  for (const CheckpointEntry& entry : entries) {
    try {
      verify_checkpoint(entry.path, warn);
      return entry;
    } catch (const CheckpointError& error) {
      if (warn) warn(fmt::format("skipping a damaged checkpoint: {}", error.what()));
    }
  }
  if (entries.empty()) return {};
  throw CheckpointError(
      "{}: all {} checkpoints in it are damaged; restore one, or remove the directory to start from the beginning",
      root_.string(), entries.size());
}

void CheckpointDirectory::prune(const Retention& retention) const {
  const auto entries = list();
  for (size_t i = 0; i < entries.size(); ++i) {
    const int64_t step = entries[i].step;
    const bool recent = int64_t(i) < std::max<int64_t>(retention.keep_last, 1);
    const bool regular = retention.keep_every && *retention.keep_every > 0 && step % *retention.keep_every == 0;
    if (!recent && !regular && retention.best != step) remove(entries[i]);
  }
}

void CheckpointDirectory::remove(const CheckpointEntry& entry) const {
  const fs::path old = make_unique_directory(root_, name_of_step(entry.step), "old");
  rename_or_fail(entry.path, old);  // onto an empty directory, which rename() replaces
  sync_directory(root_);            // before the first file goes: a half-empty one must never come back under its name
  std::error_code error;
  fs::remove_all(old, error);
  if (error) throw CheckpointError("cannot remove {}: {}", old.string(), error.message());
}

void verify_checkpoint(const fs::path& path, const WarningCallback& warn) {
  const CheckpointManifest manifest = read_checkpoint_manifest(path);
  if (const auto step = step_of_name(path.filename().string()); step && *step != manifest.step)
    throw CheckpointError("{}: its manifest is that of step {}", path.string(), manifest.step);
  std::set<std::string> known = {manifest_name};
  for (const FileRecord& record : manifest.files) {
    known.insert(record.name);
    const fs::path file = path / record.name;
    if (!fs::exists(file)) throw CheckpointError("{}: {} is missing", path.string(), record.name);
    const FileRecord found = hash_file(file);
    if (found.bytes != record.bytes)
      throw CheckpointError("{}: {} has {} bytes, expected {}", path.string(), record.name, found.bytes, record.bytes);
    if (found.xxh3 != record.xxh3)
      throw CheckpointError("{}: {} has the XXH3-128 {}, expected {}: its content was changed", path.string(),
                            record.name, found.xxh3, record.xxh3);
  }
  for (const auto& entry : fs::directory_iterator(path))
    if (const std::string name = entry.path().filename().string(); warn && !known.contains(name))
      warn(fmt::format("{}: {} is not part of the checkpoint; it is left alone", path.string(), name));
}

}  // namespace mixtape
