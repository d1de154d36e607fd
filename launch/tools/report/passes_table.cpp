#include "launch/tools/report/passes_table.h"

#include "framework/base/error.h"
#include "framework/data/files.h"
#include "framework/store/lookup.h"
#include "launch/train/passes.h"

namespace conclave {

nlohmann::ordered_json passes_table(const std::filesystem::path& directory) {
  using Json = nlohmann::ordered_json;
  std::filesystem::path path = directory / passes_name;
  if (!is_there(path)) path = directory / old_passes_name;
  if (!is_there(path) || (path.filename() == old_passes_name && !is_passes_file(path))) return nullptr;
  try {
    const MappedFile file(path.string(), "list of the training data");
    const Json json = Json::parse(file.bytes());
    Json rows = Json::array();
    for (const Json& dataset : json.at("datasets"))
      rows.push_back({join_text(dataset.at("domain").get<std::string>(), ", ",
                                dataset.at("tokens").get<std::int64_t>(), " tokens"),
                      join_text(passes_text(dataset.at("passes").get<double>()), " of ",
                                passes_text(dataset.at("planned_passes").get<double>()), " planned"),
                      ""});
    return {{"title",
             join_text("Passes over the training text, after step ", json.at("step").get<std::int64_t>())},
            {"rows", rows}};
  } catch (const Json::exception& error) {
    fail(Fault::data, path.string(), " cannot be read (", error.what(), "), so there is no table of passes.");
  }
}

}  // namespace conclave
