"""Bad input of every kind ends in one sentence and status 2, and changes no file.

Each line of `LINES` is a command in the directory that `world` fills; each of `CALLS`
one of the library.
"""

import ast
import io
import itertools
import json
import math
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import synthetic
from PIL import Image

import camri_jax
from camri_jax import guarantee
from camri_jax._files import UsageError
from camri_jax.cli import backend
from camri_jax.cli.main import main
from camri_jax.sweeps import checkpoints, claims, rows
from camri_jax.takehome import Model, load_model, promise, save_model, verify
from camri_jax.takehome.picking import Goal
from camri_jax.training import classifier, trial
from camri_jax.training.methods import METHODS
from camri_jax.training.recipe import TrainConfig

NAMES = ("go", "[stop]", "c++", "$5")
EXPERIMENTS = Path(__file__).parents[1] / "experiments"


class Forbidden:
    """Unpickled, it says so."""

    def __reduce__(self):
        return pytest.fail, ("something was unpickled",)


# --- A directory of all that can be wrong --------------------------------------------


def pictures(folder, number=4):
    for i in range(number):
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


def arrays(**changes):
    """What an .npz of own images holds."""
    random, made = np.random.default_rng(0), {"class_names": np.array(NAMES)}
    for part, number in (("train", 64), ("validation", 16), ("test", 16)):
        images = random.integers(0, 256, (number, 8, 8), dtype=np.uint8)
        labels = np.arange(number) % 4
        made |= {f"{part}_images": images, f"{part}_labels": labels}
    made |= changes
    return {name: array for name, array in made.items() if array is not None}


def npz_files(cwd):
    np.savez(cwd / "signs.npz", **arrays())
    labels = np.arange(64) % 4
    for name, changes in {
        "pickled": {"train_labels": np.array([Forbidden()] * 64, object)},
        "floats": {"train_labels": labels + 0.5},
        "negative": {"train_labels": labels - 1},
        "short": {"train_labels": labels[:-1]},
        "unlabelled": {"train_labels": None},
        "bright": {"train_images": np.full((64, 8, 8), 0.5)},
        "flat": {"train_images": np.zeros((64, 64), np.uint8)},
        "empty": {"train_images": np.zeros((0, 8, 8), np.uint8)},
        "names": {"class_names": np.array(NAMES[:3])},
        "twice": {"class_names": np.array(["go", "go", "c", "d"])},
    }.items():
        np.savez(cwd / f"{name}.npz", **arrays(**changes))
    features = {f"{part}_images": None for part in ("train", "validation", "test")}
    for part in ("train", "validation", "test"):
        size = len(arrays()[f"{part}_labels"])
        features[f"{part}_features"] = np.full((size, 3), np.nan, np.float32)
    np.savez(cwd / "nan.npz", **arrays(**features))
    whole = (cwd / "signs.npz").read_bytes()
    (cwd / "cut.npz").write_bytes(whole[: len(whole) // 2])
    patched = bytearray(whole)
    patched[patched.rindex(b"PK\x01\x02") + 8] |= 1 << 5
    (cwd / "patched.npz").write_bytes(patched)
    (cwd / "text.npz").write_text("no archive")
    (cwd / "pickle.npz").write_bytes(pickle.dumps(Forbidden()))
    with zipfile.ZipFile(cwd / "huge.npz", "w") as archive:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)}
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, header)
        archive.writestr("train_images.npy", file.getvalue())
        archive.writestr("train_labels.npy", file.getvalue())


