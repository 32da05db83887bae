#include "train/cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <limits>
#include <optional>
#include <type_traits>

#include "core/base/error.h"

namespace mixtape {

namespace {

CLI::Validator number_check(bool whole, double least, double most, const std::string& expected) {
  return CLI::Validator(
      [=](std::string& word) {
        double number = 0;
        const bool fits = CLI::detail::lexical_cast(word, number) && number >= least && number <= most;
        if (fits && (!whole || word.find_first_not_of("+-0123456789") == word.npos)) return std::string();
        return fmt::format("'{}', expected {}{}", word, fits ? "a whole number, " : "", expected);
      },
      expected);
}

}  // namespace

Option& Option::required() {
  option_->required();
  return *this;
}

Option& Option::range(double least, double most) {
  option_->check(number_check(whole_, least, most, fmt::format("{} to {}", least, most)));
  return *this;
}

Option& Option::at_least(double least) {
  const double most = whole_ ? 9e18 : std::numeric_limits<double>::max();  // what 64 bits hold
  option_->check(number_check(whole_, least, most, fmt::format("at least {}", least)));
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
  constexpr bool optional_whole = std::is_same_v<T, std::optional<int>> || std::is_same_v<T, std::optional<int64_t>>;
  return Option(option, std::is_integral_v<T> || optional_whole);
}
template Option Command::option(const std::string&, std::string&, const std::string&);
template Option Command::option(const std::string&, std::optional<std::string>&, const std::string&);
template Option Command::option(const std::string&, std::optional<int>&, const std::string&);
template Option Command::option(const std::string&, std::optional<int64_t>&, const std::string&);
template Option Command::option(const std::string&, std::optional<double>&, const std::string&);
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

namespace {

// The innermost command that was named.
const CLI::App& named_command(const CLI::App& app) {
  const auto named = app.get_subcommands();
  return named.empty() ? app : named_command(*named[0]);
}

std::string name_of(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent ? name_of(*parent) + " " + command.get_name() : command.get_name();
}

// CLI11 says of a misspelt command only that one is required.
std::string refusal(const CLI::App& app, const CLI::Error& error) {
  const CLI::App& command = named_command(app);
  const std::vector<std::string> unknown = command.remaining();
  const auto choices = command.get_subcommands([](const CLI::App*) { return true; });
  if (choices.empty()) return error.what();
  std::string names;
  for (const CLI::App* c : choices) names += (names.empty() ? "" : ", ") + c->get_name();
  return unknown.empty() ? fmt::format("which command of {}? One of {}", name_of(command), names)
                         : fmt::format("'{}' is no command of {}; expected {}", unknown[0], name_of(command), names);
}

}  // namespace

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
    fmt::print(stderr, "mixtape: {}\nTry: {} --help\n", refusal(app, error), name_of(named_command(app)));
    return int(Exit::config);
  }
  return 0;
}

}  // namespace mixtape
