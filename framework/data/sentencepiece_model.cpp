#include "framework/data/sentencepiece_model.h"

#include <cstdint>
#include <cstring>

#include "framework/base/error.h"

namespace conclave {
namespace {

/// One field of a message at a time (protobuf.dev/programming-guides/encoding).
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  int number = 0;
  std::uint64_t value = 0;  // of a number
  std::string_view bytes;   // of a text or a message; of a 32-bit number its 4 bytes

  /// False at the end and where the bytes are no message; then is_damaged() says which.
  bool next() {
    if (rest_.empty() || damaged_) return false;
    const std::uint64_t tag = varint();
    number = static_cast<int>(tag >> 3);
    switch (tag & 7) {
      case 0:
        value = varint();
        break;
      case 1:
        bytes = take(8);
        break;
      case 2:
        bytes = take(varint());
        break;
      case 5:
        bytes = take(4);
        break;
      default:
        damaged_ = true;
    }
    return !damaged_;
  }
  bool is_damaged() const { return damaged_; }

 private:
  std::uint64_t varint() {
    std::uint64_t result = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      result |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return result;
    }
    damaged_ = true;
    return 0;
  }
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) {
      damaged_ = true;
      return {};
    }
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::string_view rest_;
  bool damaged_ = false;
};

SentencePieceModel::Piece parse_piece(std::string_view message) {
  SentencePieceModel::Piece piece;
  for (Fields field(message); field.next();) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2 && field.bytes.size() == 4)
      std::memcpy(&piece.score, field.bytes.data(), sizeof piece.score);
    if (field.number == 3 && field.value >= 1 && field.value <= 6)
      piece.kind = static_cast<SentencePieceModel::Kind>(field.value - 1);
  }
  return piece;
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& file) {
  SentencePieceModel model;
  std::uint64_t kind = 1;
  bool escapes = true, suffix = false;
  model.removes_spaces = true;  // where the file does not say otherwise
  Fields field(bytes);
  while (field.next()) {
    if (field.number == 1) model.pieces.push_back(parse_piece(field.bytes));
    if (field.number == 2)
      for (Fields trainer(field.bytes); trainer.next();) {
        if (trainer.number == 3) kind = trainer.value;
        if (trainer.number == 24) suffix = trainer.value != 0;
        if (trainer.number == 35) model.byte_fallback = trainer.value != 0;
      }
    if (field.number == 3)
      for (Fields normalizer(field.bytes); normalizer.next();) {
        if (normalizer.number == 2) model.character_map = normalizer.bytes;
        if (normalizer.number == 3) model.add_dummy_prefix = normalizer.value != 0;
        if (normalizer.number == 4) model.removes_spaces = normalizer.value != 0;
        if (normalizer.number == 5) escapes = normalizer.value != 0;
      }
  }
  check(!field.is_damaged() && !model.pieces.empty() && (kind == 1 || kind == 2), Fault::data, file,
        " is no SentencePiece model of the kinds bpe and unigram.");
  model.is_bpe = kind == 2;
  model.has_other_rules = !escapes || suffix;
  return model;
}

}  // namespace conclave
