"""Laws of the networks: one convolution in four forms, shapes, heads, whitening."""

import functools
from typing import get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from camri_jax._files import UsageError
from camri_jax.training import network
from camri_jax.training.network import Convolution


def _random(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@settings(deadline=None, max_examples=5)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["SAME", "VALID", ((2, 1), (0, 3))]),
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
)
def test_patches_equal_the_convolution_and_its_gradients(
    kernel, strides, padding, size
):
    images, weights = _random((5, *size, 3)), _random((*kernel, 3, 5), seed=1)

    def convolve(images, weights):
        return jax.lax.conv_general_dilated(
            images,
            weights,
            strides,
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def patches(images, weights):
        return network.patches_conv(images, weights, strides, padding)

    outputs = []
    for function in (convolve, patches):

        @jax.jit
        def both(images, weights, function=function):
            value, pullback = jax.vjp(function, images, weights)
            return value, pullback(jnp.cos(value))

        outputs.append(both(images, weights))
    chex.assert_trees_all_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"rhs_dilation": (2, 1)}, {"lhs_dilation": (1, 2)}, {"feature_group_count": 3}],
)
def test_patches_refuse_what_they_do_not_compute(options):
    with pytest.raises(NotImplementedError, match="plain convolutions only"):
        network.patches_conv(
            _random((1, 4, 4, 3)), _random((3, 3, 3, 5)), (1, 1), "SAME", **options
        )


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3)])
def test_max_pool_is_flax_max_pool_with_its_gradient(size):
    images = _random((2, *size, 3))
    outputs = []
    for pool in (network.max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2))):
        value, pullback = jax.vjp(pool, images)
        outputs.append((value, pullback(jnp.sin(value))))
    chex.assert_trees_all_close(*outputs, rtol=1e-6)


_tiny = functools.partial(
    network.CNN,
    blocks=(((8,), (8,)), ((16, 16), (8,))),
    feature_dim=4,
    dropout_rate=0.25,
    batch_norm_momentum=0.9,
)
_tiny_fast = functools.partial(network.WhitenedCNN, widths=(6, 8))
both_networks = pytest.mark.parametrize("backbone", [_tiny, _tiny_fast])


def _pictures(shape, seed=0):
    # Smooth, as pictures are: neighbouring pixels and channels go together.
    noise = jax.random.uniform(jax.random.key(seed), shape) - 0.5
    smooth = noise.cumsum(1).cumsum(2) + 0.2 * noise.cumsum(3)
    low, high = smooth.min(), smooth.max()
    return (255 * (smooth - low) / (high - low)).astype(jnp.uint8)


def _apply(module, variables, images, **options):
    return module.apply(
        variables,
        images,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(2)},
        **options,
    )[0]


def _init(module, images):
    init = jax.jit(lambda key: module.init(key, images, train=False))
    return init(jax.random.key(1))


