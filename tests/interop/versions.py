"""The snippet of every model page, on an export, in each version of transformers that people have: the continuation is
that of `conclave generate`. Started by run.sh, which sets INTEROP_CONCLAVE and INTEROP_RUN. Each version is installed
into a folder of its own below .cache/interop."""
import json, os, pathlib, subprocess, sys, tempfile

conclave, trained = os.environ['INTEROP_CONCLAVE'], os.environ['INTEROP_RUN']
versions = os.environ.get('INTEROP_VERSIONS', '4.51.3 4.57.6 5.24.0').split()
tokens = 40
prompts = ['The ', 'def fibonacci(n):', 'Am Anfang ', 'In the beginning God created']
snippet = f'''
import json, sys, torch, transformers
torch.manual_seed(0)
more = json.loads(sys.argv[2])
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1], **more)
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], **more)
print(transformers.__version__)
for prompt in {prompts!r}:
    inputs = tokenizer(prompt, return_tensors='pt')
    ids = model.generate(**inputs, max_new_tokens={tokens}, do_sample=False)[0]
    print(json.dumps(tokenizer.decode(ids, skip_special_tokens=True)))
'''


def text_of(prompt):
    done = subprocess.run([conclave, 'generate', trained, '--prompt', prompt, '--temperature', '0', '--tokens', str(tokens)],
                          check=True, capture_output=True, text=True)
    return done.stdout.rstrip('\n')


def holds(version, exported, arguments, ours, name):
    folder = pathlib.Path('.cache/interop') / f'transformers-{version}'
    if not folder.is_dir():
        subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--target', folder, f'transformers=={version}'],
                       check=True)
    done = subprocess.run([sys.executable, '-c', snippet, exported, json.dumps(arguments)], capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': '1'})
    lines = done.stdout.splitlines()
    same = done.returncode == 0 and lines[0] == version and [json.loads(line) for line in lines[1:]] == ours
    warnings = [line for line in done.stderr.splitlines() if 'warn' in line.lower() or 'incorrect' in line]
    print(f'  {"ok    " if same else "FAILED"} transformers {version}, {name}: {len(prompts)} prompts of {tokens} tokens, '
          f'{len(warnings)} lines of warnings')
    for line in warnings + ([] if same else [done.stderr[-2000:], *lines, *map(json.dumps, ours)]):
        print('        ' + line)
    return same


def main():
    scratch = pathlib.Path(tempfile.mkdtemp(prefix='conclave-interop-'))
    exports = {'its own class': ([], {}), 'conclave, which brings its code': (['--arch', 'conclave'], {'trust_remote_code': True})}
    ours, failed = [text_of(prompt) for prompt in prompts], False
    for name, (options, arguments) in exports.items():
        exported = scratch / '-'.join(['model', *options])
        subprocess.run([conclave, 'export', trained, exported, *options], check=True, capture_output=True)
        for version in versions:
            failed |= not holds(version, exported, arguments, ours, name)
    sys.exit(failed)


if __name__ == '__main__':
    main()
