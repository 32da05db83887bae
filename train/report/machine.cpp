#include "train/report/machine.h"

#include <cblas.h>
#include <fmt/format.h>
#include <hwy/highway.h>
#include <hwy/targets.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <unicode/uversion.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>

#include "train/report/units.h"

namespace mixtape {
namespace {

using Findings = std::vector<Finding>;
namespace fs = std::filesystem;

std::string first_line(const fs::path& file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

// The values of "key : value" lines, in order.
std::vector<std::string> values_of(const fs::path& file, std::string_view key) {
  std::vector<std::string> values;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const size_t end = line.find_last_not_of(" \t", colon == 0 ? 0 : colon - 1);
    if (line.substr(0, end + 1) != key) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    values.push_back(begin == line.npos ? "" : line.substr(begin));
  }
  return values;
}

std::string first_value_of(const fs::path& file, std::string_view key) {
  const auto values = values_of(file, key);
  return values.empty() ? "" : values.front();
}

// A figure of /proc/meminfo, in bytes; 0 where it is missing.
double memory_figure(std::string_view key) { return 1024 * std::atof(first_value_of("/proc/meminfo", key).c_str()); }

std::set<std::string> cpu_flags() {
  std::string text = first_value_of("/proc/cpuinfo", "flags");
  if (text.empty()) text = first_value_of("/proc/cpuinfo", "Features");  // ARM
  std::set<std::string> flags;
  for (size_t begin = 0, end; begin < text.size(); begin = end + 1) {
    end = std::min(text.find(' ', begin), text.size());
    flags.insert(text.substr(begin, end - begin));
  }
  return flags;
}

std::string instruction_sets(const std::set<std::string>& flags) {
  std::string text;
  for (const auto& [flag, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"avx2", "AVX2"},
                                                                  {"fma", "FMA"},
                                                                  {"f16c", "F16C"},
                                                                  {"avx_vnni", "AVX-VNNI"},
                                                                  {"avx512f", "AVX-512"},
                                                                  {"avx512_vnni", "AVX512-VNNI"},
                                                                  {"avx512_bf16", "AVX512-BF16"},
                                                                  {"avx512_fp16", "AVX512-FP16"},
                                                                  {"amx_tile", "AMX"},
                                                                  {"amx_bf16", "AMX-BF16"},
                                                                  {"amx_int8", "AMX-INT8"},
                                                                  {"asimd", "NEON"},
                                                                  {"sve", "SVE"},
                                                                  {"bf16", "BF16"}})
    if (flags.count(flag)) text += fmt::format("{}{}", text.empty() ? "" : ", ", name);
  return text.empty() ? "none that matters here" : text;
}

std::string caches() {
  std::string text;
  for (int i = 0; i < 8; ++i) {
    const fs::path cache = fmt::format("/sys/devices/system/cpu/cpu0/cache/index{}", i);
    const std::string type = first_line(cache / "type"), size = first_line(cache / "size");
    if (size.empty() || type == "Instruction") continue;
    text += fmt::format("{}L{} {}", text.empty() ? "" : ", ", first_line(cache / "level"),
                        human_bytes(1024 * std::atof(size.c_str())));
  }
  return text;
}

void examine_cpu(Findings& findings) {
  const auto add = [&](std::string name, std::string value, std::string advice = "") {
    if (!value.empty()) findings.push_back({"CPU", std::move(name), std::move(value), std::move(advice)});
  };
  add("model", first_value_of("/proc/cpuinfo", "model name"));
  const auto sockets = values_of("/proc/cpuinfo", "physical id"), cores = values_of("/proc/cpuinfo", "core id");
  std::set<std::string> distinct;
  for (size_t i = 0; i < cores.size(); ++i)
    distinct.insert(fmt::format("{}/{}", i < sockets.size() ? sockets[i] : "", cores[i]));
  const size_t n_sockets = std::max<size_t>(1, std::set(sockets.begin(), sockets.end()).size());
  const long logical = ::sysconf(_SC_NPROCESSORS_ONLN);
  add("cores", fmt::format("{} on {}, {}", distinct.empty() ? size_t(logical) : distinct.size(),
                           counted(int64_t(n_sockets), "socket"), counted(logical, "hardware thread")));
  add("caches", caches());
  const auto flags = cpu_flags();
  const bool slow = !flags.count("avx2") && !flags.count("asimd");
  add("instruction sets", instruction_sets(flags),
      slow ? "without AVX2 and FMA training is several times slower; a virtual machine may hide them: give it the "
             "host's CPU model"
           : "");
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  add("kernels compiled for", hwy::TargetName(targets & -targets));
  add("bf16 arithmetic", flags.count("avx512_bf16") || flags.count("amx_bf16") || flags.count("bf16")
                             ? "yes"
                             : "no: bf16 is stored, arithmetic is fp32");
}

// What `device` may be.
void examine_devices(Findings& findings) {
  const bool cuda = std::string_view(MIXTAPE_BUILT_WITH_CUDA) == "yes";
  findings.push_back({"devices", "cpu", fmt::format("yes, {}", counted(available_cores(), "thread")), ""});
  findings.push_back({"devices", "cuda", cuda ? "yes" : "no: this build has no CUDA back end", ""});
}

std::string affinity_text(const cpu_set_t& set) {
  std::string text;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    int last = cpu;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
    text += fmt::format("{}{}{}", text.empty() ? "" : ",", cpu, last > cpu ? fmt::format("-{}", last) : "");
    cpu = last;
  }
  return text;
}

