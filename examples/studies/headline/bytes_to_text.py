"""Turns the byte tokens of a domain back into documents, so that another vocabulary can be trained on them.

    python3 bytes_to_text.py PREFIX FILE.jsonl

PREFIX.bin and PREFIX.idx are what `conclave tokenize --tokenizer bytes` wrote: a document is its bytes and the end of
a document, 256. FILE.jsonl gets one object with the field `text` for each. Prints the number of bytes.
"""
import array, json, pathlib, struct, sys

prefix, target = sys.argv[1:]
index = pathlib.Path(f'{prefix}.idx').read_bytes()
assert index[:9] == b'MMIDIDX\x00\x00' and index[17] == 8, f'{prefix}.idx is no index of 16-bit tokens'
tokens = array.array('H')
tokens.frombytes(pathlib.Path(f'{prefix}.bin').read_bytes())
documents, = struct.unpack('<Q', index[18:26])
lengths = struct.unpack(f'<{documents}i', index[34:34 + 4 * documents])
assert sum(lengths) == len(tokens), f'{prefix}: the index names {sum(lengths)} tokens, the file has {len(tokens)}'
at = written = 0
with open(target, 'w', encoding='utf-8') as out:
    for length in lengths:
        content = bytes(token for token in tokens[at:at + length] if token < 256)
        at += length
        written += len(content)
        out.write(json.dumps({'text': content.decode('utf-8')}) + '\n')
print(written)
