// mixtape inspect dtype NUMBER...: how the formats of training hold a number.
#pragma once

#include "train/cli/command.h"

namespace mixtape {

void add_dtype_command(Command& inspect);

}  // namespace mixtape
