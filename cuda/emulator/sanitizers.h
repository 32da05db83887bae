// What the emulator tells the sanitizers: which stack runs, what the barriers order, what may not be read yet.
//
// Nothing here does anything in a plain build. The thread sanitizer learns that each CUDA thread is a thread of its own
// and that only barriers order them; the address sanitizer learns where the stacks are.
#pragma once

#include <cstddef>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MIXTAPE_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define MIXTAPE_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define MIXTAPE_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define MIXTAPE_TSAN 1
#endif
#ifndef MIXTAPE_ASAN
#define MIXTAPE_ASAN 0
#endif
#ifndef MIXTAPE_TSAN
#define MIXTAPE_TSAN 0
#endif

#if MIXTAPE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if MIXTAPE_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace mixtape::emulator {

constexpr bool finds_races = MIXTAPE_TSAN;

// While one of these lives the thread sanitizer looks away: the emulator's own data belongs to all fibers.
struct Unwatched {
#if MIXTAPE_TSAN
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unwatched() {}
#endif
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
};

// A barrier orders everything before a release before everything after an acquire of the same address.
inline void release([[maybe_unused]] void* barrier) {
#if MIXTAPE_TSAN
  __tsan_release(barrier);
#endif
}
inline void acquire([[maybe_unused]] void* barrier) {
#if MIXTAPE_TSAN
  __tsan_acquire(barrier);
#endif
}

inline void forbid_access([[maybe_unused]] void* p, [[maybe_unused]] size_t bytes) {
#if MIXTAPE_ASAN
  __asan_poison_memory_region(p, bytes);
#endif
}
inline void allow_access([[maybe_unused]] const void* p, [[maybe_unused]] size_t bytes) {
#if MIXTAPE_ASAN
  __asan_unpoison_memory_region(p, bytes);
#endif
}

}  // namespace mixtape::emulator
