// Numbers as people read them. None depends on the locale.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mixtape {

std::string with_thousands(int64_t value);                  // 1,234,567
std::string counted(int64_t count, std::string_view noun);  // 1 document, 1,234 documents
std::string human_count(double value);                      // 999, 1.23k, 45.6M, 1.40T: three significant digits
std::string human_bytes(double bytes);                      // 512 B, 1.21 GiB: powers of 1024
std::string human_duration(double seconds);  // 0.42 s, 12 s, 3m 12s, 2h 05m, 4d 03h; "-" if not finite or negative
std::string human_loss(double value);        // 4.1234; "nan", "inf", "-inf"
std::string human_percent(double share);     // 0.3 %, 41 %
std::string human_rate(double per_second);   // 842, 12,345, 1.23M

}  // namespace mixtape
