"""Streams in models of transformers: tiny ones, with random weights and nothing fetched."""

import copy
import json

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from gomhc import MIXERS, HyperConnection, reduce_streams
from gomhc.convert import add_streams, from_pretrained, remove_streams

transformers = pytest.importorskip("transformers")

MOVED = 1e-8  # more than Adam makes of rounding in float64
TEXT = "the mean of the streams is the network without streams. "
SIZES = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = {
    **SIZES,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def gpt2(**options):
    sizes = {**SIZES, "n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 64}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**sizes, **options}))


def llama_like(family, **options):
    config = getattr(transformers, f"{family}Config")(**{**LLAMA, **options})
    return getattr(transformers, f"{family}ForCausalLM")(config)


def vit():
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=16,
            patch_size=4,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_labels=5,
        )
    )


WRITERS = {
    "GPT-2": gpt2,
    "Llama": lambda: llama_like("Llama"),
    "Mistral": lambda: llama_like("Mistral", sliding_window=4),
    "Qwen2": lambda: llama_like("Qwen2"),
    "Qwen3": lambda: llama_like("Qwen3", head_dim=8),
    "OLMo": lambda: llama_like("Olmo"),
    "OLMo2": lambda: llama_like("Olmo2"),
}
MODELS = {**WRITERS, "ViT": vit}


