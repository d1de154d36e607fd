"""Exported models in transformers: logits, greedy continuations, one training step against autograd, tokenizers, and the
way back. Started by run.sh, which sets INTEROP_CONCLAVE, INTEROP_PROBE and INTEROP_RUN."""
import itertools, json, math, os, pathlib, subprocess, sys, tempfile

import numpy, safetensors, safetensors.torch, torch, transformers, yaml

conclave, probe, trained = (os.environ[f'INTEROP_{name}'] for name in ('CONCLAVE', 'PROBE', 'RUN'))
scratch = pathlib.Path(tempfile.mkdtemp(prefix='conclave-interop-'))
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
failures = 0

prompts = [
    'In the beginning God created the heaven and the earth.', 'It was the best of times, it was the worst of times,',
    'Call me Ishmael. Some years ago', 'The history of all hitherto existing society is',
    'When in the course of human events it becomes necessary', 'The operating system is a program that',
    'def fibonacci(n):\n    """Returns the n-th Fibonacci number."""\n', 'import os\nimport sys\n\nclass Reader(object):\n',
    '#include <stdio.h>\n\nint main(void)\n{\n', 'static int parse(const char *text, int length)\n{\n',
    'Au commencement, Dieu créa les cieux et la terre.', 'Longtemps, je me suis couché de bonne heure.',
    'Am Anfang schuf Gott Himmel und Erde.', 'Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte,',
    '吾輩は猫である。名前はまだ無い。', '国境の長いトンネルを抜けると雪国であった。', 'abacus, n. [L. abacus, Gr. abax.]',
    'A computer is a machine that can be programmed to', 'Free software is software that gives you the user the freedom to',
    'The quick brown fox jumps over the lazy dog 1234567890 times']
assert len(prompts) == 20

dense = ('qwen3', 'llama')
architectures = ('qwen3_moe', 'olmoe', 'mixtral', 'granitemoe', 'granitemoeshared', 'deepseek', 'minimax_m2', 'glm4_moe',
                 'dots1', 'solar_open', 'conclave') + dense

def check(what, holds, figure=''):
    global failures
    failures += not holds
    print(f'  {"ok    " if holds else "FAILED"} {what}{": " if figure != "" else ""}{figure}', flush=True)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True)
    if done.returncode != 0:
        sys.exit(f'{" ".join(map(str, command))}\n{done.stderr.decode()}')
    return done.stdout


def load(directory):
    brings_code = (directory / 'modeling_conclave.py').exists()
    more = dict(trust_remote_code=True) if brings_code else dict(attn_implementation='eager', experts_implementation='eager')
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True, **more)
    check('every tensor has its place', not any(report[key] for key in report), '' if not any(report.values()) else report)
    return model.eval()


def ours(mode, run_directory, lines, *more):
    tokens, out = scratch / 'tokens.txt', scratch / f'{mode}.safetensors'
    tokens.write_text('\n'.join(' '.join(map(str, ids)) for ids in lines) + '\n')
    run(probe, mode, run_directory, tokens, out, *more)
    with safetensors.safe_open(out, framework='pt') as file:  # their own reader opens what we write
        return {name: file.get_tensor(name) for name in file.keys()}


def compare_logits(run_directory, model, lines):
    mine = ours('logits', run_directory, lines)
    worst, scale = 0, 0
    for i, ids in enumerate(lines):
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0]
        worst = max(worst, (theirs - mine[str(i)]).abs().max().item())
        scale = max(scale, theirs.abs().max().item())
    check(f'logits over {len(lines)} prompts, largest difference', worst < 1e-4, f'{worst:.2e} (of logits up to {scale:.1f})')


def compare_continuations(run_directory, model, tokenizer):
    equal = 0
    for prompt in prompts:
        mine = run(conclave, 'generate', run_directory, '--prompt', prompt, '--temperature', 0, '--tokens', 64)
        ids = tokenizer(prompt, return_tensors='pt')
        out = model.generate(**ids, max_new_tokens=64, do_sample=False)[0].tolist()
        if out[-1] == tokenizer.eos_token_id:
            out.pop()
        equal += bytes(out) + b'\n' == mine
    check('greedy continuations over 64 tokens that are identical', equal == len(prompts), f'{equal} of {len(prompts)}')


def tensors_of(directory):
    return {name: value for file in directory.glob('*.safetensors')
            for name, value in safetensors.torch.load_file(file).items()}


