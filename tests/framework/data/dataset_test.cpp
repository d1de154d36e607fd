// Datasets: targets, document boundaries, epochs, the mixture, validation to the last token, and bad data.
#include "framework/data/dataset.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "framework/base/random.h"
#include "tests/framework/data/files_for_tests.h"

namespace conclave {
namespace {

using Row = std::vector<std::int32_t>;

Row row_of(const std::vector<std::int32_t>& values, std::int64_t row, std::int64_t length) {
  const auto begin = values.begin() + row * length;
  return {begin, begin + length};
}

DataRecipe recipe_of(const std::vector<DatasetRecipe>& train, std::int64_t length) {
  DataRecipe data;
  data.sequence_length = length;
  data.train = train;
  data.validation = train;
  return data;
}

TEST(Dataset, TheSeparatorOpensTheNextDocumentAndPaddingFollowsTheEnd) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{1, 2, 256}, {3, 256}, {4, 5, 6, 7, 8, 256}});
  const ValidationData data(recipe_of({{folder / "t", "d"}}, 4), 257);
  ASSERT_EQ(data.sequences(0), 3);
  const Batch batch = data.batch(0, 0, 3);
  EXPECT_EQ(row_of(batch.tokens, 0, 4), (Row{1, 2, 256, 3}));
  EXPECT_EQ(row_of(batch.targets, 0, 4), (Row{2, 256, 3, 256}));
  EXPECT_EQ(row_of(batch.document_start, 0, 4), (Row{0, 0, 2, 2}));
  EXPECT_EQ(row_of(batch.tokens, 1, 4), (Row{256, 4, 5, 6}));
  EXPECT_EQ(row_of(batch.targets, 1, 4), (Row{4, 5, 6, 7}));
  EXPECT_EQ(row_of(batch.document_start, 1, 4), (Row{0, 0, 0, 0}));
  EXPECT_EQ(row_of(batch.tokens, 2, 4), (Row{7, 8, -1, -1}));
  EXPECT_EQ(row_of(batch.targets, 2, 4), (Row{8, 256, -1, -1}));
  EXPECT_EQ(row_of(batch.document_start, 2, 4), (Row{0, 0, 2, 3}));
  EXPECT_EQ(batch.real_tokens(), 10);
  EXPECT_EQ(batch.target_tokens(), 10);  // 11 tokens less the first of the file
}

TEST(Dataset, ASeparatorThatEndsASequenceIsADocumentOfItsOwnThere) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{1, 2, 3, 256}, {}, {4, 5}});
  const ValidationData data(recipe_of({{folder / "t", "d"}}, 4), 257);
  EXPECT_EQ(data.batch(0, 0, 1).targets, (Row{2, 3, 256, 4}));
  EXPECT_EQ(data.batch(0, 0, 1).document_start, (Row{0, 0, 0, 3}));
  EXPECT_EQ(data.batch(0, 1, 1).targets, (Row{5, -1, -1, -1}));
}

TEST(Dataset, ATextThatNoSeparatorOpensHasNoTargetBeforeIt) {
  const TemporaryFolder folder;
  // As --split-long leaves them: only the last piece of a document has a separator behind it.
  write_tokens(folder / "t", {{1, 10}, {2, 10}, {3, 256}, {256}, {4, 10, 5, 6}, {7, 256}});
  const ValidationData data(recipe_of({{folder / "t", "d"}}, 20), 257);
  const Batch batch = data.batch(0, 0, 1);
  const std::vector<std::pair<Row, Row>> expected = {// tokens and targets of each document
                                                     {{1, 10}, {10, -1}},
                                                     {{2, 10}, {10, -1}},
                                                     {{3}, {256}},
                                                     {{256}, {256}},
                                                     {{256, 4, 10, 5, 6}, {4, 10, 5, 6, -1}},
                                                     {{7}, {256}}};
  std::size_t column = 0;
  for (const auto& [tokens, targets] : expected)
    for (std::size_t i = 0, start = column; i < tokens.size(); ++i, ++column) {
      EXPECT_EQ(batch.tokens[column], tokens[i]) << column;
      EXPECT_EQ(batch.targets[column], targets[i]) << column;
      EXPECT_EQ(batch.document_start[column], static_cast<std::int32_t>(start)) << column;
    }
  EXPECT_EQ(column, 12u);
}

