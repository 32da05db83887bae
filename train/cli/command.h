// A command of the command line and its options.
//
// CLI11 does the work, in command.cpp alone: it is templates and inline functions throughout, which cost each file that
// includes it ten seconds of compiling.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mixtape {

// A bad value becomes one line that names the option and what was expected.
class Option {
 public:
  Option(CLI::Option* option, bool whole) : option_(option), whole_(whole) {}

  Option& required();
  Option& range(double least, double most);
  Option& at_least(double least);
  Option& one_of(const std::vector<std::string>& words);
  Option& type_name(const std::string& name);  // in place of TEXT or INT in the help

 private:
  CLI::Option* option_;
  bool whole_;  // an integer
};

// A handle: copies are the same command. What options write to must live until the action has run.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  Command subcommand(const std::string& name, const std::string& description);
  void require_subcommand();
  // Words that are no option of this command are kept for remaining() in place of being refused.
  void keep_unknown();
  std::vector<std::string> remaining() const;

  // `names`: "--long,-s", or "NAME" for one by position. T: a string, a path, a number, an optional string or number,
  // or a vector of strings, which takes all words that follow. The help shows what strings and numbers hold now as the
  // default.
  template <typename T>
  Option option(const std::string& names, T& value, const std::string& help = "");
  // "--this,!--not-that": the second sets it to false.
  void flag(const std::string& names, bool& value, const std::string& help);

  void action(std::function<void()> run);

 private:
  CLI::App* app_;
};

// Reads the command line into the commands that `declare` adds, and runs the action of the one it names. Returns the
// exit code of what CLI11 does itself (--help, --version) or refuses, and 0 after an action; errors of actions pass
// through.
int run_command_line(int argc, const char* const* argv, const std::string& description, const std::string& version,
                     const std::function<void(Command&)>& declare);

}  // namespace mixtape
