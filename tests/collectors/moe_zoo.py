"""Every mixture-of-experts language model of the installed transformers, built tiny and with random weights.

`moe_classes()` reads from transformers itself which classes are MoE, so a new one cannot be missed: it is either
built by the one recipe (`build`) or it must be given a reason in `UNTESTED`. Nothing is downloaded.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers.models
from transformers import PretrainedConfig, PreTrainedModel

VOCAB = 128

TINY: dict[str, Any] = {
    "vocab_size": VOCAB,
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size": 32,
    "hidden_size_per_layer_input": 8,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "global_head_dim": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "linear_num_heads": 4,
    "linear_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "depth": 2,
    "projection_intermediate_size": 32,
    "ffn_hidden_size": 16,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_experts": 6,
    "num_local_experts": 6,
    "n_routed_experts": 6,
    "moe_num_experts": 6,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "top_k_experts": 2,
    "moe_top_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "is_moe": True,
    "enable_moe_block": True,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

OVERRIDES: dict[str, dict[str, Any]] = {
    "BeamForCausalLM": {"mlp_layer_types": ["dense", "sparse", "sparse"]},
    "DbrxForCausalLM": {"attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0}},
    "DeepseekOcr2ForConditionalGeneration": {"text_config": {"mlp_layer_types": ["dense", "sparse", "sparse"]}},
    "Dots1ForCausalLM": {"n_shared_experts": 1},
    "DeepseekV4ForCausalLM": {"mlp_layer_types": ["hash_moe", "moe", "moe"]},
    "Dots3NoteForCausalLM": {"use_sliding_window": False, "per_layer_config": {}},
    "Dots3NoteForConditionalGeneration": {
        "text_config": {"use_sliding_window": False, "per_layer_config": {}},
        "vision_config": {"pyramid_num_routed": [-1, 4, 4], "adapter_in_dim": 32, "adapter_out_dim": 32},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
    },
    "Ernie4_5_VLMoeForConditionalGeneration": {
        "text_config": {
            "moe_intermediate_size": [16, 16],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        }
    },
    "Glm4vMoeForConditionalGeneration": {
        "text_config": {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 1.0,
                "mrope_section": [2, 1, 1],
            }
        }
    },
    "Glm5NextForConditionalGeneration": {
        "text_config": {
            "qk_rope_head_dim": 0,
            "head_dim": 0,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        }
    },
    "GraniteMoeHybridForCausalLM": {"mamba_n_heads": 4},
    "Inkling2ForConditionalGeneration": {"vision_config": {"text_hidden_size": 32}},
    "JambaForCausalLM": {"expert_layer_period": 1, "expert_layer_offset": 0},
    "Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention", "conv"]},
    "LongcatFlashForCausalLM": {"num_layers": 2, "zero_expert_num": 2},
    "MiMoV2FlashForCausalLM": {"num_key_value_heads": 2},
    "Mistral4ForCausalLM": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 1.0,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 64,
        }
    },
    "MuseSparkForConditionalGeneration": {
        "audio_config": {
            "num_hidden_layers": 4,
            "hidden_sizes": [32] * 4,
            "depths": [1] * 4,
            "out_hidden_size": 32,
        }
    },
    "NllbMoeForConditionalGeneration": {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_sparse_step": 2,
        "decoder_sparse_step": 2,
    },
    "Qwen3OmniMoeThinkerForConditionalGeneration": {"vision_start_token_id": 5, "audio_start_token_id": 6},
    "Step3p7ForConditionalGeneration": {
        "text_config": {"sliding_window": 8, "mlp_layer_types": ["dense", "sparse", "sparse"]}
    },
    "SwitchTransformersForConditionalGeneration": {
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_sparse_encoder_layers": 1,
        "num_sparse_decoder_layers": 1,
    },
    "ZayaForCausalLM": {"num_experts_per_tok": 1},
}

UNTESTED: dict[str, str] = {
    "Ernie4_5_VL_MoeForConditionalGeneration": "deprecated name of Ernie4_5_VLMoeForConditionalGeneration",
    "Nemotron3_5TranscribeForConditionalGeneration": "speech model; its text model is NemotronHForCausalLM",
    "Qwen3OmniMoeForConditionalGeneration": "has no forward; it joins the thinker, which is tested, and the talker",
    "Qwen3OmniMoePreTrainedModelForConditionalGeneration": "abstract base class",
    "Qwen3OmniMoeTalkerCodePredictorModelForConditionalGeneration": "dense, in a modelling file with experts",
    "Qwen3OmniMoeTalkerForConditionalGeneration": "speech model that runs on the hidden states of the thinker",
}


@cache
def moe_classes() -> tuple[str, ...]:
    """Names of the language models with experts, read from the source of transformers without importing it all.

    A folder of models counts if a modelling file defines experts, or if the default text model of its config does.
    """
    folders = {
        path.parent: path.read_text() for path in Path(transformers.models.__file__).parent.glob("*/modeling_*.py")
    }
    experts = {
        folder.name
        for folder, text in folders.items()
        if re.search(r"^class \w*(Experts|MoE|Moe)\w*\(nn\.", text, re.M)
    }
    names = [
        name
        for folder, text in folders.items()
        if folder.name in experts or experts & _default_models(folder)
        for name in re.findall(r"^class (\w+For(?:CausalLM|ConditionalGeneration))\(", text, re.M)
    ]
    return tuple(sorted(names))


def _default_models(folder: Path) -> set[str]:
    return {
        m for path in folder.glob("configuration_*.py") for m in re.findall(r'model_type="(\w+)"', path.read_text())
    }


def mentions_experts(name: str) -> bool:
    """Whether the class lets router logits be recorded or its default config counts experts: a second opinion."""
    cls = getattr(transformers, name)
    source = inspect.getsource(sys.modules[cls.__module__])
    return '"router_logits": ' in source or _counts_experts(_default(cls.config_class))


def language_models() -> list[str]:
    """Names of every class of transformers for causal or conditional generation."""
    names = [name for name in dir(transformers) if re.search(r"For(CausalLM|ConditionalGeneration)$", name)]
    return [name for name in names if getattr(getattr(transformers, name), "config_class", None)]


def _counts_experts(config: PretrainedConfig | None) -> bool:
    fields = vars(config) if config else {}
    return any(re.search(r"num_(local_)?experts$|n_routed_experts$", name) for name in fields) or any(
        _counts_experts(sub) for sub in fields.values() if isinstance(sub, PretrainedConfig)
    )


def _default(config_class: type[PretrainedConfig]) -> PretrainedConfig | None:
    try:
        return config_class()
    except Exception:  # a config without defaults (an assistant that must be given its text config)
        return None


def tiny_config(config_class: type[PretrainedConfig], **overrides: Any) -> PretrainedConfig:
    """A small config of any class: `TINY` where the class has the field, recursively for its sub-configs."""
    default = config_class()
    values = {k: v for k, v in TINY.items() if k in vars(default) or k in config_class.attribute_map}
    for name, sub in vars(default).items():
        if isinstance(sub, PretrainedConfig):
            values[name] = tiny_config(type(sub), **overrides.pop(name, {}))
    return config_class(**(values | overrides))


def build(name: str, **overrides: Any) -> PreTrainedModel:
    """The class `name` with a tiny config and seeded random weights, in training mode."""
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    config = tiny_config(cls.config_class, **copy.deepcopy(OVERRIDES.get(name, {})), **overrides)
    config._experts_implementation = "eager"
    model = cls(config).train()
    _train_a_little(model)
    return model


@torch.no_grad()
def _train_a_little(model: PreTrainedModel) -> None:
    """Give the state that steers a choice values as after training: while zero, a plain top-k would choose alike."""
    for name, tensor in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith(("correction_bias", "balancing_biases", "expert_bias")):
            tensor.normal_(std=0.2)
        elif name.endswith("tid2eid"):
            tensor.random_(0, 6)
