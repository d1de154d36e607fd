"""What people start from: 55 configurations of transformers' own classes with random weights, each imported or refused.
An import must have the logits of transformers; a refusal is printed. Started by run.sh; names of configurations restrict
it."""
import json, os, pathlib, re, subprocess, sys, tempfile

import safetensors, torch, transformers

conclave, probe = (os.environ[f'INTEROP_{name}'] for name in ('CONCLAVE', 'PROBE'))
scratch = pathlib.Path(tempfile.mkdtemp(prefix='conclave-imports-'))
torch.set_num_threads(1)
os.environ['OMP_NUM_THREADS'] = '1'
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

sizes = dict(vocab_size=300, hidden_size=64, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=128, initializer_range=0.1, pad_token_id=0, bos_token_id=1,
             eos_token_id=2)
experts = dict(num_experts_per_tok=2, moe_intermediate_size=24)
of_8 = dict(**experts, num_experts=8)
of_8_local = dict(num_experts_per_tok=2, num_local_experts=8)
routed_8 = dict(**experts, n_routed_experts=8)
glm = dict(**routed_8, n_shared_experts=1, first_k_dense_replace=1)
mla = dict(q_lora_rank=32, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16, num_key_value_heads=4)
llama3 = dict(rope_type='llama3', rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
granite = dict(embedding_multiplier=3.0, attention_multiplier=0.1, residual_multiplier=0.3, logits_scaling=4.0)
no_head = dict(head_dim=None)

# name: class, what differs from the sizes
configurations = {
    'qwen3_moe': ('Qwen3Moe', of_8),
    'qwen3_moe, norm_topk_prob': ('Qwen3Moe', dict(**of_8, norm_topk_prob=True)),
    'qwen3_moe, mlp_only_layers': ('Qwen3Moe', dict(**of_8, mlp_only_layers=[1])),
    'qwen3_moe, decoder_sparse_step 2': ('Qwen3Moe', dict(**of_8, num_hidden_layers=5, decoder_sparse_step=2)),
    'olmoe': ('Olmoe', dict(num_experts=8, num_experts_per_tok=2, intermediate_size=24, head_dim=None)),
    'olmoe, clip_qkv': ('Olmoe', dict(num_experts=8, num_experts_per_tok=2, intermediate_size=24, clip_qkv=0.3)),
    'mixtral': ('Mixtral', of_8_local),
    'mixtral, a window': ('Mixtral', dict(**of_8_local, sliding_window=4096)),
    'glm4_moe, selection biases': ('Glm4Moe', glm),
    'glm4_moe, groups and QK-norm': ('Glm4Moe', dict(**glm, n_group=4, topk_group=2, use_qk_norm=True)),
    'glm4_moe, attention_bias': ('Glm4Moe', dict(**glm, attention_bias=True)),
    'qwen2_moe': ('Qwen2Moe', dict(**of_8, shared_expert_intermediate_size=48)),
    'qwen3_next': ('Qwen3Next', dict(**of_8, num_hidden_layers=4, shared_expert_intermediate_size=24, linear_num_key_heads=2,
                                     linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16)),
    'flex_olmo': ('FlexOlmo', dict(num_experts=8, num_experts_per_tok=2, intermediate_size=24, head_dim=None)),
    'glm4_moe_lite': ('Glm4MoeLite', dict(**glm, **mla)),
    'solar_open': ('SolarOpen', dict(**routed_8, n_shared_experts=1)),
    'deepseek': ('Deepseek', dict(**glm)),
    'deepseek_v2': ('DeepseekV2', dict(**glm, **mla)),
    'deepseek_v3': ('DeepseekV3', dict(**glm, **mla, n_group=2, topk_group=1)),
    'gpt_oss': ('GptOss', dict(**of_8_local, intermediate_size=24)),
    'granitemoe': ('GraniteMoe', dict(**of_8_local, **granite, intermediate_size=24, head_dim=None)),
    'granitemoeshared': ('GraniteMoeShared', dict(**of_8_local, **granite, intermediate_size=24, head_dim=None,
                                                  shared_intermediate_size=48)),
    'phimoe': ('Phimoe', dict(**of_8_local, head_dim=None)),
    'ernie4_5_moe': ('Ernie4_5_Moe', dict(moe_k=2, moe_num_experts=8, moe_intermediate_size=24, moe_num_shared_experts=1,
                                          moe_layer_start_index=1, moe_layer_end_index=-1, moe_layer_interval=1)),
    'hunyuan_v1_moe': ('HunYuanMoEV1', dict(num_experts=8, moe_topk=2)),
    'dots1': ('Dots1', dict(**glm, use_qk_norm=True)),
    'minimax': ('MiniMax', dict(**of_8_local)),
    'minimax_m2': ('MiniMaxM2', dict(**of_8_local, intermediate_size=24)),
    'llama4_text': ('Llama4Text', dict(**of_8_local, intermediate_size_mlp=80, intermediate_size=24)),
    'lfm2_moe': ('Lfm2Moe', dict(**of_8, num_dense_layers=1, layer_types=['conv', 'full_attention', 'conv'])),
    'jetmoe': ('JetMoe', dict(num_local_experts=4, num_experts_per_tok=2, kv_channels=16, num_key_value_heads=2)),
    'exaone_moe': ('ExaoneMoe', dict(**of_8, num_shared_experts=1, first_k_dense_replace=1)),
    'afmoe': ('Afmoe', dict(**of_8, num_shared_experts=1, num_dense_layers=1)),
    'longcat_flash': ('LongcatFlash', dict(
        **mla, moe_topk=2, n_routed_experts=8, zero_expert_num=2, expert_ffn_hidden_size=24, ffn_hidden_size=80, num_layers=2)),
    'nemotron_h': ('NemotronH', dict(num_hidden_layers=4, n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=24,
                                     moe_shared_expert_intermediate_size=24, mamba_num_heads=4, mamba_head_dim=16, n_groups=1)),
    'qwen3_5_moe_text': ('Qwen3_5MoeText', dict(
        **of_8, num_hidden_layers=4, shared_expert_intermediate_size=24, linear_num_key_heads=2, linear_num_value_heads=4,
        linear_key_head_dim=16, linear_value_head_dim=16)),
    'qwen3': ('Qwen3', {}),
    'llama': ('Llama', {}),
    'llama, attention_bias': ('Llama', dict(attention_bias=True)),
    'llama, llama3 scaling': ('Llama', dict(rope_parameters=llama3)),
    'mistral': ('Mistral', dict(sliding_window=None)),
    'mistral, a window': ('Mistral', dict(sliding_window=4096)),
    'qwen2': ('Qwen2', {}),
    'olmo2': ('Olmo2', {}),
    'smollm3': ('SmolLM3', {}),
    'phi3': ('Phi3', {}),
    'gemma3_text': ('Gemma3Text', {}),
    'granite': ('Granite', dict(**granite, head_dim=None)),
    'glm4': ('Glm4', {}),
    'seed_oss': ('SeedOss', {}),
    'ministral': ('Ministral', dict(sliding_window=4096)),
    'hunyuan_v1_dense': ('HunYuanDenseV1', {}),
    'ernie4_5': ('Ernie4_5', {}),
    'apertus': ('Apertus', {}),
    'arcee': ('Arcee', {}),
}
assert len(configurations) == 55

# Beside the 55: the same facts in other words. They are imported, or the sentence has these words.
more = {
    'qwen3_moe, packed experts': ('Qwen3Moe', of_8, None),
    'mixtral, packed experts': ('Mixtral', of_8_local, None),
    'glm4_moe, packed experts': ('Glm4Moe', glm, None),
    'llama, linear scaling': ('Llama', dict(rope_parameters=dict(rope_type='linear', rope_theta=10000.0, factor=4.0)), None),
    'llama, yarn scaling': ('Llama', dict(rope_parameters=dict(rope_type='yarn', rope_theta=10000.0, factor=4.0,
                                                               original_max_position_embeddings=32)), 'yarn'),
    'llama, mlp_bias': ('Llama', dict(mlp_bias=True), 'mlp_bias'),
    'mistral, a short window': ('Mistral', dict(sliding_window=32), 'sliding_window'),
    'mixtral, a short window': ('Mixtral', dict(**of_8_local, sliding_window=32), 'sliding_window'),
}

lines = [[(7 * i * i + 13 * i + 29 * n) % 300 for i in range(60 + n)] for n in range(8)]


def class_of(name, end):
    if end == 'ForCausalLM':  # a few text models have the class of the whole
        name = {'Llama4Text': 'Llama4', 'Qwen3_5MoeText': 'Qwen3_5Moe', 'Gemma3Text': 'Gemma3'}.get(name, name)
    return getattr(transformers, f'{name}{end}', None)


def make(name, difference, directory, **save):
    config_class = class_of(name, 'Config')
    if config_class is None:
        return None
    arguments = {**sizes, **difference}
    arguments = {key: value for key, value in arguments.items() if value is not None or key == 'sliding_window'}
    network = class_of(name, 'ForCausalLM')(config_class(**arguments))
    torch.manual_seed(7)
    for key, value in network.named_parameters():
        if value.dim() == 1:  # norms that are not all ones, biases that are not zero
            value.data += 0.2 * torch.randn_like(value)
        elif value.dim() > 0:
            value.data.normal_(std=0.1)
    for key, value in network.named_buffers():
        if re.search('correction_bias|e_score|statics', key):
            value.data.uniform_(0, 0.2)
    network.eval().save_pretrained(directory, **save)
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation='eager', experts_implementation='eager').eval()


