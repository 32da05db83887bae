#include "train/report/metrics.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/report/temporary.h"

namespace mixtape {
namespace {

using Json = nlohmann::json;

StepMetrics step(int64_t number) { return {.step = number, .attempt = number, .tokens = 10 * number, .loss = 3.5}; }

std::vector<int64_t> steps_in(const std::filesystem::path& file) {
  std::vector<int64_t> steps;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) steps.push_back(Json::parse(line).at("step"));
  return steps;
}

TEST(Metrics, AStepLineHasTheNamesThatScriptsRead) {
  const Json json = Json::parse(json_line(StepMetrics{.step = 7,
                                                      .attempt = 8,
                                                      .tokens = 900,
                                                      .loss = 2.5,
                                                      .grad_norm = 0.5,
                                                      .lr = 1e-3,
                                                      .loss_scale = 1024,
                                                      .tokens_per_second = 100,
                                                      .sources = {{"a\"b", 0.25, 1.5}}}));
  EXPECT_EQ(json.at("event"), "step");
  EXPECT_EQ(json.at("step"), 7);
  EXPECT_EQ(json.at("attempt"), 8);
  EXPECT_EQ(json.at("tokens"), 900);
  EXPECT_EQ(json.at("loss"), 2.5);
  EXPECT_EQ(json.at("grad_norm"), 0.5);
  EXPECT_EQ(json.at("lr"), 1e-3);
  EXPECT_EQ(json.at("loss_scale"), 1024);
  EXPECT_EQ(json.at("tokens_per_second"), 100);
  EXPECT_EQ(json.at("sources").at("a\"b").at("epochs"), 1.5);
  EXPECT_GT(json.at("time").get<double>(), 1.6e9);
  EXPECT_FALSE(json.contains("nonfinite"));
}

TEST(Metrics, WhatIsNotFiniteIsNullAndNamed) {
  const Json json =
      Json::parse(json_line(StepMetrics{.loss = NAN, .grad_norm = -INFINITY, .lr = INFINITY, .skipped = true}));
  EXPECT_EQ(json.at("event"), "skip");
  EXPECT_TRUE(json.at("loss").is_null());
  EXPECT_TRUE(json.at("grad_norm").is_null());
  EXPECT_EQ(json.at("nonfinite"), (Json{{"loss", "nan"}, {"grad_norm", "-inf"}, {"lr", "inf"}}));
}

TEST(Metrics, ASampleThatIsNoUtf8StaysOneValidLine) {
  const std::string line = json_line(SampleEvent{.text = "half \xE2\x82 character\nnext line"});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_NE(Json::parse(line).at("text").get<std::string>().find("\xEF\xBF\xBD"), std::string::npos);
}

TEST(MetricsLog, AResumeCutsTheTornLineAndLaterSteps) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder / "metrics.jsonl", {});
    for (int i = 1; i <= 5; ++i) ASSERT_TRUE(log.write(step(i)));
  }
  write(folder / "metrics.jsonl", read(folder / "metrics.jsonl") + R"({"event":"step","step":3,"lo)");
  MetricsLog log(folder / "metrics.jsonl", {.step = 3, .attempt = 3});
  EXPECT_EQ(steps_in(folder / "metrics.jsonl"), (std::vector<int64_t>{1, 2, 3}));
  log.write(step(4));
  EXPECT_EQ(steps_in(folder / "metrics.jsonl"), (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST(MetricsLog, SkipsAfterTheCheckpointGoThoughTheirStepDidNotMove) {
  const TemporaryFolder folder;
  {
    MetricsLog log(folder / "metrics.jsonl", {});
    log.write(step(1));
    log.write(StepMetrics{.step = 1, .attempt = 2, .skipped = true});
    log.write(StepMetrics{.step = 1, .attempt = 3, .skipped = true});
  }
  MetricsLog log(folder / "metrics.jsonl", {.step = 1, .attempt = 2});
  EXPECT_EQ(steps_in(folder / "metrics.jsonl").size(), 2u);
}

TEST(MetricsLog, DamagedLinesInTheMiddleGoAndOthersStayByteForByte) {
  const TemporaryFolder folder;
  const std::string good = json_line(step(1)) + "\n";
  write(folder / "metrics.jsonl", good + "\0\0\0garbage\n[1]\n" + good);
  MetricsLog log(folder / "metrics.jsonl", {.step = 9, .attempt = 9});
  EXPECT_EQ(read(folder / "metrics.jsonl"), good + good);
}

TEST(MetricsLog, AFreshStartEmptiesTheFile) {
  const TemporaryFolder folder;
  write(folder / "metrics.jsonl", json_line(StartEvent{}) + "\n" + json_line(step(1)) + "\n");
  MetricsLog log(folder / "metrics.jsonl", {});
  EXPECT_EQ(read(folder / "metrics.jsonl"), "");
}

// A limit on the size of files stands in for a full disk: the first bytes of the line still fit.
TEST(MetricsLog, AFullDiskLosesWholeLinesAndDoesNotThrow) {
  const TemporaryFolder folder;
  MetricsLog log(folder / "metrics.jsonl", {});
  ASSERT_TRUE(log.write(step(1)));
  const std::string before = read(folder / "metrics.jsonl");
  rlimit usual;
  ::getrlimit(RLIMIT_FSIZE, &usual);
  const rlimit full{before.size() + 10, usual.rlim_max};
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ::setrlimit(RLIMIT_FSIZE, &full);
  const bool written = log.write(step(2));
  ::setrlimit(RLIMIT_FSIZE, &usual);
  ::signal(SIGXFSZ, handler);
  EXPECT_FALSE(written);
  EXPECT_EQ(log.lost_lines(), 1);
  EXPECT_EQ(read(folder / "metrics.jsonl"), before);
  EXPECT_TRUE(log.write(step(3)));
}

}  // namespace
}  // namespace mixtape