TEST(Dataset, AFileWithoutADescriptionHasTheSeparatorThatItsDocumentsShare) {
  const TemporaryFolder folder;
  const auto targets = [&](const std::vector<Row>& documents) {
    write_tokens(folder / "t", documents);
    std::filesystem::remove(folder / "t.json");  // as Megatron's files come
    return ValidationData(recipe_of({{folder / "t", "d"}}, 4), 257).batch(0, 0, 1).targets;
  };
  EXPECT_EQ(targets({{1, 7}, {}, {2, 3, 7}}), (Row{7, 2, 3, 7}));
  EXPECT_EQ(targets({{1, 7}, {2, 3, 8}}), (Row{7, -1, 3, 8}));
  EXPECT_EQ(targets({{1, 256}, {2, 3, 8}}), (Row{256, -1, 3, 8}));  // no tokenizer is known to be the file's
}

TEST(Dataset, WithoutTheMaskTargetsCross) {
  const TemporaryFolder folder;
  write_tokens(folder / "t", {{1, 256}, {3, 4, 256}});
  DataRecipe recipe = recipe_of({{folder / "t", "d"}}, 4);
  recipe.document_mask = false;
  const Batch batch = ValidationData(recipe, 257).batch(0, 0, 1);
  EXPECT_EQ(batch.targets, (Row{256, 3, 4, 256}));
  EXPECT_EQ(batch.document_start, (Row{0, 0, 0, 0}));
}

TEST(ValidationData, EveryHeldOutTokenIsATargetOnce) {
  const TemporaryFolder folder;
  Row document(200);
  std::iota(document.begin(), document.end(), 0);
  for (const std::size_t tokens : {2u, 7u, 8u, 9u, 200u}) {
    write_tokens(folder / "t",
                 {Row(document.begin(), document.begin() + static_cast<std::ptrdiff_t>(tokens))});
    const ValidationData data(recipe_of({{folder / "t", "d"}}, 7), 257);
    Row targets;
    for (const std::int32_t target : data.batch(0, 0, data.sequences(0)).targets)
      if (target >= 0) targets.push_back(target);
    EXPECT_EQ(targets, Row(document.begin() + 1, document.begin() + static_cast<std::ptrdiff_t>(tokens)));
  }
}

TEST(ValidationData, WithSeparatorsEveryTokenIsATargetOnceHoweverItIsCut) {
  const TemporaryFolder folder;
  Row stream;
  std::vector<Row> documents;
  for (std::int32_t document = 0; document < 30; ++document) {
    Row tokens(static_cast<std::size_t>(document * 7 % 11), document);
    tokens.push_back(256);
    stream.insert(stream.end(), tokens.begin(), tokens.end());
    documents.push_back(tokens);
  }
  write_tokens(folder / "t", documents);
  for (std::int64_t length = 1; length < 40; ++length) {
    const ValidationData data(recipe_of({{folder / "t", "d"}}, length), 257);
    const Batch batch = data.batch(0, 0, data.sequences(0));
    for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
      const bool real = i + 1 < stream.size();
      ASSERT_EQ(batch.tokens[i], real ? stream[i] : -1);
      ASSERT_EQ(batch.targets[i], real ? stream[i + 1] : -1);
      const auto column = static_cast<std::int64_t>(i) % length;
      if (!real) continue;
      const bool opens = column == 0 || stream[i] == 256;
      ASSERT_EQ(batch.document_start[i], opens ? column : batch.document_start[i - 1]);
    }
  }
}

/// Two domains: one document 0 .. 40 in the first, 100 .. 130 in the second.
struct TwoDomains {
  TwoDomains() {
    Row first(41), second(31);
    std::iota(first.begin(), first.end(), 0);
    std::iota(second.begin(), second.end(), 100);
    write_tokens(folder / "first", {first});
    write_tokens(folder / "second", {second});
    data = recipe_of({{folder / "first", "first", 3.0}, {folder / "second", "second", 1.0}}, 5);
  }
  TemporaryFolder folder;
  DataRecipe data;
};

