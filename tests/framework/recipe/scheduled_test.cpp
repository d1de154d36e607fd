// Numbers that move over the steps: their values, and that a plain number is a key like any other.
#include "framework/recipe/scheduled.h"

#include <gtest/gtest.h>

#include "tests/framework/recipe/toy.h"

namespace conclave::test {
namespace {

struct Oven {
  Scheduled<double> heat = 0.5;
  Scheduled<std::int64_t> loaves = 8;
  KeyPlaces places;
  bool operator==(const Oven&) const = default;
};
void describe(Visitor& v, Oven& o) {
  scheduled(v, "heat", o.heat, "how hot", at_least(0), {.other_names = {"temperature"}});
  scheduled(v, "loaves", o.loaves, "bread in it", size());
}

const Schema& oven_schema() {
  static const Schema schema = [] {
    Oven defaults;
    return Schema(SectionReference(defaults), "loaves=4");
  }();
  return schema;
}

Oven read_oven(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Oven oven;
  const ReadTarget target{SectionReference(oven), oven_schema(), oven.places};
  read_text(target, text, "oven.yaml");
  for (const std::string& change : overrides) apply_override(target, change);
  return oven;
}

std::string oven_error(const std::string& text) {
  return complaint_of([&] {
    const Oven oven = read_oven(text);
    const Requirements r(oven.places);
    require_possible(r, oven.heat, "heat");
    require_possible(r, oven.loaves, "loaves");
  });
}

TEST(Scheduled, APlainNumberStaysWhereItIs) {
  const Scheduled<std::int64_t> eight = 8;
  for (const std::int64_t step : {0, 1, 1000000}) EXPECT_EQ(eight.at(step), 8);
  EXPECT_EQ(eight.in_evaluation(5), 8);
  EXPECT_EQ(eight.largest(), 8);
}

TEST(Scheduled, MovesFromTheFirstStepToTheLast) {
  Scheduled<double> heat;
  heat.moves = true;
  heat.from = 1, heat.to = 3, heat.first_step = 10, heat.last_step = 20;
  for (const auto& [step, value] :
       std::map<std::int64_t, double>{{0, 1}, {10, 1}, {15, 2}, {18, 2.6}, {20, 3}, {99, 3}})
    EXPECT_DOUBLE_EQ(heat.at(step), value) << step;
  heat.kind = Course::cosine;
  for (const auto& [step, value] : std::map<std::int64_t, double>{
           {0, 1}, {10, 1}, {12, 1 + (1 - std::cos(3.14159265358979323846 / 5))}, {15, 2}, {20, 3}})
    EXPECT_DOUBLE_EQ(heat.at(step), value) << step;
  EXPECT_EQ(heat.largest(), 3);
  EXPECT_DOUBLE_EQ(heat.in_evaluation(15), 2);
  heat.evaluation = 4;
  EXPECT_EQ(heat.in_evaluation(15), 4);
  EXPECT_EQ(heat.largest(), 4);
}

TEST(Scheduled, WholeNumbersAreRoundedOrEachHeldAsLong) {
  Scheduled<std::int64_t> loaves = 0;
  loaves.moves = true;
  loaves.from = 4, loaves.to = 1, loaves.first_step = 2, loaves.last_step = 9;
  std::vector<std::int64_t> linear, steps;
  for (std::int64_t step = 0; step < 11; ++step) linear.push_back(loaves.at(step));
  loaves.kind = Course::steps;
  for (std::int64_t step = 0; step < 11; ++step) steps.push_back(loaves.at(step));
  EXPECT_EQ(linear, (std::vector<std::int64_t>{4, 4, 4, 4, 3, 3, 2, 2, 1, 1, 1}));
  EXPECT_EQ(steps, (std::vector<std::int64_t>{4, 4, 4, 4, 3, 3, 2, 2, 1, 1, 1}));
  loaves.last_step = 13;  // 12 steps for 4 numbers
  for (const auto& [step, value] :
       std::map<std::int64_t, std::int64_t>{{2, 4}, {4, 4}, {5, 3}, {7, 3}, {8, 2}, {10, 2}, {11, 1}})
    EXPECT_EQ(loaves.at(step), value) << step;
  EXPECT_EQ(loaves.largest(), 4);
  loaves.first_step = loaves.last_step;
  EXPECT_EQ(loaves.at(12), 4);
  EXPECT_EQ(loaves.at(13), 1);
}

TEST(Scheduled, IsReadAndWritten) {
  Oven plain = read_oven("heat: 0.25\nloaves: 3");
  EXPECT_EQ(plain.heat, Scheduled<double>(0.25));
  EXPECT_EQ(to_yaml(SectionReference(plain)), "heat: 0.25\nloaves: 3\n");
  Oven moving =
      read_oven("loaves: {kind: steps, from: 8, to: 16, first_step: 5, last_step: 50, evaluation: 12}");
  EXPECT_EQ(moving.loaves.at(0), 8);
  EXPECT_EQ(moving.loaves.at(50), 16);
  EXPECT_EQ(moving.loaves.in_evaluation(50), 12);
  EXPECT_EQ(moving.places.of("loaves.to"), "oven.yaml:1: ");
  EXPECT_EQ(to_yaml(SectionReference(moving)),
            "heat: 0.5\nloaves:\n  kind: steps\n  from: 8\n  to: 16\n  first_step: 5\n  last_step: 50\n"
            "  evaluation: 12\n");
  Oven defaults;
  for (Oven& oven : std::array{plain, moving, read_oven("heat: {to: 2, last_step: 9}")}) {
    EXPECT_EQ(read_oven(to_yaml(SectionReference(oven))), oven);
    const std::string annotated = to_annotated_yaml(SectionReference(oven), SectionReference(defaults));
    EXPECT_EQ(read_oven(annotated), oven) << annotated;
    EXPECT_EQ(annotated.find("[]"), std::string::npos) << annotated;
  }
}

TEST(Scheduled, IsOverridden) {
  const Oven moving = read_oven("loaves: 6", {"loaves.to=9", "loaves.last_step=30"});
  EXPECT_EQ(moving.loaves.at(0), 6) << "a course begins at the number that was there";
  EXPECT_EQ(moving.loaves.at(30), 9);
  const Oven plain = read_oven("loaves: {to: 9}", {"loaves=5"});
  EXPECT_EQ(plain.loaves, Scheduled<std::int64_t>(5));
  EXPECT_EQ(plain.places.of_key.count("loaves.to"), 0u);
}

TEST(Scheduled, IsRefusedWithTheSentencesOfANumber) {
  const std::vector<std::pair<const char*, const char*>> table = {
      {"loaves: 0", "oven.yaml:1: loaves: 0 came, expected at least 1 and at most 2147483647"},
      {"loaves: many", "oven.yaml:1: loaves: 'many' came, expected a whole number"},
      {"loaves: [1]", "oven.yaml:1: loaves: a list came, expected a whole number"},
      {"loaves: {from: 0}", "oven.yaml:1: loaves.from: 0 came, expected at least 1 and at most 2147483647"},
      {"loaves: {form: 0}", "oven.yaml:1: loaves.form: there is no such key; did you mean loaves.from?"},
      {"loaves: {kind: sudden}",
       "oven.yaml:1: loaves.kind: 'sudden' came, expected one of linear, cosine, steps"},
      {"loaves: {first_step: 9, last_step: 8}",
       "oven.yaml:1: loaves.last_step: 8 lies before first_step: 9; expected that step or a later one"},
      {"heat: {kind: steps, to: 3}",
       "oven.yaml:1: heat.kind: steps came, but from 0.5 to 3 is no whole number of them; expected linear or "
       "cosine"},
      {"loaves: {evaluation: 2.5}", "oven.yaml:1: loaves.evaluation: 2.5 came, expected a whole number"},
      {"temperature: 3", "oven.yaml:1: temperature: there is no such key; did you mean heat?"},
  };
  for (const auto& [bad, sentence] : table) EXPECT_EQ(oven_error(bad), sentence);
}

TEST(Scheduled, IsCompleted) {
  EXPECT_EQ(oven_schema().completions("loaves.k"), std::vector<std::string>{"loaves.kind="});
  EXPECT_EQ(oven_schema().completions("loaves.kind=c"), std::vector<std::string>{"loaves.kind=cosine"});
  EXPECT_EQ(oven_schema().completions("loaves.evaluation="),
            std::vector<std::string>{"loaves.evaluation=training"});
}

}  // namespace
}  // namespace conclave::test
