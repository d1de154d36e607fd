"""The model beside this file, for transformers: AutoModelForCausalLM.from_pretrained(DIRECTORY, trust_remote_code=True).

Conclave writes this file where transformers has no class of its own that computes the same. It needs nothing but torch
and transformers, 4.51 or later. Licensed under the Apache License, Version 2.0."""
import torch
import transformers
from torch import nn
from torch.nn import functional
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

# transformers 5 renamed the cache of keys and values, and lists tied weights as a map.
CACHE = 'cache' if 'cache' in CausalLMOutputWithPast.__dataclass_fields__ else 'past_key_values'
IS_4 = transformers.__version__.startswith('4.')


class ConclaveConfig(PretrainedConfig):
    model_type = 'conclave'
    keys_to_ignore_at_inference = ['past_key_values', 'cache']

    def __init__(self, vocab_size=512, hidden_size=128, intermediate_size=512, num_hidden_layers=4,
                 num_attention_heads=4, num_key_value_heads=None, head_dim=None, max_position_embeddings=2048,
                 rms_norm_eps=1e-6, rope_theta=10000.0, partial_rotary_factor=1.0, qk_norm='none',
                 initializer_range=0.02, use_cache=True, tie_word_embeddings=False, first_k_dense_replace=0,
                 moe_intermediate_size=128, n_routed_experts=16, n_shared_experts=None, num_experts_per_tok=2,
                 norm_topk_prob=False, routed_scaling_factor=1.0, n_group=1, topk_group=1, scoring_func='softmax',
                 use_routing_bias=False, **kwargs):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads or num_attention_heads
        self.head_dim = head_dim or hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.rms_norm_eps = rms_norm_eps
        self.rope_theta = (kwargs.get('rope_parameters') or {}).get('rope_theta', rope_theta)
        self.partial_rotary_factor = partial_rotary_factor
        self.qk_norm = qk_norm
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.first_k_dense_replace = first_k_dense_replace
        self.moe_intermediate_size = moe_intermediate_size
        self.n_routed_experts = n_routed_experts
        self.n_shared_experts = n_shared_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.norm_topk_prob = norm_topk_prob
        self.routed_scaling_factor = routed_scaling_factor
        self.n_group = n_group
        self.topk_group = topk_group
        self.scoring_func = scoring_func
        self.use_routing_bias = use_routing_bias
        super().__init__(tie_word_embeddings=tie_word_embeddings, **kwargs)


class DeepseekConfig(ConclaveConfig):
    model_type = 'deepseek'

    def __init__(self, **kwargs):  # transformers 5 makes another one where a class has none
        super().__init__(**kwargs)


class RMSNorm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)).to(x.dtype)


def rotations(config, positions):
    """Cosines and sines by which positions turn the front of each head: [batch, 1, length, width]."""
    width = int(config.head_dim * config.partial_rotary_factor + 1e-9)
    places = torch.arange(0, width, 2, device=positions.device).float() / width
    angles = positions[:, None, :, None].float() / config.rope_theta ** places
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


def rotate(x, cosines, sines):
    width = cosines.shape[-1]
    front, rest = x[..., :width], x[..., width:]
    first, second = front.chunk(2, -1)
    turned = front * cosines.to(x.dtype) + torch.cat((-second, first), -1) * sines.to(x.dtype)
    return torch.cat((turned, rest), -1)


