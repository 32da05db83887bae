// The device's timed choices, kept in the user's cache from run to run, so that a rerun makes the same choices and the
// same bits. The file is $XDG_CACHE_HOME/mixtape/choices-<device, processor and threads>.txt; MIXTAPE_TUNING=off leaves
// it alone.
#pragma once

#include <filesystem>
#include <string>

#include "core/backend.h"

namespace mixtape {

// Empty where no place for it is known, or it is switched off.
std::filesystem::path tuning_file(const Backend& backend);

// Empty where there are none yet, or none that can be read.
std::string load_tuning(const Backend& backend);
// Failures are no errors: the next run times again.
void save_tuning(const Backend& backend);

}  // namespace mixtape
