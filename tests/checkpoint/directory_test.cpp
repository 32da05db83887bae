// Checkpoint directories: whole or not at all, whatever happens to the process or the files.
#include "train/checkpoint/directory.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <fstream>
#include <random>
#include <thread>

#include "core/base/error.h"
#include "tests/checkpoint/temporary_directory.h"
#include "train/checkpoint/checkpoint.h"

namespace mixtape {
namespace {

namespace fs = std::filesystem;

fs::path save(const fs::path& root, int64_t step, size_t bytes = 1000) {
  CheckpointDraft draft(root, step);
  draft.add_text("a.bin", std::string(bytes, char('a' + step % 26)));
  draft.add_text("b.bin", std::to_string(step));
  return draft.commit();
}

std::vector<int64_t> steps_of(const CheckpointDirectory& directory) {
  std::vector<int64_t> steps;
  for (const CheckpointEntry& entry : directory.list()) steps.push_back(entry.step);
  return steps;
}

TEST(CheckpointDirectory, lists_what_is_complete_newest_first) {
  const TemporaryDirectory root;
  const CheckpointDirectory directory(root / "c");
  EXPECT_TRUE(directory.list().empty());
  EXPECT_FALSE(directory.newest_whole({}).has_value());
  for (int64_t step : {5, 100, 20}) save(directory.root(), step);
  fs::create_directory(directory.root() / "step-00000300.tmp-abcdef");
  fs::create_directory(directory.root() / "step-00000200.old-abcdef");
  fs::create_directory(directory.root() / "step-7");
  EXPECT_EQ(steps_of(directory), (std::vector<int64_t>{100, 20, 5}));
  directory.clean_leftovers();
  EXPECT_FALSE(fs::exists(directory.root() / "step-00000300.tmp-abcdef"));
  EXPECT_FALSE(fs::exists(directory.root() / "step-00000200.old-abcdef"));
  EXPECT_TRUE(fs::exists(directory.root() / "step-7"));
}

TEST(CheckpointDirectory, an_abandoned_draft_leaves_nothing) {
  const TemporaryDirectory root;
  {
    CheckpointDraft draft(root.path, 1);
    draft.add_text("a", "x");
  }
  EXPECT_TRUE(fs::is_empty(root.path));
}

TEST(CheckpointDirectory, the_same_step_is_replaced) {
  const TemporaryDirectory root;
  save(root.path, 3, 10);
  const fs::path path = save(root.path, 3, 20);
  EXPECT_EQ(fs::file_size(path / "a.bin"), 20u);
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path), fs::directory_iterator()), 1);
}

TEST(CheckpointDirectory, keeps_what_retention_says) {
  const TemporaryDirectory root;
  const CheckpointDirectory directory(root.path);
  for (int64_t step = 1; step <= 10; ++step) save(root.path, step);
  directory.prune({.keep_last = 2, .keep_every = 4, .best = 3});
  EXPECT_EQ(steps_of(directory), (std::vector<int64_t>{10, 9, 8, 4, 3}));
  directory.prune({.keep_last = 0});
  EXPECT_EQ(steps_of(directory), (std::vector<int64_t>{10}));
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path), fs::directory_iterator()), 1);
}

void flip(const fs::path& path, size_t position) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(std::streamoff(position));
  const char c = char(file.get());
  file.seekp(std::streamoff(position));
  file.put(char(c ^ 4));
}

