// conclave report on runs that the command has trained: the page is whole, its numbers are the run's, and
// broken inputs are told. TensorBoard's files of the same runs hold the numbers of metrics.jsonl.
#include <algorithm>
#include <fstream>
#include <iterator>

#include "framework/store/expert_history.h"
#include "tests/framework/telemetry/tensorboard/event_reader.h"
#include "tests/launch/command_fixture.h"
#include "tests/launch/report_page.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Report : public Command {
 protected:
  /// A run of 10 steps on 2 ranks, stopped in the middle and resumed, that all tests look at.
  static void SetUpTestSuite() {
    Command::SetUpTestSuite();
    const Outcome first = train("run", "logging.tensorboard=true training.steps=8", 2);
    ASSERT_EQ(first.exit_code, 0) << first.output;
    // As if it had died after step 8: the checkpoint of step 5 is where it goes on.
    fs::remove_all(path("run/checkpoints/step-00000008"));
    const Outcome second = train("run", "logging.tensorboard=true", 2);
    ASSERT_EQ(second.exit_code, 0) << second.output;
  }

  /// A copy of the run that a test may damage.
  static std::string copy_run(const std::string& name) {
    fs::copy(path("run"), path(name), fs::copy_options::recursive);
    fs::remove(path(name) + "/report.html");
    return path(name);
  }

  static std::string page_of(const std::string& directory) {
    const Outcome outcome = conclave_command("report " + directory);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    return text_of(directory + "/report.html");
  }

  /// The lines of steps, and those of evaluations, as they are in the file.
  static std::vector<Json> lines(const std::string& run, bool evaluations) {
    std::vector<Json> found;
    std::ifstream file(path(run) + "/metrics.jsonl");
    for (std::string line; std::getline(file, line);)
      if (Json json = Json::parse(line); json.contains("domain") == evaluations)
        found.push_back(std::move(json));
    return found;
  }
};

TEST_F(Report, IsOneWellFormedPageThatLoadsNothing) {
  const std::string page = page_of(path("run"));
  EXPECT_EQ(html_mistake(page), "");
  EXPECT_EQ(occurrences(page, "<script"), 2u);
  for (const char* outside :
       {"src=", "@import", "url(", "fetch(", "XMLHttpRequest", "<link rel=\"stylesheet"})
    EXPECT_EQ(occurrences(page, outside), 0u) << outside;
  // The only address is the name of SVG's own kind of element.
  EXPECT_EQ(occurrences(page, "http"), occurrences(page, "http://www.w3.org/2000/svg"));
  EXPECT_LT(page.size(), 300'000u);
}

TEST_F(Report, TheCheckerSeesMistakes) {
  const std::string page = page_of(path("run"));
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string other = page;
    other.replace(other.find(from), from.size(), to);
    return other;
  };
  EXPECT_NE(html_mistake(changed("</main>", "")), "");
  EXPECT_NE(html_mistake(changed("<h1>", "<h1 class=big>")), "");
  EXPECT_NE(html_mistake(changed("<p id=\"subtitle\">", "<p>a & b <")), "");
  EXPECT_NE(html_mistake(changed("\"runs\":", "\"</script>\":")), "");
}

TEST_F(Report, HasTheNumbersOfMetrics) {
  const Json data = data_of(page_of(path("run")));
  ASSERT_EQ(data["runs"].size(), 1u);
  const Json& run = data["runs"][0];
  EXPECT_EQ(run["name"], "small");
  EXPECT_EQ(run["notes"], Json::array());
  const std::vector<Json> steps = lines("run", false), evaluations = lines("run", true);
  ASSERT_EQ(steps.size(), 10u);
  for (const char* name : {"lm_loss", "loss", "learning_rate", "grad_norm", "tokens_per_second",
                           "max_load_violation", "load_balance_loss", "bytes_gradients"}) {
    const Json& series = run["series"][name];
    ASSERT_EQ(series["x"].size(), steps.size()) << name;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      EXPECT_EQ(series["x"][i], steps[i]["step"]) << name;
      EXPECT_EQ(series["y"][i].get<double>(), steps[i][name].get<double>()) << name;
    }
  }
  EXPECT_EQ(run["domains"], Json({"numbers", "letters", "mean"}));
  std::map<std::string, std::size_t> seen;
  for (const Json& line : evaluations) {
    const auto domain = line["domain"].get<std::string>();
    const Json& series = run["validation"][domain];
    const std::size_t i = seen[domain]++;
    EXPECT_EQ(series["x"][i], line["step"]);
    EXPECT_EQ(series["y"][i], line["lm_loss"]);
  }
  EXPECT_EQ(seen["mean"], 2u);

  // Each step is a stretch of its own here, and its parts add up to its time.
  const Json& time = run["time"];
  for (std::size_t i = 0; i < steps.size(); ++i) {
    double sum = 0, waits = 0;
    for (const auto& [name, seconds] : time["parts"].items()) sum += seconds[i].get<double>();
    for (const auto& [name, value] : steps[i].items())
      if (name.starts_with("wait_seconds_")) waits += value.get<double>();
    EXPECT_NEAR(sum, std::max(waits, steps[i]["step_seconds"].get<double>()), 1e-12);
    EXPECT_EQ(time["x"][i], steps[i]["step"]);
  }
  EXPECT_TRUE(time["parts"].contains("waiting for gradients"));
}