@both_networks
def test_all_forms_of_convolution_train_alike(backbone):
    images = _pictures((4, 9, 9, 3))
    outputs = []
    for convolution in get_args(Convolution):
        module = backbone(convolution=convolution)
        variables = _init(module, images)

        def objective(params, module=module, variables=variables):
            features = _apply(
                module, {**variables, "params": params}, images, train=True
            )
            return jnp.square(features[:, :3]).mean() + features[0, 0]

        outputs.append(jax.jit(jax.value_and_grad(objective))(variables["params"]))
    for others in outputs[1:]:
        chex.assert_trees_all_close(others, outputs[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("size", "count"), [(3, 0), (4, 1)])
def test_mixed_convolves_only_what_is_larger_than_the_kernel(size, count):
    images, kernel = jnp.ones((2, size, size, 1)), jnp.ones((3, 3, 1, 5))
    convolve = functools.partial(
        network._CONVOLUTIONS["mixed"],
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    text = jax.jit(convolve).lower(images, kernel).as_text()
    assert text.count("stablehlo.convolution") == count


def _variables(backbone, size, channels=3):
    images = jnp.zeros((1, size, size, channels), jnp.uint8)
    return jax.eval_shape(lambda: backbone.init(jax.random.key(0), images, train=False))


def test_the_paper_network_has_the_authors_layers():
    backbone = network.paper()
    params = _variables(backbone, 32)["params"]
    widths = [64] * 3 + [128] * 3 + [256] * 5 + [512] * 2
    inputs = [3, *widths[:-1]]
    shapes = [params[f"Conv_{i}"]["kernel"].shape for i in range(13)]
    assert shapes == [(3, 3, i, o) for i, o in zip(inputs, widths, strict=True)]
    norms = [params[f"BatchNorm_{i}"]["scale"].shape[0] for i in range(5)]
    # Two in blocks 1 and 2, two in block 3, and the features' own.
    assert norms == [64, 128, 256, 256, 512]
    assert params["Dense_0"]["kernel"].shape == (512, 512)
    assert backbone.dropout_rate == 0.25
    assert not backbone.relu_features


@pytest.mark.parametrize(("size", "millions"), [(32, 568), (48, 1280)])
def test_the_paper_network_costs_what_the_authors_network_costs(size, millions):
    multiplications, height = 0, size
    params = _variables(network.paper(), size)["params"]
    for i in range(13):
        if i in (3, 6):
            height //= 2
        multiplications += height**2 * np.prod(params[f"Conv_{i}"]["kernel"].shape)
    multiplications += 512 * 512 + 512 * 10
    assert multiplications / 1e6 == pytest.approx(millions, rel=0.005)


def test_the_small_network_is_small():
    params = _variables(network.small(), 8, 1)["params"]
    assert 1e5 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 5e5


@pytest.mark.parametrize("name", sorted(set(network.NETWORKS) - {"features"}))
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (13, 3), (32, 3), (96, 1)])
def test_every_network_embeds_images_of_every_size(name, size, channels):
    module = network.NETWORKS[name](
        dtype=jnp.dtype("float32"), convolution="lax", feature_dim=7
    )
    images = jnp.zeros((2, size, size - 2, channels), jnp.uint8)
    features, _ = jax.eval_shape(
        lambda: module.init_with_output(jax.random.key(0), images, train=False)
    )
    chex.assert_shape(features, (2, 7))
    chex.assert_type(features, jnp.float32)


@pytest.mark.parametrize(("size", "convolutions"), [(8, 4), (32, 6), (48, 8), (96, 10)])
def test_larger_images_get_more_blocks(size, convolutions):
    params = _variables(network.fast(), size)["params"]
    widths = [
        params[f"Conv_{i}"]["kernel"].shape[-1]
        for i in range(sum(name.startswith("Conv_") for name in params))
    ]
    assert widths == [32, 32, *[128] * (convolutions - 2)]


