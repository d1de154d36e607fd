"""Exported GGUF files in the package `gguf` and in llama.cpp (by llama-cpp-python): every file is read, numbers are rounded
as they are there, prompts have the same ids, logits and perplexity are ours. Started by run.sh, which sets
INTEROP_CONCLAVE, INTEROP_PROBE and INTEROP_RUN. The parts: trained random tokenizers drawn."""
import json, math, os, pathlib, random, subprocess, sys, tempfile

import gguf, numpy, safetensors.numpy, yaml

try:
    import llama_cpp  # compiled on installation, and left out where that fails
except ImportError:
    llama_cpp = None

conclave, probe, trained = (os.environ[f'INTEROP_{name}'] for name in ('CONCLAVE', 'PROBE', 'RUN'))
scratch = pathlib.Path(tempfile.mkdtemp(prefix='conclave-interop-'))
os.environ['OMP_NUM_THREADS'] = '1'
failures = 0
Type = gguf.GGMLQuantizationType

prompts = [
    'In the beginning God created the heaven and the earth.', 'Call me Ishmael. Some years ago',
    "It's the best of times; we'll see, THEY'VE said.", 'def fibonacci(n):\n    """Returns the n-th number."""\n\treturn 12345678',
    '#include <stdio.h>\r\n\r\nint main(void)\n{\n\n\n  return 0;  // 3.14159\n}\n',
    'Au commencement, Dieu créa les cieux et la terre.', 'Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte,',
    '吾輩は猫である。名前はまだ無い。', '  two  spaces  and\ttabs \n', 'emoji 😀 and ﬁ ligature, Ⅷ ½ ǅ', 'x', ' ', '\n\n', 'aa  b',
    'Καλημέρα κόσμε, привет мир, مرحبا بالعالم 123٤٥٦']


def check(what, holds, figure=''):
    global failures
    failures += not holds
    print(f'  {"ok    " if holds else "FAILED"} {what}{": " if figure != "" else ""}{figure}', flush=True)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True)
    if done.returncode != 0:
        sys.exit(f'{" ".join(map(str, command))}\n{done.stderr.decode()}')
    return done.stdout


def export(run_directory, name, *more):
    file = scratch / f'{name}.gguf'
    file.unlink(missing_ok=True)
    run(conclave, 'export', run_directory, file, '--format', 'gguf', *more)
    return file


def make_run(name, model, tokenizer='bytes', length=512):
    path = scratch / f'{name}.yaml'
    path.write_text(yaml.safe_dump(dict(name=name, model=model, data=dict(tokenizer=str(tokenizer), sequence_length=length))))
    run('rm', '-rf', scratch / name)
    run(probe, 'random', path, scratch / name)
    return scratch / name