def comes_back(directory, wanted=None):
    """Whether the export of an import of a directory has the same bits, or those of another directory."""
    again, back = scratch / 'again', scratch / 'back'
    run('rm', '-rf', again, back)
    run(conclave, 'import', directory, back)
    model_type = json.loads((directory / 'config.json').read_text())['model_type']
    run(conclave, 'export', back, again, '--arch', model_type, '--tokenizer', 'none')
    wanted, got = tensors_of(wanted or directory), tensors_of(again)
    return wanted.keys() == got.keys() and all(
        torch.equal(wanted[name].view(torch.int32), got[name].view(torch.int32)) for name in wanted)


def module_names(gradients, wanted):
    """Conclave's names and stacks -> those of the modules in memory: experts fused as transformers 5 keeps them, or one
    module each as in modeling_conclave.py."""
    gradients = {name.removeprefix('gradient/'): value for name, value in gradients.items()}
    names = {}
    for name, value in gradients.items():
        is_stack = '.experts.' in name
        if is_stack and any('.experts.0.' in other for other in wanted):
            names.update({name.replace('.experts.', f'.experts.{i}.'): row for i, row in enumerate(value)})
        elif is_stack and 'gate_proj' in name:
            up = gradients[name.replace('gate_proj', 'up_proj')]
            names[name.replace('gate_proj.weight', 'gate_up_proj')] = torch.cat([value, up], 1)
        elif is_stack and 'down_proj' in name:
            names[name.removesuffix('.weight')] = value
        elif not is_stack:
            names[name] = value
    if not any('.block_sparse_moe.' in other for other in wanted):
        return names
    granite = {}
    for name, value in names.items():
        if name.endswith('.mlp.shared_experts.gate_proj.weight'):
            value = torch.cat([value, names[name.replace('gate_proj', 'up_proj')]])
        for ours, theirs in (('.mlp.shared_experts.gate_proj', '.shared_mlp.input_linear'),
                             ('.mlp.shared_experts.down_proj', '.shared_mlp.output_linear'),
                             ('.mlp.gate.', '.block_sparse_moe.router.'), ('.mlp.experts.', '.block_sparse_moe.experts.')):
            name = name.replace(ours, theirs)
        if '.mlp.' not in name:
            granite[name] = value
    return granite


def compare_step(run_directory, model, recipe, lines):
    moe, router = recipe['model']['moe'], recipe['model']['moe']['router']
    experts, top_k, coefficient = moe['num_experts'], moe['num_experts_per_tok'], 0.05
    mine = ours('step', run_directory, lines, 'training.lm_z_loss_coefficient=0', 'model.moe.layer_reduction=sum',
                'model.moe.router.z_loss_coefficient=0.01',
                f'model.moe.balance=[{{scope: global_batch, estimator: exact, coefficient: {coefficient}}}]')
    losses = mine.pop('losses')
    model.train()
    model.zero_grad()
    logits_of_layers, biases, hooks = [], [], []
    for name, module in model.named_modules():
        if name.endswith(('.mlp.gate', '.block_sparse_moe.router')) and module.weight.shape[0] == experts:
            block = model.get_submodule(name.rpartition('.')[0])
            biases.append(getattr(module, 'e_score_correction_bias', getattr(block, 'e_score_correction_bias', None)))
            hooks.append(module.register_forward_hook(lambda gate, inputs, _: logits_of_layers.append(
                torch.nn.functional.linear(inputs[0].reshape(-1, gate.weight.shape[1]), gate.weight))))
    ids = torch.tensor(lines)
    logits = model(ids).logits
    for hook in hooks:
        hook.remove()
    lm_loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    balance, z = 0, 0
    for layer, bias in zip(logits_of_layers, biases):
        if router['kind'] == 'sigmoid':
            score = layer.sigmoid()
            chosen_by = score if bias is None else score + bias
            groups = chosen_by.view(len(layer), router['n_group'], -1)
            best = groups.topk(2, -1)[0].sum(-1).topk(router['topk_group'], -1)[1]
            mask = torch.zeros(len(layer), router['n_group']).scatter(1, best, 1)[:, :, None].expand_as(groups)
            chosen_by = chosen_by.masked_fill(mask.reshape(chosen_by.shape) == 0, -math.inf)
            p = score / score.sum(-1, keepdim=True)
        else:
            p = layer.softmax(-1)
            chosen_by = p if bias is None else p + bias
            if router['topk_group'] < router['n_group']:
                groups = chosen_by.view(len(layer), router['n_group'], -1)
                best = groups.amax(-1).topk(router['topk_group'], -1)[1]
                mask = torch.zeros(len(layer), router['n_group']).scatter(1, best, 1)[:, :, None].expand_as(groups)
                chosen_by = chosen_by.masked_fill(mask.reshape(chosen_by.shape) == 0, -math.inf)
        counts = torch.zeros(experts).index_add(0, chosen_by.topk(top_k, -1)[1].flatten(), torch.ones(len(layer) * top_k))
        balance = balance + experts * (counts / counts.sum() * p.mean(0)).sum()
        z = z + (torch.logsumexp(layer, -1) ** 2).mean()
    loss = lm_loss + coefficient * balance + 0.01 * z
    loss.backward()
    layers = len(logits_of_layers)
    theirs = torch.stack([lm_loss, balance / layers, z / layers, loss]).detach()
    difference = (losses - theirs).abs().max().item()
    check('one step: language-model, balance, z and whole loss, largest difference', difference < 1e-5, f'{difference:.2e}')
    if router['kind'] == 'softmax' and getattr(model.config, 'router_aux_loss_coef', 0):
        # By transformers' own loss, which pools layers; given one at a time it is top_k under even routing.
        own = sys.modules[type(model).__module__].load_balancing_loss_func
        there = model.config.router_aux_loss_coef * sum(own((layer,), experts, top_k) for layer in logits_of_layers) / layers
        weight = sum(term['coefficient'] for term in moe['balance'] if not term.get('expert_groups'))
        here = weight * balance / (layers if moe['layer_reduction'] == 'mean' else 1)
        ratio = (there / here).item()
        check('router_aux_loss_coef weighs the balance as the recipe does', abs(ratio - 1) < 1e-5, f'{ratio:.7f}')
    named = dict(model.named_parameters())
    if moe.get('num_shared_experts', 0) == 0:  # those that are there are zero, and stay so
        zeros = [named.pop(name).grad.abs().max() for name in list(named) if '.shared_' in name]
        if zeros:
            check('one step: no gradient moves a shared expert of zeros', not any(zeros), f'{len(zeros)} parameters')
    gradients = module_names(mine, named)
    check('one step: gradients of the same parameters', named.keys() == gradients.keys(),
          '' if named.keys() == gradients.keys() else sorted(named.keys() ^ gradients.keys())[:6])
    worst, worst_name = 0, ''
    for name in named.keys() & gradients.keys():
        wanted = named[name].grad
        relative = ((gradients[name] - wanted).norm() / wanted.norm()).item()
        if not relative <= worst:
            worst, worst_name = relative, name
    check(f'one step: {len(named)} gradients, largest relative difference', worst < 1e-4, f'{worst:.2e} ({worst_name})')
    model.eval()


