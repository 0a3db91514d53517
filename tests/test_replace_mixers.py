"""Another mixer in DeepSeek-V4 of transformers and in mHC of hyper-connections.

With mhc both packages are independent tests of our layer: the same weights give the same outputs.
"""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gomhc import HyperConnection, make_mixer, parameter_groups
from gomhc.convert import DeepseekV4Mixing, ManifoldConstrainedMixing, replace_mixers

D, C, LETTERS = 4, 32, 61
NEW = ["go-mhc", "transport", "kromhc", "mhc-lite", "kron-go", "orthogonal", "identity"]


def shaken(module, generator):
    """Away from its start, so that every weight counts."""
    with torch.no_grad():
        for weight in module.parameters():
            spread = 0.5 if weight.ndim < 2 else 0.1
            weight.add_(spread * torch.randn(weight.shape, generator=generator))
    return module


def alone(connection, generator):
    """A layer outside of a model, whose weights transformers leaves as memory happens to be."""
    for weight in connection.parameters():
        nn.init.zeros_(weight)
    return shaken(connection, generator)


def worst(ours, theirs):
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def test_neither_package_is_loaded():
    code = (
        "import sys, gomhc.convert; print({'transformers', 'hyper_connections'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# DeepSeek-V4


@pytest.fixture
def deepseek():
    return pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")


def tiny(deepseek, generator, **sizes):
    """A whole model of three layers, with random weights."""
    sizes = {
        **{"vocab_size": LETTERS, "hidden_size": C, "moe_intermediate_size": 16, "hc_mult": D},
        **{"num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 16, "q_lora_rank": 16},
        **{"num_experts_per_tok": 2, "n_routed_experts": 4, "o_groups": 2, "o_lora_rank": 8},
        **{"index_n_heads": 2, "index_head_dim": 8, "index_topk": 4, "sliding_window": 8},
        **{"max_position_embeddings": 128, "eos_token_id": None},
        "mlp_layer_types": ["hash_moe", "moe", "moe"],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
        **sizes,
    }
    model = deepseek.DeepseekV4ForCausalLM(deepseek.DeepseekV4Config(**sizes)).eval()
    for module in model.modules():
        if isinstance(module, deepseek.DeepseekV4HyperConnection | deepseek.DeepseekV4HyperHead):
            shaken(module, generator)
    return model


def tokens(generator):
    return torch.randint(0, LETTERS, (2, 20), generator=generator)


def streams(generator):
    return torch.randn(2, 7, D, C, generator=generator)


def connections(model):
    return [module for module in model.modules() if isinstance(module, HyperConnection)]


@pytest.mark.parametrize("eps", [0.0, 1e-6, 1e-2])
def test_our_layer_is_that_of_deepseek(deepseek, generator, eps):
    config = deepseek.DeepseekV4Config(hidden_size=C, hc_mult=D, hc_eps=eps, rms_norm_eps=10 * eps)
    theirs = alone(deepseek.DeepseekV4HyperConnection(config), generator)
    branch, mixer = nn.Linear(C, C), make_mixer("mhc", D, eps=eps)
    # Without `replace_mixers`: rows of pre, post and comb, where comb is the transpose of H_res.
    epsilons = {"norm_eps": 10 * eps, "read_eps": eps}
    ours = HyperConnection(C, branch, mixer, **epsilons)
    turned = torch.arange(D * D).view(D, D).T.flatten()
    order = torch.cat([2 * D + turned, torch.arange(2 * D)])
    with torch.no_grad():
        ours.weight.copy_(theirs.fn[order])
        ours.bias.copy_(theirs.base[order])
        ours.alpha.copy_(theirs.scale[[2, 0, 1]])
    X = streams(generator)
    post, comb, collapsed = theirs(X)
    expected = comb.mT @ X + post[..., None] * branch(collapsed)[..., None, :]
    assert worst(ours(X), expected) < 2e-6
    place = replace_mixers(theirs, "mhc")
    assert isinstance(place, DeepseekV4Mixing)
    assert worst(place(X), (post, comb, collapsed)) < 1e-6


@pytest.mark.parametrize("eps", [1e-6, 1e-3])
def test_with_mhc_a_model_computes_what_it_did(deepseek, generator, eps):
    model, text = tiny(deepseek, generator, hc_eps=eps, rms_norm_eps=eps), tokens(generator)
    others = {name: weight for name, weight in model.named_parameters() if "n_hc." not in name}
    before = model(text).logits
    plain = model.generate(text, max_new_tokens=12, do_sample=False)
    assert replace_mixers(model, "mhc") is model
    assert not any(isinstance(x, deepseek.DeepseekV4HyperConnection) for x in model.modules())
    assert worst(model(text).logits, before) < 1e-5
    for cache in (True, False):
        ours = model.generate(text, max_new_tokens=12, do_sample=False, use_cache=cache)
        assert torch.equal(ours, plain)
    after = dict(model.named_parameters())
    assert all(after[name] is weight for name, weight in others.items() if name in after)
    assert {name for name in others if "hc_head" in name} <= set(after)


def test_that_needs_the_epsilons(deepseek, generator):
    model, text = tiny(deepseek, generator, hc_eps=1e-3), tokens(generator)
    before = model(text).logits
    assert worst(replace_mixers(model, "mhc", eps=0.0)(text).logits, before) > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_streams_of_other_dtypes(deepseek, generator, dtype):
    """They compute in float32 whatever the dtypes of weights and streams, and so do we."""
    config = deepseek.DeepseekV4Config(hidden_size=C, hc_mult=D)
    theirs = alone(deepseek.DeepseekV4HyperConnection(config), generator)
    ours = replace_mixers(copy.deepcopy(theirs), "mhc")
    X = streams(generator).to(dtype)
    for kind in (torch.float32, dtype):  # of the weights
        post, comb, collapsed = ours.to(kind)(X)
        assert (collapsed.dtype, post.dtype) == (dtype, torch.promote_types(dtype, torch.float32))
        rounding = 3e-2 if kind == dtype == torch.bfloat16 else 1e-6
        assert worst((post, comb), theirs(X)[:2]) < rounding
    with torch.autocast("cpu", torch.bfloat16):
        assert worst(ours.float()(X)[:2], theirs(X)[:2]) < 0.1


@pytest.mark.parametrize("name", NEW)
def test_another_mixer_trains_and_generates(deepseek, generator, name):
    model, text = tiny(deepseek, generator), tokens(generator)
    first = model.model.layers[0].attn_hc
    X = streams(generator)
    post, _, collapsed = first(X)
    replace_mixers(model, name, generator=generator)
    ours = model.model.layers[0].attn_hc
    assert worst(ours(X)[::2], (post, collapsed)) < 1e-6
    starts = [c.bias.detach().clone() for c in connections(model)]
    assert len(starts) == 6
    for connection, start in zip(connections(model), starts, strict=True):
        H_res, *_ = connection.matrices(X)
        assert (H_res - torch.eye(D)).abs().mean() < 0.1
        g = connection.mixer.num_parameters
        assert torch.equal(start[:g], connection.bias[:g])
    optimizer = torch.optim.AdamW(parameter_groups(model.train(), 0.1), 1e-2)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = model(text, labels=text).loss
        loss.backward()
        assert all(x.grad.isfinite().all() for x in model.parameters() if x.grad is not None)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    # Before the first connection streams are copies, on which θ has no effect.
    for connection, start in list(zip(connections(model), starts, strict=True))[1:]:
        g = connection.mixer.num_parameters
        assert name == "identity" or (connection.bias[:g] - start[:g]).abs().max() > 1e-3
    plain, cached = (
        model.eval().generate(text, max_new_tokens=6, do_sample=False, use_cache=cache)
        for cache in (False, True)
    )
    assert torch.equal(plain, cached)


@pytest.mark.parametrize("name", ["mhc", *NEW])
def test_a_class_of_its_own_is_saved_and_loaded_whole(deepseek, generator, name, tmp_path):
    class Mixed(deepseek.DeepseekV4ForCausalLM):
        def __init__(self, config):
            super().__init__(config)
            replace_mixers(self, name)

    text = tokens(generator)
    model = Mixed(tiny(deepseek, generator).config).eval()
    shaken(nn.ModuleList(connections(model)), generator)
    expected = model(text).logits
    other = Mixed(model.config).eval()
    assert other.load_state_dict(model.state_dict()) == ([], [])
    assert torch.equal(other(text).logits, expected)
    model.save_pretrained(tmp_path)
    loaded, report = Mixed.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(loaded.eval()(text).logits, expected, rtol=0, atol=1e-6)
    narrow = Mixed.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {c.weight.dtype for c in connections(narrow)} == {torch.float32}
    assert narrow(text).logits.isfinite().all()


def test_checkpoints_of_activations(deepseek, generator):
    model, text = replace_mixers(tiny(deepseek, generator), "go-mhc").train(), tokens(generator)
    model(text, labels=text).loss.backward()
    expected = [c.weight.grad.clone() for c in connections(model)]
    model.zero_grad()
    model.activation_checkpointing_enable()
    model(text, labels=text).loss.backward()
    for connection, slope in zip(connections(model), expected, strict=True):
        torch.testing.assert_close(connection.weight.grad, slope, rtol=1e-4, atol=1e-7)


def test_what_is_taken_over(deepseek, generator):
    model = tiny(deepseek, generator).train()
    model.model.layers[0].attn_hc.requires_grad_(False)
    model.model.layers[0].ffn_hc.to(torch.float64)
    model.model.layers[1].attn_hc.eval()
    shared = model.model.layers[1].ffn_hc = model.model.layers[2].ffn_hc
    replace_mixers(model, "go-mhc", s=1, off_diagonal_mass=0.1)
    first, second, _ = model.model.layers
    assert not any(x.requires_grad for x in first.attn_hc.parameters())
    assert all(x.requires_grad for x in first.ffn_hc.parameters())
    assert first.ffn_hc.connection.weight.dtype == torch.float64
    assert (second.attn_hc.training, second.ffn_hc.training) == (False, True)
    assert second.ffn_hc is model.model.layers[2].ffn_hc is not shared
    assert second.ffn_hc.connection.mixer.s == 1
    assert len(connections(model)) == 5


OURS = ["weight", "bias", "alpha"]


def trained(connection):
    return [name for name in OURS if getattr(connection, name).requires_grad]


@pytest.mark.parametrize("name", ["mhc", "go-mhc"])
@pytest.mark.parametrize("theirs, ours", [("fn", "weight"), ("base", "bias"), ("scale", "alpha")])
def test_what_is_trained_is_taken_over_one_by_one(deepseek, generator, theirs, ours, name):
    model = tiny(deepseek, generator)
    getattr(model.model.layers[1].attn_hc, theirs).requires_grad_(False)
    replace_mixers(model, name)
    layers = model.model.layers
    assert trained(layers[1].attn_hc.connection) == [each for each in OURS if each != ours]
    assert trained(layers[1].ffn_hc.connection) == OURS


def test_a_kind_of_glm():
    """The same layer under another name."""
    glm = pytest.importorskip("transformers.models.glm5_next.modeling_glm5_next")
    config = glm.Glm5NextTextConfig(hidden_size=C, hc_mult=D)
    theirs = glm.Glm5NextTextHyperConnection(config)
    for weight in theirs.parameters():
        nn.init.normal_(weight)
    X = torch.randn(2, 7, D, C)
    assert worst(replace_mixers(copy.deepcopy(theirs), "mhc")(X), theirs(X)) < 2e-6


class Own:
    """Classes for the refusals."""

    class NewHyperConnection(nn.Module):
        pass

    class Telling(nn.ReLU):
        def tell(self):
            """A method that their connection takes from its branch."""


def test_what_cannot_be_replaced_is_named_and_nothing_changes(deepseek, generator):
    model = tiny(deepseek, generator)
    layers = model.model.layers
    layers[0].attn_hc.register_forward_hook(lambda *_: None)
    layers[1].ffn_hc.forward = layers[1].ffn_hc.forward
    layers[2].attn_hc = Own.NewHyperConnection()
    layers[2].ffn_hc.__class__ = type("Sub", (deepseek.DeepseekV4HyperConnection,), {})
    before = list(model.modules())
    with pytest.raises(ValueError, match="expected connections that can be replaced, got") as error:
        replace_mixers(model, "go-mhc")
    for line in (
        r"model.layers.0.attn_hc (DeepseekV4HyperConnection): it has hooks, which would be lost",
        r"model.layers.1.ffn_hc (DeepseekV4HyperConnection): it has hooks, which would be lost",
        r"model.layers.2.attn_hc (NewHyperConnection): it is of a kind that we do not know",
        r"model.layers.2.ffn_hc (Sub): it is of a kind that we do not know",
    ):
        assert line in str(error.value)
    assert str(error.value).count("): it") == 4
    after = list(model.modules())
    assert len(after) == len(before) and all(a is b for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("mixer", "options", "kind", "message"),
    [
        ("go-mcc", {}, ValueError, "did you mean go-mhc"),
        ("go-mhc", {"iterations": 3}, TypeError, "the options s, factors; got iterations"),
        ("kron-go", {"factors": (3, 2)}, ValueError, "product"),
        ("mhc", {"backend": "fused"}, RuntimeError, "nor has mhc with an eps"),
    ],
)
def test_a_mixer_that_does_not_fit_changes_nothing(
    deepseek, generator, mixer, options, kind, message, unchecked
):
    model = tiny(deepseek, generator)
    before = list(model.modules())
    with pytest.raises(kind, match=message):
        replace_mixers(model, mixer, **options)
    assert all(a is b for a, b in zip(model.modules(), before, strict=True))


def test_mixing_can_be_frozen(deepseek, generator):
    model = replace_mixers(tiny(deepseek, generator), "go-mhc")
    for connection in connections(model):
        connection.freeze_mixing()
    ids = tokens(generator)
    model(ids, labels=ids).loss.backward()
    for connection in connections(model):
        g = connection.mixer.num_parameters
        assert not connection.bias.grad[:g].any() and connection.bias.grad[g:].any()


def test_what_was_replaced_before_and_the_number_of_streams(deepseek, generator, unchecked):
    model = tiny(deepseek, generator)
    with pytest.raises(TypeError, match="no d, as the model has its number of streams"):
        replace_mixers(model, "go-mhc", d=4)
    replace_mixers(model, "go-mhc")
    with pytest.raises(ValueError, match="they were replaced before"):
        replace_mixers(model, "go-mhc")


def test_a_model_without_connections(unchecked):
    with pytest.raises(ValueError, match="expected a model with connections.*none in a Linear"):
        replace_mixers(nn.Linear(2, 2), "go-mhc")
    with pytest.raises(ValueError, match="none in a HyperConnection"):
        replace_mixers(HyperConnection(C, nn.Identity(), make_mixer("mhc", D)), "go-mhc")
    with pytest.raises(TypeError, match="expected a module, got list"):
        replace_mixers([nn.Linear(2, 2)], "go-mhc")


# hyper-connections


@pytest.fixture
def package():
    return pytest.importorskip("hyper_connections")


class Network(nn.Module):
    """A few branches in their connections, and a head."""

    def __init__(self, package, depth=4, **options):
        super().__init__()
        make, self.expand, self.reduce = package.mc_get_init_and_expand_reduce_stream_functions(
            D, dim=C, add_stream_embed=True, **options
        )
        self.embedding = nn.Embedding(LETTERS, C)
        branches = [nn.Sequential(nn.RMSNorm(C), nn.Linear(C, C), nn.GELU()) for _ in range(depth)]
        self.layers = nn.ModuleList(make(branch=b, layer_index=k) for k, b in enumerate(branches))
        self.head = nn.Linear(C, LETTERS)

    def forward(self, text):
        X = self.expand(self.embedding(text))
        for layer in self.layers:
            X = layer(X)
        return self.head(self.reduce(X))


@pytest.mark.parametrize("options", [{}, {"log_domain_sinkhorn": True}, {"sinkhorn_iters": 3}])
def test_our_layer_in_the_place_of_theirs(package, generator, options):
    theirs = shaken(package.mHC(D, dim=C, branch=nn.Linear(C, C), **options), generator)
    ours = replace_mixers(copy.deepcopy(theirs), "mhc")
    assert isinstance(ours, ManifoldConstrainedMixing)
    for shape in ((3 * D, 7, C), (3 * D, C), (3 * D, 2, 5, C)):
        X = torch.randn(shape, generator=generator)
        torch.testing.assert_close(ours(X), theirs(X), rtol=1e-5, atol=1e-5)


def test_its_matrices_are_theirs_for_normed_streams(package, generator):
    """Nothing but our `HyperConnection` with their weights."""
    theirs = shaken(package.mHC(D, dim=C), generator)
    connection = replace_mixers(copy.deepcopy(theirs), "mhc").connection
    X = torch.randn(3, D, C, generator=generator)
    normed = F.normalize(X, dim=-1) * C**0.5
    _, H_pre, H_post = connection.matrices(normed)
    read, mixed, more = theirs.width_connection(X.flatten(0, 1))
    torch.testing.assert_close((H_pre[..., None, :] @ X).squeeze(-2), read, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(H_post, more["beta"].flatten(1), rtol=1e-5, atol=1e-5)
    alpha = connection.matrices(normed)[0]
    torch.testing.assert_close((alpha.mT @ X).flatten(0, 1), mixed, rtol=1e-5, atol=1e-5)


def test_a_network_of_theirs_computes_what_it_did(package, generator):
    model = shaken(Network(package), generator)
    text = tokens(generator)
    before = model(text)
    assert replace_mixers(model, "mhc") is model
    torch.testing.assert_close(model(text), before, rtol=1e-5, atol=1e-5)
    assert len(connections(model)) == 4


@pytest.mark.parametrize("name", NEW)
def test_a_network_of_theirs_trains_with_another_mixer(package, generator, name):
    model, text = Network(package), tokens(generator)
    replace_mixers(model, name, generator=generator)
    starts = [c.bias.detach().clone() for c in connections(model)]
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), 1e-2)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(text).flatten(0, 1), text.flatten())
        loss.backward()
        assert all(x.grad.isfinite().all() for x in model.parameters() if x.grad is not None)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    for connection, start in list(zip(connections(model), starts, strict=True))[:-1]:
        g = connection.mixer.num_parameters
        assert name == "identity" or (connection.bias[:g] - start[:g]).abs().max() > 1e-3