TEST_F(Report, HasTheLoadsOfExperts) {
  const Json run = data_of(page_of(path("run")))["runs"][0];
  const Json& experts = run["experts"];
  const ExpertHistory history = read_expert_history(path("run/experts.h5"));
  ASSERT_EQ(history.step.size(), 10u);
  EXPECT_EQ(experts["blocks"], Json({0, 1}));
  EXPECT_EQ(run["dead_steps"], 100);
  const auto load_of = [](std::vector<std::int64_t>::const_iterator row, std::size_t expert) {
    const double all = static_cast<double>(row[0] + row[1] + row[2] + row[3]);
    return std::lround(1000 * static_cast<double>(row[static_cast<std::ptrdiff_t>(expert)]) / (all / 4));
  };
  for (std::size_t step = 0; step < 10; ++step) {
    EXPECT_EQ(experts["steps"][step], Json({history.step[step], history.step[step]}));
    for (std::size_t layer = 0; layer < 2; ++layer)
      for (std::size_t expert = 0; expert < 4; ++expert)
        EXPECT_EQ(
            experts["loads"][layer][step][expert],
            load_of(history.counts.begin() + static_cast<std::ptrdiff_t>((step * 2 + layer) * 4), expert));
  }
  EXPECT_EQ(experts["evaluation_step"], 10);
  EXPECT_EQ(experts["domains"], Json({"numbers", "letters"}));
  for (std::size_t domain = 0; domain < 2; ++domain)
    for (std::size_t layer = 0; layer < 2; ++layer)
      for (std::size_t expert = 0; expert < 4; ++expert)
        EXPECT_EQ(experts["domain_loads"][layer][domain][expert],
                  load_of(history.evaluation_counts.begin() +
                              static_cast<std::ptrdiff_t>(((1 * 2 + domain) * 2 + layer) * 4),
                          expert));
  ASSERT_EQ(experts["specialisation"].size(), 2u);
  ASSERT_EQ(experts["overlaps"].size(), 2u);
  ASSERT_EQ(experts["overlaps"][1].size(), 2u);
  EXPECT_EQ(experts["overlaps"][1][0].size(), 2u);
  for (std::size_t domain = 0; domain < 2; ++domain)
    for (std::size_t layer = 0; layer < 2; ++layer) {
      const std::size_t at = (1 * 2 + domain) * 2 + layer;  // [evaluations, domains, layers]
      EXPECT_EQ(experts["domain_score_sums"][domain][layer],
                std::lround(1000 * history.evaluation_score_sum[at]));
      EXPECT_EQ(experts["domain_entropies"][domain][layer],
                std::lround(1000 * history.evaluation_entropy[at] / std::log(4.0)));
      EXPECT_GE(history.evaluation_score_sum[at], 0.5);  // the two best of four
    }
  EXPECT_EQ(experts["sharpness"]["score_sums"][1][1], experts["specialisation"][1]["score_sum"]);
  EXPECT_EQ(experts["sharpness"]["entropies"][0][1], experts["specialisation"][0]["routing_entropy"]);
  ASSERT_EQ(experts["information"]["steps"], Json({5, 10}));
  EXPECT_EQ(experts["information"]["blocks"][1][1], experts["specialisation"][1]["mutual_information"]);
}