def read(file):
    """All that a file says, read by `gguf`, which maps the file: shapes and offsets are looked at."""
    reader = gguf.GGUFReader(file)
    keys = {key: field.contents() for key, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == len(reader.tensors)
    end = max(int(tensor.data_offset) + int(tensor.n_bytes) for tensor in reader.tensors)
    check(f'gguf reads {len(keys)} keys and {len(tensors)} tensors', keys['GGUF.version'] == 3 and
          0 <= file.stat().st_size - end < 32 and all(int(tensor.data_offset) % 32 == 0 for tensor in reader.tensors))
    return keys, tensors


def numbers(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def check_rounding(run_directory, name, wanted):
    """Each type against the package's own quantisation of the float32 file; rows without whole blocks are F16."""
    _, exact = read(export(run_directory, f'{name}-fp32'))
    assert all(tensor.tensor_type == Type.F32 for tensor in exact.values())
    for dtype, kind in (('bf16', Type.BF16), ('fp16', Type.F16), ('q8_0', Type.Q8_0)):
        _, tensors = read(export(run_directory, f'{name}-{dtype}', '--dtype', dtype))
        equal, kinds = 0, {}
        for key, tensor in tensors.items():
            rows = numbers(exact[key])
            kind_of_this = kind
            if rows.ndim == 1 or key.endswith('ffn_gate_inp.weight'):
                kind_of_this = Type.F32
            elif kind == Type.Q8_0 and rows.shape[-1] % 32:
                kind_of_this = Type.F16
            kinds[tensor.tensor_type.name] = kinds.get(tensor.tensor_type.name, 0) + 1
            theirs = gguf.quants.quantize(rows, kind_of_this)
            equal += tensor.tensor_type == kind_of_this and theirs.tobytes() == tensor.data.tobytes()
        check(f'{dtype}: tensors with the bits of gguf.quants', equal == len(exact) == len(tensors),
              f'{equal} of {len(exact)}, {kinds}')
    check('expected matrices are there', wanted <= exact.keys(), '' if wanted <= exact.keys() else wanted - exact.keys())


def plain_parameters(defaults=llama_cpp and llama_cpp.llama_model_default_params):
    """Without repacked weights: on processors with AMX they take its tiles, which some virtual machines only announce."""
    parameters = defaults()
    parameters.use_extra_bufts = False
    return parameters


if llama_cpp:
    llama_cpp.llama_model_default_params = llama_cpp.llama_cpp.llama_model_default_params = plain_parameters


class Llama:
    def __init__(self, file, context=512):
        f32 = 0
        self.model = llama_cpp.Llama(str(file), n_ctx=context, n_batch=context, n_ubatch=context, logits_all=True,
                                     verbose=False, n_threads=1, n_threads_batch=1, type_k=f32, type_v=f32)

    def ids(self, text, special=False):
        return self.model.tokenize(text.encode(), add_bos=True, special=special)  # what the file says is added

    def logits(self, ids):
        self.model.reset()
        self.model.eval(ids)
        return numpy.array(self.model.scores[:len(ids)])

    def text(self, ids):
        return self.model.detokenize(ids)


def our_ids(tokenizer, texts):
    file = scratch / 'texts.json'
    file.write_text(json.dumps(texts))
    return [answer['ids'] for answer in json.loads(run(probe, 'encode', tokenizer, file))]


def our_logits(run_directory, lines):
    tokens, out = scratch / 'tokens.txt', scratch / 'logits.safetensors'
    tokens.write_text('\n'.join(' '.join(map(str, ids)) for ids in lines) + '\n')
    run(probe, 'logits', run_directory, tokens, out)
    tensors = safetensors.numpy.load_file(out)
    return [tensors[str(i)] for i in range(len(lines))]


def check_ids(llama, tokenizer, texts=prompts, special=False):
    lines = our_ids(tokenizer, texts)
    others = [text for text, ids in zip(texts, lines) if llama.ids(text, special) != ids]
    check('texts with the same ids', not others, f'{len(texts) - len(others)} of {len(texts)}' + ''.join(map(repr, others[:3])))
    return lines


def check_logits(llama, run_directory, lines):
    worst = scale = 0
    for ids, mine in zip(lines, our_logits(run_directory, lines)):
        theirs = llama.logits(ids)
        worst, scale = max(worst, numpy.abs(theirs - mine).max()), max(scale, numpy.abs(mine).max())
    check('logits, largest difference', worst < 1e-4, f'{worst:.2e} (of logits up to {scale:.1f})')


def text_file(length, windows):
    """One document whose tokens are whole windows, with the end of document as the last target."""
    text = pathlib.Path('docs/balance.md').read_text().encode('ascii', 'replace')[:length * windows]
    (scratch / 'text.txt').write_bytes(text)
    run(conclave, 'tokenize', '--replace', '--output', scratch / 'text', '--domain', 'text', scratch / 'text.txt')
    return list(text) + [256]


def perplexity(llama, ids, length):
    nats = 0
    for begin in range(0, len(ids) - 1, length):
        logits = llama.logits(ids[begin:begin + length]).astype(numpy.float64)
        targets = ids[begin + 1:begin + 1 + length]
        top = logits.max(-1)
        nats += (numpy.log(numpy.exp(logits - top[:, None]).sum(-1)) + top - logits[range(len(targets)), targets]).sum()
    return math.exp(nats / (len(ids) - 1))


def check_perplexity(run_directory, name, length, windows, allowed, *more):
    ids = text_file(length, windows)
    mine = json.loads(run(conclave, 'evaluate', run_directory, f'data.train=[{{path: {scratch}/text, domain: text}}]',
                          f'data.validation=[{{path: {scratch}/text, domain: text}}]', '--json'))['mean_perplexity']
    for dtype, most in allowed.items():
        theirs = perplexity(Llama(export(run_directory, f'{name}-{dtype}', '--dtype', dtype, *more)), ids, length)
        check(f'{dtype}: perplexity of {len(ids) - 1} tokens', abs(theirs / mine - 1) < most,
              f'{theirs:.5f}, evaluate: {mine:.5f}, {theirs / mine - 1:+.1e}')


def check_trained():
    print('a trained quickstart')
    check_rounding(trained, 'trained', {'token_embd.weight', 'output.weight', 'blk.0.ffn_gate_exps.weight'})
    if not llama_cpp:
        return
    llama = Llama(scratch / 'trained-fp32.gguf')
    lines = check_ids(llama, 'bytes')
    check_logits(llama, trained, lines)
    check_perplexity(trained, 'trained', 256, 20, dict(fp32=1e-3, bf16=1e-2, fp16=1e-2, q8_0=1e-2))
    equal = 0
    for prompt in prompts[:6]:
        mine = run(conclave, 'generate', trained, '--prompt', prompt, '--temperature', 0, '--tokens', 48)
        ids = llama.ids(prompt)
        for _ in range(48):
            best = int(llama.logits(ids)[-1].argmax())
            if best == 256:
                break
            ids.append(best)
        equal += llama.text(ids) + b'\n' == mine
    check('greedy continuations over 48 tokens that are identical', equal == 6, f'{equal} of 6')


def router(**keys):
    return dict(z_loss_coefficient=0, **keys)


def moe(**keys):
    return dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, **keys)


base = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16, initializer_range=0.15, rms_norm_eps=1e-5)
deepseek_router = router(kind='sigmoid', n_group=4, topk_group=2, routed_scaling_factor=1.5, bias=dict(rate=0.01))
shapes = {
    'qwen3moe': dict(head_dim=24, moe=moe()),
    'qwen3moe tied': dict(tie_word_embeddings=True, num_key_value_heads=4, moe=moe()),
    'olmoe': dict(num_key_value_heads=4, qk_norm_over='all_heads', rms_norm_eps=1e-3,
                  moe=moe(router=router(norm_topk_prob=False))),
    'llama': dict(qk_norm=False, moe=dict(first_k_dense_replace=3)),
    'llama tied': dict(qk_norm=False, tie_word_embeddings=True, head_dim=32, moe=dict(first_k_dense_replace=3)),
    'llama with experts': dict(qk_norm=False, moe=moe()),
    'qwen3': dict(tie_word_embeddings=True, moe=dict(first_k_dense_replace=3)),
    'glm4moe': dict(partial_rotary_factor=0.5, moe=moe(num_shared_experts=2, first_k_dense_replace=1, router=deepseek_router)),
    'glm4moe without shared experts': dict(qk_norm=False, tie_word_embeddings=True, moe=moe(
        router=router(kind='sigmoid', norm_topk_prob=False))),
    'deepseek': dict(qk_norm=False, moe=moe(num_shared_experts=2, first_k_dense_replace=1, router=router(
        norm_topk_prob=False, routed_scaling_factor=2.0))),
    'granitemoe': dict(qk_norm=False, moe=moe(num_shared_experts=1)),
    'minimax-m2': dict(partial_rotary_factor=0.5, qk_norm_over='all_heads', moe=moe(router=router(
        kind='sigmoid', bias=dict(rate=0.01)))),
    'dots1': dict(num_key_value_heads=4, moe=moe(num_shared_experts=1, first_k_dense_replace=1, router=router(
        kind='sigmoid', routed_scaling_factor=2.5, bias=dict(rate=0.01)))),
}