def trained_enough(model):
    """Away from the start, where logits are near 0 and all alike, and without dropout."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def built(name):
    return trained_enough(MODELS[name]())


def inputs(name):
    if name == "ViT":
        return {"pixel_values": torch.randn(2, 3, 16, 16)}
    return {"input_ids": torch.randint(3, 64, (2, 9))}


def logits(model, given):
    with torch.no_grad():
        return model(**given).logits


def encode(text):
    return torch.tensor([[3 + ord(letter) % 61 for letter in text]])


def train(model, steps=6):
    ids = encode(TEXT)
    optimizer, losses = torch.optim.Adam(model.parameters(), 3e-3), []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def connections(model):
    return [module for module in model.modules() if isinstance(module, HyperConnection)]


# The start


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_plain_model(name):
    model, given = built(name), inputs(name)
    before = logits(model, given)
    report = add_streams(model, "go-mhc", d=4, s=2)
    assert len(report.places) == 6
    torch.testing.assert_close(logits(model, given), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mixer", MIXERS)
def test_with_every_mixer(mixer):
    model, given = built("Llama"), inputs("Llama")
    before = logits(model, given)
    add_streams(model, mixer)
    torch.testing.assert_close(logits(model, given), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, stack", [("GPT-2", "transformer.h"), ("ViT", "layers")])
def test_at_the_granularity_of_whole_blocks(name, stack):
    model, given = built(name), inputs(name)
    before = logits(model, given)
    report = add_streams(model, "transport", stack=stack, whole_blocks=True, dim=32)
    assert len(report.places) == 3
    torch.testing.assert_close(logits(model, given), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", WRITERS)
def test_generate_writes_the_same_with_and_without_a_cache(name):
    model, ids = built(name), inputs(name)["input_ids"]
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    plain = model.generate(ids, **options)
    assert plain.shape == (2, 21)
    add_streams(model, "go-mhc")
    for use_cache in (True, False):
        assert torch.equal(model.generate(ids, use_cache=use_cache, **options), plain)


@pytest.mark.parametrize("name", ["GPT-2", "Mistral", "OLMo2"])
def test_after_training_a_cache_changes_nothing(name):
    model, ids = built(name), inputs(name)["input_ids"]
    add_streams(model, "go-mhc")
    train(model)
    model.eval()
    options = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    cached, anew = (model.generate(ids, use_cache=use, **options) for use in (True, False))
    assert torch.equal(cached, anew)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "Mistral"])
def test_padding_is_masked(name):
    model, ids = built(name), inputs(name)["input_ids"]
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    before = logits(model, given)[mask.bool()]
    add_streams(model, "go-mhc")
    after = logits(model, given)
    torch.testing.assert_close(after[mask.bool()], before, rtol=0, atol=1e-5)
    alone = logits(model, {"input_ids": ids[1:, 4:]})
    torch.testing.assert_close(after[1, 4:], alone[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "ViT"])
def test_hidden_states_are_streams_whose_mean_is_the_plain_state(name):
    model, given = built(name), inputs(name)
    with torch.no_grad():
        before = model(**given, output_hidden_states=True).hidden_states
        add_streams(model, "go-mhc")
        after = model(**given, output_hidden_states=True).hidden_states
    assert [state.ndim for state in after] == [3, 4, 4, 3]
    for old, new in zip(before, after, strict=True):
        new = reduce_streams(new) if new.ndim == 4 else new
        torch.testing.assert_close(new, old, rtol=0, atol=1e-5)


def test_attention_weights_are_still_there():
    model, given = built("GPT-2"), inputs("GPT-2")
    model.set_attn_implementation("eager")
    before = model(**given, output_attentions=True).attentions
    add_streams(model, "go-mhc")
    after = model(**given, output_attentions=True).attentions
    assert len(after) == 3
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


# Training


@pytest.mark.parametrize("name", ["GPT-2", "Llama", "OLMo2"])
def test_training_on_text_moves_every_part(name):
    model = built(name).double()
    add_streams(model, "go-mhc")
    starts = copy.deepcopy([(c.weight, c.bias) for c in connections(model)])
    losses = train(model)
    assert losses[-1] < losses[0]
    for index, (connection, (weight, bias)) in enumerate(
        zip(connections(model), starts, strict=True)
    ):
        g = connection.mixer.num_parameters
        rows, entries = (connection.weight - weight).abs().amax(1), (connection.bias - bias).abs()
        assert rows[g:].min() > MOVED
        assert entries[g + 4 * (index == 0) :].min() > MOVED  # b_pre scales copies before a norm
        if 0 < index < 5:  # Note [Kept function]: the first and the last θ have no gradient
            assert rows[:g].min() > MOVED
            assert entries[:g].min() > MOVED


RENAMED = "ignore:`gradient_checkpointing_:FutureWarning"  # in a version that is to come


@pytest.mark.filterwarnings(RENAMED)
@pytest.mark.parametrize("whole", [False, True], ids=["branches", "blocks"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["GPT-2", "Llama", "ViT"])
def test_gradient_checkpointing_computes_the_blocks_twice(name, reentrant, whole):
    model, given = built(name), inputs(name)
    stack = {"GPT-2": "h", "Llama": "model.layers", "ViT": "vit.layers"}[name]
    options = {"whole_blocks": True, "dim": 32} if whole else {}
    add_streams(model, "go-mhc", stack=stack, **options)
    calls = []
    for block_name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if block_name.endswith(".mlp"):
            module.register_forward_hook(lambda m, a, out: calls.append(m))

    def gradients():
        model.train()
        model.zero_grad()
        calls.clear()
        model(**given).logits.square().mean().backward()
        return [weight.grad for weight in model.parameters()]

    plain = gradients()
    assert len(calls) == 3
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    again = gradients()
    assert len(calls) == 6
    torch.testing.assert_close(again, plain)
    model.gradient_checkpointing_disable()
    gradients()
    assert len(calls) == 3


@pytest.mark.filterwarnings(RENAMED)
def test_checkpointing_that_was_on_before_stays_on():
    model, given, calls = built("Llama"), inputs("Llama"), []
    model.gradient_checkpointing_enable()
    add_streams(model, "go-mhc")
    model.model.layers[0].mlp.register_forward_hook(lambda m, a, out: calls.append(m))
    model.train()
    model(**given).logits.square().mean().backward()
    assert len(calls) == 2


def test_blocks_are_still_known_by_the_name_of_their_class():
    model = built("GPT-2")
    kind = type(model.transformer.h[0])
    add_streams(model, "go-mhc")
    block = model.transformer.h[0]
    assert isinstance(block, kind)
    assert type(block).__name__ in model._no_split_modules
    assert model.lm_head.weight is model.transformer.wte.weight


def test_an_average_of_weights():
    model, given = built("GPT-2"), inputs("GPT-2")
    add_streams(model, "go-mhc")
    average, before = AveragedModel(model), logits(model, given)
    train(model)
    model.eval()
    assert torch.equal(logits(average, given), before)
    average.update_parameters(model)
    average.update_parameters(model)
    assert not torch.allclose(logits(average, given), before)


# On disk


@pytest.mark.parametrize("mixer", MIXERS)
def test_every_mixer_comes_back_from_disk(mixer, tmp_path):
    model, given = built("Llama"), inputs("Llama")
    add_streams(model, mixer)
    train(model, steps=2)
    model.eval().save_pretrained(tmp_path)
    same = from_pretrained(transformers.LlamaForCausalLM, tmp_path)
    torch.testing.assert_close(logits(same, given), logits(model, given), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back_from_disk(name, tmp_path):
    model, given = built(name), inputs(name)
    add_streams(model, "kron-go", d=4, s=1, inputs="mean")
    if name == "ViT":
        with torch.no_grad():
            connections(model)[2].weight.normal_()
    else:
        train(model)
    model.eval().save_pretrained(tmp_path)
    same, report = from_pretrained(type(model), tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(same) is type(model)
    assert not same.training
    assert same.config.gomhc == model.config.gomhc
    new, old = same.state_dict(), model.state_dict()
    assert new.keys() == old.keys()
    assert all(torch.equal(new[key], old[key]) for key in old)
    assert torch.equal(logits(same, given), logits(model, given))
    same.save_pretrained(tmp_path / "again")
    assert torch.equal(
        logits(from_pretrained(type(model), tmp_path / "again"), given), logits(model, given)
    )


def test_whole_blocks_and_options_come_back_from_disk(tmp_path):
    model, given = built("GPT-2"), inputs("GPT-2")
    add_streams(
        model, "mhc-lite", d=4, factors=(2, 2), stack="transformer.h", whole_blocks=True, dim=32
    )
    train(model)
    model.eval().save_pretrained(tmp_path)
    same = from_pretrained(transformers.GPT2LMHeadModel, tmp_path)
    assert torch.equal(logits(same, given), logits(model, given))
    assert len(connections(same)) == 3


def test_the_base_of_a_model_takes_its_streams_from_the_whole(tmp_path):
    model, ids = built("GPT-2"), inputs("GPT-2")["input_ids"]
    add_streams(model, "go-mhc")
    train(model)
    model.eval().save_pretrained(tmp_path)
    base = from_pretrained(transformers.GPT2Model, tmp_path)
    with torch.no_grad():
        expected = model.transformer(ids).last_hidden_state
        torch.testing.assert_close(base(ids).last_hidden_state, expected, rtol=0, atol=0)


def test_in_another_dtype(tmp_path):
    model, given = built("Llama"), inputs("Llama")
    add_streams(model, "orthogonal")
    model.save_pretrained(tmp_path)
    same = from_pretrained(transformers.LlamaForCausalLM, tmp_path, dtype=torch.bfloat16)
    for name, weight in same.named_parameters():
        wide = name.endswith((".bias", ".alpha")) and ".hyper_connections." in name
        assert weight.dtype == (torch.float32 if wide else torch.bfloat16), name
    assert logits(same, given).isfinite().all()


def test_a_plain_checkpoint_loads_before_and_streams_come_after(tmp_path):
    model, given = built("Qwen2"), inputs("Qwen2")
    model.save_pretrained(tmp_path)
    same = transformers.Qwen2ForCausalLM.from_pretrained(tmp_path)
    add_streams(same, "go-mhc")
    torch.testing.assert_close(logits(same, given), logits(model, given), rtol=0, atol=1e-5)


def test_folders_without_streams_and_classes_that_load_nothing_are_refused(tmp_path):
    model = built("GPT-2")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="saved after add_streams, got one without streams"):
        from_pretrained(transformers.GPT2LMHeadModel, tmp_path)
    with pytest.raises(TypeError, match="such as GPT2LMHeadModel, got AutoModelForCausalLM"):
        from_pretrained(transformers.AutoModelForCausalLM, tmp_path)
    add_streams(model, "go-mhc")
    kept = {k: v for k, v in model.state_dict().items() if "h.1.hyper_connections" not in k}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(
        ValueError, match=r"all streams in .*h.1.hyper_connections.0.alpha is missing"
    ):
        from_pretrained(transformers.GPT2LMHeadModel, tmp_path)


# Out again, and what is refused


@pytest.mark.parametrize("name", MODELS)
def test_streams_come_out_again(name, tmp_path):
    model, given = built(name), inputs(name)
    before, kinds = logits(model, given), [type(module) for module in model.modules()]
    settings = model.config.to_dict()
    add_streams(model, "go-mhc")
    remove_streams(model)
    assert [type(module) for module in model.modules()] == kinds
    assert torch.equal(logits(model, given), before)
    assert model.config.to_dict() == settings
    model.save_pretrained(tmp_path)
    plain = type(model).from_pretrained(tmp_path)
    assert torch.equal(logits(plain, given), before)


@pytest.mark.parametrize(
    "model, words",
    [
        (
            lambda: llama_like("Granite", residual_multiplier=0.5),
            r"model.layers.0 \(GraniteDecoderLayer\) does not add its branches.*or scales them",
        ),
        (lambda: llama_like("Cohere"), "CohereForCausalLM has none"),
        (
            lambda: llama_like("StableLm", use_parallel_residual=True),
            "StableLmForCausalLM has none",
        ),
        (lambda: llama_like("Gemma2"), "Gemma2ForCausalLM has none"),
        (lambda: gpt2(add_cross_attention=True), "GPT2LMHeadModel has none"),
        (
            lambda: transformers.BertModel(
                transformers.BertConfig(
                    vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=4
                )
            ),
            r"ln_1, attn, ln_2, mlp \(GPT-2 or nanoGPT\).*ViT\); BertModel has none",
        ),
    ],
    ids=["Granite", "Cohere", "StableLM", "Gemma2", "cross-attention", "BERT"],
)
def test_blocks_that_compute_something_else_are_refused(model, words):
    model = model()
    settings, names = model.config.to_dict(), [n for n, _ in model.named_modules()]
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=words):
        add_streams(model, "go-mhc")
    assert [type(module) for module in model.modules()] == kinds
    assert [n for n, _ in model.named_modules()] == names
    assert model.config.to_dict() == settings


def test_a_multiplier_of_one_is_no_obstacle():
    model, given = trained_enough(llama_like("Granite")), inputs("Llama")
    before = logits(model, given)
    add_streams(model, "go-mhc")
    torch.testing.assert_close(logits(model, given), before, rtol=0, atol=1e-5)


def test_states_of_an_encoder_have_nowhere_to_go():
    model, ids = built("GPT-2"), inputs("GPT-2")["input_ids"]
    add_streams(model, "go-mhc")
    with pytest.raises(ValueError, match="no encoder_hidden_states, as the block has no cross"):
        model(ids, encoder_hidden_states=torch.randn(2, 3, 32))


def test_models_that_share_a_configuration(tmp_path):
    config = gpt2().config
    one, two = (trained_enough(transformers.GPT2LMHeadModel(config)) for _ in range(2))
    add_streams(one, "mhc")
    add_streams(two, "go-mhc")
    two.save_pretrained(tmp_path)
    given = inputs("GPT-2")
    same = from_pretrained(transformers.GPT2LMHeadModel, tmp_path)
    assert torch.equal(logits(same, given), logits(two, given))


@pytest.mark.parametrize("mixers", [("mhc", "hc"), ("hc", "mhc")])
def test_models_of_one_configuration_keep_streams_of_their_own(mixers, tmp_path):
    config, given = gpt2().config, inputs("GPT-2")
    settings = config.to_dict()
    one, two = (trained_enough(transformers.GPT2LMHeadModel(config)) for _ in range(2))
    for model, mixer in zip((one, two), mixers, strict=True):
        add_streams(model, mixer)
        trained_enough(model)
    assert config.to_dict() == settings
    for model, name in ((one, "one"), (two, "two")):
        model.save_pretrained(tmp_path / name)
        same = from_pretrained(transformers.GPT2LMHeadModel, tmp_path / name)
        assert torch.equal(logits(same, given), logits(model, given))
    three = trained_enough(transformers.GPT2LMHeadModel(config))
    add_streams(three, "mhc")
    remove_streams(three)
    assert one.config.gomhc[0]["mixer"] == mixers[0]
    assert one.transformer.config is one.config


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: model], ids=["copy", "itself"])
@pytest.mark.parametrize("from_disk", [False, True])
def test_one_of_two_stacks_comes_out(copied, from_disk, tmp_path):
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4}
    config = transformers.T5Config(**sizes, num_layers=2, decoder_start_token_id=0)
    model = trained_enough(transformers.T5ForConditionalGeneration(config))
    ids = inputs("GPT-2")["input_ids"]
    given = {"input_ids": ids, "labels": ids}
    for stack in ("encoder.block", "decoder.block"):
        add_streams(model, "go-mhc", stack=stack, whole_blocks=True, dim=32)
    before = logits(model, given)
    if from_disk:
        model.save_pretrained(tmp_path / "both")
        model = from_pretrained(type(model), tmp_path / "both")
    part = copied(model)
    remove_streams(part.decoder)
    assert [entry["stack"] for entry in part.config.gomhc] == ["encoder.block"]
    if part is not model:
        assert len(model.config.gomhc) == 2
    part.save_pretrained(tmp_path / "one")
    same = from_pretrained(type(model), tmp_path / "one")
    torch.testing.assert_close(logits(same, given), before, rtol=0, atol=1e-5)
    remove_streams(part.encoder.block)
    assert not hasattr(part.config, "gomhc")


class Wrapped(torch.nn.Module):
    """As Lightning and others hold a model."""

    def __init__(self, net):
        super().__init__()
        self.net = net


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own modules
@pytest.mark.parametrize("wrap", [Wrapped, torch.compile, torch.nn.DataParallel])
def test_streams_that_are_added_through_a_wrapper(wrap, tmp_path):
    model, given = built("GPT-2"), inputs("GPT-2")
    before = logits(model, given)
    add_streams(wrap(model), "go-mhc")
    model.save_pretrained(tmp_path)
    same = from_pretrained(transformers.GPT2LMHeadModel, tmp_path)
    torch.testing.assert_close(logits(same, given), before, rtol=0, atol=1e-5)
    remove_streams(wrap(model))
    assert not hasattr(model.config, "gomhc")
    add_streams(model, "go-mhc")
    remove_streams(model.transformer.h)
    assert not hasattr(model.config, "gomhc")
    torch.testing.assert_close(logits(model, given), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"mixer": "go-mhc", "s": np.int64(2), "off_diagonal_mass": np.float32(0.1)},
        {"mixer": "mhc-lite", "factors": np.array([2, 2]), "off_diagonal_mass": torch.tensor(0.1)},
        {"mixer": "mhc-lite", "factors": torch.tensor([2, 2]), "dim": np.int64(32)},
    ],
)
def test_numbers_of_numpy_and_torch_are_saved(options, tmp_path):
    model, given = built("GPT-2"), inputs("GPT-2")
    if "dim" in options:
        options = {**options, "stack": "h", "whole_blocks": True}
    add_streams(model, **options)
    model.save_pretrained(tmp_path)
    same = from_pretrained(transformers.GPT2LMHeadModel, tmp_path)
    assert torch.equal(logits(same, given), logits(model, given))


def test_frozen_streams_come_back_frozen(tmp_path):
    model = built("GPT-2")
    add_streams(model, "go-mhc", frozen=True)
    model.save_pretrained(tmp_path)
    same = from_pretrained(transformers.GPT2LMHeadModel, tmp_path)
    assert all(connection.frozen for connection in connections(same))
    train(same)
    for old, new in zip(connections(model), connections(same), strict=True):
        assert torch.equal(
            old.bias[: old.mixer.num_parameters], new.bias[: old.mixer.num_parameters]
        )


def test_weights_that_stay_on_disk(tmp_path):
    model, given = built("GPT-2"), inputs("GPT-2")
    add_streams(model, "mhc-lite")
    model.save_pretrained(tmp_path / "model")
    places = dict.fromkeys(("wte", "wpe", "drop", "ln_f"), "cpu") | {"h": "disk"}
    places = {f"transformer.{name}": place for name, place in places.items()} | {"lm_head": "cpu"}
    same = from_pretrained(
        transformers.GPT2LMHeadModel,
        tmp_path / "model",
        device_map=places,
        offload_folder=tmp_path / "off",
    )
    assert next(same.transformer.h.parameters()).is_meta
    assert torch.equal(logits(same, given), logits(model, given))


def test_a_model_that_adds_to_the_states_between_blocks_is_refused():
    text = {**LLAMA, "head_dim": 8}
    sight = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4}
    sight |= {"out_hidden_size": 32, "deepstack_visual_indexes": [0]}
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=sight)
    model = transformers.Qwen3VLForConditionalGeneration(config)
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match="Qwen3VLTextModel adds visual features"):
        add_streams(model, "go-mhc")
    assert [type(module) for module in model.modules()] == kinds


def test_what_cannot_be_loaded_is_named(tmp_path):
    model = built("GPT-2")
    add_streams(model, "go-mhc")
    model.save_pretrained(tmp_path)
    for given, words in ((model, "type GPT2LMHeadModel"), ("GPT2LMHeadModel", "type str")):
        with pytest.raises(TypeError, match=f"such as GPT2LMHeadModel, got an object of {words}"):
            from_pretrained(given, tmp_path)
    with pytest.raises(ValueError, match="without streams: the config that is given"):
        from_pretrained(transformers.GPT2LMHeadModel, tmp_path, config=gpt2().config)
    with pytest.raises(ValueError, match="LlamaForCausalLM has no stack 'h'"):
        from_pretrained(transformers.LlamaForCausalLM, tmp_path)


def test_the_configuration_can_be_written(tmp_path):
    model = built("GPT-2")
    add_streams(model, "go-mhc", s=2)
    model.config.save_pretrained(tmp_path)
    [entry] = json.loads((tmp_path / "config.json").read_text())["gomhc"]
    assert entry["stack"] == "h"
    assert (entry["mixer"], entry["d"], entry["options"]) == ("go-mhc", 4, {"s": 2})
