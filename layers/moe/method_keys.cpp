#include "layers/moe/method_keys.h"

#include <algorithm>

#include "framework/recipe/visitor.h"

namespace conclave {

const std::vector<MethodSection>& method_sections() {
  static const std::vector<MethodSection> all = {};
  return all;
}

AllMethodKeys::AllMethodKeys() {
  for (const MethodSection& section : method_sections()) all_.push_back(section.make());
}

AllMethodKeys::AllMethodKeys(const AllMethodKeys& other) {
  for (const auto& keys : other.all_) all_.push_back(keys->clone());
}

AllMethodKeys& AllMethodKeys::operator=(const AllMethodKeys& other) {
  AllMethodKeys copy(other);
  all_.swap(copy.all_);
  return *this;
}

bool AllMethodKeys::operator==(const AllMethodKeys& other) const {
  return std::equal(all_.begin(), all_.end(), other.all_.begin(), other.all_.end(),
                    [](const auto& one, const auto& another) { return one->equals(*another); });
}

void describe(Visitor& v, AllMethodKeys& keys) {
  for (std::size_t i = 0; i < keys.all_.size(); ++i)
    v.section(method_sections()[i].name, method_sections()[i].meaning, [&] { keys.all_[i]->show(v); });
}

}  // namespace conclave