def check_random():
    for name, keys in shapes.items():
        print(f'random weights, {name}')
        architecture, file = name.split()[0], name.replace(' ', '-').replace(',', '')
        run_directory = make_run(file, base | keys)
        wanted = [] if architecture != 'dots1' else ['--arch', 'dots1']  # glm4moe computes it too
        said, _ = read(export(run_directory, f'{file}-fp32', *wanted))
        check('architecture', said['general.architecture'] == architecture, said['general.architecture'])
        if llama_cpp:
            llama = Llama(scratch / f'{file}-fp32.gguf')
            check_logits(llama, run_directory, check_ids(llama, 'bytes'))
            # Random routers have near ties, of which rounding changes some.
            check_perplexity(run_directory, file, 512, 2, dict(fp32=1e-3, q8_0=5e-2), *wanted)
    print('rows that are no multiple of 32')
    check_rounding(make_run('uneven', base | dict(hidden_size=48, moe=moe())), 'uneven', {'blk.2.ffn_down_exps.weight'})


words = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True}
plain = words | {'use_regex': False}


def split(pattern, **more):
    return {'type': 'Split', 'pattern': {'Regex': pattern}, 'behavior': 'Isolated', 'invert': False} | more


# As the published files have them: the name in llama.cpp, the steps before ByteLevel, ignore_merges.
published = {
    'gpt-2': ([words], False),
    'smollm': ([{'type': 'Digits', 'individual_digits': True}, words], False),
    'llama-bpe': ([split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), plain], True),
    'dbrx': ([split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", behavior='Removed', invert=True), plain], False),
    'qwen2': ([split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), plain], False),
    'qwen35': ([split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), plain], False),
    'seed-coder': ([split(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"), plain], False),
    'deepseek-v3': ([split(r'\p{N}{1,3}'), split('[一-龥぀-ゟ゠-ヿ]+'), split(
        '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+'), plain], False),
    'gpt-4o': ([split(r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"), plain], False),
    'tekken': ([split(r'[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'), plain], True),
}


def tokenizer_json(name):
    """A vocabulary of a thousand tokens under a published rule."""
    steps, whole_words = published[name]
    file = json.loads(pathlib.Path('tests/framework/data/tokenizers/base.json').read_text())
    file['pre_tokenizer'] = {'type': 'Sequence', 'pretokenizers': steps} if len(steps) > 1 else steps[0]
    file['model']['ignore_merges'] = whole_words
    file['added_tokens'].append({'id': 1001, 'content': '<|image|>', 'special': False, 'normalized': False})
    folder = scratch / f'tokenizer-{name}'
    folder.mkdir(exist_ok=True)
    (folder / 'tokenizer.json').write_text(json.dumps(file))
    (folder / 'chat_template.jinja').write_text('{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}')
    return folder / 'tokenizer.json'


torture = [line for line in pathlib.Path('tests/framework/data/tokenizers/torture.txt').read_text().split('\n') if line]
small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16)


def check_tokenizers():
    for name in published:
        print(f'a tokenizer.json with the rule {name}')
        tokenizer = tokenizer_json(name)
        keys, _ = read(export(make_run('json', small | dict(vocab_size=1008, moe=moe()), tokenizer), f'json-{name}'))
        check('the rule has its name, and the chat its template', keys['tokenizer.ggml.pre'] == name and
              keys['tokenizer.chat_template'].startswith('{% for m'), keys['tokenizer.ggml.pre'])
        if llama_cpp:
            llama = Llama(scratch / f'json-{name}.gguf')
            # A tokenizer.json finds its special tokens in text, which llama.cpp does when it is asked to.
            check_ids(llama, tokenizer, prompts + torture + ['an <|image|> within<|image|>'], special=True)
            check('texts that come back', all(llama.text(llama.ids(text)) == text.encode() for text in prompts))
    print('SentencePiece, bpe')
    prefix = scratch / 'pieces'
    run(conclave, 'tokenize', '--train-sentencepiece', prefix, '--vocab-size', 1000, '--extension', '.md', 'docs')
    run_directory = make_run('pieces-run', small | dict(vocab_size=1024, moe=moe()), f'{prefix}.model')
    keys, _ = read(export(run_directory, 'pieces'))
    check('pieces, scores and types', len(keys['tokenizer.ggml.tokens']) == 1024 == len(keys['tokenizer.ggml.scores'])
          and keys['tokenizer.ggml.token_type'].count(6) == 256)
    if llama_cpp:
        llama = Llama(scratch / 'pieces.gguf')
        check_logits(llama, run_directory, check_ids(llama, f'{prefix}.model', prompts + torture))
    print('no tokenizer')
    keys, _ = read(export(run_directory, 'none', '--tokenizer', 'none'))
    check('it says so', keys['tokenizer.ggml.model'] == 'none')
    if llama_cpp:
        check_logits(Llama(scratch / 'none.gguf'), run_directory, [[1, 2, 3, 1000], [7] * 9])


def check_drawn(count=20, seed=20):
    """Recipes drawn at random, each of which some architecture computes."""
    print(f'{count} recipes drawn at random')
    tools = ['bytes', tokenizer_json('llama-bpe'), scratch / 'drawn.model']
    run(conclave, 'tokenize', '--train-sentencepiece', scratch / 'drawn', '--vocab-size', 500, '--extension', '.md', 'docs')
    draw = random.Random(seed)
    for number in range(count):
        name = draw.choice(list(shapes))
        keys = base | shapes[name]
        kv = draw.choice([1, 2, 3])
        experts = draw.choice([8, 12] if 'n_group' in keys['moe'].get('router', {}) else [4, 8, 12])
        group = 1 if kv == keys['num_key_value_heads'] or name in ('olmoe', 'dots1') else draw.choice([1, 2, 4])
        heads, width = kv * group, draw.choice([4, 8, 16, 32] if 'partial_rotary_factor' in keys else [2, 6, 16, 32])
        sizes = dict(num_key_value_heads=kv, num_attention_heads=heads, head_dim=width, vocab_size=1002 + draw.randrange(40),
                     hidden_size=heads * width if name in ('olmoe', 'deepseek') else draw.choice([8, 40, 64, 96]),
                     intermediate_size=draw.choice([24, 33, 64]), rope_theta=draw.choice([1e4, 1e6]))
        if 'num_experts' in keys['moe']:
            sizes['moe'] = keys['moe'] | dict(num_experts=experts, num_experts_per_tok=draw.choice([1, 2, 4]),
                                              moe_intermediate_size=draw.choice([8, 31, 64]))
        keys |= sizes
        dtype, tokenizer = draw.choice(['fp32', 'bf16', 'fp16', 'q8_0']), draw.choice(tools)
        print(f'  {name}: {heads} heads of {width}, {kv} of keys, {dtype}, {pathlib.Path(tokenizer).name}')
        run_directory = make_run('drawn-run', keys, tokenizer)
        wanted = ['--arch', 'dots1'] if name == 'dots1' else []
        file = export(run_directory, 'drawn', '--dtype', dtype, *wanted)
        said, tensors = read(file)
        assert tuple(tensors['token_embd.weight'].shape) == (keys['hidden_size'], keys['vocab_size'])
        assert all(numpy.isfinite(numbers(tensor)).all() for tensor in tensors.values())
        if llama_cpp and dtype == 'fp32':
            llama = Llama(file)
            check_logits(llama, run_directory, check_ids(llama, tokenizer))


parts = sys.argv[1:] or ['trained', 'random', 'tokenizers', 'drawn']
print('llama.cpp by llama-cpp-python ' + llama_cpp.__version__ if llama_cpp else
      'llama-cpp-python is not installed: `gguf` alone looks at the files')
for part in parts:
    {'trained': check_trained, 'random': check_random, 'tokenizers': check_tokenizers, 'drawn': check_drawn}[part]()
run('rm', '-rf', scratch)
print(f'gguf_files: {failures} checks failed' if failures else 'gguf_files: all checks hold')
sys.exit(1 if failures else 0)