@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_a_head_fits_any_module_from_images_to_features(head):
    class Means(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            del train
            return images.mean((1, 2), dtype=jnp.float32)

    classifier = network.Network(Means(), num_classes=7, head=head, logit_scale=0.5)
    images = _pictures((3, 8, 8, 2))
    outputs, variables = classifier.init_with_output(
        jax.random.key(0), images, train=False
    )
    chex.assert_trees_all_close(outputs.features, images.mean((1, 2)))
    own = variables["params"]["classes"]
    # Only a linear head has scores to scale.
    scale = {"linear": 0.5, "cosine": 1.0}[head]
    chex.assert_trees_all_equal(outputs.prototypes, scale * own["prototypes"])
    chex.assert_shape(outputs.prototypes, (2, 7))
    assert (outputs.bias is not None) == ("bias" in own) == (head == "linear")


def test_relu_features_are_not_negative_before_normalization():
    images, lowest = _pictures((8, 8, 8, 1)), {}
    for relu in (False, True):
        module = _tiny(relu_features=relu)
        features = module.apply(_init(module, images), images, train=False)
        lowest[relu] = float(features.min())
    assert lowest[True] == 0.0 > lowest[False]


def test_dropout_acts_in_training_only():
    module = _tiny()
    images = jnp.full((2, 8, 8, 1), 200, jnp.uint8)
    variables = _init(module, images)

    @functools.partial(jax.jit, static_argnums=0)
    def features(train, key):
        return module.apply(
            variables, images, train=train, mutable=True, rngs={"dropout": key}
        )[0]

    keys = jax.random.split(jax.random.key(1))
    chex.assert_trees_all_equal(*(features(False, key) for key in keys))
    assert not np.allclose(*(features(True, key) for key in keys))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_whitening_lets_out_is_white(channels):
    images = _pictures((200, 12, 11, channels))
    whitening = network.Whitening()
    outputs, variables = whitening.init_with_output(
        jax.random.key(0), images.astype(jnp.float32) / 255
    )
    half = 4 * channels
    chex.assert_shape(outputs, (200, 11, 10, 2 * half))
    chex.assert_trees_all_close(outputs[..., :half], -outputs[..., half:], atol=1e-4)
    # Each output is white but for the 5e-4 that its eigenvalue was raised by.
    white = np.asarray(outputs[..., :half], np.float64).reshape(-1, half)
    moments = white.T @ white / len(white)
    patches = np.asarray(
        [
            (np.asarray(images, np.float64) / 255)[:, u : u + 11, v : v + 10]
            for u in (0, 1)
            for v in (0, 1)
        ]
    )
    pixels = np.asarray(images, np.float64) / 255
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    rows = np.moveaxis((patches - mean) / std, 0, -2).reshape(-1, half)
    values = np.linalg.eigvalsh(rows.T @ rows / len(rows))
    np.testing.assert_allclose(
        moments, np.diag(values / (values + 5e-4)), rtol=1e-3, atol=1e-3
    )
    assert list(variables["params"]) == ["bias"]


def test_whitening_measures_some_of_all_images(monkeypatch):
    """Also where they come class by class, as folders do."""
    monkeypatch.setattr(network, "_PIXELS", 10 * 8 * 8)
    images = np.repeat([0.0, 1.0], 20)[:, None, None, None] * np.ones((1, 8, 8, 1))
    constants = network.Whitening().init(jax.random.key(0), jnp.float32(images))
    np.testing.assert_allclose(constants["constants"]["mean"], 0.5)


@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 2.0**83), (np.float16, 2.0**10)]
)
def test_features_of_any_size_come_in_one_unit(dtype, size):
    plain = np.random.default_rng(0).normal(size=(8, 3)).astype(dtype)
    one, large = (
        network.Standardization().init_with_output(
            jax.random.key(0), jnp.asarray(features), train=False
        )[0]
        for features in (plain, plain * dtype(size))
    )
    np.testing.assert_array_equal(one, large)
    np.testing.assert_allclose(np.mean(np.square(one)), 1, rtol=1e-5)


def test_whitening_knows_the_images_of_init_and_no_key():
    images, others = _pictures((20, 8, 8, 3)), _pictures((20, 8, 8, 3), seed=1)

    @jax.jit
    def constants(key, images):
        module = _tiny_fast()
        return module.init(key, images, train=False)["constants"]

    keys = jax.random.split(jax.random.key(0))
    first = constants(keys[0], images)
    chex.assert_trees_all_equal(first, constants(keys[1], images))
    assert not np.allclose(
        first["whitening"]["mean"], constants(keys[0], others)["whitening"]["mean"]
    )


def test_images_of_one_colour_are_whitened_to_finite_numbers():
    module, images = _tiny_fast(), jnp.full((3, 9, 9, 3), 7, jnp.uint8)
    variables = _init(module, images)
    features = module.apply(variables, images, train=False)
    chex.assert_tree_all_finite((features, variables))


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 5), (5, 3), (4, 4)])
def test_a_dirac_kernel_passes_its_inputs_on(inputs, outputs):
    images = _random((2, 6, 5, inputs))
    kernel = network._dirac(jax.random.key(0), (3, 3, inputs, outputs))
    convolved = network.patches_conv(images, kernel, (1, 1), "SAME")
    same = min(inputs, outputs)
    chex.assert_trees_all_close(convolved[..., :same], images[..., :same])
    rest = kernel[..., same:]
    assert outputs <= inputs or rest.std() > 0
    assert jnp.abs(rest).max(initial=0) <= (9 * inputs) ** -0.5