TEST(CheckpointDirectory, damage_is_found_and_the_older_one_taken) {
  struct Damage {
    const char* name;
    std::function<void(const fs::path&)> apply;
  };
  const std::vector<Damage> damages = {
      {"flipped", [](const fs::path& p) { flip(p / "a.bin", 500); }},
      {"truncated", [](const fs::path& p) { fs::resize_file(p / "a.bin", 999); }},
      {"grown", [](const fs::path& p) { fs::resize_file(p / "a.bin", 1001); }},
      {"emptied", [](const fs::path& p) { fs::resize_file(p / "a.bin", 0); }},
      {"missing", [](const fs::path& p) { fs::remove(p / "b.bin"); }},
      {"manifest missing", [](const fs::path& p) { fs::remove(p / "manifest.json"); }},
      {"manifest truncated", [](const fs::path& p) { fs::resize_file(p / "manifest.json", 20); }},
      {"manifest emptied", [](const fs::path& p) { fs::resize_file(p / "manifest.json", 0); }},
      {"a file is a directory", [](const fs::path& p) { fs::remove(p / "b.bin"), fs::create_directory(p / "b.bin"); }},
      {"another step's", [](const fs::path& p) { fs::remove_all(p), fs::copy(p.parent_path() / "step-00000001", p); }},
  };
  for (const Damage& damage : damages) {
    const TemporaryDirectory root;
    save(root.path, 1);
    damage.apply(save(root.path, 2));
    std::vector<std::string> warnings;
    const auto found =
        CheckpointDirectory(root.path).newest_whole([&](const std::string& w) { warnings.push_back(w); });
    ASSERT_TRUE(found.has_value()) << damage.name;
    EXPECT_EQ(found->step, 1) << damage.name;
    EXPECT_EQ(warnings.size(), 1u) << damage.name;
    flip(root / "step-00000001/b.bin", 0);
    EXPECT_THROW(CheckpointDirectory(root.path).newest_whole({}), CheckpointError) << damage.name;
  }
}

// Every bit of the manifest that carries meaning is covered by its own hash.
TEST(CheckpointDirectory, any_flipped_byte_of_a_manifest_is_found_or_harmless) {
  const TemporaryDirectory root;
  const fs::path path = save(root.path, 2);
  const CheckpointManifest good = read_checkpoint_manifest(path);
  for (size_t i = 0; i < fs::file_size(path / "manifest.json"); ++i) {
    flip(path / "manifest.json", i);
    try {
      verify_checkpoint(path);
      const CheckpointManifest read = read_checkpoint_manifest(path);
      EXPECT_EQ(read.step, good.step);
      EXPECT_EQ(read.files, good.files);
    } catch (const CheckpointError&) {
    }
    flip(path / "manifest.json", i);
  }
  verify_checkpoint(path);
}

TEST(CheckpointDirectory, an_extra_file_is_only_reported) {
  const TemporaryDirectory root;
  std::ofstream(save(root.path, 1) / "notes.txt") << "mine";
  std::vector<std::string> warnings;
  EXPECT_TRUE(
      CheckpointDirectory(root.path).newest_whole([&](const std::string& w) { warnings.push_back(w); }).has_value());
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("notes.txt"), std::string::npos);
}

TEST(CheckpointDirectory, a_failing_disk_is_an_error_and_leaves_the_older_ones) {
  const TemporaryDirectory root;
  save(root.path, 1);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};  // the nearest thing to a full disk that needs no privileges
    setrlimit(RLIMIT_FSIZE, &limit);
    try {
      save(root.path, 2, 100000);
      _exit(1);
    } catch (const CheckpointError& error) {
      _exit(std::string(error.what()).find("File too large") == std::string::npos ? 2 : 0);
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(std::distance(fs::directory_iterator(root.path), fs::directory_iterator()), 1);
  EXPECT_EQ(CheckpointDirectory(root.path).newest_whole({})->step, 1);
}

