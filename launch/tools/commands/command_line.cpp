#include "launch/tools/commands/command_line.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <utility>

#include "framework/base/error.h"
#include "framework/base/foreign_exception.h"
#include "framework/base/printable.h"
#include "framework/recipe/nearest.h"
#include "framework/recipe/override.h"
#include "launch/train/recipe_text.h"

namespace conclave {
namespace {

constexpr const char* complete_flag = "--complete";

template <class Number>
bool read_number(const std::string& text, Number& number) {
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  return status == std::errc() && end == text.data() + text.size();
}

std::string padded(const std::string& text, std::size_t width) {
  return text + std::string(width > text.size() ? width - text.size() : 0, ' ');
}

std::string general_help(const std::vector<Command>& commands) {
  std::string text =
      "Conclave pretrains mixture-of-experts transformers over MPI.\n\n"
      "usage: conclave COMMAND [RECIPE.yaml] [key.path=value ...]\n\ncommands:\n";
  for (const Command& command : commands) text += "  " + padded(command.name, 12) + command.summary + "\n";
  return text +
         "\n  conclave COMMAND --help   explains one command\n"
         "  conclave --version        prints the version\n\n"
         "exit codes: 0 done, 2 the request is wrong, 3 data or checkpoint is missing or corrupt,\n"
         "            4 training failed numerically, or a checkpoint has values that are not finite,\n"
         "            5 the machine failed us, 75 stopped on request after saving\n";
}

/// A word that is the name of a key was meant as an override.
std::string hint_of_key(const std::vector<std::string>& words) {
  for (const std::string& word : words)
    if (recipe_schema().is_key(word))
      return "; " + word + " is a key, whose value is written " + word + "=VALUE";
  return "";
}

/// Rank 0 tells the reason and gives the job its exit code. The others end quietly with 0: a code of theirs
/// would make mpirun end rank 0 before it has spoken.
int complain(const std::string& sentence, int exit_code, int rank) {
  std::fflush(stdout);
  if (rank != 0) return 0;
  std::fprintf(stderr, "conclave: %s\n", printable(sentence).c_str());
  return exit_code;
}

/// A full disk may have shown itself in any write before, so the flags count and not the last flush alone.
void check_standard_output() {
  const bool flushed = std::fflush(stdout) == 0 && std::cout.flush().good();
  check(flushed && std::ferror(stdout) == 0, Fault::machine,
        "standard output cannot be written, and what this command prints is not complete; check free space "
        "where it goes");
}

/// Prints what the last word may become: `words` begin with that of the command.
int complete(const std::vector<Command>& commands, const std::vector<std::string>& words) {
  if (words.size() > 1) {
    std::vector<std::string> arguments(words);
    arguments[0] = complete_flag;
    for (const Command& command : commands)
      if (command.name == words[0]) return command.run(arguments);
    return 0;
  }
  std::vector<std::string> offers = {"help", "--help", "--version"};
  for (const Command& command : commands) offers.push_back(command.name);
  for (const std::string& offer : offers)
    if (words.empty() || offer.starts_with(words[0])) std::printf("%s\n", offer.c_str());
  return 0;
}

int dispatch(const std::vector<Command>& commands, const std::string& version,
             const std::vector<std::string>& arguments, int rank) {
  if (arguments.empty()) {
    if (rank == 0) std::fputs(general_help(commands).c_str(), stderr);
    fail(Fault::request, "no command came; expected one of those above");
  }
  const std::string& first = arguments.front();
  if (first == "help" && arguments.size() == 2)
    return dispatch(commands, version, {arguments[1], "--help"}, rank);
  if (first == "--help" || first == "-h" || first == "help") {
    if (rank != 0) return 0;
    std::fputs(general_help(commands).c_str(), stdout);
    return 0;
  }
  if (first == "--version") {
    if (rank != 0) return 0;
    std::printf("conclave %s\n", version.c_str());
    return 0;
  }
  if (first == complete_flag) return complete(commands, {arguments.begin() + 1, arguments.end()});
  std::vector<std::string> names;
  for (const Command& command : commands) {
    if (command.name == first) {
      const bool asks_for_help = std::find(arguments.begin(), arguments.end(), "--help") != arguments.end();
      if (rank != 0 && (command.processes == Processes::first || asks_for_help)) return 0;
      return command.run({arguments.begin() + 1, arguments.end()});
    }
    names.push_back(command.name);
  }
  fail(Fault::request, "there is no command '", first, "'", did_you_mean(first, names));
}

}  // namespace

Options::Options(CommandUse use, const std::vector<std::string>& arguments) : use_(std::move(use)) {
  if (arguments.size() > 1 && arguments[0] == complete_flag) {
    wants_help_ = true;
    to_complete_.assign(arguments.begin() + 1, arguments.end());
    return;
  }
  bool options_ended = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (options_ended || argument.size() < 2 || argument[0] != '-') {
      (is_override(argument) ? overrides_ : positionals_).push_back(argument);
      continue;
    }
    if (argument == "--") {
      options_ended = true;
      continue;
    }
    if (argument == "--help" || argument == "-h") {
      wants_help_ = true;
      continue;
    }
    check(argument.starts_with("--"), Fault::request, use_.name, ": '", argument,
          "' came, expected an option with two dashes; ", usage());
    const std::size_t equals = argument.find('=');
    const bool attached = equals != std::string::npos;
    const std::string name = argument.substr(2, attached ? equals - 2 : std::string::npos);
    const OptionUse& option = known(name);
    check(option.repeatable || !has(name), Fault::request, use_.name, ": --", name,
          " came twice, expected it once");
    std::string value;
    if (option.value.empty()) {
      check(!attached, Fault::request, use_.name, ": --", name, " takes no value, but '", argument, "' came");
    } else if (attached) {
      value = argument.substr(equals + 1);
    } else {
      const bool there = i + 1 < arguments.size() && !arguments[i + 1].starts_with("--");
      check(there, Fault::request, use_.name, ": --", name, " needs a value: --", name, " ", option.value);
      value = arguments[++i];
    }
    given_.push_back({name, value});
  }
}

