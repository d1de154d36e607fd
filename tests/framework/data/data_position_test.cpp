// DataPosition: every dataset goes on with its next draw, whatever changes at a resume; which dataset is
// which; and what an older checkpoint implies.
#include "framework/data/data_position.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "framework/base/random.h"
#include "framework/data/dataset.h"
#include "tests/counts.h"
#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

constexpr std::int64_t length = 4;

/// Files 0 .. n - 1 with different texts: number f has 3 f + 5 sequences.
class Files {
 public:
  explicit Files(int count) {
    for (int file = 0; file < count; ++file) write(file, 3 * file + 5);
  }
  void write(int file, std::int64_t sequences) const {
    write_tokens(path(file),
                 {std::vector<std::int32_t>(static_cast<std::size_t>(sequences * length + 1), 7)});
  }
  std::string path(int file) const { return folder_ / ("file" + std::to_string(file)); }
  /// Files move: the same text at another place.
  void move(int file, const std::string& name) const {
    for (const char* ending : {".bin", ".idx", ".json"})
      std::filesystem::rename(path(file) + ending, folder_ / (name + ending));
  }
  std::string operator/(const std::string& name) const { return folder_ / name; }

 private:
  TemporaryFolder folder_;
};

DataRecipe recipe_of(const Files& files, const std::vector<std::pair<int, double>>& list,
                     std::int64_t block) {
  DataRecipe data;
  data.sequence_length = length;
  data.domain_block = block;
  for (const auto& [file, weight] : list)
    data.train.push_back({files.path(file), file % 2 ? "odd" : "even", weight});
  return data;
}

/// Notes what a run was given: the draws and sequences of each file, in the order of the steps.
struct Given {
  std::map<std::string, std::vector<std::pair<std::int64_t, std::int64_t>>> of_file;

  /// One step of the run, its global batch cut over `ranks` in micro-batches.
  void take(TrainingData& data, std::int64_t step, std::int64_t size, std::int64_t ranks) {
    std::vector<DrawnSequence> drawn;
    for (std::int64_t rank = 0; rank < ranks; ++rank)
      for (std::int64_t first = rank; first < size; first += ranks) {
        const Batch batch = data.batch(step, first, 1);
        drawn.insert(drawn.end(), batch.drawn.begin(), batch.drawn.end());
      }
    for (const DrawnSequence& one : drawn)
      of_file[data.datasets()[static_cast<std::size_t>(one.dataset)].path()].emplace_back(one.draw,
                                                                                          one.sequence);
  }

  /// Draws 0, 1, 2, ... without gap or repeat; each pass gives every sequence once.
  void expect_complete(const std::map<std::string, std::int64_t>& sequences) const {
    for (const auto& [path, given] : of_file) {
      std::vector<std::pair<std::int64_t, std::int64_t>> sorted = given;
      std::sort(sorted.begin(), sorted.end());
      const std::int64_t in_pass = sequences.at(path);
      std::map<std::int64_t, std::set<std::int64_t>> passes;
      for (std::size_t i = 0; i < sorted.size(); ++i) {
        ASSERT_EQ(sorted[i].first, static_cast<std::int64_t>(i)) << path << ": a gap or a repeat";
        ASSERT_TRUE(passes[sorted[i].first / in_pass].insert(sorted[i].second).second)
            << path << ": sequence " << sorted[i].second << " came twice in pass "
            << sorted[i].first / in_pass;
      }
    }
  }
};

/// One part of a run: what may change at a resume.
struct Part {
  std::vector<std::pair<int, double>> list;  // file and weight
  std::int64_t block = 1, batch = 8, ramp = 0, ranks = 1;

  static Part random(const RandomKey& key, int files) {
    Part part;
    std::vector<int> order(static_cast<std::size_t>(files));
    std::iota(order.begin(), order.end(), 0);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[key.below(i, i)]);
    order.resize(1 + key.below(20, order.size()));
    for (std::size_t i = 0; i < order.size(); ++i)
      part.list.emplace_back(order[i], static_cast<double>(1 + key.below(30 + i, 9)));
    part.block = std::vector<std::int64_t>{0, 1, 2, 3, 4}[key.below(21, 5)];
    part.batch = 12 * static_cast<std::int64_t>(1 + key.below(22, 3));
    part.ramp = static_cast<std::int64_t>(key.below(23, 2)) * 12;
    part.ranks = std::vector<std::int64_t>{1, 2, 3, 4}[key.below(24, 4)];
    return part;
  }
  std::int64_t size(std::int64_t step) const { return ramp > 0 && step < 6 ? ramp : batch; }
};