class Attention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.layer, self.width, self.norm_over = layer, config.head_dim, config.qk_norm
        self.sharers = config.num_attention_heads // config.num_key_value_heads
        query, key = config.num_attention_heads * self.width, config.num_key_value_heads * self.width
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        if self.norm_over != 'none':
            by_head = self.norm_over == 'head'
            self.q_norm = RMSNorm(self.width if by_head else query, config.rms_norm_eps)
            self.k_norm = RMSNorm(self.width if by_head else key, config.rms_norm_eps)

    def forward(self, x, turns, mask, cache):
        def heads(values):
            return values.view(*x.shape[:2], -1, self.width)
        query, key, value = self.q_proj(x), self.k_proj(x), heads(self.v_proj(x)).transpose(1, 2)
        if self.norm_over == 'all_heads':
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = heads(query), heads(key)
        if self.norm_over == 'head':
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = (rotate(part.transpose(1, 2), *turns) for part in (query, key))
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        key, value = (part.repeat_interleave(self.sharers, 1) for part in (key, value))
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.o_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, config, width):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Linear):
    """Weights of the chosen experts of each token, and which they are."""

    def __init__(self, config):
        super().__init__(config.hidden_size, config.n_routed_experts, bias=False)
        self.config = config
        if config.use_routing_bias:
            self.register_buffer('e_score_correction_bias', torch.zeros(config.n_routed_experts, dtype=torch.float32))

    def forward(self, x):
        config = self.config
        logits = functional.linear(x.float(), self.weight.float())
        is_sigmoid = config.scoring_func == 'sigmoid'
        scores = logits.sigmoid() if is_sigmoid else logits.softmax(-1)
        choice = scores + self.e_score_correction_bias if config.use_routing_bias else scores
        if config.topk_group < config.n_group:
            groups = choice.view(len(x), config.n_group, -1)
            of_group = groups.topk(min(2 if is_sigmoid else 1, groups.shape[-1]), -1)[0].sum(-1)
            best = of_group.topk(config.topk_group, -1)[1]
            kept = torch.zeros_like(of_group, dtype=torch.bool).scatter(1, best, True)
            choice = groups.masked_fill(~kept[..., None], float('-inf')).flatten(1)
        chosen = choice.topk(config.num_experts_per_tok, -1)[1]
        weights = scores.gather(1, chosen)
        if config.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return (weights * config.routed_scaling_factor).to(x.dtype), chosen


class Experts(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate = Router(config)
        self.experts = nn.ModuleList(MLP(config, config.moe_intermediate_size) for _ in range(config.n_routed_experts))
        if config.n_shared_experts:
            self.shared_experts = MLP(config, config.moe_intermediate_size * config.n_shared_experts)

    def forward(self, x):
        tokens = x.reshape(-1, x.shape[-1])
        weights, chosen = self.gate(tokens)
        y = torch.zeros_like(tokens)
        for expert in chosen.unique().tolist():
            token, place = (chosen == expert).nonzero(as_tuple=True)
            y = y.index_add(0, token, self.experts[expert](tokens[token]) * weights[token, place, None])
        if hasattr(self, 'shared_experts'):
            y = y + self.shared_experts(tokens)
        return y.view_as(x)


class Block(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        is_dense = layer < config.first_k_dense_replace
        self.mlp = MLP(config, config.intermediate_size) if is_dense else Experts(config)

    def forward(self, x, turns, mask, cache):
        x = x + self.self_attn(self.input_layernorm(x), turns, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


def visible(first, length, attention_mask, device):
    """Which keys each query sees: those up to itself that are no padding; always itself."""
    if attention_mask is not None and attention_mask.dim() == 4:
        return attention_mask
    query = torch.arange(first, first + length, device=device)[:, None]
    key = torch.arange(first + length, device=device)[None]
    mask = (key <= query)[None, None]
    if attention_mask is not None:
        mask = mask & attention_mask[:, None, None, :].bool() | (key == query)[None, None]
    return mask


class ConclaveForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = ConclaveConfig
    base_model_prefix = 'model'
    _no_split_modules = ['Block']
    _supports_cache_class = True
    _supports_sdpa = True
    _tied_weights_keys = ['lm_head.weight'] if IS_4 else {'lm_head.weight': 'model.embed_tokens.weight'}

    def __init__(self, config):
        super().__init__(config)
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, embedding):
        self.model.embed_tokens = embedding

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, head):
        self.lm_head = head

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None,
                labels=None, use_cache=None, cache=None, logits_to_keep=0, **_):
        cache = past_key_values if cache is None else cache
        x = self.model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache()
        first, length = 0 if cache is None else cache.get_seq_length(), x.shape[1]
        if position_ids is None:
            position_ids = torch.arange(first, first + length, device=x.device)[None]
        turns = rotations(self.config, position_ids)
        mask = visible(first, length, attention_mask, x.device)
        for layer in self.model.layers:
            x = layer(x, turns, mask, cache)
        logits = self.lm_head(self.model.norm(x[:, -logits_to_keep:]))
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: cache})


class DeepseekForCausalLM(ConclaveForCausalLM):
    config_class = DeepseekConfig
