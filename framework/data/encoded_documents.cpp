// Reading is serial and cheap; encoding, slow with SentencePiece, runs on all cores.
#include "framework/data/encoded_documents.h"

#include <exception>

namespace conclave {

std::vector<EncodedDocument> encode_documents(DocumentReader& reader, const Tokenizer& tokenizer) {
  constexpr std::size_t group_bytes = std::size_t{4} << 20;
  std::vector<Document> group;
  for (std::size_t bytes = 0; bytes < group_bytes;) {
    auto document = reader.next();
    if (!document) break;
    bytes += document->text.size() + sizeof(Document);
    group.push_back(std::move(*document));
  }

  std::vector<EncodedDocument> encoded(group.size());
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < group.size(); ++i) {
    try {
      encoded[i] = {tokenizer.encode(group[i].text), group[i].text.size(), group[i].complete};
      if (group[i].complete) encoded[i].tokens.push_back(tokenizer.end_of_document());
    } catch (...) {  // no exception may leave a parallel loop
#pragma omp critical
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
  return encoded;
}

}  // namespace conclave
