// For tests of configuration errors.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/base/error.h"

namespace mixtape {

// What a ConfigError says; "" where there is none.
template <class Body>
std::string error_text(Body&& body) {
  try {
    body();
  } catch (const ConfigError& e) {
    EXPECT_EQ(e.exit_code(), Exit::config);
    return e.what();
  }
  return "";
}

template <class Body>
void expect_error(Body&& body, const std::string& part) {
  const std::string text = error_text(body);
  EXPECT_NE(text.find(part), std::string::npos)
      << "the error was: " << (text.empty() ? "none" : text) << "\nexpected: " << part;
}

}  // namespace mixtape
