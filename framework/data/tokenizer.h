// Tokenizer: text to token ids and back. `bytes` is built in; any other name is the path of a Hugging Face
// tokenizer.json or of a SentencePiece model. Also here: UTF-8 checking, and training of a new SentencePiece
// model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace conclave {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// The ids come without an end-of-document token, which the writer of documents adds. Safe to call from
  /// several threads.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  /// Ids that stand for no text (control tokens, padding of the vocabulary) are skipped.
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int32_t end_of_document() const = 0;
};

/// The tokenizer of this name: "bytes" (256 byte values, then 256 = end of document), or the path of a file.
/// A name that ends with .json is the path of a tokenizer.json, any other one of a SentencePiece .model.
std::unique_ptr<Tokenizer> load_tokenizer(const std::string& name);

/// A text that is the same for the same tokenizer, wherever its file lies. It is "bytes", or a hash of the
/// model file. Where a tokenizer_config.json beside it names the end of a document, that enters the hash.
std::string tokenizer_fingerprint(const std::string& name);

/// Byte offset of the first byte that begins no valid UTF-8 character; std::string_view::npos when all is
/// valid. Surrogates and overlong forms are invalid.
std::size_t first_invalid_utf8(std::string_view text);
/// Each byte that is part of no valid character becomes U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

struct SentencePieceOptions {
  std::int64_t vocab_size = 8192;
  std::string kind = "bpe";            // bpe | unigram
  double character_coverage = 0.9995;  // characters beyond it are spelled in bytes
};

/// Trains on the lines that `next_line` hands out until it returns false, and writes PREFIX.model. Text
/// survives encode and decode unchanged: no normalisation, and unknown characters fall back to bytes.
void train_sentencepiece(const std::function<bool(std::string&)>& next_line, const std::string& prefix,
                         const SentencePieceOptions& options);
/// The same on the lines of text files.
void train_sentencepiece(const std::vector<std::string>& inputs, const std::string& prefix,
                         const SentencePieceOptions& options);

}  // namespace conclave
