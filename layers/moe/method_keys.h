// AllMethodKeys: the sections of model.moe that belong to one method each and that no other code reads. The
// method declares its keys as a struct in its own file; method_keys.cpp lists the sections.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "framework/base/error.h"

namespace conclave {

class Visitor;

/// Keys of a method, seen without their type.
class MethodKeys {
 public:
  virtual ~MethodKeys() = default;
  virtual std::unique_ptr<MethodKeys> clone() const = 0;
  virtual bool equals(const MethodKeys& other) const = 0;
  virtual void show(Visitor& visitor) = 0;
};

template <class Keys>
class KeysOf final : public MethodKeys {
 public:
  std::unique_ptr<MethodKeys> clone() const override { return std::make_unique<KeysOf>(*this); }
  bool equals(const MethodKeys& other) const override {
    const auto* same = dynamic_cast<const KeysOf*>(&other);
    return same != nullptr && same->keys == keys;
  }
  void show(Visitor& visitor) override { describe(visitor, keys); }

  Keys keys;
};

/// A section of model.moe.
struct MethodSection {
  const char *name, *meaning;
  std::unique_ptr<MethodKeys> (*make)();  // with every default
};
const std::vector<MethodSection>& method_sections();

class AllMethodKeys {
 public:
  AllMethodKeys();  // every default
  AllMethodKeys(const AllMethodKeys& other);
  AllMethodKeys(AllMethodKeys&&) = default;
  AllMethodKeys& operator=(const AllMethodKeys& other);
  AllMethodKeys& operator=(AllMethodKeys&&) = default;
  bool operator==(const AllMethodKeys& other) const;

  /// The keys of this type, of which a section must be listed.
  template <class Keys>
  Keys& of() {
    for (const auto& keys : all_)
      if (auto* found = dynamic_cast<KeysOf<Keys>*>(keys.get())) return found->keys;
    fail(Fault::internal, "AllMethodKeys: keys came that layers/moe/method_keys.cpp does not list");
  }
  template <class Keys>
  const Keys& of() const {
    return const_cast<AllMethodKeys*>(this)->of<Keys>();
  }

 private:
  friend void describe(Visitor& v, AllMethodKeys& keys);
  std::vector<std::unique_ptr<MethodKeys>> all_;  // in the order of method_sections()
};
void describe(Visitor& v, AllMethodKeys& keys);

}  // namespace conclave
