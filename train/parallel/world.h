// The processes that mpirun or srun has started together with this one.
#pragma once

#include <memory>
#include <string>

#include "core/communicator.h"
#include "train/parallel/mpi/module.h"

namespace mixtape {

// Joins them, if there are any: a program that was started alone, or is the only one, gets nothing, loads no MPI and
// needs none. MPI ends when the communicator is destroyed. Throws ConfigError where several were started but MPI is not
// to be had, or does not know of them.
std::unique_ptr<Communicator> join_world();

// Whether mpirun or srun has started this process, be it alone.
bool is_launched();

// MPI's own calls, for comparison, after join_world().
RawMpi* raw_mpi();

// Rank 0's text on every rank.
std::string broadcast_text(Communicator& ranks, std::string text);
// Rank 0's number on every rank.
int64_t broadcast_number(Communicator& ranks, int64_t number);
// The text of the lowest rank that has one; empty: none has.
std::string first_text(Communicator& ranks, const std::string& text);
// Whether it is so on any rank.
bool on_any(Communicator& ranks, bool here);

// Throws Error on the ranks whose bytes are not rank 0's.
void expect_same(Communicator& ranks, std::span<const std::byte> bytes, const std::string& what);

// The end of all ranks because of an error on this one: says where it was, and the error. An error that all ranks have
// is said by rank 0 alone, for which the others wait a moment.
[[noreturn]] void end_all(Communicator& ranks, const std::string& error, int exit_code);

// What the program was built with: the path of the module that speaks MPI, or why there is none.
struct MpiModule {
  std::string path, missing;
};
MpiModule find_mpi_module();

}  // namespace mixtape