const OptionUse& Options::known(const std::string& name) const {
  std::vector<std::string> names = {"--help"};
  for (const OptionUse& option : use_.options) {
    if (option.name == name) return option;
    names.push_back("--" + option.name);
  }
  fail(Fault::request, use_.name, ": there is no option '--", name, "'", did_you_mean("--" + name, names));
}

const Options::Given* Options::find(const std::string& name) const {
  const OptionUse* option = nullptr;
  for (const OptionUse& candidate : use_.options)
    if (candidate.name == name) option = &candidate;
  check(option != nullptr, "Options: --", name, " is asked for, but ", use_.name, " does not list it");
  for (const Given& given : given_)
    if (given.name == name) return &given;
  return nullptr;
}

bool Options::has(const std::string& name) const {
  return find(name) != nullptr;
}

std::string Options::text(const std::string& name, const std::string& fallback) const {
  const Given* given = find(name);
  return given ? given->value : fallback;
}

std::int64_t Options::whole_number(const std::string& name, std::int64_t fallback, std::int64_t least) const {
  const Given* given = find(name);
  if (!given) return fallback;
  std::int64_t number = 0;
  check(read_number(given->value, number) && number >= least, Fault::request, use_.name, ": --", name, " ",
        given->value, " came, expected a whole number, at least ", least);
  return number;
}

double Options::number(const std::string& name, double fallback) const {
  const Given* given = find(name);
  if (!given) return fallback;
  double number = 0;
  check(read_number(given->value, number) && std::isfinite(number), Fault::request, use_.name, ": --", name,
        " ", given->value, " came, expected a number");
  return number;
}

std::vector<std::string> Options::texts(const std::string& name) const {
  std::vector<std::string> values;
  if (!find(name)) return values;
  for (const Given& given : given_)
    if (given.name == name) values.push_back(given.value);
  return values;
}

void Options::warn_of_comments() const {
  for (const std::string& override_text : overrides_)
    if (const std::string warning = comment_in_override(override_text); !warning.empty())
      std::fprintf(stderr, "conclave: warning: %s\n", printable(warning).c_str());
}

std::string Options::only_positional(const std::string& what) const {
  check(positionals_.size() == 1, Fault::request, use_.name, ": ",
        positionals_.empty() ? "no " + what + " came"
                             : "'" + positionals_.back() + "' came besides " + positionals_[0],
        ", expected one ", what, hint_of_key(positionals_), "; ", usage());
  return positionals_[0];
}

void Options::refuse_overrides() const {
  check(overrides_.empty(), Fault::request, use_.name, ": '", overrides_.empty() ? "" : overrides_[0],
        "' came, but this command has no recipe to override; ", usage());
}

std::string Options::usage() const {
  std::string text = "usage: conclave " + use_.name;
  if (!use_.options.empty()) text += " [options]";
  return use_.positionals.empty() ? text : text + " " + use_.positionals;
}

std::string Options::completions() const {
  const std::string& begun = to_complete_.back();
  std::string text;
  const auto offer = [&](const std::string& word) {
    if (word.starts_with(begun)) text += word + "\n";
  };
  // The value of an option is the user's own, or a file, which the shell knows better.
  if (to_complete_.size() > 1)
    for (const OptionUse& option : use_.options)
      if (!option.value.empty() && "--" + option.name == to_complete_.end()[-2]) return text;
  if (begun.starts_with("-")) {
    for (const OptionUse& option : use_.options) offer("--" + option.name);
    offer("--help");
  } else if (!begun.empty() && use_.positionals.find("key.path=value") != std::string::npos) {
    for (const std::string& word : recipe_schema().completions(begun)) offer(word);
  }
  return text;
}

std::string Options::help() const {
  if (!to_complete_.empty()) return completions();
  std::string text = use_.summary + "\n\n" + usage() + "\n\noptions:\n";
  std::size_t width = 6;
  const auto left = [](const OptionUse& option) {
    return "--" + option.name + (option.value.empty() ? "" : " " + option.value);
  };
  for (const OptionUse& option : use_.options) width = std::max(width, left(option).size());
  for (const OptionUse& option : use_.options)
    text += "  " + padded(left(option), width + 2) + option.meaning +
            (option.repeatable ? "; may be repeated" : "") + "\n";
  text += "  " + padded("--help", width + 2) + "shows this text\n";
  return use_.more.empty() ? text : text + "\n" + use_.more + "\n";
}

int run_command(const std::vector<Command>& commands, const std::string& version,
                const std::vector<std::string>& arguments, int rank) {
  try {
    const int exit_code = dispatch(commands, version, arguments, rank);
    if (exit_code == 0) check_standard_output();
    return exit_code;
  } catch (const Error& error) {
    return complain(error.what(), error.exit_code(), rank);
  } catch (const std::bad_alloc&) {
    static_cast<void>(error_of(std::current_exception()));  // frees what is kept for the words below
    return complain("out of memory; a smaller training.micro_batch_size needs less",
                    static_cast<int>(Fault::machine), rank);
  } catch (...) {
    const Error error = error_of(std::current_exception());
    return complain((error.fault() == Fault::internal ? "unexpected error, a bug in Conclave: " : "") +
                        std::string(error.what()),
                    error.exit_code(), rank);
  }
}

}  // namespace conclave
