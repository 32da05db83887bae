// The file of offloaded state: what goes out comes back, in order, and a disk that is full or fails is said in a line.
#include "core/offload_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <vector>

#include "tests/support/full_disk.h"

namespace mixtape {
namespace {

struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("mixtape-offload-" + std::to_string(getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

Tensor tensor_of(std::vector<int64_t>& numbers) { return {numbers.data(), {int64_t(numbers.size())}, DType::i64}; }

std::vector<int64_t> numbers(int64_t first, size_t n) {
  std::vector<int64_t> list(n);
  std::iota(list.begin(), list.end(), first);
  return list;
}

TEST(OffloadFile, FetchesSeeTheStoresBefore) {
  const Folder folder;
  constexpr size_t n = 10000;
  OffloadFile file({"numbers", 8 * n * 100, {(folder.path / "made").string()}});
  EXPECT_TRUE(std::filesystem::is_empty(folder.path / "made")) << "it has no name";
  std::vector<int64_t> places[2] = {numbers(7, n), numbers(7, n)};
  file.read(places[0].data(), 8 * n * 99, 8 * n);
  EXPECT_EQ(places[0], std::vector<int64_t>(n)) << "0 at first";
  // More than the ring has room for; each place is stored and at once filled with another part.
  for (int64_t i = 0; i < 100; ++i) {
    std::vector<int64_t>& place = places[i % 2];
    file.finish();
    place = numbers(1000 * i, n);
    file.store(8 * int64_t(n) * i, tensor_of(place));
    file.wait(file.fetch(tensor_of(place), 8 * int64_t(n) * std::max<int64_t>(i - 1, 0)));
    EXPECT_EQ(place, numbers(1000 * std::max<int64_t>(i - 1, 0), n));
  }
  for (int i = 0; i < 500; ++i) file.store(0, tensor_of(places[0]));
  file.finish();
  std::vector<int64_t> found(3);
  const std::vector<int64_t> written = {5, 6, 7};
  EXPECT_EQ(file.writes(), 0);
  file.write(16, written.data(), 24);
  EXPECT_EQ(file.writes(), 1);
  file.read(found.data(), 16, 24);
  EXPECT_EQ(found, written);
}

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const char* part) {
  return text.find(part) != text.npos && text.find('\n') == text.npos;
}

TEST(OffloadFile, RoomIsTakenBeforeAnythingIsWritten) {
  const Folder folder;
  EXPECT_EQ(exit_code_of([&] {
              limit_files(1 << 20);
              const std::string error = error_of([&] {
                OffloadFile({"the optimizer's state", 2 << 20, {folder.path.string()}});
              });
              return has(error, "memory.offload: 2.0 MiB for the optimizer's state in ") &&
                             has(error, "File too large; free room on that disk, set memory.offload_directory")
                         ? 0
                         : 1;
            }),
            0);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path));
  const std::string error = error_of([&] { OffloadFile({"numbers", 1, {"/proc/none"}}); });
  EXPECT_TRUE(has(error, "memory.offload: no file can be made in /proc/none: No such file")) << error;
}

// The first failure ends everything after it.
TEST(OffloadFile, ADiskThatFailsIsSaid) {
  const Folder folder;
  EXPECT_EQ(exit_code_of([&] {
              OffloadFile file({"activations", 2 << 20, {folder.path.string()}});
              std::vector<int64_t> place = numbers(1, 1000);
              file.store(0, tensor_of(place));
              limit_files(1 << 20);
              file.finish();
              file.store(3 << 19, tensor_of(place));
              for (const std::string& error :
                   {error_of([&] { file.finish(); }), error_of([&] { file.fetch(tensor_of(place), 0); }),
                    error_of([&] { file.read(place.data(), 0, 8); })})
                if (!has(error, "memory.offload: writing 0.0 MiB of activations in ") ||
                    !has(error, "File too large; the last checkpoint"))
                  return 1;
              return 0;
            }),
            0);
  OffloadFile file({"activations", 2 << 20, {folder.path.string()}});
  ASSERT_EQ(ftruncate(file.descriptor(), 1 << 20), 0);
  std::vector<int64_t> place(1000);
  const auto ticket = file.fetch(tensor_of(place), (1 << 20) - 4000);
  const std::string error = error_of([&] { file.wait(ticket); });
  EXPECT_TRUE(has(error, "memory.offload: reading ") && has(error, "the file ends before")) << error;
}

}  // namespace
}  // namespace mixtape
