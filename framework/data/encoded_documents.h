// encode_documents: the next documents of a reader as tokens, encoded by all cores, in the reader's order.
#pragma once

#include <cstdint>
#include <vector>

#include "framework/data/documents.h"
#include "framework/data/tokenizer.h"

namespace conclave {

struct EncodedDocument {
  std::vector<std::int32_t> tokens;  // the end of document included, unless the next piece goes on
  std::size_t bytes = 0;             // of its text
  bool complete = true;              // false: a piece of a long document, the next one goes on
};

/// Some megabytes of documents; none at the end.
std::vector<EncodedDocument> encode_documents(DocumentReader& reader, const Tokenizer& tokenizer);

}  // namespace conclave
