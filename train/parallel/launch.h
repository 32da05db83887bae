// Starts this program again as several processes of one machine, by mpirun.
#pragma once

#include <string>
#include <vector>

namespace mixtape {

// The program with these `arguments` in `ranks` processes that may use all cores of this machine. SIGINT, SIGTERM and
// SIGUSR1 to this process ask all of them to save and end; a second SIGINT or SIGTERM ends them at once. They end with
// this process. Returns the exit code of the job. Throws ConfigError where there is no mpirun, or one of another kind
// than Open MPI's.
int launch_ranks(int ranks, const std::vector<std::string>& arguments);

}  // namespace mixtape
