#include "framework/data/recipe.h"

#include <filesystem>
#include <set>
#include <utility>

#include "framework/base/paths.h"
#include "framework/recipe/requirements.h"

namespace conclave {

void describe(Visitor& v, DatasetRecipe& d) {
  v.key({"path", &d.path, "PREFIX of PREFIX.bin and PREFIX.idx", filled_line()});
  v.key({"domain", &d.domain, "name of this kind of text", filled_line()});
  v.key({"weight",
         &d.weight,
         "share of the mixture, relative to the other weights; size: by its tokens, 1 on average",
         {.least = 0, .least_excluded = true, .infinity_word = "size"}});
}

void describe(Visitor& v, DataRecipe& d) {
  v.key({"sequence_length",
         &d.sequence_length,
         "tokens per sequence",
         size(),
         {.other_names = {"seq_len", "seq_length"}, .gives_meaning_to = Saved::counts}});
  v.key({"tokenizer",
         &d.tokenizer,
         "bytes, or the path of a tokenizer.json or a SentencePiece .model",
         filled_line(),
         {.gives_meaning_to = Saved::weights}});
  list(v, "train", d.train, "domains to train on");
  list(v, "validation", d.validation, "held-out text, each entry evaluated by itself");
  v.key({"document_mask",
         &d.document_mask,
         "attention stays inside documents",
         {},
         {.gives_meaning_to = Saved::counts}});
  v.key({"domain_block", &d.domain_block, "consecutive sequences of one domain; 0 mixes freely",
         size_or_zero()});
}

void describe(Visitor& v, BatchRampRecipe& b) {
  v.key({"start_batch_size", &b.start_batch_size, "sequences per step at first; 0: no ramp", size_or_zero()});
  v.key({"increment", &b.increment, "sequences added each time", size_or_zero()});
  v.key({"steps_per_increment", &b.steps_per_increment, "steps between additions", count_or_zero()});
}

std::string domain_of(const DatasetRecipe& recipe) {
  return recipe.domain.empty() ? std::filesystem::path(recipe.path).filename().string() : recipe.domain;
}

void require_possible(const Requirements& r, const DataRecipe& data) {
  r.require(!data.train.empty(), "data.train",
            "no domain to train on came; expected a list such as [{path: data/english, domain: english}]");
  for (const auto& [key, sets] :
       {std::pair{"data.train", &data.train}, {"data.validation", &data.validation}}) {
    std::set<std::pair<std::string, std::string>> seen;  // a domain may have several shards
    for (std::size_t i = 0; i < sets->size(); ++i)
      r.require(seen.insert({(*sets)[i].domain, normal_path((*sets)[i].path)}).second,
                join_path(key, std::to_string(i)) + ".path", "'", (*sets)[i].path,
                "' came twice for the domain '", (*sets)[i].domain,
                "'; expected every shard of a domain once; weight says how often it is drawn");
  }
  for (std::size_t i = 0; i < data.validation.size(); ++i)
    r.require(domain_of(data.validation[i]) != mean_of_domains,
              join_path("data.validation", std::to_string(i)) + ".domain", "'", mean_of_domains,
              "' came, which is how metrics.jsonl calls the mean over all domains; expected another name");
}

}  // namespace conclave
