"""Hugging Face models, small and built offline, on arrays: there, through, and back."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.nn.forms import FROZEN, NOISY, PLAIN
from torch import nn

from ohmloop.nn import analogize, calibrate_converters, digitize, program, summary

pytestmark = pytest.mark.slow  # the import alone takes longer than the other tests of this package

transformers = pytest.importorskip(
    "transformers", reason="needs transformers: pip install ohmloop[language]"
)

TEXT = {"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = torch.randint(0, 31, (3, 7), generator=torch.Generator().manual_seed(1))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=31, n_embd=16, n_layer=2, n_head=4, n_positions=16)
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**TEXT, intermediate_size=24, num_key_value_heads=2)
    return transformers.LlamaForCausalLM(config)


def mixtral() -> nn.Module:
    config = transformers.MixtralConfig(
        **TEXT, intermediate_size=12, num_key_value_heads=2, num_local_experts=3
    )
    return transformers.MixtralForCausalLM(config)


def qwen() -> nn.Module:
    config = transformers.Qwen2MoeConfig(
        **TEXT,
        intermediate_size=12,
        num_key_value_heads=2,
        num_experts=3,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
    )
    return transformers.Qwen2MoeForCausalLM(config)


def gpt_oss() -> nn.Module:
    config = transformers.GptOssConfig(
        **TEXT,
        intermediate_size=12,
        num_key_value_heads=2,
        num_local_experts=3,
        head_dim=4,
        num_experts_per_tok=2,
    )
    return transformers.GptOssForCausalLM(config)


def clip() -> nn.Module:
    text = {"vocab_size": 31, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "eos_token_id": 30, "bos_token_id": 0, "pad_token_id": 1}
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return transformers.CLIPModel(config)


MODELS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "gpt2": (gpt2, {"Conv1D", "Linear"}),
    "llama": (llama, {"Linear"}),
    "mixtral": (mixtral, {"Linear", "MixtralExperts"}),
    "qwen-moe": (qwen, {"Linear", "Qwen2MoeExperts"}),
    "gpt-oss": (gpt_oss, {"Linear", "GptOssExperts"}),
    "clip": (clip, {"Linear", "Conv2d"}),
}


def built(name: str) -> tuple[nn.Module, dict[str, Any]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name][0]().eval()
        given: dict[str, Any] = {"input_ids": TOKENS}
        if name == "clip":
            given["pixel_values"] = torch.randn(2, 3, 16, 16)
    return model, given


def answer(model: nn.Module, given: dict[str, Any]) -> torch.Tensor:
    out = model(**given)
    return out.logits_per_text if "pixel_values" in given else out.logits


@pytest.mark.parametrize("name", MODELS)
def test_converts_runs_back_propagates_and_converts_back(name: str) -> None:
    model, given = built(name)
    wanted, before = answer(model, given), copy.deepcopy(model.state_dict())
    kinds = {n: type(m) for n, m in model.named_modules()}
    analogize(model, PLAIN)
    rows = summary(model, simulate=False)
    assert {row.type for row in rows if row.analog} == MODELS[name][1]
    assert torch.equal(answer(model, given), wanted)
    program(model, 0)
    scale = max(1.0, float(wanted.detach().abs().max()))
    assert float((answer(model, given) - wanted).detach().abs().max()) < 1e-4 * scale
    digitize(model)

    analogize(model, NOISY)
    calibrate_converters(model, given)
    program(model, 1, differentiable=True)
    noisy = answer(model, given)
    assert not torch.allclose(noisy, wanted)
    noisy.square().sum().backward()
    analog = {row.name for row in summary(model, simulate=False) if row.analog}
    cut = [
        f"{n}.{k}"
        for n, m in model.named_modules()
        if n in analog
        for k, p in m.named_parameters(recurse=False)
        if p.grad is None or not bool(torch.isfinite(p.grad).all())
    ]
    assert not cut
    assert {n: type(m) for n, m in digitize(model).named_modules()} == kinds
    state = model.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[k], before[k]) for k in before)
    assert torch.equal(answer(model, given), wanted)


def test_reasons_of_what_stays_digital() -> None:
    model = analogize(built("mixtral")[0], PLAIN)
    rows = {row.name: row for row in summary(model, simulate=False)}
    assert "products of activations" in rows["model.layers.0.self_attn"].reason
    assert "look-up" in rows["model.embed_tokens"].reason
    assert "normalisation" in rows["model.norm"].reason
    assert "code of its own" in rows["model.layers.0.mlp.gate"].reason
    assert all(row.reason for row in rows.values())


def test_a_head_tied_to_the_embedding_is_analog_and_the_look_up_is_not() -> None:
    model, given = built("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    wanted = model(**given, output_hidden_states=True)
    program(analogize(model, FROZEN, where=["lm_head"]), 0)
    got = model(**given, output_hidden_states=True)
    assert torch.equal(got.hidden_states[-1], wanted.hidden_states[-1])
    assert not torch.allclose(got.logits, wanted.logits)
    assert model.lm_head.weight is model.transformer.wte.weight


def test_generation_works_on_a_chip() -> None:
    model, _ = built("llama")
    program(analogize(model, PLAIN), 0)
    out = model.generate(TOKENS[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
    wanted = digitize(model).generate(TOKENS[:1], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert torch.equal(out, wanted)