def folders(cwd):
    for name in ("a", "b"):
        pictures(cwd / "folder" / name)
    pictures(cwd / "one_class" / "a")
    (cwd / "no_pictures" / "a").mkdir(parents=True)
    (cwd / "no_pictures" / "a" / "x.txt").write_text("")
    for name in ("a", "b"):
        shutil.copytree(cwd / "folder" / name, cwd / "broken" / name)
        (cwd / "broken" / name / "bad.png").write_bytes(b"<html>")
    with zipfile.ZipFile(cwd / "escape.zip", "w") as archive:
        archive.writestr("../a/x.png", b"")
    with zipfile.ZipFile(cwd / "absolute.zip", "w") as archive:
        archive.writestr("/etc/x.png", b"")
    with zipfile.ZipFile(cwd / "link.zip", "w") as archive:
        link = zipfile.ZipInfo("a/x.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(cwd / "locked.zip", "w") as archive:
        archive.writestr("a/x.png", b"")
    flags = bytearray((cwd / "locked.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        flags[flags.index(mark) + offset] |= 1
    (cwd / "locked.zip").write_bytes(flags)
    with zipfile.ZipFile(cwd / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b"):
            archive.writestr(f"{name}/x.png", b"x")
    bomb = bytearray((cwd / "bomb.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = bomb.index(mark) + offset
        bomb[at : at + 4] = struct.pack("<I", 2**31)
    (cwd / "bomb.zip").write_bytes(bomb)
    (cwd / "cut.zip").write_bytes(bomb[: len(bomb) // 2])
    for name in ("a", "b"):
        (cwd / "vast" / name).mkdir(parents=True)
        (cwd / "vast" / name / "x.png").write_bytes(vast_picture())
    (cwd / "dangling").mkdir()
    (cwd / "dangling" / "a").symlink_to("nowhere")


def vast_picture():
    """A PNG that claims ten thousand million pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def results(cwd):
    """What a sweep wrote, and copies of it in which one thing is wrong."""
    synthetic.write(cwd / "out", synthetic.SPECS[:2], num_seeds=2, size=4)

    def copy(name):
        shutil.copytree(cwd / "out", cwd / name)
        return {part: cwd / name / part / "a.parquet" for part in ("rows", "logits")}

    copy("rows_html")["rows"].write_text("<html>")
    path = copy("rows_cut")["rows"]
    path.write_bytes(path.read_bytes()[:-9])
    path = copy("rows_nothing")["rows"]
    path.write_bytes(b"")
    for name, column, value in (
        ("rows_settings", "settings", "{"),
        ("rows_method", "method", "magic"),
        ("rows_confusion", "test_confusion", [1, 2, 3]),
        ("rows_important", "important", [7]),
        ("rows_provenance", "provenance", "{"),
    ):
        path = copy(name)["rows"]
        lines = [row | {column: value} for row in pq.read_table(path).to_pylist()]
        pq.write_table(pa.Table.from_pylist(lines, schema=rows.SCHEMA), path)
    path = copy("rows_columns")["rows"]
    pq.write_table(pa.table({"a": [1]}), path)
    copy("logits_html")["logits"].write_text("<html>")
    path = copy("logits_short")["logits"]
    table = pq.read_table(path).drop_columns("checksum")
    short = [line | {"logits": line["logits"][:-4]} for line in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(short, schema=table.schema), path)
    path = copy("logits_ragged")["logits"]
    ragged = [line | {"logits": line["logits"][:-1]} for line in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(ragged, schema=table.schema), path)
    path = copy("logits_classes")["logits"]
    pq.write_table(table.replace_schema_metadata({}), path)
    path = copy("logits_many")["logits"]
    many = {"num_classes": "4!"}
    pq.write_table(table.replace_schema_metadata(many), path)
    copy("labels_absent")
    (cwd / "labels_absent" / "data" / "made-up.parquet").unlink()
    copy("labels_html")
    (cwd / "labels_html" / "data" / "made-up.parquet").write_text("<html>")
    copy("labels_about")
    copy("labels_poor")
    for name, about in (("labels_about", "{"), ("labels_poor", '{"dataset": "x"}')):
        path = cwd / name / "data" / "made-up.parquet"
        table = pq.read_table(path).drop_columns("checksum")
        table = table.replace_schema_metadata({"camri_jax": about})
        pq.write_table(table, path)


def models(cwd):
    """A promised model whose weights nobody trained, and damaged copies of it."""
    config = TrainConfig.of(METHODS["camri"], num_classes=4, num_images=64)
    images = np.zeros((1, 8, 8, 1), np.uint8)
    shapes = jax.eval_shape(lambda: trial.init(config, images, np.int32(0)))
    shapes = trial.evaluated_variables(shapes)
    weights = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    about = {
        "class_names": list(NAMES),
        "image_shape": [8, 8, 1],
        "method": "camri",
        "scale": 4.0,
        "important": [1],
        "fit": "pad",
        "bits": None,
    }
    classifier.save(cwd / "trial.npz", config, weights, about)
    goal, labels = Goal((1,), (0.9,)), np.arange(400) % 4
    logits = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    evidence = promise.Evidence.of(goal, logits, labels, None, (0.0,))
    certificate = evidence.certify(1)
    said = {
        "certificate": certificate.to_dict(),
        "evidence": promise.save_evidence(cwd / "model", evidence),
    }
    own = classifier.Classifier(config, weights, about)
    save_model(cwd / "model", Model(own, (1,), certificate.offset, said))
    assert verify(cwd / "model").holds

    def copy(name, file="model.json"):
        shutil.copytree(cwd / "model", cwd / name)
        return cwd / name / file

    def changed(name, **changes):
        path = copy(name)
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return path

    copy("model_html").write_text("<html>")
    copy("model_bytes").write_bytes(b"\xff\xfe\x00")
    copy("model_list").write_text("[]")
    changed("model_v9", format=9)
    changed("model_other_class", important=["halt"])
    changed("model_offset", offset="much")
    changed("model_offsets", offset=[1.0, 2.0, 3.0])
    changed("model_certificate", certificate=5)
    changed("model_certificates", certificate={"certificates": [{"recall": 0.9}]})
    changed("model_without_promise", certificate=None)
    path = changed("model_poor")
    poor = json.loads(path.read_text())
    path.write_text(json.dumps({key: poor[key] for key in ("format", "offset")}))
    copy("model_without_weights", "weights.safetensors").unlink()
    copy("model_without_scores", "calibration.safetensors").unlink()
    path = copy("model_cut", "weights.safetensors")
    path.write_bytes(path.read_bytes()[:-99])
    path = copy("model_scores_bare", "calibration.safetensors")
    path.write_bytes(safetensors.numpy.save({"scores": np.zeros(9)}))
    path = copy("model_scores_named", "calibration.safetensors")
    facts = {"goal": {"important": [1], "recalls": [0.5], "confidence": 0.9}}
    facts = {"camri_jax": json.dumps(facts | {"relative": [0.0]})}
    path.write_bytes(safetensors.numpy.save({"scares": np.zeros(9)}, facts))
    path = copy("model_scores_html", "calibration.safetensors")
    path.write_text("<html>")
    flat, header = classifier.flat(own)

    def trained(name, **changes):
        known = json.loads(header) | changes
        content = safetensors.numpy.save(flat, {"camri_jax": json.dumps(known)})
        copy(name, "weights.safetensors").write_bytes(content)

    trained("model_method", about=about | {"method": "magic"})
    trained("model_recipe", recipe={"network": "small", "magic": 1})
    trained("model_nothing", about={})
    trained("model_backbone", backbone="Mine()")
    trained("model_format", format=1)
    path = copy("model_shapes", "weights.safetensors")
    other = {name: array[..., :1] for name, array in flat.items()}
    other = {name: np.ascontiguousarray(array) for name, array in other.items()}
    path.write_bytes(safetensors.numpy.save(other, {"camri_jax": header}))
    np.savez(cwd / "pickled_trial.npz", header=np.array([Forbidden()], object))
    np.savez(cwd / "foreign_trial.npz", header=np.array("{}"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("world")
    (cwd / "a_file").write_text("")
    (cwd / "empty_folder").mkdir()
    pictures(cwd / "pictures")
    npz_files(cwd)
    folders(cwd)
    results(cwd)
    models(cwd)
    return cwd


@pytest.fixture
def camri(world, monkeypatch, capsys, tmp_path):
    """Runs a command in this process; its status, output and errors."""
    monkeypatch.chdir(world)
    monkeypatch.setattr(backend, "set_up_jax", lambda: None)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CAMRI_DATA_DIR", raising=False)

    def run(*words):
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


def listing(folder):
    return {p: p.lstat().st_mtime_ns for p in sorted(folder.rglob("*"))}


# --- The table of commands -----------------------------------------------------------

DATA = ("--dataset", "npz:signs.npz", "--important", "go")
LINES = [
    ("swep", "there is no command 'swep'; there is sweep"),
    ("sweep --epoch 3", "there is no option --epoch; did you mean --epochs?"),
    ("sweep --num-seed=3", "did you mean --num-seeds?"),
    ("sweep -x", "there is no option -x"),
    ("sweep extra", "there is no place for extra"),
    ("sweep --important 3 --important 2", "--important is given twice"),
    ("tune --methods=camri --recall .9 --methods arcface", "--methods is given twice"),
    ("report out --where epochs=4 --where seed=1", "--where is given twice"),
    ("replicate cifar10 --preset fast", "the paper's recipe and takes no --preset"),
    ("prices out --recalls", "recalls must be one or more numbers, got none"),
    ("tune --dataset npz:absent.npz --methods camry", "methods must be among"),
    ("tune --dataset npz:absent.npz --output s3://a/b", "s3://a/b"),
    ("tune DATASET PARTS --important worst1", "classes by name or index, got 'worst1'"),
    ("sweep --epochs two", "--epochs: must be a whole number, got 'two'"),
    ("sweep --epochs 1.5", "--epochs: must be a whole number, got '1.5'"),
    ("sweep --epochs", "Missing value for argument '--epochs'"),
    ("sweep --epochs 0", "epochs must be at least 1, got 0"),
    ("sweep --learning-rate nan", "learning_rate must be above 0, got nan"),
    ("sweep --learning-rate fast", "'fast' must be a number"),
    ("sweep --ema-decay 1", "ema_decay must be in [0, 1), got 1.0"),
    ("sweep --num-seeds 0", "num_seeds must be at least 1, got 0"),
    ("sweep --trials-per-device two", "must be a whole number, got 'two'"),
    ("sweep --trials-per-device 0", "trials_per_device must be at least 1, got 0"),
    ("sweep --keep-logits maybe", "--keep-logits: must be yes or no, got 'maybe'"),
    ("sweep --preset papers", "invalid choice 'papers' for argument '--preset'"),
    ("sweep --optimizer foo", "Expected one of ('adam', 'sgd')"),
    ("sweep --convolution x", "invalid choice 'x' for argument '--convolution'"),
    ("sweep --network big", "network must be"),
    ("sweep --precision float16", "invalid choice 'float16'"),
    ("sweep --methods camry", "got 'camry'"),
    ("sweep --margins abc", "'abc' must be a number, or an angle as 4pi/64"),
    ("sweep --grid camri=3", "grid must name a hyperparameter"),
    ("sweep --grid camri.weight=3", "grid must name a hyperparameter"),
    ("sweep --grid margin", "grid must be NAME=VALUE,VALUE,..., got 'margin'"),
    ("sweep --grid margin=", "'' must be a number"),
    ("sweep --grid arcface.margin@go=0.2", "arcface"),
    ("sweep --output=", "--output: must be a path, got ''"),
    ("sweep --output ~nobody_there/x", "~nobody_there"),
    ("sweep --output a_file", "a_file is not a directory"),
    ("sweep --output a_file/x", "a_file is not a directory"),
    ("sweep DATA --margins 4", "margin must be from 0 to pi"),
    ("sweep DATA --scales 0", "scale must be above 0, got 0.0"),
    ("sweep DATA --batch-size 2000", "batch_size must be at most"),
    ("sweep DATA --methods camri", "methods must hold cross_entropy"),
    (
        "sweep DATASET --important stopp",
        "no class is called 'stopp'; did you mean '[stop]'",
    ),
    ("sweep DATASET --important 4", "class index 4 is outside 0..3"),
    ("sweep DATASET --important 0+1+2+3", "important must leave at least one class"),
    ("sweep --dataset npz:signs.npz", "important must name the class"),
    ("sweep DATA --grid camri.margin@c++=0.2", "grid must name a choice of important"),
    ("sweep DATA --validation-fraction 1", "validation_fraction is 1.0"),
    (
        "sweep DATA --validation-fraction .6 --calibration-fraction .6",
        "nothing to train",
    ),
    ("sweep DATA --image-size 0", "image_size must be at least 1, got 0"),
    ("sweep DATA --fit stretch", "invalid choice 'stretch' for argument '--fit'"),
    ("sweep DATA --image-size 3", "at least 5 pixels high and wide, got shape (64, 3"),
    ("tune DATA --image-size 3 PARTS", "at least 5 pixels high and wide, got shape"),
    ("sweep DATA --groups x", "groups is a pattern for folder:PATH"),
    ("sweep DATA --fit crop", "fit is 'crop', which is for folder:PATH; for other"),
    ("sweep DATA --split-seed -1", "seed must be at least 0, got -1"),
    ("sweep --dataset digit", "no data set is called 'digit'; there is digits"),
    ("sweep --dataset npz:absent.npz", "absent.npz"),
    ("sweep --dataset npz:a_file", "a_file"),
    ("sweep --dataset folder:absent", "absent: no such directory"),
    ("sweep --dataset folder:empty_folder", "two or more class folders are needed"),
    ("sweep --dataset gtsrb --data-dir absent", "no such data directory"),
    ("report", "RESULTS is missing"),
    ("report absent", "absent is not a directory"),
    ("report a_file", "a_file is not a directory"),
    ("report empty_folder", "empty_folder holds no rows of trials"),
    (
        "report out --dataset cifar10",
        "dataset must be among digits, got cifar10",
    ),
    ("report out --where epoch=3", "must be NAME=VALUE, with a name among"),
    ("report out --where epochs=99", "there are only rows of epochs 3"),
    ("report out --important halt", "no class is called 'halt'"),
    ("report out --recall 1", "recall must be above 0 and below 1, got 1.0"),
    ("report out --output a_file", "a_file is not a directory"),
    ("table1 out --accuracy-margin 5", "accuracy_margin"),
    ("table1 out --accuracy-margin -1", "accuracy_margin"),
    ("table1 out --margin 0.1", "there is no option --margin"),
    ("power out --effect 2", "effect must be above 0 and below 1, got 2.0"),
    ("power out --power 0.01", "power must be above alpha"),
    ("power out --alpha 0", "alpha must be above 0 and below 1"),
    ("figures out --pictures prize", "invalid choice 'prize'"),
    ("figures out --format jpg", "Expected one of ('png', 'svg')"),
    ("figure1 --output a_file", "a_file is not a directory"),
    ("figure2 DATA --num-seeds 0", "num_seeds must be at least 1, got 0"),
    ("figure2 DATA --margin 5", "margin must be from 0 to pi"),
    ("predict", "MODEL is missing"),
    ("predict model", "images must name a picture"),
    ("predict absent pictures", "there is no directory absent"),
    ("predict a_file pictures", "a_file is not a saved classifier, or damaged"),
    ("predict out/rows pictures", "out/rows holds no model: there is no model.json"),
    ("predict model absent.png", "absent.png: there is no picture"),
    ("predict model empty_folder", "empty_folder: there is no picture"),
    ("predict model ~nobody_there/x.jpg", "~nobody_there/x.jpg: there is no such"),
    ("predict model pictures --csv empty_folder", "--csv must be a file"),
    ("predict model pictures --csv a_file/x.csv", "a_file is not a directory"),
    ("show_data DATASET --examples 0", "examples must be from 1 to 1000, got 0"),
    (
        "show_data DATASET --recall 1.5",
        "recall must be above 0 and below 1",
    ),
    ("show_data DATASET --output a_file", "a_file is not a directory"),
    ("replicate", "must name cifar10 or gtsrb first"),
    ("replicate mnist", "must name cifar10 or gtsrb first, got 'mnist'"),
    ("replicate gtsrb --epochs two", "camri replicate gtsrb --help tells more"),
    ("sweep --dataset npz:pickled.npz", "an array of Python objects, which are not"),
    ("sweep --dataset npz:floats.npz", "train_labels are float64 [64]; they must be"),
    ("sweep --dataset npz:negative.npz", "train_labels span -1..2; they must lie in"),
    ("sweep --dataset npz:short.npz", "train_labels are int64 [63]; they must be"),
    ("sweep --dataset npz:unlabelled.npz", "unlabelled.npz lacks train_labels"),
    ("sweep --dataset npz:bright.npz", "train_images are float64 [64, 8, 8, 1]"),
    ("sweep --dataset npz:flat.npz", "train_images are uint8 [64, 64]; they must"),
    ("sweep --dataset npz:empty.npz", "train_images [0, 8, 8, 1] are empty"),
    ("sweep --dataset npz:names.npz", "they must lie in 0..2, for there are 3"),
    ("sweep --dataset npz:twice.npz", "class_names must be different; go is twice"),
    ("sweep --dataset npz:nan.npz", "192 values that are infinite or no numbers"),
    ("sweep --dataset npz:cut.npz", "cut.npz is not a readable .npz file"),
    ("sweep --dataset npz:patched.npz", "readable .npz file (compressed patched data"),
    ("sweep --dataset npz:text.npz", "it begins with b'no archive'"),
    ("sweep --dataset npz:pickle.npz", "pickle.npz is not a readable .npz file"),
    ("sweep --dataset npz:huge.npz", "of 1,000,000,000,000 bytes and holds 0"),
    ("sweep --dataset npz:folder", "'npz:folder' must be called 'folder:folder'"),
    ("sweep --dataset npz:", "no data set is called 'npz:'; there is npz:FILE"),
    ("sweep --dataset folder:", "no data set is called 'folder:'"),
    ("sweep --dataset folder:one_class", "two or more class folders are needed"),
    ("sweep --dataset folder:no_pictures", "1 files are no pictures to Pillow"),
    ("sweep --dataset folder:broken", "2 of 10 pictures cannot be read, more than 1 %"),
    ("sweep --dataset folder:dangling", "two or more class folders are needed"),
    ("sweep --dataset folder:vast", "more than the 100,000,000 that are read"),
    ("sweep --dataset folder:escape.zip", "names a file outside of itself, '../a/"),
    ("sweep --dataset folder:absolute.zip", "names a file outside of itself, '/etc/"),
    ("sweep --dataset folder:link.zip", "link.zip holds a link, 'a/x.png'"),
    ("sweep --dataset folder:locked.zip", "locked.zip is locked by a password"),
    ("sweep --dataset folder:bomb.zip", "'a/x.png', which unpacks to more than 1 GB"),
    ("sweep --dataset folder:cut.zip", "neither a directory nor a whole .zip file"),
    ("sweep --dataset folder:folder --groups [", "is no regular expression"),
    ("sweep --dataset folder:folder --image-size 5000", "must be at most 4,096"),
    ("sweep DATA --feature-dim 1", "feature_dim must be at least 2, got 1"),
    (
        "sweep DATASET --important",
        "important must name the class that must not be missed",
    ),
    ("sweep DATASET --important go+", "no class is called ''; there are 'go'"),
    ("sweep DATASET --important -1", "class index -1 is outside 0..3"),
    ("sweep DATA --num-seeds 999999999999", "num_seeds must be at most 1,000,000"),
    ("sweep DATA --epochs 99999999999999999999", "epochs must be at most 1,000,000"),
    ("sweep DATA --batch-size 1", "batch_size must be at least 2, got 1"),
    ("sweep DATA --momentum 2", "momentum must be in [0, 1), got 2.0"),
    ("sweep DATA --weight-decay -1", "weight_decay must be at least 0, got -1.0"),
    ("sweep DATA --split-seed 9999999999999999999999", "must be at most 9,223,372"),
    ("sweep DATA --margins nan", "margin must be from 0 to pi, in radians, got nan"),
    ("sweep DATA --scales inf", "scale must be "),
    ("sweep DATA --weights -1", "weight must be not below 0, got -1.0"),
    ("sweep DATA --costs -1", "cost must be not below 0, got -1.0"),
    ("sweep DATA --epsilons 0", "epsilon must be above 0, got 0.0"),
    ("sweep DATA --shard 4/4", "an index from 0 to below the count, got 4/4"),
    ("sweep DATA --shard x", "--shard must be INDEX/COUNT"),
    ("figures out --pictures", "pictures must be some of price, penalties"),
    ("sweep DATA --shard ²/4", "an index from 0 to below the count, got ²/4"),
    ("sweep DATA --preset fast --preset heads", "given twice, as fast and heads"),
    ("sweep --dataset mnist --data-dir s3://a/b", "must be a path of this machine"),
    ("sweep DATA --shard 0/0", "an index from 0 to below the count, got 0/0"),
    ("sweep DATA --shard 0/2 --distributed", "two ways to say the same: give one"),
    ("sweep DATA --engine spark", "Expected one of ('local', 'ray')"),
    ("sweep DATA --engine ray --distributed", "ray shares the work itself"),
    ("sweep DATA --checkpoint-minutes -1", "checkpoint_minutes must be above 0"),
    ("sweep DATA --output ftpx://a/b", "Unsupported filesystem: 'ftpx'"),
    ("tune --budget soon", "budget must be a time such as 90s, 20m or 2h, got 'soon'"),
    ("tune --budget -5", "budget must be a time such as 90s, 20m or 2h, got '-5'"),
    ("tune --budget 0", "budget must be above 0 seconds, got 0.0"),
    ("sweep --engine ray --convolution lax", "leave convolution and trials_per_device"),
    ("sweep --engine ray --trials-per-device 4", "leave convolution and"),
    ("tune --recall 1", "recall must be above 0 and below 1, got 1.0"),
    ("tune --recall 0.9 0.8", "recall must be one number for one class, or a group"),
    ("tune --recall high", "'high' must be a number, or an angle"),
    ("tune --confidence 0", "confidence must be above 0 and below 1, got"),
    ("tune --important 12", "class index 12 is outside 0..9"),
    ("tune --num-finalists 0", "num_finalists must be at least 1, got 0"),
    ("tune --num-seeds 0", "num_seeds must be at least 1, got 0"),
    ("tune --preset huge", "invalid choice 'huge' for argument '--preset'"),
    ("tune --methods magic", "methods must be among cross_entropy"),
    ("tune --calibration-fraction 0", "digits has no calibration images"),
    ("tune --calibration-fraction 1", "calibration_fraction is 1.0; it must be"),
    ("tune --output a_file", "a_file is not a directory"),
    ("tune --dataset npz:no.npz --output /proc/x", "/proc/x cannot be made in /proc"),
    ("sweep --dataset npz:no.npz --output /proc/x/y", "cannot be made in /proc"),
    ("tune --dataset npz:signs.npz", "important must name the class"),
    ("tune DATA --grid camri.magic=1", "grid must name a hyperparameter"),
    ("tune DATA --batch-size 1000", "batch_size must be at most the number of"),
    ("report rows_html", "rows_html/rows/a.parquet is not a file of rows"),
    ("table1 rows_cut", "rows_cut/rows/a.parquet is not a file of rows"),
    ("power rows_nothing", "rows_nothing/rows/a.parquet is not a file of rows"),
    ("table2 rows_columns", "it has no trial_id, method and seed"),
    ("figures rows_settings", "rows hold '{' where settings and provenance stand"),
    ("report rows_provenance", "rows hold '{' where settings and provenance stand"),
    ("report rows_method", "rows of the method 'magic', which this version of"),
    ("report rows_confusion", "a confusion of 3 counts, which is not square"),
    ("report rows_important", "rows of an important class 7, of 4 classes"),
    ("report logits_html", "logits_html/logits/a.parquet is not a file of logits"),
    ("report logits_short", "of shape (15, 4), but its labels make (16, 4)"),
    ("figures logits_ragged", "holds logits of no whole number of images"),
    ("report logits_classes", "holds logits of no whole number of images"),
    ("report labels_absent", "labels_absent/data/made-up.parquet holds no labels"),
    ("table1 labels_html", "labels_html/data/made-up.parquet holds no labels"),
    ("power labels_about", "labels_about/data/made-up.parquet holds no labels"),
    ("report labels_poor", "holds no labels (KeyError('class_names')); starting the"),
    ("report logits_many", "logits_many/logits/a.parquet is not a file of logits"),
    ("report out --recall nan", "recall must be above 0 and below 1, got nan"),
    ("report out --output /dev/null/x", "/dev/null is not a directory"),
    ("verify", "MODEL is missing"),
    ("verify model extra", "there is no place for extra"),
    ("verify absent", "there is no directory absent"),
    ("verify a_file", "a_file is a file, and no model directory"),
    ("verify out", "out holds no model: there is no model.json in it"),
    ("verify model_html", "model_html is no model directory"),
    ("verify model_bytes", "model_bytes is no model directory"),
    ("verify model_list", "model_list is no model directory"),
    ("verify model_v9", "model_v9 is of format 9, this version of camri_jax reads 1"),
    ("verify model_poor", "model_poor is no model directory (KeyError('important'))"),
    ("verify model_certificate", "model.json holds no whole certificate"),
    ("verify model_certificates", "no whole certificate (KeyError('important'))"),
    ("verify model_without_weights", "model_without_weights holds no weights"),
    ("verify model_without_scores", "calibration.safetensors holds no calibration"),
    ("verify model_scores_bare", "calibration.safetensors holds no calibration"),
    ("verify model_scores_named", "calibration.safetensors holds no calibration"),
    ("verify model_scores_html", "calibration.safetensors holds no calibration"),
    ("predict model_other_class pictures", "'halt' is not in list"),
    ("predict model_offset pictures", "could not convert string to float: 'much'"),
    ("predict model_offsets pictures", "the offset [1.0, 2.0, 3.0] is not one for"),
    ("predict model_cut pictures", "model_cut/weights.safetensors holds no weights"),
    ("predict model_method pictures", "damaged, or of another version of camri_jax"),
    ("predict model_recipe pictures", "unexpected keyword argument 'magic'"),
    ("predict model_nothing pictures", "damaged, or of another version of camri_jax"),
    ("predict model_backbone pictures", "needs its own backbone: Mine()"),
    ("predict model_shapes pictures", "weights of another network than it names: "),
    ("check model_shapes NEW", "BatchNorm_0/mean must be floats [64], got floats [1]"),
    ("predict model_format pictures", "is of format 1, this version of camri_jax"),
    ("predict pickled_trial.npz pictures", "is not a saved classifier, or damaged"),
    ("predict . pictures", ". holds no model; did you mean model?"),
    ("predict model/weights.safetensors pictures", "give its directory, model"),
    ("verify model/calibration.safetensors", "give its directory, model"),
    ("predict foreign_trial.npz pictures", "is not a saved classifier"),
    ("predict signs.npz pictures", "signs.npz is not a saved classifier"),
    ("predict model pictures/*.gif", "pictures/*.gif: there is no picture"),
    ("recalibrate model", "IMAGES is missing"),
    ("recalibrate model npz:signs.npz", "recall is missing"),
    ("recalibrate model NEW --recall 1.5", "recall must be above 0 and below 1"),
    ("recalibrate model NEW --recall 0.9 0.9", "one for each of 1 important classes"),
    ("recalibrate model NEW --recall 0.9 --confidence 1", "confidence must be above"),
    ("recalibrate model npz:no.npz --recall 0.9", "no.npz: no such file"),
    ("recalibrate model folder:folder --recall 0.9", "the model knows no class 'a'"),
    ("recalibrate model signs.npz --recall 0.9", "must be called 'npz:signs.npz'"),
    ("recalibrate model NEW --recall 0.9 --output model", "a new one by --output DIR"),
    ("recalibrate model NEW --recall 0.9 --output a_file/x", "is not a directory"),
    ("recalibrate model NEW --recall 0.9 --groups x", "groups is a pattern for"),
    ("recalibrate absent NEW --recall 0.9", "there is no directory absent"),
    ("recalibrate model_cut NEW --recall 0.9", "holds no weights"),
    ("check model", "IMAGES is missing"),
    ("check absent NEW", "there is no directory absent"),
    ("check model folder:folder", "the model knows no class 'a'; there are 'go'"),
    ("check model_without_promise NEW", "the model promises nothing: recall must say"),
    ("check model_certificate NEW", "model.json holds no whole certificate"),
    ("export model", "FILE is missing"),
    ("export model x.tflite", "x.tflite must end with .stablehlo or .onnx"),
    ("export model x.onnx --kind tflite", "invalid choice 'tflite' for argument"),
    ("export model a_file/x.onnx", "a_file is not a directory"),
    ("export absent x.onnx", "there is no directory absent"),
    ("export model_cut x.onnx", "model_cut/weights.safetensors holds no weights"),
    ("show_data --recall 0", "recall must be above 0 and below 1"),
    ("show_data --dataset folder:absent", "absent: no such directory or .zip file"),
    ("show_data --validation-fraction nan", "validation_fraction is nan"),
    ("figure1 --format bmp", "invalid choice 'bmp' for argument '--format'"),
    ("replicate cifar10 --data-dir absent", "absent: there is no such data directory"),
    ("doctor now", "there is no place for now"),
    ("doctor --fast", "there is no option --fast"),
]
WORDS = {"DATA": DATA, "DATASET": DATA[:2], "NEW": ("npz:signs.npz",)}
WORDS["PARTS"] = ("--calibration-fraction", ".5", "--batch-size", "8")


@pytest.mark.parametrize(("line", "sentence"), LINES, ids=[line for line, _ in LINES])
def test_a_command_ends_in_one_sentence_and_changes_nothing(
    line, sentence, camri, world
):
    before = listing(world)
    status, out, err = camri(
        *itertools.chain(*(WORDS.get(word, (word,)) for word in line.split()))
    )
    assert status == 2
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in out + err
    assert listing(world) == before


# --- The environment -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "line", "sentence"),
    [
        ("CAMRI_DATA_DIR=absent", "sweep --dataset mnist", "no such data directory"),
        ("CAMRI_DATA_DIR=a_file", "sweep --dataset mnist", "no such data directory"),
        ("CAMRI_DATA_DIR=~nobody_there", "sweep --dataset mnist", "~nobody_there"),
        (
            "SLURM_ARRAY_TASK_ID=9 SLURM_ARRAY_TASK_COUNT=4",
            "sweep DATA",
            "SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT must be INDEX/COUNT",
        ),
        (
            "JOB_COMPLETION_INDEX=1 JOB_COMPLETIONS=many",
            "sweep DATA",
            "below the count, got 1/many",
        ),
        (
            "SKYPILOT_NODE_RANK=-1 SKYPILOT_NUM_NODES=2",
            "sweep DATA",
            "below the count, got -1/2",
        ),
    ],
)
def test_a_bad_variable_is_named(variables, line, sentence, camri, world, monkeypatch):
    before = listing(world)
    for each in variables.split():
        monkeypatch.setenv(*each.split("=", 1))
    status, _, err = camri(
        *itertools.chain(*(WORDS.get(word, (word,)) for word in line.split()))
    )
    assert status == 2
    assert sentence in err
    assert len(err.splitlines()) == 1
    assert listing(world) == before


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("JAX_PLATFORMS", "nonsense", "JAX finds no device for JAX_PLATFORMS=nonsense"),
        ("JAX_ENABLE_X64", "maybe", "'maybe' for environment 'JAX_ENABLE_X64'"),
    ],
)
def test_a_variable_that_jax_cannot_read_is_named(name, value, sentence):
    script = "import sys; from camri_jax.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor"],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- The table of calls --------------------------------------------------------------

LOGITS, LABELS = np.zeros((4, 3), np.float32), np.array([0, 1, 2, 1])
CALLS = [
    (lambda: camri_jax.load_model("absent"), "there is no directory absent"),
    (lambda: camri_jax.load_model("a_file"), "a_file is not a saved classifier"),
    (lambda: load_model("model").logits(np.zeros((0, 8, 8, 1), np.uint8)), "images"),
    (lambda: load_model("model").logits("a_file"), "a_file cannot be read as a pict"),
    (lambda: load_model("model").logits(np.zeros((8, 8))), "images must be uint8"),
    (lambda: load_model("model").export("x", "tflite"), "must be among stablehlo"),
    (lambda: camri_jax.datasets.load("digit"), "no data set is called 'digit'"),
    (
        lambda: camri_jax.datasets.load("digits", seed=0.5),
        "seed must be a whole",
    ),
    (lambda: camri_jax.datasets.load("digits", fit="cut"), "fit is 'cut'"),
    (lambda: camri_jax.SweepConfig(num_seeds=0), "num_seeds must be at least 1"),
    (lambda: camri_jax.SweepConfig(methods=("x",)), "methods must be among"),
    (lambda: camri_jax.Recipe(network="vast"), "network must be one of"),
    (lambda: camri_jax.Recipe(learning_rate=np.nan), "learning_rate must be above 0"),
    (lambda: camri_jax.Recipe(ema_decay=1.0), "ema_decay must be in [0, 1)"),
    (lambda: guarantee.images_needed(1.0), "recall"),
    (lambda: guarantee.largest_certifiable(-1), "n"),
    (lambda: guarantee.certify_recall(LOGITS, LABELS, 3, recall=0.9), "important"),
    (lambda: guarantee.certify_recall(LOGITS * np.nan, LABELS, 1, recall=0.9), "NaN"),
    (lambda: guarantee.price(LOGITS, LABELS[:2], 1, 0.0), "labels"),
    (lambda: guarantee.price(LOGITS, LABELS, 1, np.nan), "offset"),
    (lambda: camri_jax.losses.camri([2.0, 0.0], 0, margins=[0, 0], scale=1.0), "cosin"),
    (lambda: camri_jax.losses.focal([2.0, 0.0], 0, gamma=-1.0), "gamma must be not b"),
    (lambda: camri_jax.losses.suggested_scale(2), "num_classes must be at least 3"),
    (lambda: camri_jax.penalties.margin_vector(3, 3, 0.1), "important"),
    (lambda: camri_jax.penalties.margin_vector(3, 1, 4.0), "margin"),
    (lambda: camri_jax.metrics.recall(np.zeros((2, 3), np.int32)), "confusion"),
]


@pytest.mark.parametrize(("call", "sentence"), CALLS, ids=range(len(CALLS)))
def test_a_call_raises_one_sentence(call, sentence, world, monkeypatch):
    monkeypatch.chdir(world)
    with pytest.raises(UsageError) as caught:
        call()
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- Claims and checkpoints: what is bad is no one's, and costs its chunk alone -------


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def archive(**arrays):
    """An npz file, also of what numpy would not save."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def owner(**changes):
    """A claim of this machine."""
    return json.dumps({**json.loads(claims._content()), **changes}).encode()


BAD_CLAIMS = {
    "empty": b"",
    "no text": bytes(range(256)),
    "a number": b"7",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "no owner": b"{}",
    "pid below 0": owner(pid=-1),
    "pid too large": owner(pid=10**30),
    "pid of text": owner(pid="1"),
    "pid none": owner(pid=None),
    "began never": owner(began=math.nan),
    "began as text": owner(began="today"),
    "machine of a list": owner(machine=[1]),
    "a directory": None,
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
def test_a_bad_claim_holds_its_chunk_until_it_is_stale(name, tmp_path, monkeypatch):
    path = tmp_path / "claims" / "chunk.1"
    content = BAD_CLAIMS[name]
    place(path, content)
    place(path.with_suffix(".\N{SUPERSCRIPT TWO}"), b"")
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    ours = []
    for now[0] in (0.0, claims.STALE + 1, claims.STALE + 2):
        with claims.claimed(tmp_path, "chunk") as got:
            ours.append(got)
    # A process that cannot be is gone; any other may beat yet.
    assert ours in ([False, True, True], [True, True, True])
    assert ours[0] == (name == "pid too large")
    with claims.claimed(tmp_path, "other") as got:
        assert got


def place(path, content):
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)


LOSSES = npy(np.zeros((1, 2)))
GOOD = {"epoch": npy(np.int64(1)), "losses": LOSSES, "history": npy(np.zeros(0))}
BAD_CHECKPOINTS = {
    "empty": b"",
    "text": b"one",
    "no archive": b"PK\x03\x04" + bytes(40),
    "an array": npy(np.zeros(3)),
    "no arrays": archive(),
    "no epoch": archive(losses=LOSSES, history=LOSSES, state0=LOSSES),
    "several epochs": archive(**GOOD | {"epoch": LOSSES}),
    "an epoch of text": archive(**GOOD | {"epoch": npy(np.array("one"))}),
    "an epoch of NaN": archive(**GOOD | {"epoch": npy(np.nan)}),
    "one loss": archive(**GOOD | {"losses": npy(np.float64(1))}),
    "one history": archive(**GOOD | {"history": npy(np.int32(1))}),
    "states of other names": archive(**GOOD, state1=LOSSES),
    "no header": archive(**GOOD, state0=b"nothing"),
    "a bomb": archive(
        **GOOD, state0=npy(np.zeros(9)).replace(b"(9,)", b"(9" + b"9" * 9)
    ),
    "a pickle": archive(**GOOD, state0=npy(np.array([Forbidden()]))),
    "a directory": None,
}


@pytest.mark.parametrize("name", BAD_CHECKPOINTS)
def test_a_bad_checkpoint_is_set_aside_in_one_sentence(name, tmp_path):
    path = tmp_path / "checkpoints" / "chunk.npz"
    place(path, BAD_CHECKPOINTS[name])
    with pytest.warns(
        RuntimeWarning, match="is set aside: it is no checkpoint"
    ) as told:
        assert checkpoints.load(path) is None
    assert len(told) == 1
    assert len(str(told[0].message).splitlines()) == 1
    assert not path.exists()
    assert len(list(path.parent.iterdir())) == 1


# --- Pickles -------------------------------------------------------------------------

RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
CALLED = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}


def dangers(source):
    """What in a source could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").split(".")[0]]
        yield from RUNS_CODE.intersection(names)
        if not isinstance(node, ast.Call):
            continue
        yield from CALLED.intersection([ast.unparse(node.func)])
        for word in node.keywords:
            allowed = getattr(word.value, "value", None) is False
            if word.arg in ("allow_pickle", "shell") and not allowed:
                yield word.arg


def test_one_file_alone_reads_pickles_and_none_runs_code():
    package = Path(camri_jax.__file__).parent
    files = [*package.rglob("*.py"), *EXPERIMENTS.glob("*.py")]
    found = {
        path.name: {*dangers(path.read_text(encoding="utf-8"))}
        for path in files
        if path.parent.name != "benchmarks"
    }
    # Its test shows that it opens what has the official checksum alone.
    assert {k: v for k, v in found.items() if v} == {"cifar10.py": {"pickle"}}


@pytest.mark.parametrize(
    "source",
    [
        "from pickle import loads",
        "np.load(x, allow_pickle=True)",
        "eval(text)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_what_could_run_code_is_found(source):
    assert [*dangers(source)]


def test_a_pickle_in_the_place_of_official_files_is_refused_unread(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CAMRI_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(pickle.dumps(Forbidden()))
    with pytest.raises(UsageError, match="is not the official file"):
        camri_jax.datasets.load("cifar10", data_dir=tmp_path / "data")
