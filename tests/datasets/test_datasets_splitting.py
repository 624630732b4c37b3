"""Laws of the validation split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camri_jax.datasets import DatasetError
from camri_jax.datasets.dataset import make_dataset
from camri_jax.datasets.splitting import held_out, hold_out, take

_FRACTIONS = st.floats(0.01, 0.99)


def _labels(counts, seed):
    return np.random.default_rng(seed).permutation(
        np.repeat(range(len(counts)), counts)
    )


def _names(counts):
    return tuple(f"class {i}" for i in range(len(counts)))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 30), min_size=2, max_size=6), _FRACTIONS, st.integers(0))
def test_each_class_gives_its_share_and_keeps_the_rest(counts, fraction, seed):
    labels = _labels(counts, 0)
    chosen = held_out(labels, fraction, seed=seed, class_names=_names(counts))
    given_up = np.bincount(labels[chosen], minlength=len(counts))
    assert (given_up >= 1).all()
    assert (given_up < counts).all()
    shares = np.clip(fraction * np.array(counts), 1, np.array(counts) - 1)
    assert (abs(given_up - shares) <= 0.5).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(2, 8), min_size=2, max_size=5), _FRACTIONS, st.integers(0, 99)
)
def test_no_group_is_cut(num_groups, fraction, seed):
    rng = np.random.default_rng(seed)
    sizes = [rng.integers(1, 6, n) for n in num_groups]
    labels = np.concatenate([np.full(s.sum(), i) for i, s in enumerate(sizes)])
    groups = np.repeat(np.arange(sum(num_groups)), np.concatenate(sizes))
    shuffle = rng.permutation(len(labels))
    labels, groups = labels[shuffle], groups[shuffle]
    chosen = held_out(
        labels, fraction, seed=seed, class_names=_names(num_groups), groups=groups
    )
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert set(labels[chosen]) == set(labels[~chosen]) == set(range(len(num_groups)))


def test_the_seed_decides():
    labels = _labels([50, 50], 0)
    choose = lambda seed: held_out(labels, 0.3, seed=seed, class_names=("a", "b"))  # noqa: E731
    assert (choose(1) == choose(1)).all()
    assert (choose(1) != choose(2)).any()


def test_a_further_class_leaves_the_choice_in_the_others_alone():
    labels = _labels([20, 20, 20], 0)
    two = labels < 2
    all_three = held_out(labels, 0.2, seed=0, class_names=("a", "b", "c"))
    groups = np.flatnonzero(two)
    only_two = held_out(labels[two], 0.2, seed=0, class_names=("a", "b"), groups=groups)
    assert (all_three[two] == only_two).all()


def test_a_class_of_one_cannot_be_divided():
    with pytest.raises(DatasetError, match="'rare' has 1 example"):
        held_out(np.array([0, 0, 1]), 0.5, seed=0, class_names=("often", "rare"))


def test_a_class_of_one_track_cannot_be_divided():
    labels, groups = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
    with pytest.raises(DatasetError, match="'b' has 1 example"):
        held_out(labels, 0.5, seed=0, class_names=("a", "b"), groups=groups)


def test_a_group_of_two_classes_is_refused():
    with pytest.raises(DatasetError, match="group 7 has examples of several classes"):
        held_out(
            np.array([0, 0, 1, 1]),
            0.5,
            seed=0,
            class_names=("a", "b"),
            groups=np.array([1, 7, 7, 2]),
        )


def test_held_out_examples_move_with_their_labels_and_groups():
    labels = np.repeat([0, 1], 10).astype(np.int32)
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    groups = np.arange(20) // 2
    whole = make_dataset((images, labels), None, ("a", "b"), train_groups=groups)
    split = hold_out(whole, 0.4, seed=0, part="validation")
    assert len(split.validation_labels) == 8
    assert split.validation_groups is not None
    assert split.train_groups is not None
    for part_images, part_labels, part_groups in (
        (split.train_images, split.train_labels, split.train_groups),
        (split.validation_images, split.validation_labels, split.validation_groups),
    ):
        index = part_images[:, 0, 0, 0]
        assert (part_labels == labels[index]).all()
        assert (part_groups == groups[index]).all()
    everything = np.concatenate([split.train_images, split.validation_images])
    assert sorted(everything.ravel()) == list(range(20))
    assert split.fingerprint != whole.fingerprint


def test_images_of_a_memory_map_are_taken_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("camri_jax.datasets.splitting._BLOCK", 7)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 3, 5, 2), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    for share in (0.0, 0.5, 1.0):
        chosen = rng.random(30) < share
        taken = take(mapped, chosen)
        assert type(taken) is np.ndarray
        assert (taken == images[chosen]).all()
        assert (take(images, chosen) == images[chosen]).all()
