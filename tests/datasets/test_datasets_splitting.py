"""Laws of the validation split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camri_jax.datasets import DatasetError, Part
from camri_jax.datasets.dataset import make_dataset
from camri_jax.datasets.splitting import assign, connect, hold_out, take

_FRACTIONS = st.floats(0.01, 0.99)


def held_out(labels, fraction, **settings):
    return assign(labels, [fraction], **settings) == 1


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


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(4, 30), min_size=2, max_size=6),
    st.lists(st.floats(0.05, 0.3), min_size=2, max_size=3),
    st.integers(0, 99),
)
def test_several_parts_each_get_their_share(counts, fractions, seed):
    labels = _labels(counts, seed)
    place = assign(labels, fractions, seed=seed, class_names=_names(counts))
    for label, count in enumerate(counts):
        sizes = np.bincount(place[labels == label], minlength=len(fractions) + 1)
        assert (sizes >= 1).all()
        for size, fraction in zip(sizes[1:], fractions, strict=True):
            assert size <= max(round(fraction * count), 1)
            assert size >= min(round(fraction * count), count // len(sizes))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 0.4))
def test_a_group_of_several_classes_stays_whole(seed, fraction):
    """Patients with pictures of any of three classes."""
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, 40, 300)
    labels = rng.integers(0, 3, 300)
    place = assign(
        labels, [fraction, 0.2], seed=seed, class_names=("a", "b", "c"), groups=patients
    )
    for patient in np.unique(patients):
        assert len(set(place[patients == patient])) == 1
    for part in range(3):
        assert set(labels[place == part]) == {0, 1, 2}
    # Nearly every patient has every class: each gives about its share.
    shares = [len(np.unique(patients[place == i])) / 40 for i in (1, 2)]
    assert np.allclose(shares, [fraction, 0.2], atol=0.1)


def test_groups_beside_rare_classes_are_held_out_as_often_as_others():
    """A common class in 1,000 places, of which 200 have one of 50 rare classes too."""
    groups = np.concatenate([np.arange(1000), np.arange(200)])
    labels = np.concatenate([np.zeros(1000, int), 1 + np.arange(200) // 4])
    names, fractions = _names(range(51)), [0.1, 0.15, 0.2]
    beside = np.zeros(4)
    for seed in range(40):
        place = assign(labels, fractions, seed=seed, class_names=names, groups=groups)
        sizes = np.bincount(place[:1000], minlength=4)
        np.testing.assert_allclose(sizes, [550, 100, 150, 200], atol=15)
        beside += np.bincount(place[:200], minlength=4) / sizes
        # Every class is trained on.
        assert set(labels[place == 0]) == set(range(51))
    np.testing.assert_allclose(beside / 40, 0.2, atol=0.015)


def test_classes_that_share_one_group_cannot_be_divided():
    labels, groups = np.array([0, 1, 0, 1, 1]), np.array([5, 5, 6, 6, 7])
    place = assign(labels, [0.5], seed=0, class_names=("a", "b"), groups=groups)
    assert place[0] == place[1]
    assert place[2] == place[3]
    with pytest.raises(DatasetError, match=r"'a' has 2 example.*too few to hold 2 out"):
        assign(labels, [0.3, 0.3], seed=0, class_names=("a", "b"), groups=groups)


def test_pixels_and_the_order_of_other_classes_decide_nothing():
    labels = np.repeat([0, 1], 20)
    other = np.concatenate([labels[:20], labels[20:][::-1]])
    one = assign(labels, [0.2], seed=4, class_names=("a", "b"))
    assert (one[:20] == assign(other, [0.2], seed=4, class_names=("a", "b"))[:20]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_connected_examples_are_those_that_a_walk_reaches(pairs):
    one, two = np.array(pairs).T
    groups = connect(one, two)
    groups = np.arange(len(pairs)) if groups is None else groups
    for i in range(len(pairs)):
        reached, front = {i}, [i]
        while front:
            j = front.pop()
            near = {
                k for k in range(len(pairs)) if one[k] == one[j] or two[k] == two[j]
            }
            front += near - reached
            reached |= near
        assert set(np.flatnonzero(groups == groups[i])) == reached


def test_held_out_examples_move_with_their_labels_and_groups():
    labels = np.repeat([0, 1], 10).astype(np.int32)
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    groups = (np.arange(20) // 2).astype(np.int32)
    whole = make_dataset("mine", {"train": Part(images, labels, groups)}, ("a", "b"))
    split = hold_out(whole, {"validation": 0.4, "calibration": 0.2}, seed=0)
    assert [len(p.labels) for p in split.parts.values()] == [8, 8, 4, 0]
    for part in split.parts.values():
        index = part.images[:, 0, 0, 0]
        assert (part.labels == labels[index]).all()
        assert (part.groups == groups[index]).all()
    everything = np.concatenate([part.images for part in split.parts.values()])
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
