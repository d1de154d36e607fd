// Tests of the report share this: it takes a page apart.
#pragma once

#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

namespace conclave {

/// The first thing in which a page is not well-formed HTML, or "": tags open and close in order, attributes
/// are quoted, what opens a tag or an entity in text is written as an entity. Scripts and styles end where
/// HTML says.
inline std::string html_mistake(const std::string& page) {
  static const std::set<std::string> alone = {"meta", "link", "br", "hr", "img", "input"};
  std::vector<std::string> open;
  std::size_t at = 0;
  const auto place = [&] { return " at byte " + std::to_string(at) + ": " + page.substr(at, 60); };
  while (at < page.size()) {
    if (page[at] == '&') {
      const std::size_t end = page.find(';', at);
      if (end == std::string::npos || end - at > 8) return "an ampersand" + place();
    }
    if (page[at] != '<') {
      ++at;
      continue;
    }
    if (page.compare(at, 9, "<!DOCTYPE") == 0) {
      at = page.find('>', at) + 1;
      continue;
    }
    const bool closes = page[at + 1] == '/';
    std::size_t end = at + (closes ? 2 : 1);
    std::string name;
    while (end < page.size() && std::isalnum(static_cast<unsigned char>(page[end])) != 0) name += page[end++];
    if (name.empty()) return "no tag" + place();
    bool quoted = false;
    for (; end < page.size() && (quoted || page[end] != '>'); ++end) {
      if (page[end] == '"') quoted = !quoted;
      if (page[end] == '=' && !quoted && page[end + 1] != '"') return "an attribute without quotes" + place();
    }
    if (end >= page.size()) return "a tag without end" + place();
    if (closes) {
      if (open.empty() || open.back() != name) return "</" + name + "> does not fit" + place();
      open.pop_back();
    } else if (!alone.contains(name)) {
      open.push_back(name);
    }
    at = end + 1;
    if (!closes && (name == "script" || name == "style")) {
      at = page.find("</" + name, at);
      if (at == std::string::npos) return name + " without end";
    }
  }
  return open.empty() ? "" : "<" + open.back() + "> is never closed";
}

/// The JSON that the page carries.
inline nlohmann::json data_of(const std::string& page) {
  const std::string opening = "<script type=\"application/json\" id=\"data\">";
  const std::size_t begin = page.find(opening) + opening.size();
  return nlohmann::json::parse(page.substr(begin, page.find("</script", begin) - begin));
}

}  // namespace conclave