// Writers killed at random instants while they save, replace and prune: the newest whole checkpoint is never older than
// the last one that was reported as saved.
TEST(CheckpointDirectory, survives_sigkill_at_any_instant) {
  const TemporaryDirectory root;
  const CheckpointDirectory directory(root.path);
  std::mt19937 random(7);
  int64_t last_reported = 0;
  for (int round = 0; round < 25; ++round) {
    int channel[2];
    ASSERT_EQ(pipe(channel), 0);
    const pid_t child = fork();
    if (child == 0) {
      directory.clean_leftovers();
      for (int64_t step = last_reported + 1;; ++step) {
        save(root.path, step, 50000);
        if (step % 3 == 0) save(root.path, step, 60000);
        if (write(channel[1], &step, sizeof step) != sizeof step) _exit(1);
        directory.prune({.keep_last = 2});
      }
    }
    close(channel[1]);
    // After one report and a delay of up to a few saves, however slow the disk is.
    const auto start = std::chrono::steady_clock::now();
    int64_t step = 0;
    ASSERT_EQ(read(channel[0], &step, sizeof step), ssize_t(sizeof step));
    last_reported = step;
    const auto one_save = std::chrono::steady_clock::now() - start;
    std::this_thread::sleep_for(one_save * int(random() % 1000) / 400);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    while (read(channel[0], &step, sizeof step) == ssize_t(sizeof step)) last_reported = step;
    close(channel[0]);
    int damaged = 0;
    const auto newest = directory.newest_whole([&](const std::string&) { ++damaged; });
    EXPECT_EQ(damaged, 0);
    ASSERT_TRUE(newest.has_value());
    EXPECT_GE(newest->step, last_reported);
    last_reported = newest->step;
  }
  EXPECT_GE(last_reported, 25);
}

RunState example_state() {
  RunState s;
  s.written_by = "mixtape 0.1.0 \"quoted\" \n é";
  s.seed = ~uint64_t(0);
  s.attempts = 1234567890123456789;
  s.updates = 7;
  s.seconds = 0.1 + 0.2;
  s.loss_scaler = {65536, 12, 2, 3};
  s.best_checkpoint = 5;
  s.best_validation_loss = 1e-310;
  s.sources = {{"a", 1, 2}, {"b", 3, 4}};
  s.loss_history = {1.0 / 3, -0.0, 1e308, std::numeric_limits<double>::infinity()};
  s.config = "a: 1\n";
  return s;
}

TEST(RunState, comes_back_exactly) {
  const RunState s = example_state();
  EXPECT_EQ(run_state_from_json(to_json(s), "S"), s);
  EXPECT_TRUE(std::signbit(run_state_from_json(to_json(s), "S").loss_history[1]));
  EXPECT_EQ(run_state_from_json(to_json(RunState{}), "S"), RunState{});
  std::mt19937_64 random(1);
  RunState many;
  for (int i = 0; i < 20000; ++i)
    if (const double x = std::bit_cast<double>(random()); x == x) many.loss_history.push_back(x);
  EXPECT_EQ(run_state_from_json(to_json(many), "S"), many);
}

TEST(RunState, refuses_what_is_not_one) {
  const auto error_with = [](const std::string& from, const std::string& to) -> std::string {
    std::string text = to_json(example_state());
    text.replace(text.find(from), from.size(), to);
    try {
      run_state_from_json(text, "S");
      return "accepted";
    } catch (const CheckpointError& error) {
      return error.what();
    }
  };
  EXPECT_NE(error_with("\"updates\": 7", "\"updates\": -7").find("updates"), std::string::npos);
  EXPECT_NE(error_with("\"updates\": 7", "\"updates\": 7.5").find("S: updates: 7.5, expected a whole number"),
            std::string::npos);
  EXPECT_NE(error_with("\"updates\"", "\"update\"").find("S: updates: the key is missing"), std::string::npos);
  EXPECT_NE(error_with("\"updates\": 7", "\"updates\": 7, \"more\": 1").find("unknown"), std::string::npos);
  EXPECT_NE(error_with("\"scale\": 65536.0", "\"scale\": \"x\"").find("loss_scaler.scale"), std::string::npos);
  EXPECT_NE(error_with("{", "").find("not valid JSON"), std::string::npos);
}

struct TinyModel {
  ModelSpec spec;
  std::vector<std::vector<bf16>> weights;
  std::vector<std::vector<float>> master, m, v;
  std::vector<ConstTensorRef> optimizer;
  CheckpointContents contents;