// Cores that the control group grants; 0 for no limit.
double quota_cores() {
  double quota = 0, period = 0;
  if (std::ifstream in("/sys/fs/cgroup/cpu.max"); in >> quota >> period && period > 0) return quota / period;
  if (std::ifstream in("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"); in >> quota && quota > 0)
    if (std::ifstream in_period("/sys/fs/cgroup/cpu/cpu.cfs_period_us"); in_period >> period && period > 0)
      return quota / period;
  return 0;
}

void examine_threads(Findings& findings) {
  const auto add = [&](std::string name, std::string value, std::string advice = "") {
    findings.push_back({"threads", std::move(name), std::move(value), std::move(advice)});
  };
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    const int bound = CPU_COUNT(&set);
    add("may run on", fmt::format("CPU {} ({} of {})", affinity_text(set), bound, online),
        bound < online
            ? fmt::format("this process is bound to {} of {} CPUs; if that is not meant, look at taskset, numactl, "
                          "the batch system's --cpus-per-task or mpirun --bind-to none",
                          bound, online)
            : "");
  }
  if (const double quota = quota_cores(); quota > 0)
    add("quota", fmt::format("{:.1f} cores", quota),
        quota < double(online)
            ? fmt::format("the container may use {:.1f} of {} CPUs: set runtime.threads={:.0f}, or raise its limit",
                          quota, online, std::max(1.0, quota))
            : "");
  const std::string wanted = environment("OMP_NUM_THREADS");
  add("OpenMP",
      fmt::format("{}{}", counted(omp_get_max_threads(), "thread"),
                  wanted.empty() ? "" : fmt::format(" (OMP_NUM_THREADS={})", wanted)),
      omp_get_max_threads() < available_cores()
          ? "fewer threads than cores: unset OMP_NUM_THREADS, or set runtime.threads"
          : "");
  double load = 0;
  if (std::ifstream in("/proc/loadavg"); in >> load)
    add("load", fmt::format("{:.2f}", load),
        load > 0.5 * double(online) ? "other programs are running: speeds measured now will be too low" : "");
}

void examine_memory(Findings& findings, const fs::path& directory) {
  const auto add = [&](std::string name, std::string value, std::string advice = "") {
    if (!value.empty()) findings.push_back({"memory", std::move(name), std::move(value), std::move(advice)});
  };
  const double total = memory_figure("MemTotal"), available = memory_figure("MemAvailable");
  add("main memory", fmt::format("{}, {} available", human_bytes(total), human_bytes(available)),
      available < double(1 << 30) ? "less than 1 GiB is free: close other programs, or train a small model" : "");
  std::string limit = first_line("/sys/fs/cgroup/memory.max");
  if (limit.empty()) limit = first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  if (const double bytes = std::atof(limit.c_str()); bytes > 0 && bytes < total)
    add("limit", human_bytes(bytes) + " (control group)");
  const std::string huge = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  if (const size_t open = huge.find('['), close = huge.find(']'); open != huge.npos && close != huge.npos) {
    const std::string mode = huge.substr(open + 1, close - open - 1);
    add("huge pages", mode,
        mode == "never"
            ? "costs a few per cent of speed; as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
            : "");
  }
  add("NUMA nodes", first_line("/sys/devices/system/node/online"));
  struct statvfs disk {};
  std::error_code ignored;
  const fs::path where = fs::absolute(directory, ignored);
  if (::statvfs(directory.c_str(), &disk) == 0) {
    const double free = double(disk.f_bavail) * double(disk.f_frsize);
    add("disk", fmt::format("{} free in {}", human_bytes(free), where.lexically_normal().string()),
        free < 5.0 * (1 << 30)
            ? "checkpoints need 12 to 16 bytes a parameter each; free some space, or set run.dir to another disk"
            : "");
  }
}

// dnnl_cpu_isa2str without its prefix.
std::string onednn_isa() {
  std::string name = dnnl_cpu_isa2str(dnnl_get_effective_cpu_isa());
  if (name.starts_with("cpu_isa_")) name = name.substr(8);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return char(std::toupper(c)); });
  return name;
}

