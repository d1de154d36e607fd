// Prints the keys and words of a recipe as a dictionary of libFuzzer.
#include <cstdio>

#include "launch/train/recipe_text.h"

int main() {
  for (const std::string& word : conclave::recipe_schema().vocabulary())
    std::printf("\"%s\"\n", word.c_str());
}