def compare_tokenizer(directory, tokenizer, encode):
    texts = prompts + ['', ' ', '  two  spaces ', '\n\n\ttab', 'emoji 😀 and ﬁ ligature', 'Ⅷ ½ ǅ', '\x00\x01\x7f']
    equal = sum(tokenizer(text, add_special_tokens=False)['input_ids'] == list(encode(text)) for text in texts)
    back = sum(tokenizer.decode(tokenizer(text, add_special_tokens=False)['input_ids']) == text for text in texts)
    check('tokenizer: the same ids', equal == len(texts), f'{equal} of {len(texts)}')
    check('tokenizer: texts that come back', back == len(texts), f'{back} of {len(texts)}')
    bare = sum(tokenizer(text)['input_ids'] == list(encode(text)) for text in texts)
    check('tokenizer: texts to which nothing is added', bare == len(texts), f'{bare} of {len(texts)}')
    check_roles(directory, tokenizer)


def check_roles(directory, tokenizer):
    """The separator opens and ends a document, and padding is no end of text that fine-tuning would leave out of the loss."""
    config = transformers.AutoConfig.from_pretrained(directory)
    generation = transformers.GenerationConfig.from_pretrained(directory)
    roles = [(one.bos_token_id, one.eos_token_id, one.pad_token_id) for one in (tokenizer, config, generation)]
    bos, eos, pad = roles[0]
    check('one separator, and padding that is another token or none',
          roles[1:] == roles[:1] * 2 and bos == eos is not None and pad != eos, f'bos {bos}, eos {eos}, pad {pad}')
    if pad is None:
        return
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    labels = collator([{'input_ids': [1, 2, eos]}, {'input_ids': [3, eos]}])['labels'].tolist()
    check('a batch for fine-tuning has every end of text as a label', labels == [[1, 2, eos], [3, eos, -100]], labels)