@pytest.mark.parametrize("name", ["small", "fast"])
def test_a_start_holds_no_empty_constant(name):
    # On one, jaxlib 0.11.2 crashes where trials lie on several devices.
    backbone, images = network.NETWORKS[name](), jnp.zeros((2, 8, 8, 1), jnp.uint8)
    init = jax.jit(functools.partial(backbone.init, train=False))
    assert "constant dense<>" not in init.lower(jax.random.key(0), images).as_text()


def test_each_parameter_has_its_label():
    classifier = network.Network(_tiny_fast(feature_dim=3), 4, "linear")
    params = _variables(classifier, 8)["params"]
    labels = network.param_labels(params)
    assert jax.tree.structure(labels) == jax.tree.structure(params)
    backbone = labels["backbone"]
    assert set(labels["classes"].values()) == {"weights"}
    assert backbone.pop("whitening") == {"bias": "whitening_bias"}
    for name, leaves in backbone.items():
        norm = name.startswith("BatchNorm")
        assert set(leaves.values()) == {"norm_bias" if norm else "weights"}
    paper = network.param_labels(_variables(network.paper(), 32)["params"])
    assert paper["BatchNorm_0"] == {"bias": "norm_bias", "scale": "weights"}
    assert paper["Conv_0"] == {"bias": "weights", "kernel": "weights"}


# flax normalizes bfloat16 by float32 statistics.
@jax.numpy_dtype_promotion("standard")
@pytest.mark.parametrize(
    ("backbone", "products", "convolution"),
    [(_tiny, 6, "patches"), (_tiny, 6, "lax"), (_tiny_fast, 5, "lax")],
)
def test_bfloat16_is_in_the_products_alone(backbone, products, convolution):
    images, results = _pictures((16, 8, 8, 3)), {}
    for dtype in (jnp.float32, jnp.bfloat16):
        module = backbone(dtype=dtype, convolution=convolution)
        variables = _init(module, images)
        features = jax.jit(functools.partial(_apply, module, train=True))(
            variables, images
        )
        chex.assert_type(jax.tree.leaves((variables, features)), jnp.float32)
        results[dtype] = variables, features
        text = jax.jit(
            lambda v, i, module=module: module.apply(v, i, train=False)
        ).lower(variables, images)
        in_bfloat16 = [
            "bf16" in line
            for line in text.as_text().splitlines()
            if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
        ]
        assert len(in_bfloat16) == products
        assert set(in_bfloat16) == {dtype == jnp.bfloat16}
    exact, rounded = results.values()
    # The same weights from the same key; what comes out differs by rounding.
    chex.assert_trees_all_equal(exact[0], rounded[0])
    assert 0 < jnp.abs(exact[1] - rounded[1]).mean() < 0.05


@pytest.mark.parametrize(
    ("backbone", "shape", "dtype", "error", "message"),
    [
        (_tiny, (1, 1, 8, 1), jnp.uint8, UsageError, "at least 2 pixels"),
        (_tiny_fast, (1, 4, 8, 1), jnp.uint8, UsageError, "at least 5 pixels"),
        (_tiny, (8, 8, 1), jnp.uint8, UsageError, r"got shape \(8, 8, 1\)"),
        (_tiny_fast, (1, 8, 8, 1), jnp.float32, TypeError, "uint8.*got float32"),
    ],
)
def test_wrong_images_are_named(backbone, shape, dtype, error, message):
    with pytest.raises(error, match=message):
        backbone().init(jax.random.key(0), jnp.zeros(shape, dtype), train=False)
