// mixtape train CONFIG... [key=value...]
#include "train/cli/arguments.h"
#include "train/cli/commands.h"
#include "train/parallel/communication_thread.h"
#include "train/parallel/launch.h"
#include "train/parallel/watchdog.h"
#include "train/parallel/world.h"
#include "train/report/console.h"
#include "train/report/html.h"
#include "train/trainer.h"

namespace mixtape {
namespace {

// Ends all processes for the error that is being handled.
[[noreturn]] void end_all_for_error(Communicator& ranks) {
  try {
    throw;
  } catch (const Error& error) {
    end_all(ranks, error.what(), int(error.exit_code()));
  } catch (const std::bad_alloc&) {
    end_all(ranks, "out of memory", int(Exit::failure));
  } catch (const std::exception& error) {
    end_all(ranks, error.what(), int(Exit::failure));
  }
}

void train(const std::vector<std::string>& arguments, Communicator& ranks) {
  ResolvedConfig config = load_arguments(arguments);
  std::optional<Watchdog> watchdog;
  if (ranks.size() > 1) watchdog.emplace(ranks, double(config.config.parallel.timeout_seconds));
  const std::filesystem::path directory = config.config.run_directory();
  Trainer trainer(std::move(config), command_line(), ranks);
  const bool leads = ranks.rank() == 0;
  try {
    exit_code = int(trainer.run());
  } catch (...) {  // a run that failed is the one whose curves are wanted
    try {
      if (leads) write_html_report({directory});
    } catch (const std::exception&) {  // the first error says more
    }
    if (ranks.size() > 1) end_all_for_error(ranks);  // while the trainer, whose memory is being exchanged, still lives
    throw;
  }
  if (!leads) return;
  write_html_report({directory});
  console().line(exit_code == int(Exit::saved_after_signal)
                     ? fmt::format("stopped after a signal, saved in {}; the same command goes on", directory.string())
                     : fmt::format("done: {}, report in {}", directory.string(), (directory / "report.html").string()));
}

// As one of several processes. An error here must end the others, who would wait for this one.
void train_together(const std::vector<std::string>& arguments, Communicator& processes) {
  CommunicationThread ranks(processes);
  ranks.rank() == 0 ? console().plain() : console().silence();
  try {
    train(arguments, ranks);
  } catch (...) {
    end_all_for_error(ranks);
  }
  ranks.barrier();  // nobody ends, and is missed, while rank 0 still writes
}

// Each process finds --devices on its command line, too, as what the records say of it is the command that goes on.
int with_devices(int devices, const std::vector<std::string>& arguments) {
  if (devices == 1) {
    train(arguments, single_process());
    return exit_code;
  }
  load_arguments(arguments);  // an error in them is this process's to say
  std::vector<std::string> words = command_line();
  words.erase(words.begin());
  return launch_ranks(devices, words);
}

}  // namespace

void add_train_command(Command& app) {
  Command command = app.subcommand("train", "train a model; the same command again goes on where it stopped");
  const auto arguments = add_config_arguments(command);
  const auto devices = std::make_shared<std::optional<int>>();
  command.option("--devices", *devices, "processes on this machine, a device each, started by mpirun").range(1, 1024);
  command.action([arguments, devices] {
    if (*devices && !is_launched()) {
      exit_code = with_devices(**devices, arguments());
      return;
    }
    const auto ranks = join_world();
    if (const int n = ranks ? ranks->size() : 1; devices->value_or(n) != n)
      throw ConfigError("--devices {}, but a launcher has started this process as one of {}; leave --devices out",
                        **devices, n);
    if (ranks) {
      train_together(arguments(), *ranks);
    } else {
      train(arguments(), single_process());
    }
  });
}

}  // namespace mixtape
