// Writes the binary seeds below the folder that is its argument: token files of each width, SentencePiece
// models of both kinds, a history of experts, safetensors files. Seeds that are text are kept by hand. Run it
// when a format changes.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "framework/base/error.h"
#include "framework/data/data_position.h"
#include "framework/data/token_file.h"
#include "framework/data/tokenizer.h"
#include "framework/store/hdf5_file.h"
#include "framework/store/safetensors.h"

namespace conclave {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const fs::path& path, const std::string& bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << bytes;
}

template <class Value>
void put(std::string& bytes, Value value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// As entries.h says: the size of the index, the index, the tokens.
std::string joined(const std::string& index, const std::string& tokens) {
  std::string bytes;
  put(bytes, static_cast<std::uint16_t>(index.size()));
  return bytes + index + tokens;
}

/// Three sequences of 3, 0 and 2 tokens in two documents, of any integer type of the format.
template <class Token>
std::string token_file(std::uint8_t code) {
  std::string index("MMIDIDX\0\0", 9), tokens;
  put<std::uint64_t>(index, 1);
  put(index, code);
  put<std::uint64_t>(index, 3);
  put<std::uint64_t>(index, 3);
  for (const std::int32_t length : {3, 0, 2}) put(index, length);
  for (const std::int64_t begin : {0, 3, 3}) put(index, begin * static_cast<std::int64_t>(sizeof(Token)));
  for (const std::int64_t boundary : {0, 2, 3}) put(index, boundary);
  for (const int token : {72, 105, 126, 79, 75}) put(tokens, static_cast<Token>(token));
  return joined(index, tokens);
}

void make_token_files(const fs::path& folder, const fs::path& scratch) {
  write(folder / "uint8", token_file<std::uint8_t>(1));
  write(folder / "int8", token_file<std::int8_t>(2));
  write(folder / "int16", token_file<std::int16_t>(3));
  write(folder / "int32", token_file<std::int32_t>(4));
  write(folder / "int64", token_file<std::int64_t>(5));
  write(folder / "uint16", token_file<std::uint16_t>(8));
  TokenFileWriter writer((scratch / "tokens").string(), 257);
  const std::vector<std::int32_t> first{1, 2, 256}, second{3, 256};
  writer.append_document(first);
  writer.append_document({});
  writer.append_document(second);
  writer.finish({.domain = "d", .tokenizer = "bytes", .fingerprint = "bytes", .vocab_size = 257});
  write(folder / "written", joined(read(scratch / "tokens.idx"), read(scratch / "tokens.bin")));
  write(folder.parent_path() / "token_description" / "written", read(scratch / "tokens.json"));
  write(folder.parent_path() / "data_position" / "written",
        to_json(DataPosition{.sequence_length = 256,
                             .domain_block = 2,
                             .blocks = 40,
                             .datasets = {{"0123456789abcdef", "path", "domain", 0, 60, 786432},
                                          {"fedcba9876543210", "other", "domain", 1, 20, 262144},
                                          {"", "gone", "gone", 0, 7, 0}}}));
}

void make_tokenizers(const fs::path& folder, const fs::path& scratch) {
  for (const char* kind : {"bpe", "unigram"}) {
    int line = 0;
    train_sentencepiece(
        [&](std::string& text) {
          text = join_text("the cat sat on the mat ", line, " and the dog ran to the cat");
          return ++line <= 200;
        },
        (scratch / kind).string(), {.vocab_size = 284, .kind = kind});
    write(folder / kind, read(scratch / (std::string(kind) + ".model")));
  }
}

void make_expert_history(const fs::path& folder, const fs::path& scratch) {
  const fs::path path = scratch / "experts.h5";
  const std::vector<std::int64_t> steps{1, 2, 4}, counts(3 * 2 * 4, 5), evaluation_steps{2},
      evaluated(2 * 2 * 4, 3);
  const std::vector<double> probability(3 * 2 * 4, 0.25), per_layer(3 * 2, 1.0);
  {
    Hdf5File file(path, Hdf5File::Mode::create);
    file.set_attribute("/", "layers", std::int64_t{2});
    file.set_attribute("/", "experts", std::int64_t{4});
    file.set_attribute("/", "expert_ranks", std::int64_t{1});
    file.set_attribute("/", "domains", std::string("english\nc"));
    const auto add = [&](const char* name, ElementType type, const Dims& dims, const void* data) {
      file.write(name, type, dims, data);
    };
    add("step", ElementType::int64, {3}, steps.data());
    add("counts", ElementType::int64, {3, 2, 4}, counts.data());
    add("probability", ElementType::float64, {3, 2, 4}, probability.data());
    add("load_per_expert_rank", ElementType::int64, {3, 2, 1}, counts.data());
    add("layer_balance_loss", ElementType::float64, {3, 2}, per_layer.data());
    add("layer_load_violation", ElementType::float64, {3, 2}, per_layer.data());
    add("evaluation/step", ElementType::int64, {1}, evaluation_steps.data());
    add("evaluation/counts", ElementType::int64, {1, 2, 2, 4}, evaluated.data());
    add("evaluation/score_sum", ElementType::float64, {1, 2, 2}, per_layer.data());
    add("evaluation/entropy", ElementType::float64, {1, 2, 2}, per_layer.data());
    file.close();
  }
  write(folder / "written", read(path));
}

void make_safetensors(const fs::path& folder, const fs::path& scratch) {
  const std::vector<float> values{1, -2.5f, 0.1f, 4, 5, 6, 7};
  const auto written = [&](const std::vector<SafeTensorPlan>& tensors) {
    SafetensorsWriter writer(scratch / "file", tensors);
    std::size_t elements = 0;
    for (const SafeTensorPlan& tensor : tensors)
      elements += static_cast<std::size_t>(element_count(tensor.shape));
    writer.write(values.data(), elements);
    writer.finish();
    return read(scratch / "file");
  };
  write(folder / "written",
        written({{"a.weight", false, {2, 3}}, {"none", false, {0, 4}}, {"b.weight", true, {1}}}));
  write(folder / "scalar", written({{"x", true, {}}}));
  write(folder / "empty", written({}));
  std::string types = R"({"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},)"
                      R"("d":{"dtype":"F64","shape":[1],"data_offsets":[4,12]},)"
                      R"("i":{"dtype":"I8","shape":[1],"data_offsets":[12,13]}})";
  std::string bytes;
  put<std::uint64_t>(bytes, types.size());
  write(folder / "types", bytes + types + std::string(13, '\x40'));
}

}  // namespace
}  // namespace conclave

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "make_corpus: one argument is expected, the folder tests/fuzz/corpus\n";
    return 2;
  }
  const std::filesystem::path corpus = arguments[1],
                              scratch = std::filesystem::temp_directory_path() / "conclave-corpus";
  std::filesystem::create_directories(scratch);
  conclave::make_token_files(corpus / "token_file", scratch);
  conclave::make_tokenizers(corpus / "tokenizer", scratch);
  conclave::make_safetensors(corpus / "safetensors", scratch);
  conclave::make_expert_history(corpus / "expert_history_bytes", scratch);
  std::filesystem::remove_all(scratch);
}