TEST(DataPosition, OverRandomChangesEveryDatasetGoesOnWithItsNextDraw) {
  constexpr int count = 5;
  const Files files(count);
  std::map<std::string, std::int64_t> sequences;
  for (int file = 0; file < count; ++file) sequences[files.path(file)] = 3 * file + 5;
  int kept_schedules = 0;
  const auto runs = static_cast<std::uint64_t>(test::count_from_environment("CONCLAVE_RESUMED_RUNS", 60));
  for (std::uint64_t run = 0; run < runs; ++run) {
    Given given;
    std::string saved;  // as a checkpoint has it
    std::int64_t step = 0;
    Part part;
    for (std::uint64_t resume = 0; resume < 8; ++resume) {
      const RandomKey key = RandomKey(41).with(run).with(resume);
      // Sometimes only the batch and the ranks change, and sometimes nothing does.
      const Part other = Part::random(key, count);
      const std::uint64_t kind = key.below(50, 4);
      if (resume == 0 || kind >= 2) part = other;
      if (kind == 1) part.batch = other.batch, part.ramp = other.ramp, part.ranks = other.ranks;
      const auto size = [part](std::int64_t s) { return part.size(s); };
      TrainingData data(recipe_of(files, part.list, part.block), 257, 3, size);
      if (!saved.empty()) {
        const DataPosition before = parse_data_position(saved, "saved");
        data.go_on(step, before);
        kept_schedules += before.blocks > 0 && data.position(step).blocks == before.blocks;
      }
      // The checkpoint is some steps before the end: what comes after it is trained again.
      const auto steps = static_cast<std::int64_t>(key.below(51, 5));
      const auto lost = static_cast<std::int64_t>(key.below(52, 3));
      Given discarded;
      for (std::int64_t s = step; s < step + steps; ++s) given.take(data, s, part.size(s), part.ranks);
      for (std::int64_t s = step + steps; s < step + steps + lost; ++s)
        discarded.take(data, s, part.size(s), part.ranks);
      step += steps;
      saved = to_json(data.position(step));
      EXPECT_EQ(to_json(parse_data_position(saved, "saved")), saved);
    }
    given.expect_complete(sequences);
    if (HasFailure()) return;
    // The last position says what was given.
    for (const DatasetPosition& one : parse_data_position(saved, "saved").datasets)
      EXPECT_EQ(one.drawn, static_cast<std::int64_t>(given.of_file[one.path].size())) << one.path;
  }
  EXPECT_GT(kept_schedules, static_cast<int>(runs) / 2) << "the mixture's schedule never went on";
}

TEST(DataPosition, AnUnchangedRecipeGoesOnAsIfItHadNotStopped) {
  const Files files(3);
  const DataRecipe recipe = recipe_of(files, {{0, 5}, {1, 3}, {2, 1}}, 2);
  const auto size = [](std::int64_t step) { return step < 7 ? std::int64_t{4} : std::int64_t{10}; };
  TrainingData whole(recipe, 257, 3, size);
  DataPosition position = whole.position(0);
  for (const std::int64_t stop : {0, 1, 5, 9, 30}) {
    TrainingData part(recipe, 257, 3, size);
    part.go_on(stop, whole.position(stop));
    for (std::int64_t step = stop; step < stop + 20; ++step)
      EXPECT_EQ(part.batch(step, 0, size(step)).drawn, whole.batch(step, 0, size(step)).drawn);
    EXPECT_EQ(part.position(50), whole.position(50));
  }
}

