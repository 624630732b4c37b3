"""Laws of the network: one convolution in two forms, the authors' shape, two heads."""

import functools
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from camri_jax.training import network as models


def _random(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@settings(deadline=None, max_examples=10)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["SAME", "VALID", ((2, 1), (0, 3))]),
    size=st.tuples(st.integers(4, 7), st.integers(4, 7)),
    tile=st.sampled_from([1, 5_000, 2**20]),
)
def test_patches_equal_the_convolution_and_its_gradients(
    kernel, strides, padding, size, tile
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
        return models.patches_conv(images, weights, strides, padding)

    outputs = []
    with mock.patch.object(models, "_TILE", tile):
        for function in (convolve, patches):
            value, pullback = jax.vjp(function, images, weights)
            outputs.append((value, pullback(jnp.cos(value))))
    chex.assert_trees_all_close(*outputs, rtol=1e-4, atol=1e-4)


def test_a_tile_of_patches_is_all_that_a_cpu_holds(monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("only a CPU convolves in tiles")
    images, weights = _random((64, 32, 32, 8)), _random((3, 3, 8, 8))
    needs = {}
    for tile in (models._TILE, 2**30):
        monkeypatch.setattr(models, "_TILE", tile)

        def objective(weights, images):
            return jnp.cos(models.patches_conv(images, weights, (1, 1), "SAME")).sum()

        program = jax.jit(jax.grad(objective)).lower(weights, images).compile()
        needs[tile] = program.memory_analysis().temp_size_in_bytes
    patches = 4 * 64 * 32 * 32 * 72
    assert needs[2**20] < patches < needs[2**30]


@pytest.mark.parametrize(
    "options",
    [{"rhs_dilation": (2, 1)}, {"lhs_dilation": (1, 2)}, {"feature_group_count": 3}],
)
def test_patches_refuse_what_they_do_not_compute(options):
    with pytest.raises(NotImplementedError, match="plain convolutions only"):
        models.patches_conv(
            _random((1, 4, 4, 3)), _random((3, 3, 3, 5)), (1, 1), "SAME", **options
        )


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 3)])
def test_max_pool_is_flax_max_pool_with_its_gradient(size):
    images = _random((2, *size, 3))
    outputs = []
    for pool in (models.max_pool, lambda x: nn.max_pool(x, (2, 2), (2, 2))):
        value, pullback = jax.vjp(pool, images)
        outputs.append((value, pullback(jnp.sin(value))))
    chex.assert_trees_all_close(*outputs, rtol=1e-6)


_tiny = functools.partial(
    models.CNN,
    blocks=(((8,), (8,)), ((16, 16), (8,))),
    feature_dim=4,
    dropout_rate=0.25,
    batch_norm_momentum=0.9,
)


def test_both_lowerings_train_alike():
    images = jax.random.randint(jax.random.key(0), (4, 9, 9, 3), 0, 256)
    images = images.astype(jnp.uint8)
    outputs = []
    for convolution in ("patches", "lax"):
        network = _tiny(num_classes=5, use_bias=True, convolution=convolution)
        variables = network.init(jax.random.key(1), images, train=False)

        def objective(params, network=network, variables=variables):
            features = network.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(2)},
            )[0].features
            return jnp.square(features[:, :3]).mean() + features[0, 0]

        outputs.append(jax.jit(jax.value_and_grad(objective))(variables["params"]))
    chex.assert_trees_all_close(*outputs, rtol=1e-3, atol=1e-4)


def _variables(network, size, channels=3):
    images = jnp.zeros((1, size, size, channels), jnp.uint8)
    return jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))


def test_the_paper_preset_has_the_authors_layers():
    network = models.paper(num_classes=10, use_bias=False)
    params = _variables(network, 32)["params"]
    widths = [64] * 3 + [128] * 3 + [256] * 5 + [512] * 2
    inputs = [3, *widths[:-1]]
    shapes = [params[f"Conv_{i}"]["kernel"].shape for i in range(13)]
    assert shapes == [(3, 3, i, o) for i, o in zip(inputs, widths, strict=True)]
    norms = [params[f"BatchNorm_{i}"]["scale"].shape[0] for i in range(5)]
    # Two in blocks 1 and 2, two in block 3, and the features' own.
    assert norms == [64, 128, 256, 256, 512]
    assert params["Dense_0"]["kernel"].shape == (512, 512)
    assert network.dropout_rate == 0.25
    assert not network.relu_features


