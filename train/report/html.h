// A report as one HTML file: text, tables and SVG charts, with no request to anywhere and no script.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "train/report/run_data.h"

namespace mixtape {

// Text for HTML, also inside a quoted attribute: & < > " ' are escaped, control characters and malformed UTF-8
// replaced.
std::string html_escape(std::string_view text);

// The whole page for one run, or for several beside each other. Never empty of runs.
std::string html_report(const std::vector<RunData>& runs);

// Reads the runs and writes the page, atomically. Returns the file: `output`, or report.html in the only run, or
// report.html in the working directory for several runs.
std::filesystem::path write_html_report(const std::vector<std::filesystem::path>& runs,
                                        std::filesystem::path output = {});

}  // namespace mixtape