std::string openblas_advice(const std::string& core) {
  if (const std::string forced = environment("OPENBLAS_CORETYPE"); !forced.empty())
    return fmt::format("OPENBLAS_CORETYPE={} overrides the choice of kernels: unset it unless that is meant", forced);
  const bool old = core == "Prescott" || core == "Generic" || core == "generic" || core == "Core2" || core == "Nehalem";
  if (old && cpu_flags().count("avx2"))
    return "OpenBLAS does not know this CPU and uses slow kernels: try OPENBLAS_CORETYPE=Haswell (or SkylakeX with "
           "AVX-512)";
  return "";
}

// "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH NO_AFFINITY USE_OPENMP Zen MAX_THREADS=64" -> "0.3.21, OpenMP threads".
std::string openblas_version() {
  const std::string config = openblas_get_config();
  const size_t begin = config.find(' ') + 1;  // 0 where there is no space
  const std::string version = config.substr(begin, config.find(' ', begin) - begin);
  const bool openmp = config.find("USE_OPENMP") != config.npos, one = config.find("SINGLE_THREADED") != config.npos;
  return fmt::format("{}, {}", version, one ? "single-threaded" : openmp ? "OpenMP threads" : "own threads");
}

void examine_libraries(Findings& findings) {
  const auto add = [&](std::string name, std::string value, std::string advice = "") {
    findings.push_back({"libraries", std::move(name), std::move(value), std::move(advice)});
  };
  const dnnl_version_t* dnnl = dnnl_version();
  const char* limited_by = !environment("ONEDNN_MAX_CPU_ISA").empty() ? "ONEDNN_MAX_CPU_ISA"
                           : !environment("DNNL_MAX_CPU_ISA").empty() ? "DNNL_MAX_CPU_ISA"
                                                                      : nullptr;
  add("oneDNN", fmt::format("{}.{}.{}, kernels for {}", dnnl->major, dnnl->minor, dnnl->patch, onednn_isa()),
      limited_by ? fmt::format("{} limits its instruction sets: unset it unless that is meant", limited_by) : "");
  const std::string core = openblas_get_corename();
  add("OpenBLAS", fmt::format("{}, kernels for {}", openblas_version(), core), openblas_advice(core));
  add("Highway", fmt::format("{}.{}.{}", HWY_MAJOR, HWY_MINOR, HWY_PATCH));
  add("ICU", U_ICU_VERSION);
  add("SentencePiece", MIXTAPE_SENTENCEPIECE_VERSION);
  add("zstd", ZSTD_versionString());
  add("zlib", zlibVersion());
}

std::string compiler() {
#if defined(__clang__)
  return fmt::format("Clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return fmt::format("GCC {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

void examine_build(Findings& findings) {
  const std::string type = MIXTAPE_BUILD_TYPE;
  findings.push_back({"build", "version", version(), ""});
  findings.push_back({"build", "compiler", compiler(), ""});
  findings.push_back(
      {"build", "type", type,
       type == "Debug" ? "a debug build is many times slower: cmake -B build -DCMAKE_BUILD_TYPE=Release" : ""});
  findings.push_back({"build", "MPI", MIXTAPE_BUILT_WITH_MPI, ""});
}

}  // namespace

std::vector<Finding> examine_machine(const fs::path& directory) {
  Findings findings;
  examine_devices(findings);
  examine_cpu(findings);
  examine_threads(findings);
  examine_memory(findings, directory);
  examine_libraries(findings);
  examine_build(findings);
  return findings;
}

std::string findings_text(const std::vector<Finding>& findings, bool colour) {
  const auto paint = [&](const char* code, std::string_view text) {
    return colour ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
  };
  size_t widest = 0;
  for (const Finding& finding : findings) widest = std::max(widest, finding.name.size());
  std::string text, section;
  for (const Finding& finding : findings) {
    if (finding.section != section) {
      text += fmt::format("{}{}\n", section.empty() ? "" : "\n", paint("1", finding.section));
      section = finding.section;
    }
    text += fmt::format("  {}  {:<{}}  {}\n", finding.ok() ? paint("32", "ok") : paint("33", "!!"), finding.name,
                        widest, finding.value);
    if (!finding.ok()) text += fmt::format("      {:<{}}  {}\n", "", widest, paint("33", finding.advice));
  }
  return text;
}

std::string version() { return MIXTAPE_VERSION; }

std::string build_text() {
  return fmt::format("{}, {}, {}, CUDA {}, MPI {}", version(), compiler(), MIXTAPE_BUILD_TYPE, MIXTAPE_BUILT_WITH_CUDA,
                     MIXTAPE_BUILT_WITH_MPI);
}

std::string processor_name() {
  const std::string name = first_value_of("/proc/cpuinfo", "model name");
  return name.empty() ? "unknown" : name;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

int available_cores() {
  int cores = int(std::max(1u, std::thread::hardware_concurrency()));  // respects affinity
  if (const double quota = quota_cores(); quota > 0) cores = std::min(cores, std::max(1, int(quota)));
  return cores;
}

}  // namespace mixtape