def test_the_ways_to_call_it(package, generator):
    branch = nn.Linear(C, C)
    theirs = shaken(package.mHC(D, dim=C), generator)
    ours = replace_mixers(copy.deepcopy(theirs), "mhc")
    X = torch.randn(3 * D, 7, C, generator=generator)
    expected = theirs.decorate_branch(branch)(X)
    torch.testing.assert_close(ours.decorate_branch(branch)(X), expected, rtol=1e-5, atol=1e-5)
    read, add_residual = ours(X)
    assert read.shape == (3, 7, C)
    torch.testing.assert_close(add_residual(branch(read)), expected, rtol=1e-5, atol=1e-5)
    out, more = add_residual((branch(read), "more"))
    assert torch.equal(out, add_residual(branch(read))) and more == "more"
    narrow = ours.to(torch.bfloat16)(X.bfloat16())[0]
    assert narrow.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="a connection without a branch to decorate one"):
        replace_mixers(package.mHC(D, dim=C, branch=branch), "mhc").decorate_branch(branch)


def test_dropout_of_the_streams_stays(package, generator):
    theirs = shaken(package.mHC(D, dim=C, branch=nn.Identity(), dropout=0.5), generator)
    ours = replace_mixers(copy.deepcopy(theirs), "mhc")
    X = torch.randn(3 * D, 7, C, generator=generator)
    with torch.random.fork_rng():
        expected = theirs(X)
    torch.testing.assert_close(ours(X), expected, rtol=1e-5, atol=1e-5)
    assert (expected == 0).float().mean() > 0.4
    torch.testing.assert_close(ours.eval()(X), theirs.eval()(X), rtol=1e-5, atol=1e-5)