TEST(TrainingData, EachSampleIsUsedOncePerEpochAndEpochsDiffer) {
  const TwoDomains domains;
  TrainingData data(domains.data, 257, 11, [](std::int64_t) { return 8; });
  std::map<std::int32_t, Row>
      order;  // first tokens in the order of the run's samples, which 8-steps keep by step
  for (std::int64_t step = 0; step < 8; ++step) {
    const Batch batch = data.batch(step, 0, 8);
    for (std::int64_t row = 0; row < 8; ++row) {
      const Row tokens = row_of(batch.tokens, row, 5), targets = row_of(batch.targets, row, 5);
      const std::int32_t domain = batch.domain[static_cast<std::size_t>(row)];
      EXPECT_EQ(tokens[0] >= 100, domain == 1);
      for (std::size_t i = 0; i < 5; ++i) {
        EXPECT_EQ(tokens[i], tokens[0] + static_cast<std::int32_t>(i));
        EXPECT_EQ(targets[i], tokens[i] + 1);
      }
      order[domain].push_back(tokens[0]);
    }
  }
  // 64 sequences at 3 : 1 are 48 of the first domain's 8 samples and 16 of the second one's 6.
  ASSERT_EQ(order[0].size(), 48u);
  ASSERT_EQ(order[1].size(), 16u);
  std::map<std::int32_t, int> uses;
  for (const std::int32_t first : order[0]) ++uses[first];
  EXPECT_EQ(uses.size(), 8u);
  for (const auto& [first, count] : uses) EXPECT_EQ(count, 6) << "sample at token " << first;
  uses.clear();
  for (const std::int32_t first : order[1]) ++uses[first];
  EXPECT_EQ(uses.size(), 6u);
  for (const auto& [first, count] : uses) EXPECT_TRUE(count == 2 || count == 3);

  const Dataset& first = data.datasets()[0];
  std::set<Row> epochs;
  for (std::int64_t epoch = 0; epoch < 5; ++epoch) {
    Row rows;
    for (std::int64_t k = 0; k < 8; ++k)
      rows.push_back(static_cast<std::int32_t>(first.shuffled(epoch * 8 + k, 11)));
    epochs.insert(rows);
    std::sort(rows.begin(), rows.end());
    EXPECT_EQ(rows, (Row{0, 1, 2, 3, 4, 5, 6, 7}));
  }
  EXPECT_GE(epochs.size(), 4u);
}

TEST(TrainingData, TheGlobalBatchDoesNotDependOnHowItIsCut) {
  const TwoDomains domains;
  const auto size = [](std::int64_t) { return std::int64_t{12}; };
  TrainingData whole(domains.data, 257, 11, size), pieces(domains.data, 257, 11, size);
  for (const std::int64_t step : {5, 0, 3}) {
    const Batch all = whole.batch(step, 0, 12);
    for (const std::int64_t micro : {1, 2, 3, 4, 6}) {
      Row tokens, targets, domain;
      for (std::int64_t first = 0; first < 12; first += micro) {
        const Batch part = pieces.batch(step, first, micro);
        tokens.insert(tokens.end(), part.tokens.begin(), part.tokens.end());
        targets.insert(targets.end(), part.targets.begin(), part.targets.end());
        domain.insert(domain.end(), part.domain.begin(), part.domain.end());
      }
      EXPECT_EQ(tokens, all.tokens);
      EXPECT_EQ(targets, all.targets);
      EXPECT_EQ(domain, all.domain);
    }
  }
}

TEST(TrainingData, DomainsAreNamedOnceInTheOrderOfTheRecipe) {
  const TwoDomains domains;
  DataRecipe data = domains.data;
  data.train[1].domain = "";
  data.validation = {{domains.folder / "second", "held-out"}, {domains.folder / "first", "first"}};
  EXPECT_EQ(domain_names(data), (std::vector<std::string>{"first", "second", "held-out"}));
  const ValidationData validation(data, 257);
  EXPECT_EQ(validation.domain_name(0), "held-out");
  EXPECT_EQ(validation.batch(0, 0, 1).domain, Row{2});
  EXPECT_EQ(validation.batch(1, 0, 1).domain, Row{0});
}

