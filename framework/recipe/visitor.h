// Visitors see every key of an object. A struct says once what its keys are, in an overload
//
//   void describe(Visitor& v, Kettle& kettle) {
//     v.key({"litres", &kettle.litres, "how much it holds", above(0)});
//     section(v, "lid", kettle.lid, "what closes it");
//   }
//
// which stands beside the struct and is found by its argument. Reading, writing, checking, suggestions and
// comparisons are visitors of this one description, and know no key by name.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "framework/recipe/key.h"

namespace conclave {

class Visitor;

/// An object with keys, seen without its type. It does not own the object.
class SectionReference {
 public:
  template <class Section>
  requires(!std::is_same_v<Section, SectionReference>) explicit SectionReference(Section& section)
      : describe_([&section](Visitor& visitor) { describe(visitor, section); }) {}

  void show(Visitor& visitor) const { describe_(visitor); }

 private:
  std::function<void(Visitor&)> describe_;
};

/// A list of structs, seen without its element type.
class ListReference {
 public:
  virtual ~ListReference() = default;
  virtual std::size_t size() const = 0;
  virtual void clear() = 0;
  virtual void append() = 0;  // one element with every default
  virtual void describe_element(std::size_t index, Visitor& visitor) = 0;
  virtual void describe_default(Visitor& visitor) = 0;
};

/// One of several structs, chosen by its kind and seen without its type. It is a std::variant, each of whose
/// alternatives has a `static constexpr const char* kind`.
class ChoiceReference {
 public:
  virtual ~ChoiceReference() = default;
  virtual const std::vector<std::string>& kinds() const = 0;
  virtual std::size_t chosen() const = 0;
  virtual void choose(std::size_t kind) = 0;  // with every default
  virtual void describe_chosen(Visitor& visitor) = 0;
  virtual void describe_default(std::size_t kind, Visitor& visitor) = 0;
};

/// A number that may move over the steps of a run, seen without its type (scheduled.h).
class ScheduleReference {
 public:
  virtual ~ScheduleReference() = default;
  virtual bool moves() const = 0;
  virtual void set_moves(bool moves) = 0;  // a course begins as one that stays at the number
  virtual void describe_course(Visitor& visitor) = 0;
};

/// The key that says which alternative of a choice is meant, where it has keys of its own.
constexpr const char* kind_of_choice = "kind";

class Visitor {
 public:
  virtual ~Visitor() = default;
  virtual void key(const Key& key) = 0;
  virtual void section(const char* name, const char* meaning, const std::function<void()>& inside) = 0;
  virtual void list(const char* name, const char* meaning, ListReference& list) = 0;
  /// A visitor that changes nothing need not override it. It then sees a key with the kind as its value, or a
  /// section with the key `kind` and those of the alternative.
  virtual void choice(const char* name, const char* meaning, ChoiceReference& choice);
  /// A visitor that does not override it sees the plain number as a key, or its course as a section.
  virtual void scheduled(const Key& number, ScheduleReference& schedule);
};

/// A PathVisitor knows the path of the section that is visited. Lists are seen element by element.
class PathVisitor : public Visitor {
 public:
  void section(const char* name, const char* meaning, const std::function<void()>& inside) override;
  void list(const char* name, const char* meaning, ListReference& list) override;

 protected:
  const std::string& path() const { return path_; }
  std::string path_of(const std::string& name) const { return join_path(path_, name); }
  /// Visits what `inside` visits below this name, which may have dots.
  void within(const std::string& name, const std::function<void()>& inside);

 private:
  std::string path_;
};

/// True where an alternative of a choice has keys besides its kind.
bool has_keys(ChoiceReference& choice, std::size_t kind);

template <class Section>
void section(Visitor& visitor, const char* name, Section& keys, const char* meaning) {
  visitor.section(name, meaning, [&] { describe(visitor, keys); });
}

template <class Element>
class VectorReference final : public ListReference {
 public:
  explicit VectorReference(std::vector<Element>& elements) : elements_(elements) {}
  std::size_t size() const override { return elements_.size(); }
  void clear() override { elements_.clear(); }
  void append() override { elements_.emplace_back(); }
  void describe_element(std::size_t index, Visitor& visitor) override {
    describe(visitor, elements_.at(index));
  }
  void describe_default(Visitor& visitor) override {
    Element element;
    describe(visitor, element);
  }

 private:
  std::vector<Element>& elements_;
};

template <class Element>
void list(Visitor& visitor, const char* name, std::vector<Element>& elements, const char* meaning) {
  VectorReference<Element> reference(elements);
  visitor.list(name, meaning, reference);
}

template <class... Alternatives>
class VariantReference final : public ChoiceReference {
 public:
  using Choice = std::variant<Alternatives...>;
  explicit VariantReference(Choice& value) : value_(value) {}
  const std::vector<std::string>& kinds() const override {
    static const std::vector<std::string> kinds = {Alternatives::kind...};
    return kinds;
  }
  std::size_t chosen() const override { return value_.index(); }
  void choose(std::size_t kind) override { value_ = made(kind); }
  void describe_chosen(Visitor& visitor) override { show(visitor, value_); }
  void describe_default(std::size_t kind, Visitor& visitor) override {
    Choice value = made(kind);
    show(visitor, value);
  }

 private:
  static Choice made(std::size_t kind) {
    static constexpr Choice (*makers[])() = {[]() -> Choice { return Alternatives{}; }...};
    return makers[kind]();
  }
  static void show(Visitor& visitor, Choice& value) {
    std::visit([&](auto& alternative) { describe(visitor, alternative); }, value);
  }
  Choice& value_;
};

/// In YAML `score: {kind: cosine, width: 16}`, or the bare word `score: cosine` for the alternative with its
/// defaults.
template <class... Alternatives>
void choice(Visitor& visitor, const char* name, std::variant<Alternatives...>& value, const char* meaning) {
  VariantReference<Alternatives...> reference(value);
  visitor.choice(name, meaning, reference);
}

}  // namespace conclave