def check_trained():
    print(f'a trained run ({trained}), transformers {transformers.__version__}, torch {torch.__version__}')
    directory = scratch / 'trained'
    run(conclave, 'export', trained, directory, '--shard-size', '2MB')
    recipe = yaml.safe_load((pathlib.Path(trained) / 'recipe.yaml').read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    compare_tokenizer(directory, tokenizer, str.encode)
    model = load(directory)
    lines = [tokenizer(prompt)['input_ids'] for prompt in prompts]
    compare_logits(trained, model, lines)
    compare_continuations(trained, model, tokenizer)
    text = list(' '.join(prompts).encode())
    compare_step(trained, model, recipe, [text[i * 100:(i + 1) * 100] for i in range(8)])
    check('import gives back the same bits', comes_back(directory))
    saved = scratch / 'saved'  # what transformers itself writes can be imported too
    model.save_pretrained(saved)
    check('import of what transformers saves gives the same bits', comes_back(saved, directory))
    rounded = scratch / 'bf16'
    run(conclave, 'export', trained, rounded, '--dtype', 'bf16')
    half = transformers.AutoModelForCausalLM.from_pretrained(rounded, dtype='auto')
    check('bf16: every weight is the rounded one', all(
        torch.equal(value, dict(model.state_dict())[name].to(torch.bfloat16)) and value.dtype == torch.bfloat16
        for name, value in half.state_dict().items()))


def check_random(architecture, tied):
    print(f'{architecture}, random weights, {"tied" if tied else "untied"}')
    model = dict(vocab_size=300, hidden_size=64, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=16, rope_theta=5000.0, rms_norm_eps=1e-5, qk_norm=True,
                 tie_word_embeddings=tied, initializer_range=0.1)
    moe = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=24, layer_reduction='mean' if tied else 'sum',
               balance=[dict(scope='global_batch', coefficient=0.03), dict(scope='sequence', coefficient=0.01)])
    router = dict(kind='softmax', norm_topk_prob=True, n_group=1, topk_group=1)
    if architecture == 'qwen3_moe':
        model['head_dim'], moe['first_k_dense_replace'] = 24, 1
        router['norm_topk_prob'] = not tied
    if architecture == 'olmoe':
        model['qk_norm_over'], router['norm_topk_prob'] = 'all_heads', tied
    if architecture in ('mixtral', 'granitemoe', 'granitemoeshared', 'deepseek', 'solar_open'):
        model['qk_norm'] = False
    if architecture in ('granitemoeshared', 'deepseek'):
        moe['num_shared_experts'] = 2
    if architecture in ('granitemoe', 'granitemoeshared'):
        model['head_dim'] = 24
    if architecture == 'deepseek':
        moe['first_k_dense_replace'], router['norm_topk_prob'] = 1, tied
    sigmoid = dict(kind='sigmoid', norm_topk_prob=True, n_group=1, topk_group=1, bias=dict(rate=0.001))
    grouped = dict(sigmoid, n_group=4, topk_group=2, routed_scaling_factor=1.5)
    if architecture == 'minimax_m2':
        model.update(qk_norm_over='all_heads', partial_rotary_factor=0.5, head_dim=24)
        router = sigmoid
    if architecture in ('dots1', 'solar_open'):
        model['head_dim'], router = 24, dict(grouped, norm_topk_prob=not tied)
        moe['num_shared_experts'] = 0 if tied else 2  # a shared expert of zeros
    if architecture == 'dots1':
        moe['first_k_dense_replace'] = 1
    if architecture == 'conclave':
        model.update(qk_norm_over='all_heads', partial_rotary_factor=0.5, head_dim=24)
        moe.update(num_shared_experts=1, first_k_dense_replace=1)
        router = dict(grouped, kind='softmax' if tied else 'sigmoid')
    if architecture == 'glm4_moe':
        model['partial_rotary_factor'], model['qk_norm'] = (1.0, True) if tied else (0.5, False)
        moe.update(num_shared_experts=2, first_k_dense_replace=1)
        router = grouped
    moe['router'] = router
    model['moe'] = moe
    recipe = dict(name='random', model=model, data=dict(sequence_length=128))
    if architecture in dense:
        moe['first_k_dense_replace'], model['qk_norm'] = 3, architecture == 'qwen3'
    path, directory, run_directory = (scratch / f'{architecture}-{tied}{end}' for end in ('.yaml', '', '-run'))
    path.write_text(yaml.safe_dump(recipe))
    run(probe, 'random', path, run_directory)
    run(conclave, 'export', run_directory, directory, '--arch', architecture, '--shard-size', '200KB')
    network = load(directory)
    saved = scratch / f'{architecture}-{tied}-saved'
    network.save_pretrained(saved)
    check('import of what transformers saves gives the same bits', comes_back(saved, directory))
    lines = [list(prompt.encode()) for prompt in prompts]
    compare_logits(run_directory, network, lines)
    check('import gives back the same bits', comes_back(directory))
    text = list(' '.join(prompts).encode())
    if architecture not in dense:
        compare_step(run_directory, network, recipe, [text[i * 100:(i + 1) * 100] for i in range(8)])


