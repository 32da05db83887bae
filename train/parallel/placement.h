// Which cores the processes of one machine may use, and how many threads each should have.
//
// mpirun binds each process to one core where there are at most two, and to the cores of a socket where there are more;
// with --bind-to none all share all cores.
#pragma once

#include <sched.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/communicator.h"

namespace mixtape {

struct Place {
  char machine[64] = {};      // its name, which others may have, too
  int32_t first_process = 0;  // of those on the machine
  cpu_set_t cores;            // that this process may run on
  int32_t of_machine = 0;     // cores that the machine has
};
Place place_here();
// Of all ranks, by rank.
std::vector<Place> places_of(Communicator& ranks);

// A rank's fair share of the cores that it may use: each is divided by the number of processes that may use it too. At
// least 1.
int fair_threads(const std::vector<Place>& places, int rank);
// How many of the lower ranks are on the same machine as this one.
int process_of_machine(const std::vector<Place>& places, int rank);
// What is wrong with how processes are bound, and what to do; empty where nothing is.
std::string binding_advice(const std::vector<Place>& places);

}  // namespace mixtape
