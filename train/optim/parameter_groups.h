// Parameters chosen by patterns of names: what does not learn, what learns faster or slower.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/parameters.h"
#include "train/config/parameters.h"

namespace mixtape {

// Shell patterns over a whole name: * any run of characters, dots among them, ? one, [0-9] one of these.
bool matches_name(const std::string& name, const std::string& pattern);

// Those of `names` that patterns choose. Throws ConfigError, naming `key` and some names, for a pattern that chooses
// none.
std::vector<std::string> chosen(const std::vector<std::string>& names, const std::vector<std::string>& patterns,
                                std::string_view key);

// One for each parameter of the layout. Throws ConfigError for a pattern that chooses none.
std::vector<ParameterFactors> parameter_factors(const ParameterLayout& layout, const ParametersConfig& config);

}  // namespace mixtape