  explicit TinyModel(float seed) {
    spec.n_layers = 2, spec.d_model = 12, spec.n_heads = 3, spec.vocab_size = 17, spec.max_positions = 5;
    for (const ParameterShape& p : parameter_shapes(spec)) {
      const size_t n = size_t(count_of(p.shape));
      auto& w = weights.emplace_back(n);
      auto &a = master.emplace_back(n), &b = m.emplace_back(n), &c = v.emplace_back(n);
      for (size_t i = 0; i < n; ++i) {
        a[i] = seed + float(i) / 7, b[i] = -a[i] * 3, c[i] = a[i] * a[i];
        w[i] = bf16(a[i]);
      }
      contents.model.push_back({p.name, DType::bf16, p.shape, w.data()});
      optimizer.push_back({"master." + p.name, DType::f32, p.shape, a.data()});
      optimizer.push_back({"m." + p.name, DType::f32, p.shape, b.data()});
      optimizer.push_back({"v." + p.name, DType::f32, p.shape, c.data()});
    }
    for (const ConstTensorRef& t : optimizer)
      contents.optimizer.push_back(tensor_source(t.name, t.dtype, t.shape, t.data));
    contents.spec = spec;
    contents.state.updates = int64_t(seed);
    contents.state.config = "seed: 1\n";
  }
  static std::vector<TensorRef> mutable_refs(const std::vector<ConstTensorRef>& list) {
    std::vector<TensorRef> refs;
    for (const ConstTensorRef& t : list) refs.push_back({t.name, t.dtype, t.shape, const_cast<void*>(t.data)});
    return refs;
  }
};

TEST(Checkpoint, comes_back_bit_for_bit) {
  const TemporaryDirectory root;
  const CheckpointDirectory directory(root.path);
  const TinyModel saved(100);
  const fs::path path = save_checkpoint(directory, saved.contents);
  verify_checkpoint(path, [](const std::string& text) { ADD_FAILURE() << text; });
  const CheckpointReader reader(path);
  EXPECT_EQ(reader.state(), saved.contents.state);
  EXPECT_EQ(read_text_file(path / "config.resolved.yaml"), "seed: 1\n");

  TinyModel loaded(3);
  reader.expect_model(TinyModel::mutable_refs(loaded.contents.model));
  reader.read_model(TinyModel::mutable_refs(loaded.contents.model));
  reader.expect_optimizer(TinyModel::mutable_refs(loaded.optimizer));
  reader.read_optimizer(TinyModel::mutable_refs(loaded.optimizer));
  EXPECT_EQ(loaded.master, saved.master);
  EXPECT_EQ(loaded.m, saved.m);
  EXPECT_EQ(loaded.v, saved.v);
  for (size_t i = 0; i < saved.weights.size(); ++i)
    for (size_t j = 0; j < saved.weights[i].size(); ++j) ASSERT_EQ(loaded.weights[i][j].code, saved.weights[i][j].code);
}

TEST(Checkpoint, another_model_is_refused_by_name) {
  const TemporaryDirectory root;
  TinyModel model(1);
  const CheckpointReader reader(save_checkpoint(CheckpointDirectory(root.path), model.contents));
  const auto error_with = [&](auto change) -> std::string {
    auto refs = TinyModel::mutable_refs(model.optimizer);
    change(refs);
    try {
      reader.expect_optimizer(refs);
      return "accepted";
    } catch (const CheckpointError& error) {
      return error.what();
    }
  };
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(has(error_with([](auto& r) { r[1].name = "other"; }), "lacks other; this run has no m.embedding.token"));
  EXPECT_TRUE(has(error_with([](auto& r) {
                    r[0].shape = {18, 12};
                  }),
                  "[17, 12] in the checkpoint, [18, 12] in this run"));
  EXPECT_TRUE(has(error_with([](auto& r) { r[0].dtype = DType::bf16; }), "precision"));
  EXPECT_TRUE(has(error_with([](auto& r) { r.pop_back(); }), "this run has no"));
}

}  // namespace
}  // namespace mixtape
