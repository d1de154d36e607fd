#include "launch/tools/convert/chosen_tokenizer.h"

#include "framework/base/error.h"
#include "framework/data/tokenizer.h"

namespace conclave {

ChosenTokenizer choose_tokenizer(const Recipe& recipe, const std::string& asked,
                                 const std::optional<SourceFacts>& source,
                                 const std::function<void(const std::string&)>& say) {
  const std::string name = asked.empty() ? recipe.data.tokenizer : asked;
  if (name == "none") return {.name = "", .is_sources = source.has_value()};
  const bool is_sources = source && tokenizer_fingerprint(name) == source->tokenizer;
  if (is_sources && !source->is_own_tokenizer) {
    say("The tokenizer and the ids of special tokens are those of the imported model.");
    return {.name = name, .is_sources = true};
  }
  // A recipe names some tokenizer, if only by default; that need not be the one of these rows.
  if (source && source->tokenizer.empty() && asked.empty() &&
      !source->may_end_with(load_tokenizer(name)->end_of_document())) {
    say(join_text("The imported model came without a tokenizer, and ", name,
                  " ends a text with another token than it does, so none is written; --tokenizer NAME writes "
                  "one."));
    return {.name = "", .is_sources = true};
  }
  if (source && !is_sources)
    say(join_text("The ids of special tokens are those of ", name,
                  ", which is not the tokenizer of the imported model."));
  return {.name = name, .is_sources = false, .is_sources_own = is_sources};
}

}  // namespace conclave
