// The parts of a report, each as HTML. A part with nothing to say is an empty string.
#pragma once

#include <string>
#include <vector>

#include "train/report/run_data.h"

namespace mixtape {

using Runs = std::vector<RunData>;

std::string html_heading(const Runs&);      // name, status, what ran where
std::string html_key_figures(const Runs&);  // cards for one run, a table for several
std::string html_charts(const Runs&);
std::string html_memory(const Runs&);
std::string html_sources(const Runs&);
std::string html_differences(const Runs&);  // of the configurations
std::string html_samples(const Runs&);
std::string html_events(const Runs&);
std::string html_reproduction(const Runs&);  // commands, configuration, environment

std::string utc_text(double seconds_since_1970);

}  // namespace mixtape
