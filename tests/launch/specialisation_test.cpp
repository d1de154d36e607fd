// The measures of specialisation on counts made by hand, and the JSON object that `evaluate --json` prints.
#include "launch/tools/report/evaluation_report.h"

#include <gtest/gtest.h>

#include <cmath>

namespace conclave {
namespace {

using Json = nlohmann::ordered_json;

/// Two layers of eight experts. In the first, domains a and b share one of two frequent experts each, and
/// c has none; in the second all three use every expert alike.
std::vector<DomainResult> by_hand() {
  const std::vector<std::int64_t> even(8, 10);
  const auto made = [&](const char* name, std::vector<std::int64_t> first) {
    first.insert(first.end(), even.begin(), even.end());
    DomainResult result{
        .domain = name, .target_tokens = 30, .lm_loss = 1.5, .expert_counts = first, .tokens = 40};
    result.mean_probability.assign(16, 0.125);
    result.score_sum = {0.5, 0.25};
    result.entropy = {1.0, std::log(8.0)};
    return result;
  };
  return {made("a", {40, 20, 5, 5, 5, 5, 0, 0}),  // 20 of 80 are exactly two even shares
          made("b", {5, 20, 40, 5, 5, 5, 0, 0}), made("c", {19, 9, 9, 9, 9, 9, 8, 8})};
}

TEST(Specialisation, OverlapIsThatOfFrequentExperts) {
  const auto measured = measure_specialisation(by_hand(), 2, 8);
  ASSERT_EQ(measured.size(), 2u);
  const std::vector<double>& overlap = measured[0].overlap;
  ASSERT_EQ(overlap.size(), 9u);
  EXPECT_EQ(overlap[0], 1);               // a with itself
  EXPECT_DOUBLE_EQ(overlap[1], 1.0 / 3);  // {0, 1} and {1, 2}
  EXPECT_EQ(overlap[3], overlap[1]);
  EXPECT_EQ(overlap[2], 0);  // c has none, a has
  EXPECT_TRUE(std::isnan(overlap[8]));
  EXPECT_DOUBLE_EQ(measured[0].mean_overlap, (1.0 / 3 + 0 + 0) / 3);
  for (const double value : measured[1].overlap) EXPECT_TRUE(std::isnan(value));
  EXPECT_TRUE(std::isnan(measured[1].mean_overlap));
}

TEST(Specialisation, MeasuresOfEvenUse) {
  const auto measured = measure_specialisation(by_hand(), 2, 8);
  EXPECT_NEAR(measured[1].mutual_information, 0, 1e-12);
  EXPECT_DOUBLE_EQ(measured[1].largest_share, 0.125);
  EXPECT_DOUBLE_EQ(measured[1].load_entropy, std::log(8.0));
  EXPECT_DOUBLE_EQ(measured[1].score_sum, 0.25);
  EXPECT_DOUBLE_EQ(measured[1].routing_entropy, std::log(8.0));
}

TEST(Specialisation, MutualInformationIsThatOfDomainAndExpert) {
  // sum over d, e of P(d, e) log(P(d, e) / (P(d) P(e))), domains alike
  const auto results = by_hand();
  double expected = 0;
  for (std::size_t e = 0; e < 8; ++e) {
    double of_expert = 0;
    for (const DomainResult& result : results)
      of_expert += static_cast<double>(result.expert_counts[e]) / 80.0 / 3;
    for (const DomainResult& result : results)
      if (const double joint = static_cast<double>(result.expert_counts[e]) / 80.0 / 3; joint > 0)
        expected += joint * std::log(joint / (of_expert / 3));
  }
  const auto measured = measure_specialisation(results, 2, 8);
  EXPECT_NEAR(measured[0].mutual_information, expected, 1e-12);
  EXPECT_DOUBLE_EQ(measured[0].largest_share, 0.5);
}

TEST(Specialisation, ResultsOfOldFilesHaveNoScores) {
  auto results = by_hand();
  for (DomainResult& result : results) result.score_sum = result.entropy = {};
  const auto measured = measure_specialisation(results, 2, 8);
  EXPECT_EQ(measured[0].score_sum, 0);
  EXPECT_DOUBLE_EQ(measured[0].largest_share, 0.5);
}

TEST(Specialisation, JsonHasTheNamesAndShapesThatTheDocumentationPromises) {
  const Json json =
      evaluation_json(by_hand(), {.checkpoint = "somewhere", .blocks = {1, 2}, .experts = 8, .top_k = 2});
  EXPECT_EQ(json["checkpoint"], "somewhere");
  EXPECT_EQ(json["experts"], 8);
  EXPECT_EQ(json["top_k"], 2);
  EXPECT_DOUBLE_EQ(json["mean_lm_loss"], 1.5);
  EXPECT_DOUBLE_EQ(json["mean_perplexity"], std::exp(1.5));
  EXPECT_DOUBLE_EQ(json["even_use"]["share"], 0.125);
  EXPECT_DOUBLE_EQ(json["even_use"]["score_sum"], 0.25);
  EXPECT_DOUBLE_EQ(json["even_use"]["entropy"], std::log(8.0));
  EXPECT_DOUBLE_EQ(json["frequent_share"], 0.25);
  ASSERT_EQ(json["domains"].size(), 3u);
  for (const Json& domain : json["domains"]) {
    EXPECT_EQ(domain["target_tokens"], 30);
    EXPECT_EQ(domain["tokens"], 40);
    for (const char* table : {"counts", "mean_probability"}) {
      ASSERT_EQ(domain[table].size(), 2u);
      EXPECT_EQ(domain[table][0].size(), 8u);
    }
    EXPECT_EQ(domain["score_sum"].size(), 2u);
    EXPECT_EQ(domain["entropy"].size(), 2u);
  }
  EXPECT_EQ(json["domains"][1]["domain"], "b");
  EXPECT_EQ(json["domains"][1]["counts"][0][2], 40);
  ASSERT_EQ(json["layers"].size(), 2u);
  EXPECT_EQ(json["layers"][0]["block"], 1);
  EXPECT_EQ(json["layers"][1]["block"], 2);
  for (const char* key :
       {"mutual_information", "largest_share", "load_entropy", "score_sum", "routing_entropy"})
    EXPECT_TRUE(json["layers"][0][key].is_number()) << key;
  ASSERT_EQ(json["layers"][0]["overlap"].size(), 3u);
  EXPECT_EQ(json["layers"][0]["overlap"][0].size(), 3u);
  EXPECT_TRUE(json["layers"][0]["overlap"][2][2].is_null());
  EXPECT_TRUE(json["layers"][1]["mean_overlap"].is_null());
  EXPECT_TRUE(Json::accept(json.dump()));
}

TEST(Specialisation, ADenseModelHasLossesAlone) {
  std::vector<DomainResult> results{{.domain = "a", .target_tokens = 3, .lm_loss = 2, .expert_counts = {}}};
  const Json json = evaluation_json(results, {.checkpoint = "dense"});
  EXPECT_EQ(json["experts"], 0);
  EXPECT_TRUE(json["layers"].empty());
  EXPECT_TRUE(json["domains"][0]["counts"].empty());
  EXPECT_EQ(evaluation_tables(results, {.checkpoint = "dense"}).find("Specialisation"), std::string::npos);
}

}  // namespace
}  // namespace conclave
