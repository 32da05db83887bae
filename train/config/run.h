// run: where a run lives and where it starts.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "core/base/fields.h"

namespace mixtape {

struct RunConfig {
  std::string name = "run";
  std::string dir = "runs";
  std::string resume = "auto";
  std::optional<std::string> init_from;
};

constexpr auto fields(std::type_identity<RunConfig>) {
  using C = RunConfig;
  return std::tuple{
      field("name", &C::name, "the run's name; it lives in <run.dir>/<run.name>"),
      field("dir", &C::dir, "the directory that holds runs", Aliases{"out_dir", "save_folder"}),
      field("resume", &C::resume,
            "auto: go on from the newest sound checkpoint of this run, or start; never: start, and refuse a directory "
            "that holds a run; PATH: go on from this checkpoint"),
      field("init_from", &C::init_from,
            "start from these weights (a run, a checkpoint or a Hugging Face directory) at step 0 with a new optimizer",
            Aliases{"initial_checkpoint_dir"}),
  };
}

}  // namespace mixtape