TEST(DataPosition, TheMixtureFollowsNewWeightsAtOnce) {
  const Files files(2);
  const auto ten = [](std::int64_t) { return std::int64_t{10}; };
  TrainingData before(recipe_of(files, {{0, 9}, {1, 1}}, 0), 257, 3, ten);
  TrainingData after(recipe_of(files, {{0, 1}, {1, 9}}, 0), 257, 3, ten);
  after.go_on(16, before.position(16));
  EXPECT_EQ(after.drawn(16), (std::vector<std::int64_t>{144, 16}));
  for (std::int64_t step = 16; step < 40; ++step) {
    const std::vector<std::int64_t> drawn = after.drawn(step);
    EXPECT_NEAR(static_cast<double>(drawn[0] - 144), static_cast<double>(step - 16), 1) << step;
  }
}

TEST(DataPosition, ALargerBatchKeepsTheScheduleOfTheMixture) {
  const Files files(2);
  const DataRecipe recipe = recipe_of(files, {{0, 7}, {1, 3}}, 0);
  TrainingData before(recipe, 257, 3, [](std::int64_t) { return std::int64_t{8}; });
  TrainingData after(recipe, 257, 3, [](std::int64_t) { return std::int64_t{16}; });
  after.go_on(10, before.position(10));
  EXPECT_EQ(after.position(11).blocks, 96);
  EXPECT_EQ(after.drawn(12), before.drawn(14));  // 112 sequences either way
}

TEST(DataPosition, FilesMayMoveAndDomainsBeRenamed) {
  const Files files(2);
  const auto six = [](std::int64_t) { return std::int64_t{6}; };
  TrainingData before(recipe_of(files, {{0, 1}, {1, 1}}, 0), 257, 3, six);
  Given given;
  for (std::int64_t step = 0; step < 1; ++step) given.take(before, step, 6, 1);
  const DataPosition position = before.position(1);
  DataRecipe recipe = recipe_of(files, {{1, 1}, {0, 1}}, 0);
  files.move(0, "elsewhere");
  recipe.train[1].path = files / "elsewhere";
  recipe.train[1].domain = "renamed";
  TrainingData after(recipe, 257, 3, six);
  after.go_on(1, position);
  Given later;
  for (std::int64_t step = 1; step < 4; ++step) later.take(after, step, 6, 1);
  for (const auto& [path, drawn] : later.of_file) {
    auto& all = given.of_file[path == files / "elsewhere" ? files.path(0) : path];
    all.insert(all.end(), drawn.begin(), drawn.end());
  }
  given.expect_complete({{files.path(0), 5}, {files.path(1), 8}});
  EXPECT_EQ(given.of_file.size(), 2u);
  EXPECT_EQ(after.datasets()[1].domain(), "renamed");
}

TEST(DataPosition, ADatasetThatComesBackGoesOnWhereItLeft) {
  const Files files(2);
  const auto four = [](std::int64_t) { return std::int64_t{4}; };
  TrainingData both(recipe_of(files, {{0, 1}, {1, 1}}, 0), 257, 3, four);
  TrainingData one(recipe_of(files, {{0, 1}}, 0), 257, 3, four);
  one.go_on(3, both.position(3));
  const DatasetChanges changes = compare_datasets(both.position(3).datasets, one.listed().datasets);
  EXPECT_EQ(changes.left, std::vector<std::size_t>{1});
  EXPECT_TRUE(changes.added.empty());
  TrainingData again(recipe_of(files, {{1, 1}, {0, 1}}, 0), 257, 3, four);
  again.go_on(5, one.position(5));
  EXPECT_EQ(again.drawn(5), (std::vector<std::int64_t>{6, 14}));
}

TEST(DataPosition, EqualIndicesAreToldApartByPathAndDomain) {
  const Files files(4);
  for (int file = 0; file < 4; ++file) files.write(file, 9);  // one index for all
  const auto eight = [](std::int64_t) { return std::int64_t{8}; };
  TrainingData before(recipe_of(files, {{0, 5}, {1, 1}, {2, 1}, {3, 1}}, 0), 257, 3, eight);
  TrainingData after(recipe_of(files, {{3, 1}, {2, 1}, {1, 1}, {0, 1}}, 0), 257, 3, eight);
  after.go_on(2, before.position(2));
  std::vector<std::int64_t> drawn = before.drawn(2);
  std::reverse(drawn.begin(), drawn.end());
  EXPECT_EQ(after.drawn(2), drawn);
  std::set<std::vector<std::int64_t>> orders;  // no two have the same
  for (const Dataset& dataset : after.datasets()) {
    std::vector<std::int64_t> order;
    for (std::int64_t draw = 0; draw < 9; ++draw) order.push_back(dataset.shuffled(draw, 3));
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 4u);
}

