// Programs of the fuzz preset read recipes and link no optimizer; a recipe may name the one of the examples.
#include "optim/recipe.h"

namespace conclave {

std::vector<std::string> optimizer_names() {
  return {"adamw"};
}

}  // namespace conclave
