"""The peer of a Conclave run: the same model, data and optimizer in PyTorch, as a user of PyTorch would write it.

    twin.py RUN --weights CHECKPOINT [--compile] [--loop] [--threads N] [--output FILE]
    twin.py --measure SIZES.json [--device cuda] [--steps N] [--compile] [--loop]

RUN is the directory of a finished Conclave run with logging.samples=true: its recipe says what to build, its
samples.jsonl and token file hold the data of every step. CHECKPOINT holds the weights that it began with. One JSON
object a step goes to FILE, under the names of metrics.jsonl: step, lm_loss, load_balance_loss, router_z_loss,
step_seconds. A run in bf16 is followed under autocast, with master weights in fp32. --loop computes experts by a loop
of products instead of grouped_mm. Left out: everything that examples/benchmark.yaml does not use (documents, shared
experts, dense blocks, schedules, several micro-batches or ranks).

With --measure it needs torch alone, draws its weights and tokens itself and only says how fast its steps are. SIZES.json
has the keys of a recipe's model, and sequence_length, micro_batch_size and precision.
"""
import argparse, json, pathlib, statistics, struct, time

import torch
import torch.nn.functional as F
from torch import nn


def with_numbers(value):
    """YAML 1.1, which PyYAML reads, takes 3e-04 for text."""
    if isinstance(value, dict):
        return {key: with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    if isinstance(value, str) and value[:1].isdigit():
        try:
            return float(value)
        except ValueError:
            pass
    return value


def tokens_of(prefix):
    """A token file in Megatron's indexed format."""
    import numpy
    index = pathlib.Path(f'{prefix}.idx').read_bytes()
    assert index[:9] == b'MMIDIDX\x00\x00' and struct.unpack('<Q', index[9:17])[0] == 1, f'{prefix}.idx'
    return numpy.memmap(f'{prefix}.bin', mode='r', dtype={8: numpy.uint16, 4: numpy.int32}[index[17]])


class Attention(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.width = m['head_dim']
        inner, kv_inner = m['num_attention_heads'] * self.width, m['num_key_value_heads'] * self.width
        self.q_proj = nn.Linear(m['hidden_size'], inner, bias=False)
        self.k_proj = nn.Linear(m['hidden_size'], kv_inner, bias=False)
        self.v_proj = nn.Linear(m['hidden_size'], kv_inner, bias=False)
        self.o_proj = nn.Linear(inner, m['hidden_size'], bias=False)
        self.q_norm = nn.RMSNorm(self.width, eps=m['rms_norm_eps'])
        self.k_norm = nn.RMSNorm(self.width, eps=m['rms_norm_eps'])

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        heads = lambda y: y.view(batch, length, -1, self.width).transpose(1, 2)
        query = rotate(self.q_norm(heads(self.q_proj(x))), cos, sin)
        key = rotate(self.k_norm(heads(self.k_proj(x))), cos, sin)
        value = heads(self.v_proj(x))
        y = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=query.shape[1] != key.shape[1])
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1))


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Experts(nn.Module):
    """Weights of all experts stacked, rows sorted by expert."""

    loop = False

    def __init__(self, experts, hidden, inner):
        super().__init__()
        for name, shape in (('gate_proj', (inner, hidden)), ('up_proj', (inner, hidden)), ('down_proj', (hidden, inner))):
            holder = nn.Module()
            holder.weight = nn.Parameter(torch.empty(experts, *shape))
            self.add_module(name, holder)

    def forward(self, rows, ends):
        gate, up, down = (holder.weight for holder in (self.gate_proj, self.up_proj, self.down_proj))
        if self.loop:
            parts = rows.split(ends.diff(prepend=ends.new_zeros(1)).tolist())
            return torch.cat([F.linear(F.silu(F.linear(x, g)) * F.linear(x, u), d)
                              for x, g, u, d in zip(parts, gate, up, down)])
        if torch.is_autocast_enabled(rows.device.type):  # which does not know grouped_mm
            rows, gate, up, down = (x.to(torch.bfloat16) for x in (rows, gate, up, down))
        product = lambda x, weight: F.grouped_mm(x, weight.transpose(1, 2), offs=ends)
        return product(F.silu(product(rows, gate)) * product(rows, up), down)


