// Values: what is read, what is refused and with which words, and hostile YAML.
#include <gtest/gtest.h>

#include "tests/config/support.h"
#include "train/config/config.h"
#include "train/config/numbers.h"

namespace mixtape {
namespace {

Config parsed(const std::string& yaml) { return parse_config(yaml, "a.yaml").config; }
std::string error_of(const std::string& yaml) {
  return error_text([&] { parse_config(yaml, "a.yaml"); });
}

TEST(Numbers, AreDecimal) {
  EXPECT_EQ(parsed("optimizer: {lr: 1e-3}").optimizer.lr, 1e-3);
  EXPECT_EQ(parsed("optimizer: {lr: .5}").optimizer.lr, 0.5);
  EXPECT_EQ(parsed("optimizer: {lr: +6.0E-4}").optimizer.lr, 6e-4);
  EXPECT_EQ(parsed("train: {max_tokens: 1e9}").train.max_tokens, 1000000000);
  EXPECT_EQ(parsed("seed: 9007199254740993").seed, 9007199254740993);  // beyond the integers of a double
  EXPECT_EQ(parsed("model: {pad_id: -1}").model.pad_id, -1);
}

TEST(Numbers, OtherNotationsAreRefused) {
  EXPECT_EQ(error_of("\nseed: 010"),
            "a.yaml:2: seed is '010', expected an integer of at least 0; a number with a leading 0 is "
            "octal to some readers, write it without");
  for (const char* text : {"0x10",
                           "0o17",
                           "0b1",
                           "1_000",
                           "1,000",
                           "1.5",
                           "1e400",
                           "1e-1",
                           "9e30",
                           "- 1",
                           "--1",
                           "+-1",
                           "1 2",
                           "''",
                           "null",
                           "~",
                           "true",
                           "12abc",
                           "99999999999999999999",
                           ".inf",
                           "0x",
                           "1e"})
    EXPECT_NE(error_of(std::string("seed: ") + text), "") << text;
  for (const char* text : {".inf", "-.inf", ".nan", ".NaN", "inf", "nan", "NaN", "Infinity", "1e999", "010.5", "0x1p3",
                           "1e", ".", "-", "e5", "1..2", "1_0.5"})
    EXPECT_NE(error_of(std::string("optimizer: {lr: ") + text + "}"), "") << text;
  EXPECT_NE(error_of("optimizer: {lr: .nan}").find("numbers must be finite"), std::string::npos);
  EXPECT_NE(error_of("seed: 0x10").find("write numbers in decimal"), std::string::npos);
  EXPECT_NE(error_of("seed: 1_000").find("write numbers without '_'"), std::string::npos);
  EXPECT_NE(error_of("seed: \"10\"").find("write it without quotes"), std::string::npos);
}

TEST(Numbers, StayInTheirRange) {
  EXPECT_EQ(error_of("optimizer:\n  lr: 11"), "a.yaml:2: optimizer.lr is '11', expected a number from 0 to 10");
  EXPECT_EQ(error_of("optimizer: {betas: [0.9, 1]}"),
            "a.yaml:1: optimizer.betas[1] is '1', expected a number of at least 0 and below 1");
  EXPECT_EQ(error_of("objective: {mask_rate: 0}"),
            "a.yaml:1: objective.mask_rate is '0', expected a number above 0 and at most 0.9");
  EXPECT_EQ(error_of("seed: -1"), "a.yaml:1: seed is '-1', expected an integer of at least 0");
}

TEST(Numbers, AreWrittenSoThatTheyReadBack) {
  for (double x : {0.0, 1.0, 6e-4, 1e-8, 65536.0, 1e300, 0.1, 1.0 / 3})
    EXPECT_EQ(x, read_number(number_text(x))) << number_text(x);
  EXPECT_EQ(number_text(1e-8), "1.0e-08");  // without the point, YAML 1.1 reads a text
}

TEST(Switches, AreTrueAndFalse) {
  EXPECT_FALSE(parsed("data: {pack: false}").data.pack);
  EXPECT_EQ(error_of("data: {pack: no}"), "a.yaml:1: data.pack is 'no', expected true or false; write false");
  EXPECT_EQ(error_of("data: {pack: Yes}"), "a.yaml:1: data.pack is 'Yes', expected true or false; write true");
  for (const char* text : {"on", "off", "y", "n", "TRUE", "True", "1", "0", "'true'", "maybe", "null", "[]", "{}"})
    EXPECT_NE(error_of(std::string("data: {pack: ") + text + "}"), "") << text;
}

TEST(Texts, AreTakenAsTheyStand) {
  EXPECT_EQ(parsed("run: {name: no}").run.name, "no");
  EXPECT_EQ(parsed("run: {name: 010}").run.name, "010");
  EXPECT_EQ(parsed("run: {name: \"a: b\"}").run.name, "a: b");
  EXPECT_EQ(error_of("run: {name: null}"), "a.yaml:1: run.name is nothing, expected a text");
  EXPECT_EQ(error_of("run:\n  name:\n"), "a.yaml:2: run.name is nothing, expected a text");
  EXPECT_EQ(error_of("run: {name: [a]}"), "a.yaml:1: run.name is a list of 1, expected a text");
}

TEST(Choices, ListTheirNames) {
  EXPECT_EQ(parsed("schedule: {name: wsd}").schedule.name, ScheduleKind::wsd);
  EXPECT_EQ(
      error_of("schedule: {name: cosin}"),
      "a.yaml:1: schedule.name is 'cosin', expected constant | linear | cosine | inverse_sqrt | wsd; did you mean "
      "'cosine'?");
}

TEST(Optionals, AreNullOrAValue) {
  EXPECT_EQ(parsed("train: {max_steps: null}").train.max_steps, std::nullopt);
  EXPECT_EQ(parsed("model: {qkv_bias: true}").model.qkv_bias, true);
  EXPECT_EQ(error_of("train: {max_steps: soon}"),
            "a.yaml:1: train.max_steps is 'soon', expected null or an integer from 1 to 1000000000000");
}

TEST(Autos, AreAutoOrAValue) {
  EXPECT_TRUE(parsed("runtime: {threads: auto}").runtime.threads.is_auto());
  EXPECT_EQ(parsed("runtime: {threads: 2}").runtime.threads, 2);
  EXPECT_EQ(parsed("runtime: {cuda_graphs: false}").runtime.cuda_graphs, false);
  EXPECT_NE(error_of("runtime: {threads: many}").find("expected auto or an integer from 1 to 4096"), std::string::npos);
  EXPECT_NE(error_of("runtime: {threads: null}"), "");
}

TEST(Lists, HaveTheRightLengthAndItems) {
  EXPECT_EQ(parsed("model: {window_layers: [1, 2]}").model.window_layers, (std::vector<int64_t>{1, 2}));
  EXPECT_NE(error_of("optimizer: {betas: [0.9]}").find("is a list of 1, expected a list of 2"), std::string::npos);
  EXPECT_NE(error_of("optimizer: {betas: 0.9}").find("is '0.9', expected a list of 2"), std::string::npos);
  EXPECT_NE(error_of("data: {sources: {path: a}}").find("begin each item with '-'"), std::string::npos);
  EXPECT_NE(error_of("data: {sources: [a]}").find("expected keys below it, such as name"), std::string::npos);
  EXPECT_EQ(error_of("model: gpt2"), "a.yaml:1: model is 'gpt2', expected keys below it, such as preset");
  EXPECT_NE(error_of("[1, 2]").find("the configuration is a list of 2"), std::string::npos);
}

TEST(Yaml, TheEmptyFileIsAllDefaults) {
  EXPECT_EQ(to_yaml(parsed("")), to_yaml(parsed("# nothing\n")));
  EXPECT_EQ(parsed("---\n...\n").seed, 1234);
  EXPECT_EQ(parsed("\xef\xbb\xbfseed: 5\r\n").seed, 5);  // a byte order mark and Windows line ends
}

TEST(Yaml, DuplicateKeysAreRefused) {
  EXPECT_EQ(error_of("seed: 1\nrun: {name: a}\nseed: 2\n"),
            "a.yaml:3: the key 'seed' is given twice (first in line 1)");
  EXPECT_NE(error_of("run: {name: a, name: a}"), "");
  EXPECT_NE(error_of("seed: 1\n'seed': 2\n"), "");
}

TEST(Yaml, WhatIsReadInDifferentWaysIsRefused) {
  EXPECT_NE(error_of("run: &a {name: x}\n").find("anchors and aliases"), std::string::npos);
  EXPECT_NE(error_of("run: {name: &a x, dir: *a}\n").find("anchors and aliases"), std::string::npos);
  EXPECT_NE(error_of("a: &a [*a]\n").find("anchors and aliases"), std::string::npos);  // a cycle
  EXPECT_NE(error_of("seed: !!int 3\n").find("the tag"), std::string::npos);
  EXPECT_NE(error_of("run: !thing {name: x}\n").find("the tag"), std::string::npos);
  EXPECT_NE(error_of("seed: 1\n---\nseed: 2\n").find("a second document"), std::string::npos);
  EXPECT_NE(error_of("seed: 1\n---\n").find("a second document"), std::string::npos);
  EXPECT_NE(error_of("? [a]\n: 1\n").find("a key must be a plain text"), std::string::npos);
  EXPECT_NE(error_of(": 1\n").find("a key is missing"), std::string::npos);
  EXPECT_NE(error_of("<<: {seed: 1}\n").find("unknown key"), std::string::npos);
}

TEST(Yaml, SyntaxErrorsNameTheLine) {
  EXPECT_EQ(error_of("seed: 1\nrun: {name: a\n").rfind("a.yaml:3: not YAML: ", 0), 0u);
  EXPECT_EQ(error_of("seed: 1\n\trun: 2\n").rfind("a.yaml:2: ", 0), 0u);
  EXPECT_EQ(error_of("run:\n  name: a\n dir: b\n").rfind("a.yaml:3: ", 0), 0u);
}

TEST(Yaml, WhatIsNoTextIsRefused) {
  EXPECT_NE(error_of("run: {name: \xff}\n").find("a.yaml:1: not valid UTF-8 (byte 0xff)"), std::string::npos);
  EXPECT_NE(error_of("seed: 1\nrun: {name: \xc0\xaf}\n").find("a.yaml:2: not valid UTF-8"), std::string::npos);
  for (const char* bad : {"\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82", "\x80", "\xf8\x88\x80\x80\x80"})
    EXPECT_NE(error_of(std::string("run: {name: ") + bad + "}\n").find("not valid UTF-8"), std::string::npos);
  EXPECT_EQ(parsed("run: {name: caf\xc3\xa9\xf0\x9f\x8e\xb5}").run.name, "caf\xc3\xa9\xf0\x9f\x8e\xb5");
  EXPECT_NE(error_of(std::string("seed: 1\0\n", 9)).find("control character"), std::string::npos);
  EXPECT_NE(error_of(std::string("s\0e\0e\0d\0:\0", 10)).find("control character"), std::string::npos);  // UTF-16
}

TEST(Yaml, SizeAndDepthAreLimited) {
  EXPECT_NE(error_of(std::string((1 << 20) + 1, '#')).find("this is no configuration"), std::string::npos);
  for (const char* open : {"[", "{a: ", "- ", "? ", "{? ", "[{", "!x [", "a: ["}) {
    std::string deep;
    while (deep.size() < 500000) deep += open;
    EXPECT_NE(error_of(deep), "") << open;
  }
  EXPECT_NE(error_of("[[[[[[[[[1]]]]]]]]]").find("nested more than 8 levels"), std::string::npos);
  std::string many = "a: [";
  for (int i = 0; i < 20000; ++i) many += "1,";
  EXPECT_NE(error_of(many + "1]").find("more than 10000 values"), std::string::npos);
}

}  // namespace
}  // namespace mixtape
