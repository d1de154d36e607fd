// Resuming with another recipe: every dataset goes on with its next draw, differences are told or refused,
// each part's recipe is kept, and nothing that was measured is written over.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <set>

#include "framework/data/data_position.h"
#include "framework/data/dataset.h"
#include "framework/store/checkpoint_file.h"
#include "launch/train/recipe_text.h"
#include "tests/launch/command_fixture.h"

namespace conclave {
namespace {
namespace fs = std::filesystem;

class ResumedRecipe : public Command {
 protected:
  static void SetUpTestSuite() {
    Command::SetUpTestSuite();
    std::ofstream text(folder_ / "signs.txt");
    for (int line = 0; line < 90; ++line)
      text << std::string(static_cast<std::size_t>(9 + line % 7), '+') << "\n";
    text.close();
    const Outcome made = conclave_command("tokenize --output " + path("signs") +
                                          " --domain signs --document-separator line " + path("signs.txt"));
    ASSERT_EQ(made.exit_code, 0) << made.output;
  }

  static std::string step_name(std::int64_t step) {
    const std::string digits = std::to_string(step);
    return "step-" + std::string(8 - digits.size(), '0') + digits;
  }
  static fs::path checkpoint(const std::string& output, std::int64_t step) {
    return folder_ / output / "checkpoints" / step_name(step);
  }
  static std::string list(const std::vector<std::pair<std::string, int>>& datasets) {
    std::string text;
    for (const auto& [name, weight] : datasets)
      text += (text.empty() ? "" : ", ") + ("{path: " + path(name)) + ", domain: " + name +
              ", weight: " + std::to_string(weight) + "}";
    return " 'data.train=[" + text + "]'";
  }
  static void expect_words(const Outcome& outcome, const std::vector<std::string>& words) {
    for (const std::string& word : words)
      EXPECT_NE(outcome.output.find(word), std::string::npos) << "expected: " << word << "\n"
                                                              << outcome.output;
  }
  static void expect_good(const Outcome& outcome) { ASSERT_EQ(outcome.exit_code, 0) << outcome.output; }
  static std::string content(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static std::size_t lines_of(const fs::path& file) { return occurrences(content(file), "\n"); }

  /// The recipe of the part that a step belongs to.
  static Recipe recipe_at(const std::string& output, std::int64_t step) {
    std::int64_t newest = -1;
    for (const auto& entry : fs::directory_iterator(folder_ / output / "recipes")) {
      const std::int64_t begin = std::stoll(entry.path().filename().string().substr(5));
      if (begin < step) newest = std::max(newest, begin);
    }
    return load_recipe(folder_ / output / "recipes" / (step_name(newest) + ".yaml"));
  }
  /// Draw and sequence of all that each file has given in the steps that count.
  using Given = std::map<std::string, std::vector<std::pair<std::int64_t, std::int64_t>>>;
  static void add_samples(const std::string& output, Given& given) {
    std::ifstream log(folder_ / output / "samples.jsonl");
    for (std::string line; std::getline(log, line);) {
      const Json json = parse_json(line);
      const Recipe recipe = recipe_at(output, json["step"]);
      for (std::size_t i = 0; i < json["draw"].size(); ++i)
        given[recipe.data.train.at(json["dataset"][i]).path].emplace_back(json["draw"][i],
                                                                          json["sequence"][i]);
    }
  }
  /// Draws 0, 1, 2, ... without gap or repeat, and in each pass every sequence once.
  static void expect_complete(const Given& given, std::size_t all) {
    const Recipe recipe = load_recipe(path("recipe.yaml"));
    TokenizerFacts tokenizer(recipe.data.tokenizer);
    std::size_t seen = 0;
    for (const auto& [file, drawn] : given) {
      auto sorted = drawn;
      std::sort(sorted.begin(), sorted.end());
      const std::int64_t in_pass =
          Dataset({.path = file, .domain = "any"}, recipe.data, recipe.model.vocab_size, tokenizer)
              .full_sequences();
      std::map<std::int64_t, std::set<std::int64_t>> passes;
      for (std::size_t i = 0; i < sorted.size(); ++i, ++seen) {
        ASSERT_EQ(sorted[i].first, static_cast<std::int64_t>(i)) << file << ": a gap or a repeat";
        ASSERT_TRUE(passes[sorted[i].first / in_pass].insert(sorted[i].second).second)
            << file << ": sequence " << sorted[i].second << " twice in a pass";
      }
    }
    EXPECT_EQ(seen, all);
  }

  /// The checkpoint as versions before data positions wrote it.
  static void make_old(const std::string& output, std::int64_t step) {
    const CheckpointReader source(checkpoint(output, step));
    CheckpointWriter writer(folder_ / (output + "-old"), step);
    for (const std::string& name : source.names())
      if (source.describe(name).type == ElementType::float64)
        writer.add(name, source.describe(name).dims, source.read_all<double>(name).data());
      else
        writer.add(name, source.describe(name).dims, source.read_all<float>(name).data());
    for (const std::string& key : source.attribute_names()) {
      if (key == "data_position" || key == "tokenizer_fingerprint" || key == "format_version" ||
          key == "software_version" || key == "step")
        continue;
      if (key == "recipe") {
        std::string recipe = source.text(key);
        const std::size_t begin = recipe.find("  accept_changes:");
        ASSERT_NE(begin, std::string::npos);
        recipe.erase(begin, recipe.find('\n', begin) + 1 - begin);
        writer.set(key, recipe);
      } else {
        writer.set(key, source.integer(key));
      }
    }
    const fs::path old = writer.commit();
    fs::remove_all(checkpoint(output, step));
    fs::rename(old, checkpoint(output, step));
    fs::remove_all(folder_ / output / "recipes");
  }
};

const std::string quiet = " checkpoint.interval=0 evaluation.interval=0 logging.samples=true";

TEST_F(ResumedRecipe, EveryDatasetGoesOnWithItsNextDrawOverChangesOfEverything) {
  const std::string output = "changing";
  expect_good(train(output, quiet + " training.steps=10"));
  expect_good(train(output, quiet + " training.steps=13 training.global_batch_size=16", 2));
  expect_good(train(output, quiet + " training.steps=16" + list({{"numbers", 9}, {"letters", 1}}), 4));
  expect_good(train(output, quiet + " training.steps=20 data.domain_block=4" +
                                list({{"signs", 2}, {"letters", 3}, {"numbers", 1}})));
  expect_good(train(
      output, quiet + " training.steps=22 data.domain_block=0" + list({{"signs", 1}, {"numbers", 9}}), 2));
  expect_good(
      train(output, quiet +
                        " training.steps=30 data.domain_block=2 training.global_batch_size=24 "
                        "'training.batch_ramp={start_batch_size: 8, increment: 8, steps_per_increment: 13}'" +
                        list({{"numbers", 1}, {"letters", 9}, {"signs", 1}})));
  Given given;
  add_samples(output, given);
  // 10 steps of 8, 3 of 16, 3 and 4 and 2 of 8 again, then the ramp: 16 up to step 26, 24 after it.
  expect_complete(given, 10 * 8 + 3 * 16 + 9 * 8 + 4 * 16 + 4 * 24);
  EXPECT_EQ(given.size(), 3u);

  // The position in the last checkpoint is what was given.
  const DataPosition position =
      parse_data_position(CheckpointReader(checkpoint(output, 30)).text("data_position"), "position");
  for (const DatasetPosition& one : position.datasets)
    EXPECT_EQ(one.drawn, static_cast<std::int64_t>(given[one.path].size())) << one.path;

  // Each part's recipe is kept under the step that it began after.
  std::set<std::string> parts;
  for (const auto& entry : fs::directory_iterator(folder_ / output / "recipes"))
    parts.insert(entry.path().filename());
  EXPECT_EQ(parts, (std::set<std::string>{"step-00000000.yaml", "step-00000010.yaml", "step-00000013.yaml",
                                          "step-00000016.yaml", "step-00000020.yaml", "step-00000022.yaml"}));
  EXPECT_EQ(recipe_at(output, 12).training.global_batch_size, 16);
  EXPECT_EQ(content(folder_ / output / "recipes/step-00000022.yaml"),
            content(folder_ / output / "recipe.yaml"));
}

TEST_F(ResumedRecipe, ANewRunGoesOnWithTheDataOfAnother) {
  expect_good(train("base", quiet + " training.steps=7" + list({{"numbers", 5}, {"letters", 2}})));
  expect_good(train("next",
                    quiet + " training.steps=6 training.global_batch_size=24 checkpoint.initialize_from=" +
                        path("base") + " 'checkpoint.take=[parameters, data_position]'" +
                        list({{"signs", 1}, {"letters", 5}, {"numbers", 2}}),
                    2));
  expect_good(train("next", quiet + " training.steps=9"));
  expect_good(train("third", quiet + " training.steps=3 checkpoint.initialize_from=" + path("next") +
                                 " 'checkpoint.take=[data_position]'"));
  Given given;
  for (const char* output : {"base", "next", "third"}) add_samples(output, given);
  expect_complete(given, 7 * 8 + 6 * 24 + 3 * 8 + 3 * 8);
  const CheckpointReader reader(checkpoint("third", 3));
  EXPECT_EQ(reader.integer("sequences_skipped"), 7 * 8 + 6 * 24 + 3 * 8);

  // Counts keep their meaning; of the weights it is told when another one is given to them.
  const std::string from = quiet + " training.steps=1 checkpoint.initialize_from=" + path("base");
  const Outcome seed = train("seeded", from + " training.seed=7 'checkpoint.take=[data_position]'", 2);
  EXPECT_EQ(seed.exit_code, 2) << seed.output;
  expect_words(seed, {"training.seed: 1234 -> 7", "checkpoint.accept_changes=[training.seed]"});
  const Outcome longer = train("longer", from + " training.seed=7 model.rope_theta=1e6");
  expect_good(longer);
  expect_words(longer, {"Changed since step-00000007: model.rope_theta: 10000 -> 1000000"});
  EXPECT_EQ(longer.output.find("training.seed"), std::string::npos) << longer.output;
}

TEST_F(ResumedRecipe, ACheckpointWithoutAPositionGoesOnByItsOwnRecipe) {
  const std::string weights = list({{"numbers", 3}, {"letters", 1}});
  expect_good(train("old", quiet + " training.steps=10" + weights));
  fs::copy(folder_ / "old", folder_ / "new", fs::copy_options::recursive);
  make_old("old", 10);
  EXPECT_FALSE(CheckpointReader(checkpoint("old", 10)).has("data_position"));
  fs::copy(folder_ / "old", folder_ / "old-same", fs::copy_options::recursive);

  const std::string other = quiet + " training.steps=16 training.global_batch_size=16" +
                            list({{"letters", 5}, {"numbers", 1}, {"signs", 1}});
  expect_good(train("old", other, 2));
  Given given;
  add_samples("old", given);
  expect_complete(given, 10 * 8 + 6 * 16);
  // The parts before are kept as the checkpoint's recipe has them.
  EXPECT_EQ(recipe_at("old", 3).training.global_batch_size, 8);

  // Unchanged, it takes the same samples and ends bit-equal to one with a position.
  expect_good(train("new", quiet + " training.steps=14" + weights));
  expect_good(train("old-same", quiet + " training.steps=14" + weights));
  EXPECT_EQ(content(folder_ / "old-same/samples.jsonl"), content(folder_ / "new/samples.jsonl"));
  const CheckpointReader a(checkpoint("new", 14)), b(checkpoint("old-same", 14));
  for (const std::string& name : a.names("model"))
    EXPECT_EQ(a.read_all<float>(name), b.read_all<float>(name));
  EXPECT_EQ(a.text("data_position"), b.text("data_position"));
}

TEST_F(ResumedRecipe, DifferencesAreToldWithOldAndNewValue) {
  expect_good(train("told", quiet + " training.steps=4"));
  const Outcome same = train("told", quiet + " training.steps=4");
  EXPECT_EQ(same.output.find("Changed since"), std::string::npos) << same.output;
  const Outcome outcome = train("told",
                                quiet +
                                    " training.steps=6 optimizer.lr=0.002 'optimizer.groups=[{pattern: "
                                    "\"*norm*\"}]' data.train.1.weight=3",
                                2);
  expect_good(outcome);
  expect_words(outcome, {"Changed since step-00000004: training.steps: 4 -> 6", "optimizer.lr: 0.01 -> 0.002",
                         "data.train.1.weight: 1 -> 3", "optimizer.groups.0.lr_scale: none -> 1"});
  EXPECT_EQ(occurrences(outcome.output, "optimizer.lr: 0.01"), 1u) << outcome.output;
  EXPECT_NE(content(folder_ / "told/log.txt").find("optimizer.lr: 0.01 -> 0.002"), std::string::npos);
  const Outcome swapped = train("told", quiet + " training.steps=7" + list({{"letters", 1}, {"signs", 1}}));
  expect_good(swapped);
  expect_words(swapped, {path("signs") + " is new to this run and begins with its first sequence",
                         path("numbers") + " is in data.train no more; it has given"});
}

TEST_F(ResumedRecipe, WhatGivesTheCheckpointAnotherMeaningIsRefused) {
  expect_good(train("meant", quiet + " training.steps=2"));
  const std::string before = content(folder_ / "meant/recipe.yaml"),
                    samples = content(folder_ / "meant/samples.jsonl");
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"model.rope_theta", "500000"},
      {"model.rms_norm_eps", "1e-05"},
      {"model.partial_rotary_factor", "0.5"},
      {"model.moe.num_experts_per_tok", "1"},
      {"model.moe.router.norm_topk_prob", "false"},
      {"model.moe.router.kind", "sigmoid"},
      {"model.moe.router.routed_scaling_factor", "2"},
      {"data.sequence_length", "16"},
      {"data.document_mask", "false"},
      {"training.seed", "7"}};
  for (const auto& [key, value] : changes) {
    const Outcome outcome = train("meant", quiet + " training.steps=3 " + key + "=" + value);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    expect_words(outcome, {key + ": ", " -> " + value, "checkpoint.accept_changes=[" + key + "]"});
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
  }
  EXPECT_EQ(content(folder_ / "meant/recipe.yaml"), before) << "a refused start has changed the run";
  EXPECT_EQ(content(folder_ / "meant/samples.jsonl"), samples);

