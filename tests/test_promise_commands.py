"""From a model to a promise on new images, and on, as a user types it."""

import json
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_export import untrained
from tiny import CLASSES

from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.cli import main
from camri_jax.cli.recalibrate import load_for
from camri_jax.datasets import load
from camri_jax.datasets.dataset import Part, make_dataset
from camri_jax.takehome import Model, check, load_model, recalibrate, save_model
from camri_jax.takehome.model import save_seen
from camri_jax.takehome.promise import gathered, one_a_group
from camri_jax.training.classifier import Classifier


def write(path, seed, number=150, **more):
    """Noise in three classes: what the model says of it has no reason to be right."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (number, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(number) % 3
    names = np.array(CLASSES)
    np.savez(path, train_images=images, train_labels=labels, class_names=names, **more)
    return images, labels


def saved(path, *, classes=CLASSES, important=(1,), **about):
    """An untrained model, on disk."""
    model = untrained(method="cross_entropy", important=important, offset=0.0)
    told = {"important": list(important), "fit": "stretch", "bits": None}
    model.classifier.about.update(told | {"class_names": list(classes)} | about)
    save_model(path, model)
    return model


def taking(shape):
    """A model of which only what it takes is asked."""
    about = {"image_shape": shape, "fit": "stretch", "bits": None}
    nothing: Any = None
    return Model(Classifier(nothing, nothing, about), (), 0.0, {})


@pytest.fixture
def camri(tmp_path, monkeypatch, capsys, promotion_as_optax_needs_it):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "model")

    def run(line, status=0):
        assert main.main(line.split()) == status
        return capsys.readouterr().out

    return run


def test_a_promise_is_made_verified_checked_and_exported(camri, tmp_path):
    images, labels = write("new.npz", 1)
    told = camri("recalibrate model npz:new.npz --recall 0.9 --output promised")
    assert "at least 90 % of the images of bee" in told
    assert "50 calibration images" in told
    model = load_model("promised")
    own = guarantee.certify_recall(
        load_model("model").raw_logits(images), labels, 1, recall=0.9
    )
    # With room for how another program rounds, but no more.
    assert 0 < model.offset - max(own.offset, 0) < 1e-3
    assert "follows from the calibration scores" in camri("verify promised")
    assert camri("verify model", status=1).startswith("The model comes without")

    images, labels = write("later.npz", 2)
    told = camri("check promised npz:later.npz")
    mine = labels == 1
    found = (model.logits(images)[mine].argmax(-1) == 1).sum()
    assert f"found {found} of 50; 90 % was promised" in told
    assert "BROKEN" in camri("check promised npz:later.npz --recall 0.999", status=1)
    # What certified it says nothing of how it keeps its word.
    camri("check promised npz:new.npz", status=2)

    assert "stablehlo" in camri("export promised model.stablehlo")
    content = bytearray((tmp_path / "model.stablehlo").read_bytes())
    theirs = np.asarray(jax.export.deserialize(content).call(images)).argmax(-1)
    assert [CLASSES[k] for k in theirs] == model.predict(images)


def in_one_part(images, labels):
    """A data set without a part to train on."""
    none = Part(images[:0], labels[:0].astype(np.int32), None)
    part = Part(images, labels.astype(np.int32), None)
    return make_dataset("new", {"train": none, "test": part}, CLASSES)


def noise(shape, values=256, dtype=np.uint8):
    return np.random.default_rng(list(shape)).integers(0, values, shape).astype(dtype)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("bits", [None, 12])
@pytest.mark.filterwarnings("ignore:the upper 8 of:camri_jax.datasets.DatasetWarning")
@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_labelled_pictures_are_seen_as_those_that_are_predicted(fit, bits, tmp_path):
    """Neither as new data of their own, nor with any held out: a class has one."""
    model = saved(tmp_path / "model", fit=fit, bits=bits)
    pictures = {
        "ant": noise((10, 30)),
        "bee": noise((40, 10), 1000, np.uint16),
        "cat": noise((20, 20), 60000, np.uint16),
    }
    paths = [tmp_path / "new" / name / "a.png" for name in CLASSES]
    for path in paths:
        path.parent.mkdir(parents=True)
        Image.fromarray(pictures[path.parent.name]).save(path)
    dataset = load_for(model, f"folder:{tmp_path / 'new'}", None)
    images, labels, _, _ = gathered(model, tmp_path / "model", dataset)
    np.testing.assert_array_equal(images[np.argsort(labels)], model.prepared(paths))


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_images_are_known_again_in_another_form(tmp_path):
    """By their pixels as the model takes them: here in colour, from greys."""
    model = saved(tmp_path / "model", image_shape=[8, 8, 3])
    grey = noise((6, 8, 8, 1))
    save_seen(tmp_path / "model", [np.repeat(grey[:4], 3, axis=-1)])
    dataset = in_one_part(grey, np.arange(6) % 3)
    images, _, _, (told,) = gathered(model, tmp_path / "model", dataset)
    np.testing.assert_array_equal(images, np.repeat(grey[4:], 3, axis=-1))
    assert told.startswith("4 of 6 images are left out")


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_one_image_is_one_however_it_comes(tmp_path):
    model = saved(tmp_path / "model")
    many = noise((3, 8, 8, 1))
    Image.fromarray(many[0, ..., 0]).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    for one in (many[0], many[0, ..., 0], path, str(path), Image.open(path)):
        np.testing.assert_array_equal(model.prepared(one), many[:1])
    for several in (many, list(many), many[..., 0]):
        np.testing.assert_array_equal(model.prepared(several), many)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(20, 30), *((20, 30, c) for c in (1, 2, 3, 4))])
def test_an_array_is_read_as_the_picture_it_is_saved_as(shape, channels, tmp_path):
    model = taking([8, 8, channels])
    pixels, path = noise(shape), str(tmp_path / "a.png")
    Image.fromarray(pixels[..., 0] if shape[2:] == (1,) else pixels).save(path)
    expected = model.prepared(path)
    assert expected.shape == (1, 8, 8, channels)
    for one in (pixels, jnp.asarray(pixels), [pixels], pixels[None]):
        np.testing.assert_array_equal(model.prepared(one), expected)
    paths = np.array([path, path])
    np.testing.assert_array_equal(model.prepared(paths), np.repeat(expected, 2, 0))


@pytest.mark.parametrize(
    ("own", "shape"),
    [((4, 4, 1), (2, 4, 4)), ((8, 3, 3), (8, 8, 3)), ((8, 8, 3), (3, 8, 8))],
)
def test_what_may_be_one_picture_or_several_is_refused(own, shape):
    model = taking(list(own))
    with pytest.raises(UsageError, match=f"may be one picture or {shape[0]} grey"):
        model.prepared(noise(shape))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (3, 8, 8, 1), (), (8,)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_pixels_of_another_type_are_named(shape, dtype):
    model = taking([8, 8, 1])
    pixels = noise(shape, dtype=dtype)
    for wrong in (pixels, [pixels]):
        with pytest.raises(UsageError, match=rf"uint8.* got {np.dtype(dtype)} \["):
            model.predict(wrong)


def test_features_are_finite_numbers_of_any_kind():
    model = taking([5])
    numbers = np.arange(10).reshape(2, 5)
    for same in (numbers, numbers.tolist(), numbers / 1, jnp.asarray(numbers)):
        found = model.prepared(same)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, numbers)
    np.testing.assert_array_equal(model.prepared(numbers[0]), numbers[:1])
    for wrong in (numbers[:, :4], ["a.png"], numbers[:0]):
        with pytest.raises(UsageError, match="features"):
            model.prepared(wrong)
    for strange in (np.nan, -np.inf, 1e300):
        wrong = numbers / 1
        wrong[1, 3] = strange
        with pytest.raises(UsageError, match=r"finite.* in features\[1, 3\]"):
            model.prepared(wrong)


def test_a_model_of_oblongs_takes_pictures_of_their_size(tmp_path):
    model = taking([8, 12, 1])
    many = noise((3, 8, 12, 1))
    Image.fromarray(many[0, ..., 0]).save(tmp_path / "a.png")
    for one in (many[0], many[0, ..., 0], tmp_path / "a.png"):
        np.testing.assert_array_equal(model.prepared(one), many[:1])
    np.testing.assert_array_equal(model.prepared(many[..., 0]), many)
    for other in ((12, 8), (8, 8), (16, 24)):
        with pytest.raises(UsageError, match="must be 8 high and 12 wide"):
            model.prepared(noise(other))
    with pytest.raises(UsageError, match="images must be npz:FILE"):
        load_for(model, "folder:new", None)


def test_what_is_certified_is_status_0_whatever_a_class_is_called(camri, tmp_path):
    names = ("mask", "WITHOUT", "other")
    saved(tmp_path / "named", classes=names)
    write("new.npz", 1)
    with np.load("new.npz") as arrays:
        np.savez("named.npz", **{**arrays, "class_names": np.array(names)})
    told = camri("recalibrate named npz:named.npz --recall 0.9 --output promised")
    assert "90 % of the images of WITHOUT" in told
    assert "follows from" in camri("verify promised")
    # The offset of another class keeps no promise.
    path = tmp_path / "promised" / "model.json"
    path.write_text(
        re.sub(r'"important": \[\s*"WITHOUT"', '"important": ["mask"', path.read_text())
    )
    assert "The offset raises mask" in camri("verify promised", status=1)


def test_of_several_promises_none_is_called_broken_by_chance(camri, tmp_path):
    """Each is tested at a level that all together keep."""
    saved(tmp_path / "two", important=(0, 1))
    images, labels = write("new.npz", 1, number=600)
    dataset = in_one_part(images, labels)
    with pytest.raises(UsageError, match="must be a directory of this machine"):
        recalibrate("two", dataset, 0.9, output="memory://asked")
    recalibrate("two", dataset, np.array([0.9, 0.8]), output="asked")
    later = in_one_part(*write("later.npz", 2))
    found = check("asked", later, 0.5, confidence=0.9)
    assert [once.confidence for once, _ in found.checks] == pytest.approx([0.95] * 2)
    (alone,) = check("model", later, 0.5, confidence=0.9).checks
    assert alone[0].confidence == pytest.approx(0.9)


def test_what_cannot_be_promised_is_told_and_is_status_1(camri, monkeypatch):
    write("new.npz", 1)
    told = camri("recalibrate model npz:new.npz --recall 0.99", status=1)
    assert "WITHOUT a promise" in told
    assert "249 more" in told
    assert load_model("model_recalibrated").offset == 0.0
    # What is called "." is put beside by its own name.
    shutil.move("model_recalibrated", "other")
    monkeypatch.chdir("model")
    camri("recalibrate . npz:../new.npz --recall 0.99", status=1)
    monkeypatch.chdir("..")
    assert "without a promise" in camri("verify model_recalibrated", status=1)


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_images_of_the_class_alone_are_enough(kind, part, camri, tmp_path):
    """As the promise is of no others; and there is nothing to learn."""
    saved(tmp_path / "numbers", classes=("0", "1", "2"))
    images = noise((30, 8, 8))
    if kind == "npz":
        content = {f"{part}_images": images, f"{part}_labels": np.ones(30, int)}
        np.savez("new.npz", **content)
    for i, pixels in enumerate(images):
        path = tmp_path / "new" / part / "1" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    data = "npz:new.npz" if kind == "npz" else "folder:new"
    assert "30 calibration images" in camri(
        f"recalibrate numbers {data} --recall 0.9 --output promised"
    )
    assert "of 30; 1 % was asked" in camri(f"check numbers {data} --recall 0.01")
    # What was read so is as little as before to learn from.
    with pytest.raises(
        UsageError, match=f"lacks|no example|class folders|only in '{part}'"
    ):
        load(data, image_size=8)


def test_folders_within_the_class_alone_are_no_classes(camri, tmp_path):
    saved(tmp_path / "numbers", classes=("0", "1", "2"))
    for i, pixels in enumerate(noise((30, 8, 8))):
        path = tmp_path / "new" / "1" / f"track {i % 10}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    told = camri("check numbers folder:new --groups .*/ --recall 0.01")
    assert "of 10 (one of each group, of 30 images); 1 % was asked" in told


def test_an_outer_folder_may_be_called_as_a_class(camri, tmp_path):
    saved(tmp_path / "numbers", classes=("0", "1", "2"))
    for i, pixels in enumerate(noise((30, 8, 8))):
        path = tmp_path / "1" / "1" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    assert "of 15; 1 % was asked" in camri("check numbers folder:1 --recall 0.01")


def test_images_of_one_group_count_once(camri):
    write("new.npz", 1, train_groups=np.arange(150) // 6)
    told = camri("recalibrate model npz:new.npz --recall 0.9 --output promised", 1)
    assert re.search("50 calibration images in 25 groups certify at most 88.7 %", told)
    assert "found" in camri("check model npz:new.npz --recall 0.01")
    told = camri("recalibrate model npz:new.npz --recall 0.8 --output kept")
    assert "80 % of the images of bee in a new group, on average over groups" in told
    # Frames that come without their groups are not taken for as many.
    write("frames.npz", 2)
    missing = "each of these counts as a group of its own"
    told = camri("recalibrate kept npz:frames.npz --recall 0.8 --output frames")
    assert missing in told
    assert "80 % of the images of bee, 95 % confidence, from 50 cal" in told
    assert missing in camri("check kept npz:frames.npz")
    write("groups.npz", 3, train_groups=np.arange(150) // 6)
    assert missing not in camri("check kept npz:groups.npz")


def test_pictures_are_grouped_as_the_models_own_were(camri, tmp_path):
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(60):
            pixels = rng.integers(0, 256, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "new" / name / f"{i // 2}_{i}.png")
    saved(tmp_path / "model")
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    about["grouped_by"] = r"/(\d+)_"
    (tmp_path / "model" / "model.json").write_text(json.dumps(about))
    assert "(one of each group, of 60 images)" in camri(
        "check model folder:new --recall 0.01"
    )
    other = camri("check model folder:new --recall 0.01 --groups _(.*)")
    assert "(one of each group" not in other


def grouped(images, labels, groups, more=None):
    """A data set of groups, and if asked a part without any."""
    parts = {"train": Part(images, labels.astype(np.int32), groups.astype(np.int32))}
    none = Part(images[:0], labels[:0].astype(np.int32), None)
    parts["test"] = none if more is None else Part(more[0], more[1].astype(np.int32))
    return make_dataset("new", parts, CLASSES)


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_images_beside_a_known_one_are_not_new(tmp_path):
    model = saved(tmp_path / "model")
    images, labels = noise((30, 8, 8, 1)), np.arange(30) // 10
    save_seen(tmp_path / "model", [images[3:4]])
    dataset = grouped(images, labels, np.arange(30) // 5)
    _, _, groups, (told,) = gathered(model, tmp_path / "model", dataset)
    np.testing.assert_array_equal(groups, np.arange(5, 30) // 5)
    assert told.startswith("5 of 30 images are left out")


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_a_part_without_groups_dissolves_no_others(tmp_path):
    model = saved(tmp_path / "model")
    images, labels = noise((40, 8, 8, 1)), np.arange(40) // 15
    dataset = grouped(
        images[:30], labels[:30], np.arange(30) // 5, more=(images[30:], labels[30:])
    )
    groups = gathered(model, tmp_path / "model", dataset)[2]
    np.testing.assert_array_equal(groups[:30], np.arange(30) // 5)
    assert len(set(groups.tolist())) == 6 + 10


@pytest.mark.usefixtures("promotion_as_optax_needs_it")
def test_each_image_of_a_group_is_drawn_as_often_copies_too():
    """Clips whose frames are one picture nineteen times, and another once."""
    num_clips, size = 1500, 20
    random = np.random.default_rng(0)
    own = random.integers(0, 256, (num_clips, 2, 3, 3, 1)).astype(np.uint8)
    frames = own[:, [0] * (size - 1) + [1]]
    images = frames.reshape(-1, 3, 3, 1)
    groups = np.repeat(np.arange(num_clips), size)
    drawn = one_a_group(np.arange(len(images)), groups, images)
    assert (groups[drawn] == np.arange(num_clips)).all()
    rare = (drawn % size == size - 1).mean()
    # Of 1 in 20, within three standard deviations.
    assert abs(rare - 1 / size) < 3 * np.sqrt(0.05 * 0.95 / num_clips)
    again = random.permutation(len(images))
    mixed = again[one_a_group(np.arange(len(images)), groups[again], images[again])]
    assert (images[mixed] == images[drawn]).all()


def test_looks_at_more_groups_draw_the_same_of_the_earlier(tmp_path):
    """Else looks are no sequence, and what holds of all of them at once does not."""
    images, groups = noise((60, 8, 8, 1)), np.arange(60) // 4
    order = np.random.default_rng(0).permutation(60)
    important = saved(tmp_path / "model").raw_logits(images).argmax(1)[0]
    model = saved(tmp_path / "model", important=(int(important),))
    # Half of a group is right at an offset between its images' scores.
    scores = guarantee.scores(model.raw_logits(images), int(important))
    model = Model(model.classifier, model.important, float(np.median(scores)), {})
    save_model(tmp_path / "model", model)
    labels = np.full(60, important)
    right = model.logits(images).argmax(1) == important
    drawn = []
    for number in range(4, 64, 4):
        mixed = order[order < number]
        dataset = grouped(images[mixed], labels[mixed], groups[mixed])
        ((once, _),) = check(tmp_path / "model", dataset, 0.5).checks
        assert once.total == number // 4
        drawn.append(once.found)
    steps = np.diff([0, *drawn])
    ours = [right[groups == k].mean() for k in range(15)]
    assert 0 < sum(steps) < 15
    assert sum(0 < share < 1 for share in ours) > 5
    assert all(step in (0, 1) for step in steps)
    for share, step in zip(ours, steps, strict=True):
        assert share not in (0, 1) or step == share


def test_another_machines_last_digit_breaks_no_promise(camri, tmp_path):
    write("new.npz", 1)
    camri("recalibrate model npz:new.npz --recall 0.9 --output promised")
    path = tmp_path / "promised" / "model.json"
    about = json.loads(path.read_text())
    limit = about["certificate"]["largest_certifiable"]
    for changed, status in ((np.nextafter(limit, 0), 0), (limit + 1e-3, 1)):
        about["certificate"]["largest_certifiable"] = float(changed)
        path.write_text(json.dumps(about))
        camri("verify promised", status=status)