def check_foreign():
    """A model of transformers' own goes in and out, and what it says of itself stays."""
    print('a foreign model, in and out')
    source, run_directory, out = (scratch / f'foreign{end}' for end in ('', '-run', '-out'))
    config = transformers.Qwen3Config(
        vocab_size=1008, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=40960, bos_token_id=1001, eos_token_id=[1002, 1000],
        pad_token_id=1003, rope_parameters=dict(rope_type='default', rope_theta=1e6), use_cache=False, max_window_layers=2)
    network = transformers.Qwen3ForCausalLM(config).eval()
    network.generation_config.update(temperature=0.6, top_p=0.95, do_sample=True, eos_token_id=[1002, 1000])
    network.save_pretrained(source)
    file = json.loads(pathlib.Path('tests/framework/data/tokenizers/base.json').read_text())
    (source / 'tokenizer.json').write_text(json.dumps(file))
    (source / 'tokenizer_config.json').write_text(json.dumps({'eos_token': file['added_tokens'][0]['content'],
                                                              'model_max_length': 131072}))
    (source / 'chat_template.jinja').write_text('{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}')
    run(conclave, 'import', source, run_directory, 'data.sequence_length=64')
    run(conclave, 'export', run_directory, out)
    before, after = (transformers.AutoConfig.from_pretrained(place).to_dict() for place in (source, out))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} - {'transformers_version', '_name_or_path'}
    check('config.json says the same', not changed, sorted(changed) if changed else '')
    before, after = (transformers.GenerationConfig.from_pretrained(place).to_dict() for place in (source, out))
    check('generation_config.json says the same', before == after)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    chat = tokenizer.apply_chat_template([{'role': 'user', 'content': 'hello'}], tokenize=False)
    check('the chat template is there', chat == '[user] hello', chat)
    tensors, again = tensors_of(source), tensors_of(out)
    check('every tensor has the same bits', tensors.keys() == again.keys() and all(
        torch.equal(tensors[name], again[name]) for name in tensors))


def check_shapes():
    """Each shape of model has an export that computes the same; most in a class of transformers' own."""
    counts = {}
    for kind, shared, norm, dense, groups in itertools.product(
            ('softmax', 'sigmoid'), (0, 1), ('none', 'head', 'all_heads'), (0, 1), (1, 2)):
        name = f'{kind}, {shared} shared, qk_norm {norm}, {dense} dense, {groups} groups'
        router = dict(kind=kind, norm_topk_prob=True, n_group=groups, topk_group=1)
        moe = dict(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=24, num_shared_experts=shared,
                   first_k_dense_replace=dense, router=router)
        if kind == 'sigmoid':
            router['bias'] = dict(rate=0.001)
        model = dict(vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=8, qk_norm=norm != 'none', initializer_range=0.2, moe=moe)
        if norm != 'none':
            model['qk_norm_over'] = norm
        path, directory, run_directory = (scratch / f'shape{end}' for end in ('.yaml', '', '-run'))
        run('rm', '-rf', directory, run_directory)
        data = dict(sequence_length=128, train=[dict(path='none', domain='none')])
        path.write_text(yaml.safe_dump(dict(name='shape', model=model, data=data)))
        run(probe, 'random', path, run_directory)
        run(conclave, 'export', run_directory, directory)
        architecture = json.loads((directory / 'config.json').read_text())['model_type']
        counts[architecture] = counts.get(architecture, 0) + 1
        said = run(conclave, 'validate', path).decode()
        check(f'{name}: {architecture}, as validate says', f'exports as {architecture}' in said)
        compare_logits(run_directory, load(directory), [list(prompt.encode()) for prompt in prompts])
    own = sum(counts.values()) - counts['conclave'] - counts.get('deepseek', 0)
    print(f'  {counts}: {own} in classes of transformers\' own')


def finish(name):
    run('rm', '-rf', scratch)
    print(f'{name}: {failures} checks failed' if failures else f'{name}: all checks hold')
    sys.exit(1 if failures else 0)


def main():
    parts = sys.argv[1:] or ['trained', 'random', 'shapes', 'foreign']
    if 'trained' in parts:
        check_trained()
    if 'random' in parts:
        for architecture in architectures:
            for tied in (False, True):
                check_random(architecture, tied)
    for part, check_part in (('shapes', check_shapes), ('foreign', check_foreign)):
        if part in parts:
            check_part()
    finish('hugging_face')


if __name__ == '__main__':
    main()