class Moe(nn.Module):
    def __init__(self, m):
        super().__init__()
        moe = m['moe']
        self.count, self.top_k = moe['num_experts'], moe['num_experts_per_tok']
        self.renormalise = moe['router']['norm_topk_prob']
        self.gate = nn.Linear(m['hidden_size'], self.count, bias=False)
        self.experts = Experts(self.count, m['hidden_size'], moe['moe_intermediate_size'])

    def forward(self, x):
        shape, x = x.shape, x.reshape(-1, x.shape[-1])
        with torch.autocast(x.device.type, enabled=False):
            logits = self.gate(x.float())
        probabilities = logits.softmax(-1)
        weights, chosen = probabilities.topk(self.top_k, -1)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        # Dispatch: assignments sorted by expert, and back.
        order = chosen.flatten().argsort(stable=True)
        counts = torch.zeros(self.count, dtype=torch.int64, device=x.device).scatter_add(0, chosen.flatten(), torch.ones_like(order))
        rows = self.experts(x[order // self.top_k], counts.cumsum(0).to(torch.int32))
        rows = rows * weights.flatten()[order].unsqueeze(-1)
        y = torch.zeros_like(rows[:len(x)]).index_add(0, order // self.top_k, rows)
        fractions = counts / counts.sum()
        balance = self.count * (fractions * probabilities.mean(0)).sum()
        return y.view(shape), balance, logits.logsumexp(-1).square().mean()


class Block(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(m['hidden_size'], eps=m['rms_norm_eps'])
        self.self_attn = Attention(m)
        self.post_attention_layernorm = nn.RMSNorm(m['hidden_size'], eps=m['rms_norm_eps'])
        self.mlp = Moe(m)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        y, balance, z = self.mlp(self.post_attention_layernorm(x))
        return x + y, balance, z


class Twin(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(m['vocab_size'], m['hidden_size'])
        self.model.layers = nn.ModuleList(Block(m) for _ in range(m['num_hidden_layers']))
        self.model.norm = nn.RMSNorm(m['hidden_size'], eps=m['rms_norm_eps'])
        self.lm_head = nn.Linear(m['hidden_size'], m['vocab_size'], bias=False)
        self.width, self.theta = m['head_dim'], m['rope_theta']

    def forward(self, tokens, targets):
        on = {'device': tokens.device}
        angles = torch.outer(torch.arange(tokens.shape[1], **on),
                             self.theta ** -(torch.arange(0, self.width, 2, **on) / self.width))
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos(), angles.sin()
        x, balances, zs = self.model.embed_tokens(tokens), [], []
        for layer in self.model.layers:
            x, balance, z = layer(x, cos, sin)
            balances.append(balance)
            zs.append(z)
        logits = self.lm_head(self.model.norm(x))
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return loss, torch.stack(balances), torch.stack(zs)


def load(twin, checkpoint):
    import h5py
    with h5py.File(checkpoint / 'index.h5') as file:
        for name, parameter in twin.named_parameters():
            values = file[f'model/{name}'][...]
            assert values.shape == tuple(parameter.shape), name
            parameter.data.copy_(torch.from_numpy(values))
        stored = set()
        file['model'].visititems(lambda name, item: stored.add(name) if isinstance(item, h5py.Dataset) else None)
        assert stored == {name for name, _ in twin.named_parameters()}, 'the checkpoint has other parameters'


def optimizer_of(twin, recipe):
    decayed = [p for p in twin.parameters() if p.dim() > 1]
    others = [p for p in twin.parameters() if p.dim() <= 1]
    return torch.optim.AdamW([{'params': decayed, 'weight_decay': recipe['weight_decay']},
                              {'params': others, 'weight_decay': 0.0}],
                             lr=recipe['lr'], betas=recipe['betas'], eps=recipe['eps'], fused=True)


def step(network, twin, optimizer, autocast, tokens, targets, coefficients, most_norm):
    """One step of training; coefficients weigh the balance of each layer and its z-loss."""
    optimizer.zero_grad(set_to_none=True)
    with autocast:
        loss, balances, zs = network(tokens, targets)
    (loss + coefficients[0] * balances.sum() + coefficients[1] * zs.sum()).backward()
    nn.utils.clip_grad_norm_(twin.parameters(), most_norm)
    optimizer.step()
    return loss, balances, zs


def measure(arguments):
    sizes = json.loads(arguments.measure.read_text())
    device, length, sequences = arguments.device, sizes['sequence_length'], sizes['micro_batch_size']
    torch.manual_seed(1234)
    with torch.device(device):
        twin = Twin(sizes)
        for parameter in twin.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        # vocabulary^uniform falls with 1 / id, as Zipf's law wants.
        draws = sizes['vocab_size'] ** torch.rand(sequences, length + 1) - 1
    batch = draws.long().clamp(max=sizes['vocab_size'] - 1)
    optimizer = optimizer_of(twin, {'weight_decay': 0.1, 'lr': 3e-4, 'betas': [0.9, 0.95], 'eps': 1e-8})
    autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=sizes['precision'] == 'bf16')
    network = torch.compile(twin) if arguments.compile else twin
    seconds = []
    for number in range(arguments.steps):
        begin = time.perf_counter()
        loss = step(network, twin, optimizer, autocast, batch[:, :-1], batch[:, 1:], (0.01, 0.001), 1.0)[0].item()  # waits
        if device == 'cuda':
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
        print(json.dumps({'step': number + 1, 'lm_loss': loss, 'step_seconds': seconds[-1]}), flush=True)
    typical = statistics.median(seconds[2:] or seconds)
    memory = torch.cuda.max_memory_allocated() if device == 'cuda' else 0
    print(f'  PyTorch {torch.__version__}, {"compiled" if arguments.compile else "eager"}: '
          f'{sequences * length / typical:.1f} tokens/s, {memory / 1e9:.2f} GB at most')


def follow(arguments):
    import numpy, yaml
    recipe = with_numbers(yaml.safe_load((arguments.run / 'recipe.yaml').read_text()))
    model, optimizer_recipe, length = recipe['model'], recipe['optimizer'], recipe['data']['sequence_length']
    assert optimizer_recipe['schedule']['kind'] == 'constant' and not recipe['data']['document_mask']
    assert recipe['training']['precision'] in ('fp32', 'bf16')
    autocast = torch.autocast('cpu', dtype=torch.bfloat16, enabled=recipe['training']['precision'] == 'bf16')
    twin = Twin(model)
    load(twin, arguments.weights)
    samples = [json.loads(line) for line in open(arguments.run / 'samples.jsonl')]
    tokens = tokens_of(recipe['data']['train'][0]['path'])

    optimizer = optimizer_of(twin, optimizer_recipe)
    coefficients = sum(term['coefficient'] for term in model['moe']['balance']), model['moe']['router']['z_loss_coefficient']
    network = torch.compile(twin) if arguments.compile else twin
    for sample in samples:
        begin = time.perf_counter()
        rows = numpy.stack([tokens[s * length:(s + 1) * length + 1] for s in sample['sequence']]).astype(numpy.int64)
        batch = torch.from_numpy(rows)
        loss, balances, zs = step(network, twin, optimizer, autocast, batch[:, :-1], batch[:, 1:], coefficients,
                                  optimizer_recipe['grad_clip'])
        seconds = time.perf_counter() - begin
        print(json.dumps({'step': sample['step'], 'lm_loss': loss.item(), 'load_balance_loss': balances.mean().item(),
                          'router_z_loss': zs.mean().item(), 'step_seconds': seconds}), file=arguments.output, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=pathlib.Path, nargs='?')
    parser.add_argument('--weights', type=pathlib.Path)
    parser.add_argument('--measure', type=pathlib.Path, metavar='SIZES')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--steps', type=int, default=8)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument('--loop', action='store_true')
    parser.add_argument('--threads', type=int, default=0)
    parser.add_argument('--output', type=argparse.FileType('w'), default='-')
    arguments = parser.parse_args()
    if not arguments.measure and not (arguments.run and arguments.weights):
        parser.error('RUN with --weights is expected, or --measure')
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    Experts.loop = arguments.loop
    measure(arguments) if arguments.measure else follow(arguments)


if __name__ == '__main__':
    main()
