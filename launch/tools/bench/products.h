// Products: the rate of matrix products y = x W^T through our kernels, in a type and in the shapes that a
// recipe's layers ask for. The best of these rates is what all of training is held against.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "framework/tensor/tensor.h"
#include "launch/train/recipe.h"

namespace conclave {

struct ProductShape {
  std::string use;
  std::int64_t m, n, k;
};

/// One large square for the machine's own sake, and what the recipe's layers multiply in a micro-batch:
/// attention projection, chunk of the LM head, rows of one expert under even routing.
std::vector<ProductShape> product_shapes(const Recipe& recipe);

/// The best rate of each shape so far, in floating-point operations per second.
struct BestProducts {
  std::vector<ProductShape> shapes;
  std::vector<double> rates;
  void note(const std::vector<ProductShape>& shapes, const std::vector<double>& rates);
  double best() const;  // 0 before the first
};

class Products {
 public:
  Products(const std::vector<ProductShape>& shapes, DType dtype);
  ~Products();
  const std::vector<ProductShape>& shapes() const { return shapes_; }
  /// The best rate of each shape over at least one call and so many seconds each.
  std::vector<double> measure(double seconds) const;

 private:
  struct Operands;
  std::vector<ProductShape> shapes_;
  std::vector<Operands> operands_;  // [shapes]
};

}  // namespace conclave
