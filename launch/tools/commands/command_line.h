// The command line of every command: a table of options, the parser that reads them strictly, and the help
// text. Each command itself is a file below launch/tools/commands.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace conclave {

struct OptionUse {
  std::string name;   // without the dashes
  std::string value;  // how help names its value, for example "N"; empty: a flag
  std::string meaning;
  bool repeatable = false;
};

/// A command says this about itself. All commands have --help besides.
struct CommandUse {
  std::string name;
  std::string positionals;  // for example "RECIPE.yaml [key.path=value ...]"
  std::string summary;      // one line
  std::vector<OptionUse> options{};
  std::string more{};  // paragraphs for --help, for example examples of use
};

/// Options reads the arguments of one command: --name value, --name=value, flags and positionals; "--" ends
/// the options. Any argument that is unknown, repeated or of the wrong type is a Fault::request with the
/// nearest valid name. A shell that completes a line asks with --complete WORD..., the words typed so far,
/// the last of them begun. Then wants_help() is true, and help() lists the words that the last one may
/// become, one on each line.
class Options {
 public:
  Options(CommandUse use, const std::vector<std::string>& arguments);

  /// True where --help was given (or --complete); then print help() and return 0.
  bool wants_help() const { return wants_help_; }
  std::string help() const;

  bool has(const std::string& name) const;
  std::string text(const std::string& name, const std::string& fallback) const;
  std::int64_t whole_number(const std::string& name, std::int64_t fallback, std::int64_t least) const;
  double number(const std::string& name, double fallback) const;
  std::vector<std::string> texts(const std::string& name) const;  // of a repeatable option, in order

  /// Returns the arguments that are neither options nor overrides.
  const std::vector<std::string>& positionals() const { return positionals_; }
  /// Returns the arguments of the form key.path=value.
  const std::vector<std::string>& overrides() const { return overrides_; }
  /// Says on standard error where YAML reads a part of an override as a comment.
  void warn_of_comments() const;
  /// Returns the only positional. Throws Fault::request with the command's usage unless there is exactly one.
  std::string only_positional(const std::string& what) const;
  /// Throws Fault::request with the command's usage where overrides were given to a command that takes none.
  void refuse_overrides() const;

 private:
  struct Given {
    std::string name, value;
  };
  const OptionUse& known(const std::string& name) const;
  const Given* find(const std::string& name) const;
  std::string usage() const;
  std::string completions() const;

  CommandUse use_;
  std::vector<std::string> to_complete_;
  bool wants_help_ = false;
  std::vector<Given> given_;
  std::vector<std::string> positionals_, overrides_;
};

/// These processes of an MPI job have something to do in a command; the others end at once.
enum class Processes { all, first };

struct Command {
  std::string name;
  std::string summary;
  std::function<int(const std::vector<std::string>&)> run;
  Processes processes = Processes::first;
};

/// Runs the command that the arguments (without the program's name) ask for and returns the exit code. Errors
/// become one sentence on standard error and the exit code of their Fault. `rank` is that of this process in
/// a job. Errors before the ranks know of each other are the same on all of them, so rank 0 alone tells them.
int run_command(const std::vector<Command>& commands, const std::string& version,
                const std::vector<std::string>& arguments, int rank = 0);

}  // namespace conclave
