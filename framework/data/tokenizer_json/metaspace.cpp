#include "framework/data/tokenizer_json/metaspace.h"

#include <nlohmann/json.hpp>

#include "framework/data/tokenizer_json/normal_step.h"

namespace conclave {
namespace {

using Json = nlohmann::json;

std::string type_of(const Json& field) {
  return field.is_object() ? field.value("type", "") : "";
}

/// Files from before prepend_scheme say add_prefix_space alone.
Metaspace::Prepend prepend_of(const Json& field) {
  const std::string scheme = field.value("prepend_scheme", "");
  if (scheme == "first") return Metaspace::Prepend::first;
  if (scheme == "never" || (scheme.empty() && !field.value("add_prefix_space", true)))
    return Metaspace::Prepend::never;
  return Metaspace::Prepend::always;
}

}  // namespace

void Metaspace::split(std::string_view piece, bool is_first,
                      const std::function<void(std::string_view)>& take) const {
  std::string text = replaced(std::string(piece), " ", mark);
  if (!text.starts_with(mark) && (prepend == Prepend::always || (prepend == Prepend::first && is_first)))
    text.insert(0, mark);
  if (!splits) return take(text);
  std::size_t begin = 0;
  for (std::size_t at = text.find(mark, mark.size()); at != std::string::npos;
       at = text.find(mark, at + mark.size())) {
    if (at > begin) take(std::string_view(text).substr(begin, at - begin));
    begin = at;
  }
  if (begin < text.size()) take(std::string_view(text).substr(begin));
}

std::optional<Metaspace> metaspace(const Json& field) {
  if (type_of(field) != "Metaspace") return {};
  return Metaspace{.prepend = prepend_of(field),
                   .mark = field.at("replacement").get<std::string>(),
                   .splits = field.value("split", true)};
}

std::optional<CharacterDecoder> character_decoder(const Json& field) {
  if (type_of(field) == "Metaspace")
    return CharacterDecoder{.mark = field.at("replacement").get<std::string>(),
                            .first_token_has_no_marks = prepend_of(field) != Metaspace::Prepend::never};
  if (type_of(field) != "Sequence") return {};
  CharacterDecoder decoder;
  bool has_bytes = false, has_marks = false;
  for (const Json& step : field.at("decoders")) {
    const std::string type = type_of(step);
    if (type == "Replace" && step.at("pattern").contains("String") && step.at("content") == " ") {
      decoder.mark = step.at("pattern").at("String").get<std::string>();
      has_marks = true;
    } else if (type == "ByteFallback") {
      has_bytes = true;
    } else if (type == "Strip" && step.at("content") == " " && step.at("stop") == 0) {
      decoder.strip = step.at("start").get<std::size_t>();
    } else if (type != "Fuse") {
      return {};
    }
  }
  return has_bytes && has_marks && !decoder.mark.empty() ? std::optional(decoder) : std::nullopt;
}

}  // namespace conclave
