// The directory of a run's checkpoints: each is there completely, or not at all.
//
//   checkpoints/step-00000100/             complete: its manifest lists every file with size and XXH3-128
//   checkpoints/step-00000200.tmp-a1b2c3   being written, or left by a killed process
//   checkpoints/step-00000050.old-a1b2c3   being removed
//
// A draft becomes a checkpoint by one rename, after every file and the directory were flushed; removal renames before
// it deletes. So whatever has the plain name was complete once, and the manifest says if it still is. One process
// writes in such a directory at a time. docs/checkpoints.md tells more.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint/file.h"

namespace mixtape {

// A checkpoint being written. Files are written into path() and made known by add(); commit() makes it a checkpoint.
// Destroyed without commit() (an error on the way), it removes what it wrote.
class CheckpointDraft {
 public:
  CheckpointDraft(std::filesystem::path root, int64_t step);
  ~CheckpointDraft();
  CheckpointDraft(const CheckpointDraft&) = delete;
  CheckpointDraft& operator=(const CheckpointDraft&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void add(FileRecord record) { files_.push_back(std::move(record)); }
  void add_text(const std::string& name, std::string_view text) { add(write_text_file(path_ / name, text)); }
  // The new checkpoint's path. A checkpoint of the same step is replaced (atomically where the file system can
  // exchange two names, which Linux's own can).
  std::filesystem::path commit();

 private:
  std::filesystem::path root_, path_;
  int64_t step_;
  std::vector<FileRecord> files_;
  bool committed_ = false;
};

struct CheckpointEntry {
  int64_t step = 0;
  std::filesystem::path path;
};

// Which checkpoints stay: the newest `keep_last`, those whose step is a multiple of `keep_every`, and `best`.
struct Retention {
  int64_t keep_last = 2;  // at least 1
  std::optional<int64_t> keep_every;
  std::optional<int64_t> best;  // the step among those saved that has the least validation loss
};

using WarningCallback = std::function<void(const std::string&)>;

class CheckpointDirectory {
 public:
  explicit CheckpointDirectory(std::filesystem::path root) : root_(std::move(root)) {}
  const std::filesystem::path& root() const { return root_; }

  // Removes what killed processes left: drafts and half-removed checkpoints. Call it once, at the start of a run.
  void clean_leftovers() const;
  std::vector<CheckpointEntry> list() const;  // newest first; empty if the directory does not exist
  // The newest checkpoint that is whole. Each damaged one that it passes over is reported through `warn`. None if there
  // are no checkpoints; CheckpointError if there are some and all are damaged.
  std::optional<CheckpointEntry> newest_whole(const WarningCallback& warn) const;
  // Removes all checkpoints that `retention` does not keep.
  void prune(const Retention& retention) const;
  void remove(const CheckpointEntry& entry) const;

 private:
  std::filesystem::path root_;
};

// Checks every file against the manifest. CheckpointError says what is damaged; files that the manifest does not list
// are harmless and reported through `warn`.
void verify_checkpoint(const std::filesystem::path& path, const WarningCallback& warn = {});

// manifest.json: what a checkpoint consists of. Reading checks the manifest itself (it holds its own hash), not the
// files.
struct CheckpointManifest {
  int64_t step = 0;
  std::vector<FileRecord> files;
};
FileRecord write_checkpoint_manifest(const std::filesystem::path& directory, const CheckpointManifest& manifest);
CheckpointManifest read_checkpoint_manifest(const std::filesystem::path& directory);

}  // namespace mixtape
