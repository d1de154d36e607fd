// ICU's normalizers and properties behind plain functions.
#include "framework/data/tokenizer_json/unicode_form.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>

#include "framework/base/error.h"

namespace conclave {
namespace {

const icu::Normalizer2& normalizer_of(UnicodeForm form) {
  UErrorCode code = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = form == UnicodeForm::nfc    ? icu::Normalizer2::getNFCInstance(code)
                                       : form == UnicodeForm::nfd  ? icu::Normalizer2::getNFDInstance(code)
                                       : form == UnicodeForm::nfkc ? icu::Normalizer2::getNFKCInstance(code)
                                                                   : icu::Normalizer2::getNFKDInstance(code);
  check(U_SUCCESS(code), Fault::machine, "ICU has no data for Unicode normalization (", u_errorName(code),
        "); install its package again");
  return *normalizer;
}

/// The last character and its length in bytes.
std::pair<UChar32, std::size_t> last_character(std::string_view text) {
  const std::string_view end = text.substr(text.size() - std::min<std::size_t>(text.size(), U8_MAX_LENGTH));
  const auto size = static_cast<std::int32_t>(end.size());
  UChar32 code = 0;
  std::int32_t at = size;
  U8_PREV(end.data(), 0, at, code);
  return {code, static_cast<std::size_t>(size - at)};
}

std::pair<UChar32, std::size_t> first_character(std::string_view text) {
  UChar32 code = 0;
  std::size_t at = 0;
  U8_NEXT(text.data(), at, text.size(), code);
  return {code, at};
}

/// Unicode Technical Standard 18, annex C.
bool is_word(UChar32 code) {
  return u_hasBinaryProperty(code, UCHAR_ALPHABETIC) || u_hasBinaryProperty(code, UCHAR_JOIN_CONTROL) ||
         (U_GET_GC_MASK(code) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

bool is_white_space(UChar32 code) {
  return u_hasBinaryProperty(code, UCHAR_WHITE_SPACE);
}

}  // namespace

std::string normalize(std::string_view text, UnicodeForm form) {
  if (std::all_of(text.begin(), text.end(), [](char byte) { return static_cast<signed char>(byte) >= 0; }))
    return std::string(text);  // ASCII stays in every form
  UErrorCode code = U_ZERO_ERROR;
  std::string normal;
  icu::StringByteSink<std::string> sink(&normal, static_cast<std::int32_t>(text.size()));
  normalizer_of(form).normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())),
                                    sink, nullptr, code);
  check(U_SUCCESS(code), Fault::data, "Unicode normalization of ", text.size(), " bytes of text failed (",
        u_errorName(code), "); split the document");
  return normal;
}

bool ends_with_word_character(std::string_view text) {
  return !text.empty() && is_word(last_character(text).first);
}

bool starts_with_word_character(std::string_view text) {
  return !text.empty() && is_word(first_character(text).first);
}

std::size_t white_space_at_end(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto [code, length] = last_character(rest);
    if (!is_white_space(code)) break;
    rest.remove_suffix(length);
  }
  return text.size() - rest.size();
}

std::size_t white_space_at_start(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto [code, length] = first_character(rest);
    if (!is_white_space(code)) break;
    rest.remove_prefix(length);
  }
  return text.size() - rest.size();
}

}  // namespace conclave
