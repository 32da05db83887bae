// The module that speaks MPI is loaded when a program finds itself started as one of several (train/parallel/world.h),
// so that a run of one process needs no MPI on the machine.
#pragma once

#include <span>

#include "core/communicator.h"

namespace mixtape {

using JoinMpi = Communicator*();
inline constexpr const char* join_mpi_name = "mixtape_join_mpi_5";  // the number: of this interface

// MPI's own blocking call, for comparison (`mixtape bench comm`), once the ranks have joined. The shorter of `from` and
// `to` is a rank's part, the longer as many as there are ranks; of all_reduce both are whole.
enum class Collective { all_reduce, reduce_scatter, all_gather };
using RawMpi = void(Collective which, std::span<float> from, std::span<float> to);
inline constexpr const char* raw_mpi_name = "mixtape_raw_mpi_5";

}  // namespace mixtape
