// A checkpoint's files of tensors, which all ranks write together, each what it has or what it is dealt.
//
// Of masters and moments each rank writes its own parts. Parameters are dealt out to ranks, the largest first, in
// rounds of one for each: in a round each rank gets its parameter whole and writes the tensors that are made of it. So
// the files are those of one process, and no rank holds more than a few parameters beside what it has.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "train/parallel/shared_file.h"
#include "train/parallel/whole_weights.h"
#include "train/saved_state.h"

namespace mixtape {

class JointFiles {
 public:
  JointFiles(Engine& engine, const RankGrid& grid);

  // Of weights what tensors are made of; it is there while they are written, on the rank that does.
  ParameterGetter weights();
  std::vector<TensorSource> optimizer_tensors() const;

  // Rank 0 makes the files, one after another, and releases the others at the end, however it ends; the others follow
  // it until then. One process writes alone. Throws CheckpointError, on rank 0.
  FileRecord write(const std::filesystem::path& path, std::vector<TensorSource> tensors);
  void release();
  void follow();

 private:
  FileRecord write_together(const std::filesystem::path& path, const std::vector<TensorSource>& tensors);
  void write_dealt(SharedFile& file, const SafetensorsLayout& layout, const std::vector<TensorSource>& tensors);
  void write_state(SharedFile& file, const SafetensorsLayout& layout, const StateBuffer& buffer) const;

  Engine& engine_;
  const RankGrid& grid_;
  WholeWeights weights_;
  std::vector<StateBuffer> state_;
};

}  // namespace mixtape
