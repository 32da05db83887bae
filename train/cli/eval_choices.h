// mixtape eval MODEL --choices FILE: multiple choice by log-likelihood.
#pragma once

#include <cstdint>
#include <string>

#include "train/cli/arguments.h"

namespace mixtape {

struct ChoiceArguments {
  std::string file, shots_file;
  int64_t shots = 0, most = 0, rows = 4;
  bool json = false;
};
void evaluate_choices(const ModelArguments& model, const ChoiceArguments& arguments);

}  // namespace mixtape