THEIRS = {
    "weight": ["norm.gamma", "dynamic_alpha_fn", "dynamic_beta_fn"],
    "bias": ["static_alpha", "static_beta"],
    "alpha": ["residual_scale", "pre_branch_scale", "h_post_scale"],
}


@pytest.mark.parametrize("ours", OURS)
def test_of_theirs_too_what_is_trained_is_taken_over_one_by_one(package, ours):
    theirs = package.mHC(D, dim=C).requires_grad_(False)
    assert trained(replace_mixers(copy.deepcopy(theirs), "go-mhc").connection) == []
    for name in THEIRS[ours]:
        one = copy.deepcopy(theirs)
        one.get_parameter(name).requires_grad_(True)
        assert trained(replace_mixers(one, "go-mhc").connection) == [ours]


def test_a_branch_keeps_its_mode(package):
    branch = nn.Dropout().eval()
    theirs = package.mHC(D, dim=C, branch=branch)
    theirs.branch.eval()
    ours = replace_mixers(theirs, "go-mhc")
    assert ours.branch is branch and not branch.training
    assert ours.training and ours.connection.training and ours.dropout.training


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_fracs": 2}, "num_fracs > 1"),
        ({"num_input_views": 2}, "num_input_views > 1"),
        ({"num_dynamic_alpha_proposals": 2}, "num_dynamic_alpha_proposals > 1"),
        ({"channel_first": True}, "channel_first"),
        ({"residual_transform": nn.Linear(C, C)}, "a residual_transform"),
        ({"add_branch_out_to_residual": False}, "add_branch_out_to_residual=False"),
        ({"depth_residual_fn": torch.sub}, "a depth_residual_fn"),
        ({"residual_mix_constraint_fn": torch.softmax}, "a residual_mix_constraint_fn"),
        ({"branch": Own.Telling(), "forward_method_names": ("tell",)}, "forward_method_names"),
    ],
)
def test_what_of_theirs_has_no_counterpart(package, options, reason):
    model = nn.Sequential(package.mHC(D, dim=C), package.mHC(D, dim=C, **options))
    before = list(model)
    with pytest.raises(ValueError, match=rf"got 1 \(.*\): it has {reason}"):
        replace_mixers(model, "go-mhc")
    assert all(a is b for a, b in zip(model, before, strict=True))


def test_their_other_kinds_are_named(package):
    from hyper_connections import mHCv2

    for theirs in (package.HyperConnections(D, dim=C), mHCv2.mHC(D, dim=C)):
        with pytest.raises(ValueError, match=r"the model \(.*\): it is of a kind that we do not"):
            replace_mixers(theirs, "go-mhc")
