#include "launch/tools/report/page.h"

#include <string_view>

#include "framework/base/error.h"

namespace conclave {
namespace {

/// Copies the text and replaces single characters by what `replacement` gives for them, "" for none.
template <class Replacement>
std::string replaced(const std::string& text, Replacement replacement) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    const std::string_view other = replacement(c);
    if (other.empty())
      result += c;
    else
      result += other;
  }
  return result;
}

}  // namespace

std::string script_json(const nlohmann::ordered_json& json) {
  using Handler = nlohmann::ordered_json::error_handler_t;
  // These three stand in JSON inside of strings alone.
  return replaced(json.dump(-1, ' ', false, Handler::replace), [](char c) -> std::string_view {
    return c == '<' ? "\\u003c" : c == '>' ? "\\u003e" : c == '&' ? "\\u0026" : "";
  });
}

std::string html_text(const std::string& text) {
  return replaced(text, [](char c) -> std::string_view {
    return c == '&'    ? "&amp;"
           : c == '<'  ? "&lt;"
           : c == '>'  ? "&gt;"
           : c == '"'  ? "&quot;"
           : c == '\'' ? "&#39;"
                       : "";
  });
}

std::string report_page(const std::string& title, const nlohmann::ordered_json& data) {
  const std::string_view frame = page_parts().html;
  std::string page;
  std::size_t end = 0;
  // One pass: what is put in is not looked at again, whatever a run is called.
  for (std::size_t begin; (begin = frame.find("{{", end)) != std::string_view::npos;) {
    page += frame.substr(end, begin - end);
    end = frame.find("}}", begin);
    check(end != std::string_view::npos, "report_page: page.html has {{ without }}");
    const std::string_view name = frame.substr(begin + 2, end - begin - 2);
    end += 2;
    if (name == "title")
      page += html_text(title);
    else if (name == "style")
      page += page_parts().style;
    else if (name == "script")
      page += page_parts().script;
    else if (name == "data")
      page += script_json(data);
    else
      check(false, "report_page: page.html asks for '", name, "'");
  }
  page += frame.substr(end);
  return page;
}

bool begins_as_report_page(std::string_view beginning) {
  const std::size_t title_end = beginning.find("</title>");
  return beginning.starts_with("<!DOCTYPE html>") && title_end != std::string_view::npos &&
         beginning.substr(0, title_end).ends_with(" - Conclave");
}

}  // namespace conclave