TEST(DataPosition, AnotherTextAtTheSamePathIsNoticedAndBeginsAtItsBeginning) {
  const Files files(2);
  const auto four = [](std::int64_t) { return std::int64_t{4}; };
  const DataRecipe recipe = recipe_of(files, {{0, 1}, {1, 1}}, 0);
  const DataPosition position = TrainingData(recipe, 257, 3, four).position(3);
  files.write(1, 30);
  TrainingData after(recipe, 257, 3, four);
  EXPECT_EQ(compare_datasets(position.datasets, after.listed().datasets).rewritten,
            std::vector<std::size_t>{1});
  after.go_on(3, position);
  EXPECT_EQ(after.drawn(3), (std::vector<std::int64_t>{6, 0}));
}

TEST(DataPosition, AnotherSequenceLengthKeepsThePasses) {
  const Files files(1);
  files.write(0, 100);
  DataRecipe recipe = recipe_of(files, {{0, 1}}, 0);
  const auto size = [](std::int64_t) { return std::int64_t{51}; };
  const DataPosition position = TrainingData(recipe, 257, 3, size).position(3);  // one pass and 53 sequences
  recipe.sequence_length = 2 * length;
  TrainingData after(recipe, 257, 3, size);
  after.go_on(3, position);
  EXPECT_EQ(after.drawn(3), std::vector<std::int64_t>{77});
  EXPECT_EQ(after.datasets()[0].full_sequences(), 50);
}

TEST(DataPosition, AnOlderCheckpointImpliesWhatItsRecipeHadDrawn) {
  const Files files(3);
  const DataRecipe recipe = recipe_of(files, {{0, 5}, {1, 2}, {2, 1}}, 2);
  const auto size = [](std::int64_t) { return std::int64_t{6}; };
  TrainingData data(recipe, 257, 3, size);
  for (const std::int64_t steps : {0, 1, 7, 50})
    EXPECT_EQ(implied_position(recipe, 6 * steps), data.position(steps)) << steps;
  EXPECT_TRUE(implied_position(DataRecipe{}, 0).datasets.empty());  // of an imported model
  // Files that are gone are known by their domains.
  DataRecipe moved = recipe;
  files.move(1, "elsewhere");
  moved.train[1].path = files / "elsewhere";
  TrainingData after(moved, 257, 3, size);
  after.go_on(7, implied_position(recipe, 42));
  EXPECT_EQ(after.drawn(7), data.drawn(7));
}

TEST(DataPosition, DamagedTextIsRefused) {
  const DataPosition position{.sequence_length = 4,
                              .domain_block = 1,
                              .blocks = 3,
                              .datasets = {{"0123456789abcdef", "a", "b", 0, 3, 1 << 20}}};
  const std::string good = to_json(position);
  EXPECT_EQ(parse_data_position(good, "x"), position);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return error_of([&] { parse_data_position(text, "step-3: data_position"); });
  };
  EXPECT_SAYS(with("\"drawn\": 3", "\"drawn\": -3"), "step-3: data_position: drawn is -3");
  EXPECT_SAYS(with("\"blocks\": 3", "\"blocks\": 1e3"), "blocks is");
  EXPECT_SAYS(with("\"share\"", "\"part\""), "is not what Conclave writes");
  EXPECT_SAYS(with("{", "["), "is not what Conclave writes");
  EXPECT_EQ(with("{", "[").fault(), Fault::data);
  // A schedule that has handed out more than was drawn.
  const Files files(1);
  TrainingData data(recipe_of(files, {{0, 1}}, 1), 257, 3, [](std::int64_t) { return std::int64_t{1}; });
  DataPosition wrong = data.position(3);
  wrong.datasets[0].drawn = 2;
  EXPECT_SAYS(error_of([&] { data.go_on(3, wrong); }), "the position in the data is damaged");
}

}  // namespace
}  // namespace conclave
