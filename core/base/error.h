// Errors: one line that says what is wrong, where, what was expected and what to do.
//
//   throw Error("{}: {} is {}, expected {}", op, argument, shape, expected);
//
// An error that reaches main() is printed as it is, and its exit code becomes the program's.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace mixtape {

// Exit codes of `mixtape`; scripts may depend on them.
enum class Exit : int {
  ok = 0,
  failure = 1,
  config = 2,
  data = 3,
  checkpoint = 4,
  numerics = 5,
  saved_after_signal = 75
};

class Error : public std::runtime_error {
 public:
  template <class... Args>
  explicit Error(fmt::format_string<Args...> format, Args&&... args)
      : std::runtime_error(fmt::format(format, std::forward<Args>(args)...)) {}
  virtual Exit exit_code() const { return Exit::failure; }
};

// The configuration, an argument of a command, or a file that the configuration names is wrong.
struct ConfigError : Error {
  using Error::Error;
  Exit exit_code() const override { return Exit::config; }
};

// Text, token shards or a tokenizer are missing, damaged or unsuitable.
struct DataError : Error {
  using Error::Error;
  Exit exit_code() const override { return Exit::data; }
};

// A checkpoint or model directory is missing, damaged or belongs to something else.
struct CheckpointError : Error {
  using Error::Error;
  Exit exit_code() const override { return Exit::checkpoint; }
};

// Training met values that are not finite and the policy says to stop.
struct NumericsError : Error {
  using Error::Error;
  Exit exit_code() const override { return Exit::numerics; }
};

}  // namespace mixtape
