// The parts of a report by themselves: thinning, JSON inside of HTML, recipes side by side, broken logs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "framework/store/expert_history.h"
#include "framework/store/expert_history_writer.h"
#include "launch/tools/report/expert_maps.h"
#include "launch/tools/report/metrics_table.h"
#include "launch/tools/report/page.h"
#include "launch/tools/report/recipe_table.h"
#include "launch/tools/report/run_log.h"
#include "launch/tools/report/series.h"
#include "launch/train/run/event_log.h"
#include "tests/framework/telemetry/temporary.h"
#include "tests/framework/telemetry/tensorboard/event_reader.h"

namespace conclave {
namespace {

const double nan = std::nan("");

// Snapshots are due every 11 steps, of which a log of every hundredth step never meets one.
TEST(EventLog, EveryLoggedStepOfANewIntervalShowsTheLoads) {
  const TemporaryDirectory folder;
  Recipe recipe;
  recipe.training.steps = 1110;
  recipe.model.num_hidden_layers = 1;
  recipe.model.moe.num_experts = 2;
  {
    EventLog log(folder.file("events"), recipe, {}, {});
    for (std::int64_t step = 100; step <= 1100; step += 100)
      log.add_step({{"step", step}}, {.counts = {3, 1}});
  }
  std::size_t shown = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.file("events"))) {
    std::ifstream file(entry.path(), std::ios::binary);
    for (const std::string& record : read_records({std::istreambuf_iterator<char>(file), {}}))
      shown += to_event(record).histograms.size();
  }
  EXPECT_EQ(shown, 11u);
}