TEST_F(Report, HasLayoutAndPlanOfTheRanksThatTheLogNames) {
  const Json run = data_of(page_of(path("run")))["runs"][0];
  std::map<std::string, Json> tables;
  for (const Json& table : run["tables"]) tables[table["title"]] = table["rows"];
  ASSERT_EQ(tables["Starts"].size(), 2u);
  EXPECT_EQ(tables["Starts"][1][1], "2 ranks x 1 thread");
  EXPECT_EQ(tables["Layout"][0], Json({"attention: tensor x data ranks", "1 x 2", ""}));
  EXPECT_TRUE(tables.contains("Parameters"));
  EXPECT_TRUE(tables.contains("Memory per rank, planned"));
  EXPECT_TRUE(tables.contains("Network per rank and step, planned"));
}

TEST_F(Report, NoNameOfARunBreaksThePage) {
  const std::string copy = copy_run("named");
  std::string recipe = text_of(copy + "/recipe.yaml");
  const std::string name = "</script><script>alert('a & \"b\"')</script><!-- {{data}}";
  recipe.replace(recipe.find("name: small"), 11,
                 "name: '</script><script>alert(''a & \"b\"'')</script><!-- {{data}}'");
  std::ofstream(copy + "/recipe.yaml") << recipe;
  const std::string page = page_of(copy);
  EXPECT_EQ(html_mistake(page), "");
  EXPECT_EQ(occurrences(page, "<script"), 2u);
  EXPECT_EQ(occurrences(page, "<!--"), 0u);
  EXPECT_EQ(data_of(page)["runs"][0]["name"], name);
}

TEST_F(Report, ACrashedRunIsReported) {
  const std::string copy = copy_run("crashed");
  const std::string whole = text_of(copy + "/metrics.jsonl");
  std::ofstream(copy + "/metrics.jsonl") << "{\"step\": oops}\n" << whole << "{\"step\": 11, \"lm_lo";
  for (const char* name : {"experts.h5", "log.txt"}) fs::remove(copy + "/" + name);
  const std::string page = page_of(copy);
  EXPECT_EQ(html_mistake(page), "");
  const Json run = data_of(page)["runs"][0];
  EXPECT_EQ(run["series"]["lm_loss"], data_of(page_of(path("run")))["runs"][0]["series"]["lm_loss"]);
  std::string notes;
  for (const Json& note : run["notes"]) notes += note.get<std::string>() + "\n";
  for (const char* part : {"was cut short", "1 line of metrics.jsonl", "experts.h5 is not there",
                           "log.txt is not there", "on how many ranks"})
    EXPECT_NE(notes.find(part), std::string::npos) << part << " is missing from\n" << notes;

  std::ofstream(copy + "/experts.h5") << "no HDF5";
  std::ofstream(copy + "/recipe.yaml") << "model: {of_another_version: 1}\n";
  const Json other = data_of(page_of(copy))["runs"][0];
  EXPECT_EQ(other["name"], "crashed");
  EXPECT_NE(other["notes"].dump().find("of_another_version"), std::string::npos) << other["notes"];
  EXPECT_NE(other["notes"].dump().find("experts.h5"), std::string::npos) << other["notes"];
}

