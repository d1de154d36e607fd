// Token files, their descriptions, documents and tokenizer models.
#include <algorithm>
#include <filesystem>

#include "framework/data/data_position.h"
#include "framework/data/documents.h"
#include "framework/data/sample_plan.h"
#include "framework/data/sentencepiece_model.h"
#include "framework/data/text_stream.h"
#include "framework/data/token_description.h"
#include "framework/data/token_file.h"
#include "framework/data/tokenizer.h"
#include "tests/fuzz/entries.h"

namespace conclave::fuzz {
namespace {

std::string without_extension(const std::string& path) {
  return path.substr(0, path.rfind('.'));
}

}  // namespace

void run_token_file(std::string_view bytes) {
  if (bytes.size() < 2) return;
  const std::size_t announced = static_cast<unsigned char>(bytes[0]) | static_cast<unsigned char>(bytes[1])
                                                                           << 8;
  bytes.remove_prefix(2);
  const std::size_t index = std::min(announced, bytes.size());
  const std::string prefix = without_extension(file_with("tokens.idx", bytes.substr(0, index)));
  file_with("tokens.bin", bytes.substr(index));
  value_or_error([&] {
    constexpr std::int64_t vocabulary = 257;
    const TokenFile file(prefix, vocabulary);
    promise(file.tokens() > 0 && file.document_begin(0) == 0, "a token file has tokens");
    promise(file.document_begin(file.documents()) == file.tokens(), "the last document ends with the file");
    for (std::int64_t document = 0; document < file.documents(); ++document)
      promise(file.document_begin(document) <= file.document_begin(document + 1), "documents ascend");
    for (const std::int64_t offset : {std::int64_t{0}, file.tokens() / 2, file.tokens() - 1}) {
      const std::int64_t document = file.document_of(offset);
      promise(file.document_begin(document) <= offset && offset < file.document_begin(document + 1),
              "a token lies in its document");
    }
    file.check_all_ids();
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
    file.read(0, file.tokens(), tokens.data());
    for (const std::int32_t token : tokens)
      promise(token >= 0 && token < vocabulary, "ids are in the vocabulary");
  });
}

void run_token_description(std::string_view bytes) {
  const std::string prefix = without_extension(file_with("description.json", bytes));
  value_or_error([&] {
    const auto description = read_token_description(prefix);
    promise(description.has_value(), "a file that is there is read");
    to_json(*description);
  });
}

void run_data_position(std::string_view bytes) {
  value_or_error([&] {
    const DataPosition before = parse_data_position(std::string(bytes), "data_position");
    promise(parse_data_position(to_json(before), "again") == before, "a position survives its JSON");
    const std::vector<double> weights{3, 1};
    const DomainSchedule schedule(weights);
    DataPosition list{.sequence_length = 256, .domain_block = 2, .blocks = 0, .datasets = {}};
    for (const std::int64_t share : schedule.shares())
      list.datasets.push_back({.index_checksum = share > 1 << 19 ? "0123456789abcdef" : "fedcba9876543210",
                               .path = "path",
                               .domain = "domain",
                               .shard = static_cast<std::int64_t>(list.datasets.size()),
                               .drawn = 0,
                               .share = share});
    const DataPosition now = carry_over(before, list);
    promise(now.datasets.size() >= 2, "the list is in its position");
    PlanOrigin origin{.step = 5, .blocks = now.blocks, .drawn = {}};
    for (std::size_t d = 0; d < 2; ++d) origin.drawn.push_back(now.datasets[d].drawn);
    SamplePlan plan(
        weights, list.domain_block, 1, [](std::int64_t) { return std::int64_t{8}; }, origin);
    for (const SampleId& id : plan.step(5))
      promise(id.sample >= now.datasets[static_cast<std::size_t>(id.domain)].drawn, "no draw comes again");
  });
}

void run_documents(std::string_view bytes) {
  if (bytes.empty()) return;
  const auto bits = static_cast<unsigned char>(bytes[0]);
  constexpr const char* separators[] = {"file", "blank-line", "line", "line"};
  DocumentOptions options;
  options.separator = separators[bits & 3];
  options.replace_invalid = bits & 4;
  options.skip_empty = bits & 8;
  options.split_long = bits & 16 ? 16 : 0;
  options.skip_bad_lines = bits & 128;
  const char* json = bits & 64 ? "documents.json" : "documents.jsonl";
  const std::string path = file_with(bits & (32 | 64) ? json : "documents.txt", bytes.substr(1));
  value_or_error([&] {
    DocumentReader reader({path}, options);
    while (const auto document = reader.next()) {
      promise(!document->text.empty(), "a document is not empty");
      promise(first_invalid_utf8(document->text) == std::string_view::npos, "a document is UTF-8");
      promise(reader.bytes_read() <= reader.total_bytes(), "no more is read than is there");
    }
  });
}

void run_tokenizer(std::string_view bytes) {
  const std::string path = file_with("tokenizer.model", bytes);
  value_or_error([&] {
    promise(!parse_sentencepiece_model(bytes, "tokenizer.model").pieces.empty(), "a model has pieces");
  });
  value_or_error([&] {
    const auto tokenizer = load_tokenizer(path);
    tokenizer_fingerprint(path);
    for (const std::string_view text :
         {"", "the cat", "  A\tnew line\n and 12345", "\xC3\xA4\xE6\xBC\xA2\xF0\x9F\x98\x80\xFF\x80"}) {
      const std::vector<std::int32_t> tokens = tokenizer->encode(text);
      for (const std::int32_t token : tokens)
        promise(token >= 0 && token < tokenizer->vocab_size(), "ids are in the vocabulary");
      tokenizer->decode(tokens);
    }
    promise(tokenizer->end_of_document() < tokenizer->vocab_size(),
            "the end of a document is in the vocabulary");
    std::vector<std::int32_t> all;
    for (std::int32_t id = -1; id <= std::min<std::int64_t>(tokenizer->vocab_size(), 1000); ++id)
      all.push_back(id);
    tokenizer->decode(all);
  });
}

void run_tokenizer_json(std::string_view bytes) {
  const std::size_t zero = std::min(bytes.find('\0'), bytes.size());
  const std::string path = file_with("tokenizer.json", bytes.substr(0, zero));
  // A slow pattern is refused after some milliseconds at each place of a text, so it is short.
  const std::string_view text = bytes.substr(std::min(zero + 1, bytes.size())).substr(0, 500);
  value_or_error([&] {
    const auto tokenizer = load_tokenizer(path);
    tokenizer_fingerprint(path);
    promise(tokenizer->end_of_document() < tokenizer->vocab_size(),
            "the end of a document is in the vocabulary");
    const std::vector<std::int32_t> tokens = tokenizer->encode(text);
    for (const std::int32_t token : tokens)
      promise(token >= 0 && token < tokenizer->vocab_size(), "ids are in the vocabulary");
    promise(tokenizer->encode(text) == tokens, "words that come from the cache are the same");
    TextStream stream(*tokenizer);
    std::string streamed;
    for (const std::int32_t token : tokens) streamed += stream.push({&token, 1});
    promise(streamed + stream.finish() == tokenizer->decode(tokens), "a stream is the text");
  });
}

}  // namespace conclave::fuzz
