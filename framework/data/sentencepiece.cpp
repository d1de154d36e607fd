// Loading, using and training SentencePiece models. Normalisation is off, so that text survives unchanged.
#include "framework/data/sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <exception>
#include <thread>
#include <unordered_map>

#include "framework/base/error.h"
#include "framework/data/documents.h"
#include "framework/data/files.h"

namespace conclave {
namespace {

/// Keeps positions inside the library far from its 32-bit limits.
constexpr std::size_t longest_text = std::size_t{1} << 30;
/// The library skips longer training sentences without a word; ours are cut.
constexpr std::size_t longest_training_line = 4096;

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::string& path) : path_(path) {
    const MappedFile model(path, "tokenizer model");
    check(!model.bytes().empty(), Fault::data, "tokenizer model ", path,
          " is empty; a SentencePiece .model file is expected");
    const std::string problem = load(model.bytes());
    check(problem.empty(), Fault::data, "tokenizer model ", path,
          " is not a SentencePiece model that can be read (", problem,
          "); give the path of a .model file, or `bytes`");
    check(
        processor_.eos_id() >= 0, Fault::data, "tokenizer model ", path,
        " has no end-of-sentence token, which Conclave puts after each document; train it with eos_id >= 0");
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    check(text.size() <= longest_text, Fault::data, "tokenizer ", path_, ": one text of ", text.size(),
          " bytes came, at most ", longest_text, " are possible; split the document");
    std::vector<int> ids;
    const auto status = processor_.Encode({text.data(), text.size()}, &ids);
    check(status.ok(), Fault::data, "tokenizer ", path_, " cannot encode this text: ", status.ToString());
    return ids;
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::vector<int> ids;
    ids.reserve(tokens.size());
    for (const std::int32_t token : tokens)
      if (token >= 0 && token < processor_.GetPieceSize() && !processor_.IsControl(token))
        ids.push_back(token);
    std::string text;
    const auto status = processor_.Decode(ids, &text);
    check(status.ok(), Fault::data, "tokenizer ", path_, " cannot decode these ids: ", status.ToString());
    return text;
  }

  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::int32_t end_of_document() const override { return processor_.eos_id(); }

 private:
  /// Says what is wrong with the bytes of a model; empty when it is loaded. The library reports most in its
  /// status, and throws at a piece without letters.
  std::string load(std::string_view bytes) {
    try {
      const auto status = processor_.LoadFromSerializedProto({bytes.data(), bytes.size()});
      if (!status.ok()) return status.ToString();
      return processor_.GetPieceSize() > 0 ? "" : "it has no pieces";
    } catch (const std::exception& error) {
      return error.what();
    }
  }

  std::string path_;
  sentencepiece::SentencePieceProcessor processor_;
};

/// Hands our lines to the trainer. An error of ours ends the stream and is thrown after the library is done.
class LineIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::function<bool(std::string&)>& next_line) : next_line_(next_line) {
    Next();
  }
  bool done() const override { return done_; }
  const std::string& value() const override { return piece_; }
  sentencepiece::util::Status status() const override { return {}; }
  std::exception_ptr error() const { return error_; }
  std::size_t bytes() const { return bytes_; }

  void Next() override {
    while (at_ >= line_.size() && !done_) {
      at_ = 0;
      line_.clear();
      try {
        done_ = !next_line_(line_);
      } catch (...) {
        error_ = std::current_exception();
        done_ = true;
      }
    }
    if (done_) return;
    std::size_t length = std::min(longest_training_line, line_.size() - at_);
    if (at_ + length < line_.size())  // never inside a character
      while (length > 1 && (static_cast<unsigned char>(line_[at_ + length]) & 0xC0) == 0x80) --length;
    piece_ = line_.substr(at_, length);
    at_ += length;
    bytes_ += length;
  }

 private:
  const std::function<bool(std::string&)>& next_line_;
  std::string line_, piece_;
  std::size_t at_ = 0, bytes_ = 0;
  bool done_ = false;
  std::exception_ptr error_;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::string& path) {
  return std::make_unique<SentencePieceTokenizer>(path);
}

void train_sentencepiece(const std::function<bool(std::string&)>& next_line, const std::string& prefix,
                         const SentencePieceOptions& options) {
  check(options.kind == "bpe" || options.kind == "unigram", Fault::request, "SentencePiece model kind ",
        options.kind, " came, expected bpe or unigram");
  check(options.vocab_size > 260, Fault::request, "a SentencePiece vocabulary of ", options.vocab_size,
        " came; more than 260 are needed, because 256 bytes and 3 control tokens are always in it");
  check(options.character_coverage > 0 && options.character_coverage <= 1, Fault::request,
        "character coverage ", options.character_coverage, " came, expected above 0 and at most 1");
  OutputFile output(prefix + ".model");  // now, so that an unwritable place is known before the work
  LineIterator lines(next_line);
  if (lines.error()) std::rethrow_exception(lines.error());
  check(!lines.done(), Fault::data, "no text came to train a SentencePiece model on");

  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1u, 16u);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      std::unordered_map<std::string, std::string>{
          {"vocab_size", std::to_string(options.vocab_size)},
          {"model_type", options.kind},
          {"character_coverage", std::to_string(options.character_coverage)},
          {"byte_fallback", "true"},
          {"split_digits", "true"},
          {"allow_whitespace_only_pieces", "true"},
          {"normalization_rule_name", "identity"},
          {"remove_extra_whitespaces", "false"},
          {"num_threads", std::to_string(threads)},
          {"minloglevel", "2"}},
      &lines, &model);
  if (lines.error()) std::rethrow_exception(lines.error());
  check(status.ok() && !model.empty(), Fault::data, "training a SentencePiece model of ", options.vocab_size,
        " pieces on ", lines.bytes(), " bytes of text failed (", status.ToString(),
        "); a smaller vocabulary or more text may help");
  output.write(model.data(), model.size());
  output.publish();
}

void train_sentencepiece(const std::vector<std::string>& inputs, const std::string& prefix,
                         const SentencePieceOptions& options) {
  DocumentReader reader(inputs, {.separator = "line", .skip_empty = true});
  train_sentencepiece(
      [&](std::string& line) {
        auto document = reader.next();
        if (document) line = std::move(document->text);
        return document.has_value();
      },
      prefix, options);
}

}  // namespace conclave
