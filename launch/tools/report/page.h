// The report's page: page.html with page.css, the scripts beside it and the runs' JSON in it. It is one file
// that needs nothing else, and all of it is compiled into the command.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace conclave {

/// PageParts are the files beside this one; `script` joins the scripts elements, line_chart, heat_map and
/// page.
struct PageParts {
  const char* html;
  const char* style;
  const char* script;
};
const PageParts& page_parts();

/// Writes JSON that may stand inside a <script> element whatever texts are in it. It writes < > and & as
/// \u003c, \u003e and \u0026, and bytes that are no UTF-8 as U+FFFD.
std::string script_json(const nlohmann::ordered_json& json);

/// Writes the text with & < > and quotes as HTML writes them.
std::string html_text(const std::string& text);

/// Returns the whole page.
std::string report_page(const std::string& title, const nlohmann::ordered_json& data);

/// True where a file that begins so is such a page, of this version or an earlier one.
bool begins_as_report_page(std::string_view beginning);

}  // namespace conclave
