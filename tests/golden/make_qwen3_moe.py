"""Computes qwen3_moe.json: six training steps of transformers' Qwen3MoeForCausalLM with torch's AdamW, in float64.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install torch transformers pyyaml
    /tmp/golden/bin/python tests/golden/make_qwen3_moe.py

It needs nothing of Conclave and is not part of the tests; qwen3_moe_test.cpp reads what it wrote.
"""
import importlib.util, json, math, pathlib, sys

import torch, transformers, yaml
from transformers import Qwen3MoeConfig

folder = pathlib.Path(__file__).parent
recipe = yaml.safe_load((folder / 'qwen3_moe.yaml').read_text())
model, moe, training, optimizer = recipe['model'], recipe['model']['moe'], recipe['training'], recipe['optimizer']
T64 = torch.float64


def modeling_in_float64():
    """transformers' own source, in which the operations that it always does in float32 are done in float64."""
    spec = importlib.util.find_spec('transformers.models.qwen3_moe.modeling_qwen3_moe')
    source = pathlib.Path(spec.origin).read_text()
    for single, double in (('torch.float32', 'torch.float64'), ('dtype=torch.float)', 'dtype=torch.float64)'),
                           ('dtype=torch.float,', 'dtype=torch.float64,'), ('.float()', '.double()')):
        assert single in source, single
        source = source.replace(single, double)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    exec(compile(source, spec.origin, 'exec'), module.__dict__)
    return module


def noise(seed, i):  # 32 bits; the same in qwen3_moe_test.cpp
    u = ((seed + i) * 2654435761) % 2**32
    u ^= u >> 15
    u = u * 2246822519 % 2**32
    return u ^ u >> 13


def weight(name, shape):
    seed = 0
    for character in name.encode():
        seed = (seed * 31 + character) % 1000003
    values = torch.tensor([noise(seed * 4096, i) / 2**32 - 0.5 for i in range(math.prod(shape))], dtype=T64)
    return (1 + values / 4 if len(shape) == 1 else values / 2).reshape(shape)


def initialise(network):
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith('experts.gate_up_proj'):  # [experts, 2 * width, hidden]: two of ours
            half = (tensor.shape[0], tensor.shape[1] // 2, tensor.shape[2])
            stem = name[:-len('gate_up_proj')]
            state[name] = torch.cat([weight(stem + part + '_proj.weight', half) for part in ('gate', 'up')], 1)
        else:
            state[name] = weight(name + '.weight' * name.endswith('experts.down_proj'), tuple(tensor.shape))
    network.load_state_dict(state)


def batch(step):
    """tokens (-1: padding), targets (-1: none) and documents, each [rows, length]"""
    length, rows = recipe['data']['sequence_length'], training['global_batch_size']
    tokens, targets, documents = (torch.full((rows, length), -1) for _ in range(3))
    for row in range(rows):
        real, boundary = length - (row * 2) % 5, 4 + (step * 3 + row * 5) % 12
        for column in range(real):
            tokens[row, column] = noise(step * 65536 + row * 256, column) % (11 + 8 * row)
            documents[row, column] = int(column >= boundary)
        for column in range(real - 1):
            if column + 1 != boundary:
                targets[row, column] = tokens[row, column + 1]
    return tokens, targets, documents


M = modeling_in_float64()
config = Qwen3MoeConfig(
    **{key: model[key] for key in ('vocab_size', 'hidden_size', 'intermediate_size', 'num_hidden_layers',
                                   'num_attention_heads', 'num_key_value_heads', 'head_dim', 'rms_norm_eps')},
    **{key: moe[key] for key in ('num_experts', 'num_experts_per_tok', 'moe_intermediate_size')},
    rope_theta=model['rope_theta'], rope_parameters={'rope_type': 'default', 'rope_theta': model['rope_theta']},
    norm_topk_prob=moe['router']['norm_topk_prob'], mlp_only_layers=list(range(moe['first_k_dense_replace'])),
    decoder_sparse_step=1, tie_word_embeddings=False, attention_bias=False, use_sliding_window=False)
config._attn_implementation = config._experts_implementation = 'eager'
torch.set_num_threads(1)
torch.set_default_dtype(T64)
network = M.Qwen3MoeForCausalLM(config).double().train()
initialise(network)

gate_logits = []
for module in network.modules():
    if isinstance(module, M.Qwen3MoeTopKRouter):
        module.register_forward_hook(lambda gate, inputs, _: gate_logits.append(
            torch.nn.functional.linear(inputs[0].reshape(-1, gate.hidden_dim), gate.weight)))
decay = [p for p in network.parameters() if p.dim() > 1]
constant = [p for p in network.parameters() if p.dim() == 1]
adamw = torch.optim.AdamW([{'params': decay, 'weight_decay': optimizer['weight_decay']},
                           {'params': constant, 'weight_decay': 0.0}], lr=1.0,
                          betas=tuple(optimizer['betas']), eps=optimizer['eps'], foreach=False)

steps = []
for step in range(training['steps']):
    tokens, targets, documents = batch(step)
    length, real = tokens.shape[1], tokens >= 0
    allowed = torch.ones(length, length, dtype=torch.bool).tril() & (documents[:, :, None] == documents[:, None, :])
    mask = torch.zeros(allowed.shape, dtype=T64).masked_fill(~allowed, torch.finfo(T64).min)[:, None]
    gate_logits.clear()
    logits = network(input_ids=tokens.clamp(min=0), attention_mask=mask,
                     position_ids=torch.arange(length).expand(tokens.shape)).logits
    has_target = targets >= 0
    lm_loss = torch.nn.functional.cross_entropy(logits[has_target], targets[has_target])
    lm_z = (torch.logsumexp(logits[has_target], -1) ** 2).mean()
    # transformers' f sums to top_k, ours to 1; its function pools layers, so each layer is given alone.
    balance = sum(M.load_balancing_loss_func((layer,), config.num_experts, config.num_experts_per_tok, real.long())
                  for layer in gate_logits) / config.num_experts_per_tok
    router_z = sum((torch.logsumexp(layer[real.reshape(-1)], -1) ** 2).mean() for layer in gate_logits)
    loss = (lm_loss + moe['balance'][0]['coefficient'] * balance + moe['router']['z_loss_coefficient'] * router_z +
            training['lm_z_loss_coefficient'] * lm_z)
    adamw.zero_grad()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters()]).item()
    if norm > optimizer['grad_clip']:  # clip_grad_norm_ would add 1e-6 to the norm
        for p in network.parameters():
            p.grad.mul_(optimizer['grad_clip'] / norm)
    schedule = optimizer['schedule']
    warm, least = schedule['warmup_steps'], schedule['min_lr_ratio']
    passed = (step - warm) / (training['steps'] - 1 - warm)
    factor = (step + 1) / warm if step < warm else least + (1 - least) * 0.5 * (1 + math.cos(math.pi * passed))
    for group in adamw.param_groups:
        group['lr'] = optimizer['lr'] * factor
    adamw.step()
    steps.append({'lm_loss': lm_loss.item(), 'loss': loss.item(), 'grad_norm': norm,
                  'load_balance_loss': balance.item() / len(gate_logits),
                  'router_z_loss': router_z.item() / len(gate_logits)})

(folder / 'qwen3_moe.json').write_text(json.dumps(
    {'made_with': f'transformers {transformers.__version__}, torch {torch.__version__}', 'steps': steps},
    indent=1) + '\n')