TEST(Thinned, KeepsTheExtremesOfAMillionSteps) {
  Series series;
  for (std::int64_t step = 1; step <= 1'000'000; ++step) {
    series.step.push_back(step);
    series.value.push_back(std::sin(1e-5 * static_cast<double>(step)));
  }
  series.value[123'456] = 50;  // one spike up, one down
  series.value[777'777] = -40;
  const Series thin = thinned(series, 2000);
  ASSERT_LE(thin.size(), 2002u);
  EXPECT_EQ(thin.step.front(), 1);
  EXPECT_EQ(thin.step.back(), 1'000'000);
  ASSERT_GE(thin.size(), 1900u);
  bool up = false, down = false;
  for (std::size_t i = 0; i < thin.size(); ++i) {
    if (i > 0) {
      ASSERT_LT(thin.step[i - 1], thin.step[i]);
    }
    ASSERT_EQ(thin.value[i], series.value[static_cast<std::size_t>(thin.step[i] - 1)]);
    up |= thin.step[i] == 123'457;
    down |= thin.step[i] == 777'778;
  }
  EXPECT_TRUE(up);
  EXPECT_TRUE(down);
}

TEST(Thinned, LeavesShortSeriesAndGapsAlone) {
  const Series series{{1, 2, 3, 4}, {5, nan, 7, 8}};
  EXPECT_EQ(thinned(series, 4).step, series.step);
  const Series gap{{1, 2, 3, 4, 5, 6}, {1, 2, nan, nan, 6, 5}};
  const Series thin = thinned(gap, 6 - 1);  // two stretches of three
  EXPECT_EQ(thin.step, (std::vector<std::int64_t>{1, 2, 5, 6}));
  const Series all_gap{{1, 2, 3, 4}, {nan, nan, 3, 4}};
  const Series kept = thinned(all_gap, 3);
  EXPECT_EQ(kept.step, (std::vector<std::int64_t>{1, 3, 4}));
  const Series stretch_gap{{1, 2, 3, 4, 5, 6, 7, 8}, {nan, nan, nan, nan, 5, 6, 7, 8}};
  const Series marked = thinned(stretch_gap, 4);
  EXPECT_EQ(marked.step, (std::vector<std::int64_t>{1, 5, 8}));
  EXPECT_TRUE(std::isnan(marked.value[0]));
}

TEST(Stretches, CoverEverythingOnce) {
  for (const std::size_t size : {0u, 1u, 7u, 240u, 241u, 1001u})
    for (const std::size_t most : {1u, 3u, 240u}) {
      std::size_t next = 0;
      for (const Stretch& stretch : stretches(size, most)) {
        EXPECT_EQ(stretch.first, next);
        EXPECT_GE(stretch.last, stretch.first);
        next = stretch.last + 1;
      }
      EXPECT_EQ(next, size);
      EXPECT_EQ(stretches(size, most).size(), std::min(size, most));
    }
}

TEST(Finite, LeavesOutWhatIsNoNumber) {
  EXPECT_EQ(finite({3, nan, 1, HUGE_VAL}), (std::vector<double>{3, 1}));
}

TEST(ScriptJson, CannotEndItsElement) {
  const nlohmann::ordered_json json{{"</script>", "<!-- & --> \xff \u2028"}};
  const std::string text = script_json(json);
  EXPECT_EQ(text.find_first_of("<>&"), std::string::npos) << text;
  const auto back = nlohmann::json::parse(text);
  EXPECT_EQ(back["</script>"], "<!-- & --> \ufffd \u2028");
  EXPECT_EQ(html_text("<a href='x'>&\"</a>"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;&lt;/a&gt;");
}

TEST(RecipeDifferences, NamesKeysThatDifferOrAreMissing) {
  const auto first = flat_keys(
      "name: a\nmodel: {size: 3, betas: [0.9, 0.95]}\ndata:\n  - {path: x}\n  - {path: y}\n", "first");
  const auto second =
      flat_keys("name: b\nmodel: {size: 3, betas: [0.9, 0.99]}\ndata: [{path: x}]\nextra: 1\n", "second");
  const auto table = recipe_differences({first, second, second});
  ASSERT_EQ(table.size(), 3u);
  EXPECT_EQ(table[0].key, "model.betas");
  EXPECT_EQ(table[0].values, (std::vector<std::string>{"[0.9, 0.95]", "[0.9, 0.99]", "[0.9, 0.99]"}));
  EXPECT_EQ(table[1].key, "data.1.path");
  EXPECT_EQ(table[1].values, (std::vector<std::string>{"y", "", ""}));
  EXPECT_EQ(table[2].key, "extra");
  EXPECT_TRUE(recipe_differences({first}).empty());
}

TEST(MetricsTable, TakesWhatCanBeRead) {
  const TemporaryDirectory scratch;
  const std::string path = scratch.file("metrics.jsonl");
  std::ofstream(path) << "{\"step\": 1, \"loss\": 2.5, \"text\": \"x\", \"list\": [1]}\n"
                         "\n"
                         "no JSON\n"
                         "[1, 2]\n"
                         "{\"loss\": 3}\n"
                         "{\"step\": 2, \"loss\": null, \"skipped\": true}\n"
                         "{\"step\": 2, \"split\": \"validation\", \"domain\": \"c\", \"lm_loss\": 4}\n"
                         "{\"step\": 3, \"lo";
  const MetricsTable table = read_metrics(path);
  ASSERT_EQ(table.steps.size(), 1u);
  const Series& loss = table.steps.at("loss");
  EXPECT_EQ(loss.step, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(loss.value[0], 2.5);
  EXPECT_TRUE(std::isnan(loss.value[1]));
  EXPECT_EQ(table.skipped, 1);
  EXPECT_EQ(table.broken_lines, 3);
  EXPECT_TRUE(table.last_line_cut);
  EXPECT_EQ(table.last_step, 2);
  EXPECT_EQ(table.validation.at("c").value, std::vector<double>{4});
}

TEST(RunLog, FindsStartsAndWarnings) {
  const TemporaryDirectory scratch;
  const std::string path = scratch.file("log.txt");
  std::ofstream(path)
      << "---- 2026-01-01 10:00:00 UTC\n"
         "[     0.3 s] 8 ranks with 2 threads each; global batch of 32\n"
         "[     0.4 s] [rank 3] warning: slow\n"
         "[     9.0 s] error: out of luck\n"
         "---- 2026-01-02 10:00:00 UTC\n"
         "[     0.3 s] 1 rank with 4 threads each\n"
         "[     0.5 s] No warning: is this a line of text, far behind its beginning? warning: no\n"
         "---- 2026-01-03 10:00:00 UTC\n";
  const RunLog log = read_log(path);
  ASSERT_EQ(log.starts.size(), 3u);
  EXPECT_EQ(log.starts[0].date, "2026-01-01 10:00:00 UTC");
  EXPECT_EQ(log.starts[0].ranks, 8);
  EXPECT_EQ(log.starts[0].threads, 2);
  EXPECT_EQ(log.starts[1].ranks, 1);
  EXPECT_EQ(log.starts[2].ranks, 0);
  ASSERT_EQ(log.warnings.size(), 2u);
  EXPECT_EQ(log.warnings[0], "[     0.4 s] [rank 3] warning: slow");
  EXPECT_EQ(log.last_lines.size(), 8u);
}

TEST(ExpertMaps, FindsDeadExpertsAndAddsUpStretches) {
  const TemporaryDirectory scratch;
  const std::string path = scratch.file("experts.h5");
  {
    ExpertHistoryWriter writer(path, {.layers = 2, .experts = 3, .domains = {"a"}});
    for (std::int64_t step = 1; step <= 500; ++step)  // expert 1 of the first layer ends at step 20
      writer.add_step(step, {step, step <= 20 ? 1 : 0, 0, 2, 2, 2}, std::vector<double>(6), {1, 1});
    writer.flush();
  }
  const auto maps = expert_maps(path, {.blocks = {4, 6}, .dead_steps = 100, .most_cells = 6 * 50});
  EXPECT_EQ(maps["blocks"], (std::vector<int>{4, 6}));
  ASSERT_EQ(maps["steps"].size(), 50u);
  EXPECT_EQ(maps["steps"][1], (std::vector<int>{11, 20}));
  // Steps 11 to 20: 155 tokens to expert 0, 10 to expert 1; even would be 55.
  EXPECT_EQ(maps["loads"][0][1], (std::vector<long>{2818, 182, 0}));
  EXPECT_EQ(maps["loads"][1][49], (std::vector<long>{1000, 1000, 1000}));
  ASSERT_EQ(maps["dead"].size(), 2u);
  EXPECT_EQ(maps["dead"][0]["block"], 4);
  EXPECT_EQ(maps["dead"][0]["expert"], 1);
  EXPECT_EQ(maps["dead"][0]["last_step"], 20);
  EXPECT_EQ(maps["dead"][1]["expert"], 2);
  EXPECT_EQ(maps["dead"][1]["last_step"], 0);
  EXPECT_FALSE(maps.contains("domains"));  // no evaluation yet
}

TEST(ExpertMaps, ShowTheDomainsThatTheRunHasNow) {
  const TemporaryDirectory scratch;
  const std::string path = scratch.file("experts.h5");
  {
    ExpertHistoryWriter writer(path, {.layers = 1, .experts = 2, .domains = {"a", "gone"}});
    writer.add_evaluation(1, {30, 10, 5, 5}, {0.5, 0.5}, {0.1, 0.1});
  }
  {
    ExpertHistoryWriter writer(path, {.layers = 1, .experts = 2, .domains = {"new", "a"}, .resume_step = 1});
    writer.add_evaluation(2, {20, 20, 10, 30}, {0.5, 0.5}, {0.1, 0.1});
  }
  const auto maps = expert_maps(path, {});
  using Json = nlohmann::ordered_json;
  EXPECT_EQ(maps["domains"], Json({"new", "a"}));
  EXPECT_EQ(maps["domain_loads"], Json::parse("[[[1000, 1000], [500, 1500]]]"));
  EXPECT_EQ(maps["overlaps"][0].size(), 2u);
  EXPECT_EQ(maps["information"]["steps"], Json({1, 2}));
  EXPECT_EQ(maps["sharpness"]["score_sums"][0], Json({0.5, 0.5}));
}

TEST(ExpertMaps, MeasuresThatNobodyKnowsAreNull) {
  const TemporaryDirectory scratch;
  const std::string path = scratch.file("experts.h5");
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  {  // one expert of four takes everything of a; b uses them alike, so no expert is frequent in it
    ExpertHistoryWriter writer(path, {.layers = 1, .experts = 4, .domains = {"a", "b"}});
    const std::vector<std::int64_t> counts{40, 0, 0, 0, 10, 10, 10, 10};
    writer.add_evaluation(1, counts, {unknown, unknown}, {unknown, unknown});
    writer.add_evaluation(2, counts, {0.75, 0.25}, {0.5, std::log(4.0)});
    writer.flush();
  }
  const auto maps = expert_maps(path, {});
  using Json = nlohmann::ordered_json;
  EXPECT_EQ(maps["overlaps"][0], Json::parse("[[1000, 0], [0, null]]"));
  EXPECT_EQ(maps["domain_score_sums"], Json::parse("[[750], [250]]"));
  EXPECT_EQ(maps["domain_entropies"][1][0], 1000);
  EXPECT_EQ(maps["sharpness"]["steps"], Json({1, 2}));
  EXPECT_EQ(maps["sharpness"]["score_sums"][0], Json({nullptr, 0.5}));
  EXPECT_EQ(maps["specialisation"][0]["mean_overlap"], 0);
  EXPECT_EQ(maps["specialisation"][0]["score_sum"], 0.5);
}

}  // namespace
}  // namespace conclave
