#include "train/cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <optional>
#include <type_traits>

#include "core/base/error.h"

namespace mixtape {

Option& Option::required() {
  option_->required();
  return *this;
}

namespace {

CLI::Validator number_check(double least, double most, const std::string& expected) {
  return CLI::Validator(
      [=](std::string& word) {
        double number = 0;
        if (CLI::detail::lexical_cast(word, number) && number >= least && number <= most) return std::string();
        return fmt::format("'{}', expected {}", word, expected);
      },
      expected);
}

}  // namespace

Option& Option::range(double least, double most) {
  option_->check(number_check(least, most, fmt::format("{} to {}", least, most)));
  return *this;
}

Option& Option::at_least(double least) {
  option_->check(number_check(least, std::numeric_limits<double>::max(), fmt::format("at least {}", least)));
  return *this;
}

Option& Option::one_of(const std::vector<std::string>& words) {
  option_->check(CLI::IsMember(words));
  return *this;
}

Option& Option::type_name(const std::string& name) {
  option_->type_name(name);
  return *this;
}

Command Command::subcommand(const std::string& name, const std::string& description) {
  return Command(app_->add_subcommand(name, description));
}

void Command::require_subcommand() { app_->require_subcommand(1); }

void Command::keep_unknown() { app_->allow_extras(); }

std::vector<std::string> Command::remaining() const { return app_->remaining(); }

template <typename T>
Option Command::option(const std::string& names, T& value, const std::string& help) {
  CLI::Option* option = app_->add_option(names, value, help);
  if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) option->capture_default_str();
  return Option(option);
}
template Option Command::option(const std::string&, std::string&, const std::string&);
template Option Command::option(const std::string&, std::optional<std::string>&, const std::string&);
template Option Command::option(const std::string&, std::filesystem::path&, const std::string&);
template Option Command::option(const std::string&, std::vector<std::string>&, const std::string&);
template Option Command::option(const std::string&, int&, const std::string&);
template Option Command::option(const std::string&, int64_t&, const std::string&);
template Option Command::option(const std::string&, uint64_t&, const std::string&);
template Option Command::option(const std::string&, float&, const std::string&);
template Option Command::option(const std::string&, double&, const std::string&);

void Command::flag(const std::string& names, bool& value, const std::string& help) {
  app_->add_flag(names, value, help);
}

void Command::action(std::function<void()> run) { app_->callback(std::move(run)); }

int run_command_line(int argc, const char* const* argv, const std::string& description, const std::string& version,
                     const std::function<void(Command&)>& declare) {
  CLI::App app{description, "mixtape"};
  app.set_version_flag("--version", version);
  app.require_subcommand(1);
  Command root(&app);
  declare(root);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::Error& error) {
    std::fprintf(stderr, "mixtape: %s\nTry: mixtape --help\n", error.what());
    return int(Exit::config);
  }
  return 0;
}

}  // namespace mixtape