TEST(DatasetErrors, SentencesSayWhatIsWrong) {
  const TwoDomains domains;
  const auto one = [](std::int64_t) { return std::int64_t{1}; };
  const auto error = [&](const DataRecipe& data, std::int64_t vocabulary) {
    return error_of([&] { TrainingData(data, vocabulary, 1, one).batch(0, 0, 1); });
  };
  DataRecipe data = domains.data;
  data.sequence_length = 31;
  EXPECT_SAYS(error(data, 257), "second.bin holds 31 tokens; one training sequence needs 32");
  EXPECT_EQ(error(data, 257).fault(), Fault::data);
  data = domains.data;
  EXPECT_SAYS(error(data, 256), "model.vocab_size is 256");
  data.tokenizer = domains.folder / "pieces.model";
  EXPECT_SAYS(error(data, 257), "pieces.model");
  write_file(data.tokenizer, "any other tokenizer");
  EXPECT_SAYS(error(data, 257), "were made with the tokenizer bytes, but the recipe's data.tokenizer");
  data = domains.data;
  data.train.clear();
  EXPECT_EQ(error(data, 257).fault(), Fault::request);
  data = domains.data;
  data.train[1].path = domains.folder / "none";
  EXPECT_SAYS(error(data, 257), "none.idx cannot be opened");

  std::filesystem::copy_file(domains.folder / "second.json", domains.folder / "first.json",
                             std::filesystem::copy_options::overwrite_existing);
  EXPECT_SAYS(error(domains.data, 257), "do not belong together");
  write_file(domains.folder / "first.json", "{\"tokenizer\": 3}");
  EXPECT_SAYS(error(domains.data, 257), "first.json is not a JSON object with");
  std::filesystem::remove(domains.folder / "first.json");  // as Megatron's files come
  TrainingData plain(domains.data, 257, 1, one);
  EXPECT_EQ(plain.batch(0, 0, 1).sequences, 1);
  std::filesystem::remove(domains.folder / "second.json");
  const Error narrow = error_of([&] { TrainingData(domains.data, 20, 1, one); });  // before anything is drawn
  EXPECT_SAYS(narrow, "first.bin: token 20 is id 20, expected 0 to 19; the vocabulary has 20 entries");
  EXPECT_EQ(narrow.fault(), Fault::data);
}

TEST(TrainingData, ShardsOfADomainAreNamedOnceAndShuffledApart) {
  const TemporaryFolder folder;
  for (const char* name : {"alone", "a", "b"}) write_tokens(folder / name, {Row(401, 7)});
  DataRecipe recipe = recipe_of({{folder / "alone", "x"}, {folder / "a", "x"}, {folder / "b", "x"}}, 4);
  EXPECT_EQ(domain_names(recipe), std::vector<std::string>{"x"});
  TrainingData data(recipe, 257, 3, [](std::int64_t) { return 6; });
  EXPECT_EQ(data.batch(0, 0, 6).domain, (Row{0, 0, 0, 0, 0, 0}));
  std::set<std::vector<std::int64_t>> orders;
  for (const Dataset& shard : data.datasets()) {
    std::vector<std::int64_t> order;
    for (std::int64_t sample = 0; sample < 100; ++sample) order.push_back(shard.shuffled(sample, 3));
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 3u);
  TokenizerFacts tokenizer(recipe.tokenizer);
  const Dataset alone(recipe.train[0], recipe, 257,
                      tokenizer);  // a list without shards keeps the order it always had
  EXPECT_TRUE(orders.contains([&] {
    std::vector<std::int64_t> order;
    const RandomKey key = RandomKey(3).with("shuffle").with("x").with(std::uint64_t{0});
    for (std::uint64_t sample = 0; sample < 100; ++sample)
      order.push_back(static_cast<std::int64_t>(key.permute(sample, 100)));
    EXPECT_EQ(order[5], alone.shuffled(5, 3));
    return order;
  }()));
  const ValidationData validation(recipe, 257);
  ASSERT_EQ(validation.datasets(), 3);
  EXPECT_EQ(validation.domains(), std::vector<std::string>{"x"});
  EXPECT_EQ(validation.domain_name(2), "x");
  EXPECT_EQ(validation.batch(2, 0, 1).domain, Row{0});
}

}  // namespace
}  // namespace conclave
