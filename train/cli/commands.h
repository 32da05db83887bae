// The sub-commands of `mixtape`, one file each.
//
// add_<name>_command declares its options on `app` and sets a callback. A callback throws an Error, whose exit code
// becomes the program's, or sets `exit_code` (75 after a signal, for instance).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "train/cli/command.h"

namespace mixtape {

extern int exit_code;  // defined in main.cpp

// Lets a command take a run's configuration: FILE... and key=value..., also as --section.key=value. What it returns is
// called in the command's callback and gives the arguments in order, for load_arguments (train/config/config.h).
std::function<std::vector<std::string>()> add_config_arguments(Command& command);

void add_train_command(Command& app);
void add_eval_command(Command& app);
void add_generate_command(Command& app);
void add_forward_command(Command& app);
void add_plan_command(Command& app);
void add_config_command(Command& app);
void add_doctor_command(Command& app);
void add_report_command(Command& app);
void add_export_command(Command& app);
void add_import_command(Command& app);
void add_data_command(Command& app);
void add_tokenizer_command(Command& app);
void add_bench_command(Command& app);
void add_inspect_command(Command& app);

}  // namespace mixtape