  const Outcome two = train("meant",
                            quiet +
                                " training.steps=3 model.rope_theta=5000 training.seed=7 "
                                "checkpoint.accept_changes=[training.seed]",
                            2);
  EXPECT_EQ(two.exit_code, 2) << two.output;
  expect_words(two,
               {"override 'model.rope_theta=5000': model.rope_theta: 10000 -> 5000", "[model.rope_theta]"});
  EXPECT_EQ(occurrences(two.output, "conclave: "), 1u) << two.output;
  const Outcome accepted = train("meant", quiet +
                                              " training.steps=3 model.rope_theta=5000 training.seed=7 "
                                              "'checkpoint.accept_changes=[training.seed, model]'");
  expect_good(accepted);
  expect_words(accepted,
               {"model.rope_theta: 10000 -> 5000 (accepted)", "training.seed: 1234 -> 7 (accepted)"});

  const Outcome shapes = train("meant", quiet + " training.steps=4 model.hidden_size=64 model.rope_theta=1");
  EXPECT_EQ(shapes.exit_code, 3) << shapes.output;
  const Outcome word = train("meant", quiet + " checkpoint.accept_changes=[model.rope_thet]");
  EXPECT_EQ(word.exit_code, 2) << word.output;
  expect_words(
      word, {"checkpoint.accept_changes", "'model.rope_thet' is no key", "did you mean model.rope_theta?"});
}

TEST_F(ResumedRecipe, FilesMayMoveAndChangeOnlyWithConsent) {
  for (const char* ending : {".bin", ".idx", ".json"})
    fs::copy_file(path("signs") + ending, path("moving") + ending);
  const std::string from = list({{"numbers", 1}, {"moving", 1}});
  expect_good(train("files", quiet + " training.steps=5" + from));
  Given given;
  add_samples("files", given);
  auto& there = given[path("moved")] = given[path("moving")];
  given.erase(path("moving"));
  for (const char* ending : {".bin", ".idx", ".json"})
    fs::rename(path("moving") + ending, path("moved") + ending);
  expect_good(train("files", quiet + " training.steps=8" + list({{"moved", 1}, {"numbers", 1}})));
  Given all;
  add_samples("files", all);
  EXPECT_EQ(all[path("moving")].size(), there.size());
  all[path("moved")].insert(all[path("moved")].end(), there.begin(), there.end());
  all.erase(path("moving"));
  expect_complete(all, 8 * 8);

  // Another text under a known name. Nothing of the .bin is read to notice it.
  for (const char* ending : {".bin", ".idx", ".json"})
    fs::copy_file(path("letters") + ending, path("moved") + ending, fs::copy_options::overwrite_existing);
  const std::string now = quiet + " training.steps=10" + list({{"moved", 1}, {"numbers", 1}});
  const Outcome refused = train("files", now, 2);
  EXPECT_EQ(refused.exit_code, 2) << refused.output;
  expect_words(refused, {"data.train.0.path: ", "moved.idx with checksum", "which is another text",
                         "checkpoint.accept_changes=[data.train.0.path]"});
  expect_good(train("files", now + " checkpoint.accept_changes=[data.train]"));
  const DataPosition position =
      parse_data_position(CheckpointReader(checkpoint("files", 10)).text("data_position"), "position");
  ASSERT_EQ(position.datasets.size(), 3u);
  EXPECT_EQ(position.datasets[0].drawn + position.datasets[1].drawn + position.datasets[2].drawn, 10 * 8);
  EXPECT_EQ(position.datasets[0].drawn, 8) << "another text begins at its beginning";
}

TEST_F(ResumedRecipe, MetricsWithoutACheckpointAreMovedAsideAndNamed) {
  expect_good(train("aside", quiet + " training.steps=3 logging.tensorboard=true"));
  const std::string measured = content(folder_ / "aside/metrics.jsonl");
  fs::remove_all(folder_ / "aside/checkpoints");
  const Outcome again = train("aside", quiet + " training.steps=2 optimizer.lr=0.002");
  expect_good(again);
  expect_words(again, {"no checkpoint here, so the run begins anew", path("aside/earlier-1"),
                       "metrics.jsonl, samples.jsonl, experts.h5, experts, tensorboard, recipes"});
  EXPECT_EQ(content(folder_ / "aside/earlier-1/metrics.jsonl"), measured);
  EXPECT_EQ(load_recipe(path("aside/earlier-1/recipe.yaml")).optimizer.lr, 0.01);
  EXPECT_EQ(load_recipe(path("aside/recipe.yaml")).optimizer.lr, 0.002);
  EXPECT_EQ(lines_of(folder_ / "aside/samples.jsonl"), 2u);
  fs::remove_all(folder_ / "aside/checkpoints");
  expect_words(train("aside", quiet + " training.steps=2"), {path("aside/earlier-2")});

  // Another program's event files are not removed either.
  fs::create_directories(folder_ / "events/tensorboard");
  std::ofstream(folder_ / "events/tensorboard/events.out.tfevents.0000000001.host.1") << "of another program";
  expect_words(train("events", quiet + " training.steps=2 logging.tensorboard=true"),
               {path("events/earlier-1")});
  EXPECT_EQ(content(folder_ / "events/earlier-1/tensorboard/events.out.tfevents.0000000001.host.1"),
            "of another program");

  // Lines of steps that come again are dropped with a word.
  expect_good(train("cut", " training.steps=8 evaluation.interval=0"));
  fs::remove_all(checkpoint("cut", 8));
  expect_words(train("cut", " training.steps=8 evaluation.interval=0"), {"metrics.jsonl loses"});
}

TEST_F(ResumedRecipe, ForeignFilesAndLinksAreRefused) {
  const auto expect_refused = [](const std::string& output, const std::string& word) {
    const Outcome outcome = train(output, quiet + " training.steps=2", 2);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.output;
    expect_words(outcome, {word});
    EXPECT_EQ(occurrences(outcome.output, "conclave: "), 1u) << outcome.output;
    EXPECT_FALSE(fs::exists(folder_ / output / "recipe.yaml"));
  };
  const std::string foreign = "{\"epoch\": 1, \"step\": 3, \"loss\": 2.5}\n";
  for (const char* name : {"metrics.jsonl", "samples.jsonl"}) {
    const std::string output = std::string("foreign-") + name;
    fs::create_directory(folder_ / output);
    std::ofstream(folder_ / output / name) << foreign;
    expect_refused(output, "was not written by a run of Conclave");
    EXPECT_EQ(content(folder_ / output / name), foreign);
  }
  std::ofstream(folder_ / "precious") << "{\"step\": 1, \"tokens\": 1, \"lm_loss\": 1}\n";
  fs::create_directory(folder_ / "linked");
  fs::create_symlink(folder_ / "precious", folder_ / "linked/metrics.jsonl");
  expect_refused("linked", "is a symbolic link");
  fs::create_directory(folder_ / "dangling");
  fs::create_symlink(folder_ / "nowhere", folder_ / "dangling/metrics.jsonl");
  expect_refused("dangling", "is a symbolic link");
  EXPECT_FALSE(fs::exists(folder_ / "nowhere"));
  EXPECT_EQ(lines_of(folder_ / "precious"), 1u);
  fs::create_directories(folder_ / "directory/metrics.jsonl");
  expect_refused("directory", "is no ordinary file");

  // A run whose metrics were replaced by a link does not write through it either.
  expect_good(train("relinked", quiet + " training.steps=2"));
  fs::remove(folder_ / "relinked/metrics.jsonl");
  fs::create_symlink(folder_ / "precious", folder_ / "relinked/metrics.jsonl");
  EXPECT_EQ(train("relinked", quiet + " training.steps=4").exit_code, 2);
  EXPECT_EQ(lines_of(folder_ / "precious"), 1u);
}

}  // namespace
}  // namespace conclave
