#include "train/parallel/world.h"

#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <vector>

#include "core/base/error.h"
#include "train/checkpoint/file.h"
#include "train/parallel/mpi/module.h"
#include "train/parallel/watchdog.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

int number_in(const char* variable) {
  const char* value = std::getenv(variable);
  return value ? std::atoi(value) : 0;
}

// How many processes a launcher says it has started. Open MPI's mpirun, MPICH's, Intel's and srun --mpi=pmi2 say it in
// the environment; PMIx alone only that there is a launcher: 0.
int launched_processes() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const int n = number_in(variable); n > 0) return n;
  const int of_srun = number_in("SLURM_STEP_NUM_TASKS");
  if (std::getenv("PMIX_RANK")) return of_srun;
  if (of_srun > 1 && std::getenv("SLURM_PROCID"))
    throw ConfigError(
        "srun has started {} processes without telling them of each other; use srun --mpi=pmix (srun --mpi=list shows "
        "what there is), or mpirun",
        of_srun);
  return 1;
}

// Of the module, which is loaded.
template <class Function>
Function* function_of_module(const MpiModule& module, const char* name) {
  void* found = dlsym(RTLD_DEFAULT, name);
  if (!found) throw ConfigError("{}: {}; it belongs to another version of mixtape", module.path, dlerror());
  return reinterpret_cast<Function*>(found);
}

}  // namespace

bool is_launched() { return launched_processes() != 1 || number_in("OMPI_COMM_WORLD_SIZE") > 0; }

RawMpi* raw_mpi() { return function_of_module<RawMpi>(find_mpi_module(), raw_mpi_name); }

MpiModule find_mpi_module() {
  std::error_code ignored;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  for (const fs::path& path : {folder / MIXTAPE_MPI_MODULE, folder / MIXTAPE_MPI_INSTALLED / MIXTAPE_MPI_MODULE})
    if (fs::exists(path, ignored)) return {.path = path.lexically_normal().string()};
  return {.missing = "this build has no " MIXTAPE_MPI_MODULE
                     "; install libopenmpi-dev and build again (cmake -DMIXTAPE_MPI=ON)"};
}

std::unique_ptr<Communicator> join_world() {
  const int launched = launched_processes();
  if (launched == 1) return nullptr;
  const std::string started = launched > 1 ? fmt::format("started as one of {} processes", launched)
                                           : std::string("started by a launcher of several processes");
  const MpiModule module = find_mpi_module();
  if (module.path.empty()) throw ConfigError("{}, but {}", started, module.missing);
  // Global: MPI's own modules look for MPI's symbols.
  if (!dlopen(module.path.c_str(), RTLD_NOW | RTLD_GLOBAL))
    throw ConfigError("{}, but MPI cannot be loaded: {}", started, dlerror());
  std::unique_ptr<Communicator> ranks(function_of_module<JoinMpi>(module, join_mpi_name)());
  if (ranks->size() == 1 && launched > 1)
    throw ConfigError("{}, but the MPI that {} was built with finds one only; start with the mpirun of that MPI",
                      started, module.path);
  return ranks;
}

int64_t broadcast_number(Communicator& ranks, int64_t number) {
  ranks.broadcast(std::as_writable_bytes(std::span(&number, 1)), 0);
  return number;
}

namespace {

std::string broadcast_text_of(Communicator& ranks, std::string text, int root) {
  auto length = int64_t(text.size());
  ranks.broadcast(std::as_writable_bytes(std::span(&length, 1)), root);
  text.resize(size_t(length));
  ranks.broadcast(std::as_writable_bytes(std::span(text)), root);
  return text;
}

}  // namespace

std::string broadcast_text(Communicator& ranks, std::string text) {
  return broadcast_text_of(ranks, std::move(text), 0);
}

std::string first_text(Communicator& ranks, const std::string& text) {
  std::vector<int64_t> lengths(size_t(ranks.size()));
  lengths[size_t(ranks.rank())] = int64_t(text.size());
  ranks.all_reduce(std::span(lengths));
  for (int r = 0; r < ranks.size(); ++r)
    if (lengths[size_t(r)] > 0) return broadcast_text_of(ranks, text, r);
  return {};
}

bool on_any(Communicator& ranks, bool here) {
  int64_t so[] = {here};
  ranks.all_reduce(std::span(so));
  return so[0] > 0;
}

void expect_same(Communicator& ranks, std::span<const std::byte> bytes, const std::string& what) {
  Hasher hasher;
  hasher.update(bytes);
  const std::string here = hasher.hex();
  if (broadcast_text(ranks, here) != here) throw Error("{}", what);
}

void end_all(Communicator& ranks, const std::string& error, int exit_code) {
  if (ranks.rank() > 0) std::this_thread::sleep_for(std::chrono::seconds(1));
  std::fputs(fmt::format("mixtape: rank {} of {}, {}: {}\n", ranks.rank(), ranks.size(), Phase::text(), error).c_str(),
             stderr);
  ranks.abort(exit_code);
  std::_Exit(exit_code);
}

}  // namespace mixtape
