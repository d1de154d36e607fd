// Positions as JSON, what an older checkpoint implies, and which dataset is which.
#include "framework/data/data_position.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "framework/base/error.h"
#include "framework/base/paths.h"
#include "framework/data/domain_schedule.h"
#include "framework/data/files.h"
#include "framework/data/token_file.h"

namespace conclave {
namespace {

/// Counts stay exact in every JSON reader.
constexpr std::int64_t most = std::int64_t{1} << 53;

std::int64_t count_of(const nlohmann::json& object, const char* key, const std::string& source) {
  const nlohmann::json& value = object.at(key);
  const bool good = value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{most};
  check(good, Fault::data, source, ": ", key, " is ", value.dump(),
        ", expected a whole number from 0 to 2^53; use another checkpoint");
  return value.get<std::int64_t>();
}

/// Files may have moved since; then their text is not known.
std::string checksum_if_there(const std::string& prefix) {
  try {
    return checksum_of_index(MappedFile(prefix + ".idx", "token index").bytes());
  } catch (const Error&) {
    return "";
  }
}

/// So many sequences of `before` tokens in sequences of `now` tokens.
std::int64_t in_sequences_of(std::int64_t now, std::int64_t sequences, std::int64_t before) {
  if (before == now) return sequences;
  return static_cast<std::int64_t>(
      std::ceil(static_cast<double>(sequences) * static_cast<double>(before) / static_cast<double>(now)));
}

/// The same datasets in the same order with the same shares and blocks make the same schedule.
bool has_same_schedule(const DataPosition& before, const DataPosition& listed,
                       const std::vector<std::optional<std::size_t>>& matches) {
  const auto in_list = std::count_if(before.datasets.begin(), before.datasets.end(),
                                     [](const DatasetPosition& one) { return one.share > 0; });
  bool same = before.sequence_length == listed.sequence_length &&
              before.domain_block == listed.domain_block &&
              in_list == static_cast<std::ptrdiff_t>(listed.datasets.size());
  for (std::size_t i = 0; i < matches.size() && same; ++i)
    same = matches[i] == i && before.datasets[i].share == listed.datasets[i].share;
  return same;
}

/// A rule says whether a listed dataset is the known one. The first rule that holds for a pair decides.
using Rule = std::function<bool(const DatasetPosition& known, const DatasetPosition& listed)>;

const std::vector<Rule>& rules() {
  const auto same_text = [](const DatasetPosition& known, const DatasetPosition& listed) {
    return !known.index_checksum.empty() && known.index_checksum == listed.index_checksum;
  };
  const auto unknown_text = [](const DatasetPosition& known) { return known.index_checksum.empty(); };
  static const std::vector<Rule> all = {
      [=](const auto& a, const auto& b) {
        return same_text(a, b) && same_path(a.path, b.path) && a.domain == b.domain;
      },
      [=](const auto& a, const auto& b) {
        return same_text(a, b) && a.domain == b.domain && a.shard == b.shard;
      },
      [=](const auto& a, const auto& b) { return same_text(a, b) && same_path(a.path, b.path); },
      [=](const auto& a, const auto& b) { return same_text(a, b) && a.domain == b.domain; },
      [=](const auto& a, const auto& b) { return same_text(a, b); },
      [=](const auto& a, const auto& b) {
        return unknown_text(a) && same_path(a.path, b.path) && a.domain == b.domain;
      },
      [=](const auto& a, const auto& b) { return unknown_text(a) && same_path(a.path, b.path); },
      [=](const auto& a, const auto& b) {
        return unknown_text(a) && a.domain == b.domain && a.shard == b.shard;
      },
  };
  return all;
}

}  // namespace

std::string to_json(const DataPosition& position) {
  nlohmann::ordered_json datasets = nlohmann::ordered_json::array();
  for (const DatasetPosition& one : position.datasets)
    datasets.push_back({{"index_xxh3_64", one.index_checksum},
                        {"path", one.path},
                        {"domain", one.domain},
                        {"shard", one.shard},
                        {"drawn", one.drawn},
                        {"share", one.share}});
  const nlohmann::ordered_json object{{"sequence_length", position.sequence_length},
                                      {"domain_block", position.domain_block},
                                      {"blocks", position.blocks},
                                      {"datasets", datasets}};
  // A path that is not UTF-8 must not stop the save.
  return object.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

DataPosition parse_data_position(const std::string& json, const std::string& source) try {
  const nlohmann::json object = nlohmann::json::parse(json);
  DataPosition position{.sequence_length = count_of(object, "sequence_length", source),
                        .domain_block = count_of(object, "domain_block", source),
                        .blocks = count_of(object, "blocks", source),
                        .datasets = {}};
  check(position.blocks <= most / std::max<std::int64_t>(1, position.domain_block), Fault::data, source, ": ",
        position.blocks, " blocks of ", position.domain_block,
        " sequences are more than 2^53; use another checkpoint");
  for (const nlohmann::json& one : object.at("datasets"))
    position.datasets.push_back({.index_checksum = one.at("index_xxh3_64").get<std::string>(),
                                 .path = one.at("path").get<std::string>(),
                                 .domain = one.at("domain").get<std::string>(),
                                 .shard = count_of(one, "shard", source),
                                 .drawn = count_of(one, "drawn", source),
                                 .share = count_of(one, "share", source)});
  for (const DatasetPosition& one : position.datasets)
    check(one.drawn <= 512 * (most / std::max<std::int64_t>(1, position.sequence_length)), Fault::data,
          source, ": ", one.drawn, " sequences of ", position.sequence_length,
          " tokens are more tokens than 64 bits can count; use another checkpoint");
  return position;
} catch (const nlohmann::json::exception& error) {
  fail(Fault::data, source, " is not what Conclave writes: ", error.what(), "; use another checkpoint");
}

DataPosition implied_position(const DataRecipe& data, std::int64_t sequences) {
  const std::int64_t block = std::max<std::int64_t>(1, data.domain_block);
  DataPosition position{
      .sequence_length = data.sequence_length, .domain_block = block, .blocks = 0, .datasets = {}};
  if (data.train.empty()) return position;
  std::vector<double> weights;
  for (const DatasetRecipe& recipe : data.train) weights.push_back(recipe.weight);
  DomainSchedule schedule(weights);
  position.blocks = (sequences + block - 1) / block;
  const std::vector<std::int64_t> received = schedule.received(position.blocks);
  std::map<std::string, std::int64_t> shards;  // of each domain, so far
  for (std::size_t d = 0; d < data.train.size(); ++d) {
    const std::string& path = data.train[d].path;
    const std::string domain = domain_of(data.train[d]);
    position.datasets.push_back({.index_checksum = checksum_if_there(path),
                                 .path = path,
                                 .domain = domain,
                                 .shard = shards[domain]++,
                                 .drawn = received[d] * block,
                                 .share = schedule.shares()[d]});
  }
  return position;
}

std::vector<std::optional<std::size_t>> match_datasets(const std::vector<DatasetPosition>& known,
                                                       const std::vector<DatasetPosition>& listed) {
  std::vector<std::optional<std::size_t>> matches(listed.size());
  std::vector<bool> taken(known.size(), false);
  for (const Rule& rule : rules())
    for (std::size_t i = 0; i < listed.size(); ++i)
      for (std::size_t k = 0; k < known.size() && !matches[i]; ++k)
        if (!taken[k] && rule(known[k], listed[i])) {
          matches[i] = k;
          taken[k] = true;
        }
  return matches;
}

DataPosition carry_over(const DataPosition& before, const DataPosition& listed) {
  const std::vector<DatasetPosition>& known = before.datasets;
  const std::vector<std::optional<std::size_t>> matches = match_datasets(known, listed.datasets);
  std::set<std::pair<std::string, std::int64_t>> orders;  // no two datasets of a run share one
  for (const DatasetPosition& one : known) orders.emplace(one.domain, one.shard);
  std::vector<bool> still_listed(known.size(), false);
  DataPosition now = listed;
  for (std::size_t i = 0; i < now.datasets.size(); ++i) {
    DatasetPosition& dataset = now.datasets[i];
    if (!matches[i]) {
      for (std::int64_t next = 0; !orders.emplace(dataset.domain, dataset.shard).second; ++next)
        dataset.shard = next;
      continue;
    }
    const DatasetPosition& same = known[*matches[i]];
    still_listed[*matches[i]] = true;
    dataset.domain = same.domain;
    dataset.shard = same.shard;
    dataset.drawn = in_sequences_of(listed.sequence_length, same.drawn, before.sequence_length);
  }
  if (has_same_schedule(before, listed, matches)) now.blocks = before.blocks;
  for (std::size_t k = 0; k < known.size(); ++k) {
    if (still_listed[k]) continue;
    now.datasets.push_back(known[k]);
    now.datasets.back().drawn =
        in_sequences_of(listed.sequence_length, known[k].drawn, before.sequence_length);
    now.datasets.back().share = 0;
  }
  return now;
}

DatasetChanges compare_datasets(const std::vector<DatasetPosition>& known,
                                const std::vector<DatasetPosition>& listed) {
  const std::vector<std::optional<std::size_t>> matches = match_datasets(known, listed);
  std::vector<bool> still_listed(known.size(), false);
  for (const std::optional<std::size_t>& match : matches)
    if (match) still_listed[*match] = true;
  DatasetChanges changes;
  for (std::size_t k = 0; k < known.size(); ++k)
    if (!still_listed[k] && known[k].share > 0) changes.left.push_back(k);
  for (std::size_t i = 0; i < listed.size(); ++i) {
    if (matches[i]) continue;
    changes.added.push_back(i);
    if (std::any_of(changes.left.begin(), changes.left.end(),
                    [&](std::size_t k) { return same_path(known[k].path, listed[i].path); }))
      changes.rewritten.push_back(i);
  }
  return changes;
}

}  // namespace conclave