@pytest.mark.parametrize(("size", "millions"), [(32, 568), (48, 1280)])
def test_the_paper_preset_costs_what_the_authors_network_costs(size, millions):
    network = models.paper(num_classes=10, use_bias=True)
    multiplications, height = 0, size
    params = _variables(network, size)["params"]
    for i in range(13):
        if i in (3, 6):
            height //= 2
        multiplications += height**2 * np.prod(params[f"Conv_{i}"]["kernel"].shape)
    multiplications += 512 * 512 + 512 * 10
    assert multiplications / 1e6 == pytest.approx(millions, rel=0.005)


def test_the_small_preset_is_small():
    params = _variables(models.small(num_classes=10, use_bias=True), 8, 1)["params"]
    assert 1e5 < sum(leaf.size for leaf in jax.tree.leaves(params)) < 5e5


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_head_has_prototypes_and_perhaps_biases(use_bias):
    network = _tiny(num_classes=7, use_bias=use_bias, feature_dim=2)
    images = jnp.zeros((3, 8, 8, 1), jnp.uint8)
    outputs, _ = network.init_with_output(jax.random.key(0), images, train=False)
    chex.assert_shape(outputs.features, (3, 2))
    chex.assert_shape(outputs.prototypes, (2, 7))
    assert (outputs.bias is not None) == use_bias
    chex.assert_type(outputs.features, jnp.float32)


def test_relu_features_are_not_negative_before_normalization():
    images = jax.random.randint(jax.random.key(0), (8, 8, 8, 1), 0, 256)
    images = images.astype(jnp.uint8)
    lowest = {}
    for relu in (False, True):
        network = _tiny(num_classes=3, use_bias=False, relu_features=relu)
        outputs, _ = network.init_with_output(jax.random.key(0), images, train=False)
        lowest[relu] = float(outputs.features.min())
    assert lowest[True] == 0.0 > lowest[False]


def test_dropout_acts_in_training_only():
    network = _tiny(num_classes=3, use_bias=False)
    images = jnp.full((2, 8, 8, 1), 200, jnp.uint8)
    variables = network.init(jax.random.key(0), images, train=False)

    def features(train, key):
        return network.apply(
            variables, images, train=train, mutable=True, rngs={"dropout": key}
        )[0].features

    keys = jax.random.split(jax.random.key(1))
    chex.assert_trees_all_equal(*(features(False, key) for key in keys))
    assert not np.allclose(*(features(True, key) for key in keys))


# flax normalizes bfloat16 by float32 statistics.
@jax.numpy_dtype_promotion("standard")
@pytest.mark.parametrize("convolution", ["patches", "lax"])
def test_bfloat16_is_in_the_products_alone(convolution):
    images = jax.random.randint(jax.random.key(0), (16, 8, 8, 3), 0, 256)
    images = images.astype(jnp.uint8)
    results = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        network = _tiny(
            num_classes=5, use_bias=True, dtype=dtype, convolution=convolution
        )
        variables = network.init(jax.random.key(1), images, train=False)
        features = network.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(2)},
        )
        chex.assert_type(jax.tree.leaves((variables, features)), jnp.float32)
        results[dtype] = variables, features
        text = jax.jit(
            lambda v, i, network=network: network.apply(v, i, train=False)
        ).lower(variables, images)
        in_bfloat16 = [
            "bf16" in line
            for line in text.as_text().splitlines()
            if "stablehlo.dot_general" in line or "stablehlo.convolution" in line
        ]
        assert len(in_bfloat16) == 6
        assert set(in_bfloat16) == {dtype == jnp.bfloat16}
    exact, rounded = results.values()
    # The same weights from the same key; what comes out differs by rounding.
    chex.assert_trees_all_equal(exact[0], rounded[0])
    chex.assert_trees_all_close(exact[1], rounded[1], atol=0.3)
    difference = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), exact[1], rounded[1])
    assert max(jax.tree.leaves(difference)) > 0


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (jnp.zeros((1, 1, 8, 1), jnp.uint8), ValueError, "at least 2 pixels"),
        (jnp.zeros((8, 8, 1), jnp.uint8), ValueError, r"got shape \(8, 8, 1\)"),
        (jnp.zeros((1, 8, 8, 1)), TypeError, "must be uint8 in 0..255, got float32"),
    ],
)
def test_wrong_images_are_named(images, error, message):
    network = _tiny(num_classes=3, use_bias=False)
    with pytest.raises(error, match=message):
        network.init(jax.random.key(0), images, train=False)