def largest_difference(network, run_directory):
    tokens, out = scratch / 'tokens.txt', scratch / 'logits.safetensors'
    tokens.write_text('\n'.join(' '.join(map(str, ids)) for ids in lines) + '\n')
    subprocess.run([probe, 'logits', run_directory, tokens, out], check=True)
    worst = 0
    with safetensors.safe_open(out, framework='pt') as file:
        for i, ids in enumerate(lines):
            with torch.no_grad():
                worst = max(worst, (network(torch.tensor([ids])).logits[0] - file.get_tensor(str(i))).abs().max().item())
    return worst


def outcome(name, difference, **save):
    """(word, what to say): imported, refused, wrong or absent."""
    directory, run_directory = scratch / 'model', scratch / 'run'
    subprocess.run(['rm', '-rf', directory, run_directory], check=True)
    try:
        network = make(name, difference, directory, **save)
    except Exception as error:
        return 'wrong', f'transformers cannot make it: {type(error).__name__}: {error}'
    if network is None:
        return 'absent', f'transformers {transformers.__version__} has no {name}Config'
    done = subprocess.run([conclave, 'import', directory, run_directory], capture_output=True, text=True)
    if done.returncode == 0:
        worst = largest_difference(network, run_directory)
        return ('imported' if worst < 1e-4 else 'wrong'), f'{worst:.1e}'
    said = done.stderr.strip().replace(str(directory), 'DIR')
    return ('refused' if done.returncode == 3 else 'wrong'), said


wanted = sys.argv[1:]
counts, failures = {}, 0
for name, (of_class, difference) in configurations.items():
    if wanted and name not in wanted:
        continue
    word, said = outcome(of_class, difference)
    counts[word] = counts.get(word, 0) + 1
    failures += word == 'wrong'
    print(f'  {word:8} {name}: {said}', flush=True)
for name, (of_class, difference, words) in more.items():
    if wanted and name not in wanted:
        continue
    packed = dict(save_original_format=False) if 'packed' in name else {}
    word, said = outcome(of_class, difference, **packed)
    holds = word == 'imported' if words is None else word == 'refused' and words in said
    failures += not holds
    print(f'  {word if holds else "FAILED":8} {name}: {said}', flush=True)
subprocess.run(['rm', '-rf', scratch], check=True)
print('imports:', ', '.join(f'{count} {word}' for word, count in counts.items()), f'of {sum(counts.values())};',
      f'{failures} failed' if failures else 'all others hold')
sys.exit(1 if failures else 0)
