// The module that speaks MPI is loaded when a program finds itself started as one of several (train/parallel/world.h),
// so that a run of one process needs no MPI on the machine.
#pragma once

#include "core/communicator.h"

namespace mixtape {

using JoinMpi = Communicator*();
inline constexpr const char* join_mpi_name = "mixtape_join_mpi_1";  // the number: of this interface

}  // namespace mixtape