TEST_F(Report, SeveralRunsAreComparedByTheirRecipes) {
  const Outcome trained = train("other", "optimizer.lr=0.02 training.steps=5");
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  const Outcome outcome =
      conclave_command("report " + path("run") + " " + path("other") + " --output " + path("both.html"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  const std::string page = text_of(path("both.html"));
  EXPECT_EQ(html_mistake(page), "");
  const Json data = data_of(page);
  ASSERT_EQ(data["runs"].size(), 2u);
  EXPECT_EQ(data["runs"][0]["name"], "run");  // both are called small
  EXPECT_EQ(data["runs"][1]["name"], "other");
  std::map<std::string, Json> differences;
  for (const Json& row : data["differences"]) differences[row["key"]] = row["values"];
  EXPECT_EQ(differences["optimizer.lr"], Json({"0.01", "0.02"}));
  EXPECT_EQ(differences["training.steps"], Json({"10", "5"}));
  EXPECT_EQ(differences["logging.tensorboard"], Json({"true", "false"}));
  EXPECT_EQ(differences.size(), 3u) << data["differences"];
}

TEST_F(Report, WhatIsNoRunIsRefused) {
  const Outcome missing = conclave_command("report " + path("nowhere"));
  EXPECT_EQ(missing.exit_code, 3) << missing.output;
  EXPECT_NE(missing.output.find("there is no directory"), std::string::npos) << missing.output;
  fs::create_directories(path("empty"));
  const Outcome empty = conclave_command("report " + path("empty"));
  EXPECT_EQ(empty.exit_code, 3) << empty.output;
  EXPECT_NE(empty.output.find("holds no run"), std::string::npos) << empty.output;
  EXPECT_EQ(conclave_command("report").exit_code, 2);
  EXPECT_EQ(conclave_command("report " + path("run") + " name=x").exit_code, 2);
  const Outcome unwritable =
      conclave_command("report " + path("run") + " --output " + path("nowhere/page.html"));
  EXPECT_EQ(unwritable.exit_code, 2) << unwritable.output;
  EXPECT_NE(unwritable.output.find("is not there"), std::string::npos) << unwritable.output;
}

TEST_F(Report, TensorBoardSeesEachStepOnce) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path("run/tensorboard"))) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  ASSERT_EQ(files.size(), 2u);
  // The events that TensorBoard keeps: a start makes it forget later steps.
  std::map<std::int64_t, std::map<std::string, float>> scalars;
  std::size_t histograms = 0, pictures = 0, steps_written = 0;
  for (const fs::path& file : files)
    for (const std::string& record : read_records(text_of(file))) {
      const ReadEvent event = to_event(record);
      if (event.is_start) scalars.erase(scalars.lower_bound(event.step), scalars.end());
      if (!event.scalars.empty()) scalars[event.step].insert(event.scalars.begin(), event.scalars.end());
      steps_written += event.scalars.contains("train/lm_loss") ? 1 : 0;
      histograms += event.histograms.size();
      pictures += event.pictures.size();
    }
  EXPECT_EQ(steps_written, 8u + 5u);
  const std::vector<Json> steps = lines("run", false);
  ASSERT_EQ(scalars.size(), steps.size());
  for (const Json& line : steps) {
    const auto& values = scalars.at(line["step"]);
    EXPECT_EQ(values.at("train/lm_loss"), static_cast<float>(line["lm_loss"].get<double>()));
    EXPECT_EQ(values.at("train/learning_rate"), static_cast<float>(line["learning_rate"].get<double>()));
    EXPECT_EQ(values.at("speed/step_seconds"), static_cast<float>(line["step_seconds"].get<double>()));
    EXPECT_EQ(values.at("balance/max_load_violation"),
              static_cast<float>(line["max_load_violation"].get<double>()));
    EXPECT_TRUE(values.contains("network/bytes_gradients"));
  }
  for (const Json& line : lines("run", true))
    EXPECT_EQ(scalars.at(line["step"]).at("validation_loss/" + line["domain"].get<std::string>()),
              static_cast<float>(line["lm_loss"].get<double>()));
  EXPECT_EQ(histograms, 2 * steps_written);            // of each block, at each step of so short a run
  EXPECT_EQ(pictures, steps_written + 2 * (2u + 1u));  // evaluations at 5 and 8, and at 10
}

/// libsentencepiece.so brings a protobuf of its own, of another version than the one that writes event files.
TEST_F(Report, TensorBoardAndSentencePieceKeepTheirOwnProtobuf) {
  const std::string model = path("pieces");
  const Outcome vocabulary =
      conclave_command("tokenize --train-sentencepiece " + model + " --vocab-size 320 " +
                       path("numbers.txt") + " " + path("letters.txt"));
  ASSERT_EQ(vocabulary.exit_code, 0) << vocabulary.output;
  const Outcome tokens = conclave_command("tokenize --tokenizer " + model + ".model --domain all --output " +
                                          path("pieces-text") + " " + path("numbers.txt"));
  ASSERT_EQ(tokens.exit_code, 0) << tokens.output;
  const Outcome trained = train(
      "pieces-run",
      "training.steps=1 model.vocab_size=320 logging.tensorboard=true data.validation=[] data.tokenizer=" +
          model + ".model 'data.train=[{path: " + path("pieces-text") + ", domain: all}]'");
  ASSERT_EQ(trained.exit_code, 0) << trained.output;
  const Outcome sample = conclave_command("generate " + path("pieces-run") + " --prompt 12 --tokens 4");
  EXPECT_EQ(sample.exit_code, 0) << sample.output;
  const auto entry = fs::directory_iterator(path("pieces-run/tensorboard"));
  EXPECT_TRUE(to_event(read_records(text_of(entry->path())).at(1)).scalars.contains("train/lm_loss"));
}

}  // namespace
}  // namespace conclave
