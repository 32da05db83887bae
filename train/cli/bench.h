// What benchmarks print alike.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/bench/work.h"
#include "train/cli/command.h"
#include "train/config/config.h"

namespace mixtape {

void add_bench_train(Command& bench);
void add_bench_ops(Command& bench);
void add_bench_memory(Command& bench);
void add_bench_comm(Command& bench);
void add_bench_tokenizer(Command& bench);

// load_arguments() with --device as the last word on the key `device`, unless it is empty.
ResolvedConfig load_bench_arguments(std::vector<std::string> words, const std::string& device);

// A line about the machine.
std::string limits_text(const Limits& limits);
nlohmann::json limits_json(const Limits& limits);
// GFLOP/s, or GB/s of what is bound by memory; empty where the work is unknown.
std::string rate_text(const Work& work, double seconds, const Limits& limits);
// "87 %": the time at the machine's limit / the time taken.
std::string share_text(const Work& work, double seconds, const Limits& limits);

}  // namespace mixtape
