"""Exported tokenizers in transformers: SentencePiece models, those that normalise, and a tokenizer.json that was brought
along. Started by run.sh, which sets INTEROP_CONCLAVE, INTEROP_PROBE and INTEROP_RUN."""
import json, pathlib, sys

import transformers, yaml

from hugging_face import check, compare_tokenizer, conclave, finish, probe, prompts, run, scratch


def check_sentencepiece():
    import sentencepiece
    for kind in ('bpe', 'unigram'):
        print(f'a SentencePiece tokenizer ({kind})')
        corpus, prefix = scratch / 'corpus.txt', scratch / kind
        files = sorted(pathlib.Path('docs').glob('*.md')) + sorted(pathlib.Path('framework').rglob('*.cpp'))
        corpus.write_text('\n'.join(file.read_text() for file in files) + '\n'.join(prompts * 3))
        run(conclave, 'tokenize', '--train-sentencepiece', prefix, '--vocab-size', 2000, '--model-kind', kind, corpus)
        model = dict(vocab_size=2048, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                     head_dim=8, moe=dict(num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8))
        path, directory = scratch / f'{kind}.yaml', scratch / f'{kind}-exported'
        path.write_text(yaml.safe_dump(dict(name=kind, model=model, data=dict(tokenizer=f'{prefix}.model'))))
        run(probe, 'random', path, scratch / f'{kind}-run')
        run(conclave, 'export', scratch / f'{kind}-run', directory)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        processor = sentencepiece.SentencePieceProcessor(model_file=f'{prefix}.model')
        compare_tokenizer(directory, tokenizer, processor.encode)
        long = files[0].read_text()
        check('a whole document: the same ids', tokenizer(long, add_special_tokens=False)['input_ids'] == processor.encode(long))
        check('end of document', tokenizer.eos_token_id == processor.eos_id())


def check_normalising():
    """SentencePiece's own trainer normalises unless it is told not to."""
    import sentencepiece
    corpus = scratch / 'normalising.txt'
    pages = [file.read_text() for file in sorted(pathlib.Path('docs').glob('*.md'))]
    corpus.write_text('\n'.join(pages))
    for kind, rule in (('bpe', 'nmt_nfkc'), ('unigram', 'nmt_nfkc_cf'), ('bpe', 'identity')):
        print(f'a SentencePiece tokenizer ({kind}) that normalises ({rule})')
        prefix = scratch / f'{kind}-{rule}'
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(prefix), vocab_size=1000, model_type=kind, byte_fallback=True,
            normalization_rule_name=rule, minloglevel=2)
        model = dict(vocab_size=1024, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                     head_dim=8, moe=dict(num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8))
        path, directory = scratch / f'{kind}-{rule}.yaml', scratch / f'{kind}-{rule}-exported'
        path.write_text(yaml.safe_dump(dict(name=kind, model=model, data=dict(tokenizer=f'{prefix}.model'))))
        run(probe, 'random', path, scratch / f'{kind}-{rule}-run')
        run(conclave, 'export', scratch / f'{kind}-{rule}-run', directory)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        processor = sentencepiece.SentencePieceProcessor(model_file=f'{prefix}.model')
        texts = prompts + ['', ' ', '  two  spaces ', '\n\n\ttab ', 'a\u3000b', '\u00a0x', 'ﬁ ﷺ e\u0301 Ⅷ', pages[0]]
        equal = sum(tokenizer(text)['input_ids'] == processor.encode(text) for text in texts)
        check('tokenizer: the same ids', equal == len(texts), f'{equal} of {len(texts)}')


def check_tokenizer_json():
    print('a tokenizer.json that was brought along')
    brought, directory, back = (scratch / f'brought{end}' for end in ('', '-exported', '-back'))
    brought.mkdir()
    (brought / 'tokenizer.json').write_bytes(pathlib.Path('tests/framework/data/tokenizers/base.json').read_bytes())
    model = dict(vocab_size=1008, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                 head_dim=8, moe=dict(num_experts=2, num_experts_per_tok=1, moe_intermediate_size=8))
    path = brought / 'recipe.yaml'
    path.write_text(yaml.safe_dump(dict(name='brought', model=model, data=dict(tokenizer=str(brought / 'tokenizer.json')))))
    run(probe, 'random', path, brought / 'run')
    run(conclave, 'export', brought / 'run', directory)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    texts = scratch / 'texts.json'

    def encode(text):
        texts.write_text(json.dumps([text]))
        return json.loads(run(probe, 'encode', brought / 'tokenizer.json', texts))[0]['ids']
    compare_tokenizer(directory, tokenizer, encode)
    check('end of document', tokenizer.eos_token_id == 1000)
    run(conclave, 'import', directory, back)
    check('it comes back', (back / 'tokenizer.json').read_bytes() == (brought / 'tokenizer.json').read_bytes())


parts = sys.argv[1:] or ['sentencepiece', 'tokenizer_json']
if 'sentencepiece' in parts:
    check_sentencepiece()
    check_normalising()
if 'tokenizer_json' in parts:
    check_tokenizer_json()
finish('exported_tokenizers')
