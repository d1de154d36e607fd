// A start of a run finds earlier files in its directory. Files of an earlier start without a checkpoint are
// moved aside, and files that no run has written are refused; neither is written over.
#pragma once

#include <filesystem>
#include <string>

namespace conclave {

/// A file that the run writes is a Fault::request where it is a link, or where no run of Conclave has written
/// it. The run would write over something that is not its own. `with_profile` says that the run writes a
/// profile too.
void refuse_foreign_files(const std::filesystem::path& run, bool with_profile);

/// A recipe.yaml is a Fault::request where no run has left anything beside it, so that nothing shows it to be
/// a run's own. The run would write its resolved recipe over it. `given` is the recipe's file.
void refuse_foreign_recipe(const std::filesystem::path& given, const std::filesystem::path& run);

/// Moves what an earlier start has measured to RUN/earlier-1, or the next number that is free, and copies its
/// recipe there. Returns a sentence that names the place, or nothing where nothing was measured.
std::string move_earlier_files(const std::filesystem::path& run);

}  // namespace conclave
