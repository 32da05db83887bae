// Between an engine and the files of a run.
#pragma once

#include <filesystem>

#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/huggingface/model.h"
#include "train/config/config.h"
#include "train/engine.h"
#include "train/step.h"

namespace mixtape {

// Writes weights, master, moments and `state` (to which the scaler's and the device's choices are added). Of several
// ranks all call it: all write weights, masters and moments (joint_files.h), and rank 0 the rest; the others return an
// empty path.
std::filesystem::path save_run(Engine& engine, const TrainingStep& step, RunState& state,
                               const CheckpointDirectory& directory, const SpecialIds& ids,
                               const std::vector<std::filesystem::path>& tokenizer_files);

// Fills the engine, its StepState included, from a whole checkpoint and returns the run's state. Of several ranks all
// but rank 0 pass null: they get from it what is theirs, or read it where they see its file. No rank holds more than a
// parameter beside what it has.
RunState load_run(Engine& engine, const TrainingStep& step, const CheckpointReader* checkpoint);

// Throws ConfigError that says which keys of the model differ from those of `model`, where a run is to start from it:
// before a loader says which tensor does not fit.
void expect_same_shapes(const HfModel& model, const Config& config);

// Fills the weights from a Hugging Face directory (which a checkpoint is, too); those that are model.fresh, and
// the engine's adapters, stay as they are.
void load_weights(Engine& engine, const HfModel& model);

// Where a model lies that a command line names: a run directory (its newest whole checkpoint), a checkpoint, or a
// Hugging Face directory. Throws CheckpointError that says what was looked for.
std::filesystem::path find_model(const std::filesystem::path& path);

}  // namespace mixtape
