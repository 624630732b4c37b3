"""GTSRB from tiny archives of all three layouts, good and bad."""

import shutil
import zipfile

import numpy as np
import pytest
from tiny_datasets import (
    official,
    picture,
    use,
    write,
    write_gtsrb,
    write_gtsrb_by_folder,
    zip_gtsrb,
)

from camri_jax.datasets import DatasetError, gtsrb, load


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    use(monkeypatch, gtsrb, write_gtsrb(tmp_path / "data" / "GTSRB"))
    return tmp_path / "data"


@pytest.fixture
def by_folder(tmp_path, monkeypatch):
    use(monkeypatch, gtsrb, write_gtsrb_by_folder(tmp_path / "by folder"))
    return tmp_path / "by folder"


@pytest.fixture
def zipped(unpacked, tmp_path, monkeypatch):
    use(monkeypatch, gtsrb, zip_gtsrb(unpacked / "GTSRB", tmp_path / "zipped"))
    return tmp_path / "zipped"


def test_frames_are_in_the_order_of_class_track_and_frame(unpacked):
    dataset = load("gtsrb", data_dir=unpacked)
    assert dataset.train_images.shape == (43 * 4, 48, 48, 3)
    assert dataset.train_labels.tolist() == sorted([*range(43)] * 4)
    assert dataset.train_groups is not None
    assert len(np.unique(dataset.train_groups)) == 43 * 2
    assert (np.diff(dataset.train_groups) >= 0).all()
    assert dataset.test_labels.tolist() == [*range(43)][::-1]


def test_classes_have_names():
    assert len(set(gtsrb.CLASS_NAMES)) == 43
    assert gtsrb.CLASS_NAMES[5] == "speed limit 80"
    assert gtsrb.CLASS_NAMES[6] == "end of speed limit 80"
    assert gtsrb.CLASS_NAMES[41] == "end of no passing"


def test_all_layouts_give_the_same(unpacked, by_folder, zipped):
    fingerprints = {
        load("gtsrb", data_dir=layout).fingerprint
        for layout in (unpacked, unpacked / "GTSRB", by_folder, zipped)
    }
    assert len(fingerprints) == 1


def test_a_validation_split_cuts_no_track(unpacked):
    for seed in range(5):
        dataset = load("gtsrb", data_dir=unpacked, validation_fraction=0.5, seed=seed)
        assert dataset.train_groups is not None
        assert dataset.validation_groups is not None
        assert not set(dataset.train_groups) & set(dataset.validation_groups)
        assert set(dataset.validation_labels) == set(range(43))
        assert len(dataset.validation_labels) == 43 * 2


def test_images_are_resized(unpacked):
    assert load("gtsrb", data_dir=unpacked, image_size=24).test_images.shape[1] == 24


def test_an_edit_of_unpacked_files_is_seen(unpacked):
    before = load("gtsrb", data_dir=unpacked).fingerprint
    path = unpacked / "GTSRB/Final_Training/Images/00007/00000_00000.ppm"
    write(path, picture(1, (20, 20), suffix="ppm"))
    assert load("gtsrb", data_dir=unpacked).fingerprint != before


def _lose_picture(root):
    (root / "Final_Training/Images/00003/00001_00001.ppm").unlink()


def _lose_test_picture(root):
    (root / "Final_Test/Images/00011.ppm").unlink()


def _add_picture(root):
    shutil.copy(
        root / "Final_Test/Images/00011.ppm", root / "Final_Test/Images/99999.ppm"
    )


def _lose_table(root):
    (root / "Final_Training/Images/00003/GT-00003.csv").unlink()


def _lose_test_table(root):
    (root / "Final_Test/Images/GT-final_test.csv").unlink()


def _relabel(root):
    table = root / "Final_Training/Images/00003/GT-00003.csv"
    table.write_text(table.read_text().replace(";3\n", ";4\n", 1))


def _garble_table(root):
    (root / "Final_Training/Images/00003/GT-00003.csv").write_text("<html></html>")


def _empty_table(root):
    (root / "Final_Training/Images/00003/GT-00003.csv").write_text("")


def _truncate_picture(root):
    path = root / "Final_Training/Images/00003/00001_00001.ppm"
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_lose_picture, r"1 images are in the tables but not there, 00003/00001_00001"),
        (_lose_test_picture, r"1 images are in the tables but not there, 00011 first"),
        (_add_picture, r"1 images are there but not in the tables, 99999 first"),
        (_relabel, r"1 images lie in the folder of another class.* 00003/00000_00000"),
        (_lose_table, r"labels of 168 train images, expected 172"),
        (_lose_test_table, r"labels of 0 test images, expected 43"),
        (_garble_table, r"168 train images, expected 172; put GT-00000.csv to"),
        (_empty_table, r"GT-00003.csv is not a table of GTSRB"),
        (_truncate_picture, r"00003/00001_00001.ppm cannot be read"),
    ],
)
def test_labels_and_images_that_disagree_are_named(unpacked, spoil, message, cache):
    spoil(unpacked / "GTSRB")
    with pytest.raises(DatasetError, match=message) as caught:
        load("gtsrb", data_dir=unpacked)
    assert str(unpacked) in str(caught.value)
    assert not [p for p in (cache / "gtsrb").iterdir() if p.suffix != ".lock"]


def test_the_smaller_published_set_is_refused(unpacked, monkeypatch):
    monkeypatch.setattr(gtsrb, "NUM_EXAMPLES", {"train": 39_209, "test": 12_630})
    with pytest.raises(DatasetError, match="172 train images, expected 39,209"):
        load("gtsrb", data_dir=unpacked)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"is missing \(md5"),
        (b"<html>Too many requests</html>", "30 bytes of a web page"),
        (b"PK\x03\x04 and no more", "a .zip file that was cut short"),
    ],
)
def test_a_bad_archive_is_named_with_its_checksum(zipped, number, content, message):
    file = gtsrb.ARCHIVES[number]
    (zipped / file.name).unlink()
    if content is not None:
        write(zipped / file.name, content)
    if number == 0 and content is None:  # then nothing gives the data set away
        message = "could not download"
    with pytest.raises(DatasetError, match=message) as caught:
        load("gtsrb", data_dir=zipped)
    assert file.name in str(caught.value)
    assert file.md5 in str(caught.value) or "by hand" in str(caught.value)


def test_an_archive_that_points_outside_is_refused(zipped, monkeypatch, tmp_path):
    path = zipped / gtsrb.ARCHIVES[0].name
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.ppm", picture(0, suffix="ppm"))
    files = (official(path), *gtsrb.ARCHIVES[1:])
    monkeypatch.setattr(gtsrb, "ARCHIVES", files)
    with pytest.raises(DatasetError, match=r"outside of itself, '../../outside.ppm'"):
        load("gtsrb", data_dir=zipped)
    assert not list(tmp_path.rglob("outside.ppm"))
