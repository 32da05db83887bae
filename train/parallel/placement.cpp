#include "train/parallel/placement.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <span>

namespace mixtape {

Place place_here() {
  Place place;
  gethostname(place.machine, sizeof place.machine - 1);
  CPU_ZERO(&place.cores);
  sched_getaffinity(0, sizeof place.cores, &place.cores);
  place.of_machine = int32_t(sysconf(_SC_NPROCESSORS_ONLN));
  return place;
}

std::vector<Place> places_of(Communicator& ranks) {
  std::vector<Place> places(size_t(ranks.size()));
  places[size_t(ranks.rank())] = place_here();
  places[size_t(ranks.rank())].first_process = ranks.first_of_machine();
  const std::vector<int64_t> bytes(places.size(), int64_t(sizeof(Place)));
  ranks.all_gather(std::as_writable_bytes(std::span(places)), bytes);
  return places;
}

int process_of_machine(const std::vector<Place>& places, int rank) {
  return int(std::count_if(places.begin(), places.begin() + rank,
                           [&](const Place& p) { return p.first_process == places[size_t(rank)].first_process; }));
}

int fair_threads(const std::vector<Place>& places, int rank) {
  const Place& here = places[size_t(rank)];
  double share = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &here.cores)) continue;
    share += 1.0 / double(std::ranges::count_if(places, [&](const Place& p) {
               return p.first_process == here.first_process && CPU_ISSET(core, &p.cores);
             }));
  }
  return std::max(1, int(share + 1e-6));
}

std::string binding_advice(const std::vector<Place>& places) {
  for (const Place& place : places) {
    const auto here =
        std::ranges::count_if(places, [&](const Place& p) { return p.first_process == place.first_process; });
    if (CPU_COUNT(&place.cores) == 1 && place.of_machine > here)
      return fmt::format(
          "{}: processes are bound to one core each, and {} of {} cores stay idle; mpirun does that for one or two "
          "processes: add --bind-to none",
          place.machine, place.of_machine - here, place.of_machine);
  }
  return {};
}

}  // namespace mixtape
