"""Archives in the official layouts, of a few made up pictures each.

A writer returns the facts (checksums, counts) that the data set's module must then hold
in place of the official ones.
"""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from PIL import Image
from tensorflow_datasets.core.download.checksums import compute_url_info


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(seed, size=(12, 10), mode="RGB", suffix="png", **options):
    """The bytes of a picture file of random pixels."""
    file = io.BytesIO()
    image = Image.fromarray(pixels(seed, size[1], size[0], 3)).convert(mode)
    image.save(file, {"jpg": "jpeg"}.get(suffix, suffix), **options)
    return file.getvalue()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def use(monkeypatch, module, facts):
    """Lets a data set's module believe in the tiny archives."""
    for name, value in facts.items():
        if name == "url_infos":
            monkeypatch.setattr(module.Builder, name, value)
        else:
            monkeypatch.setattr(module, name, value)


def write_cifar10(folder, url="http://localhost:1/cifar-10-python.tar.gz", rows=20):
    """Six batches and the archive of them; labels go round the ten classes."""
    batches = folder / "cifar-10-batches-py"
    md5s = {}
    for i in range(6):
        name = f"data_batch_{i + 1}" if i < 5 else "test_batch"
        labels = [k % 10 for k in range(rows)]
        batch = {b"data": pixels(i, rows, 3072), b"labels": labels}
        md5s[name] = md5(write(batches / name, pickle.dumps(batch)))
    packed = folder / "cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(batches, "cifar-10-batches-py")
    return {"MD5S": md5s, "URL": url, "url_infos": {url: compute_url_info(packed)}}


def write_mnist(folder, url="http://localhost:1"):
    """The four idx files, packed and not."""
    md5s, infos = {}, {}
    for stem, rows in (("train", 40), ("t10k", 20)):
        images = struct.pack(">iiii", 2051, rows, 28, 28)
        labels = struct.pack(">ii", 2049, rows)
        contents = {
            f"{stem}-images-idx3-ubyte": images + pixels(rows, rows, 784).tobytes(),
            f"{stem}-labels-idx1-ubyte": labels + bytes(i % 10 for i in range(rows)),
        }
        for name, content in contents.items():
            md5s[name] = md5(write(folder / name, content))
            packed = write(folder / f"{name}.gz", gzip.compress(content, mtime=0))
            infos[f"{url}/{name}.gz"] = compute_url_info(packed)
    return {"MD5S": md5s, "URL": url, "url_infos": infos}


def gtsrb_pictures(tracks=2, frames=2):
    """Names, classes and contents of training and of test pictures."""
    train = [
        (label, f"{track:05d}_{frame:05d}", label * 100 + track * 10 + frame)
        for label in range(43)
        for track in range(tracks)
        for frame in range(frames)
    ]
    test = [(42 - i, f"{i:05d}", 10_000 + i) for i in range(43)]
    return train, test


def write_gtsrb(root):
    """The layout of the unpacked official archives."""
    train, test = gtsrb_pictures()
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
    tables = {}
    for label, stem, seed in train:
        folder = root / f"Final_Training/Images/{label:05d}"
        write(folder / f"{stem}.ppm", picture(seed, suffix="ppm"))
        table = folder / f"GT-{label:05d}.csv"
        row = f"{stem}.ppm;12;10;1;1;9;9;{label}\n"
        tables[table] = tables.get(table, header) + row
    folder = root / "Final_Test/Images"
    table = folder / "GT-final_test.csv"
    for label, stem, seed in test:
        write(folder / f"{stem}.ppm", picture(seed, suffix="ppm"))
        tables[table] = (
            tables.get(table, header) + f"{stem}.ppm;12;10;1;1;9;9;{label}\n"
        )
    for path, text in tables.items():
        path.write_text(text)
    return {"NUM_EXAMPLES": {"train": len(train), "test": len(test)}}


def write_gtsrb_by_folder(root):
    """The layout that is passed around: PNG, and one table a part."""
    train, test = gtsrb_pictures()
    header = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path\n"
    rows = {"Train": header, "Test": header}
    for label, stem, seed in train:
        path = f"Train/{label}/{label:05d}_{stem}.png"
        write(root / path, picture(seed))
        rows["Train"] += f"12,10,1,1,9,9,{label},{path}\n"
    for label, stem, seed in test:
        write(root / f"Test/{stem}.png", picture(seed))
        rows["Test"] += f"12,10,1,1,9,9,{label},Test/{stem}.png\n"
    for part, text in rows.items():
        (root / f"{part}.csv").write_text(text)
    return {"NUM_EXAMPLES": {"train": len(train), "test": len(test)}}


def zip_gtsrb(root, folder):
    """The three official archives of what `write_gtsrb` wrote to `root`."""
    folder.mkdir(exist_ok=True)
    table = "Final_Test/Images/GT-final_test.csv"
    everything = sorted(p for p in root.rglob("*") if p.is_file())
    members = {
        "GTSRB_Final_Training_Images.zip": [
            p for p in everything if "Final_Training" in str(p)
        ],
        "GTSRB_Final_Test_Images.zip": [p for p in everything if p.suffix == ".ppm"],
        "GTSRB_Final_Test_GT.zip": [root / table],
    }
    for name, paths in members.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path in paths:
                inside = path.name if "GT.zip" in name else path.relative_to(root)
                archive.write(path, inside if "GT.zip" in name else f"GTSRB/{inside}")
    return {"MD5S": {n: md5(folder / n) for n in members}, "URL": "http://localhost:1"}


def write_awa2(path, class_names, *, each=5, grey=(), broken=()):
    """An archive like AwA2-data.zip; `grey` and `broken` are (class, number) pairs."""
    with zipfile.ZipFile(path, "w") as archive:
        for label, class_name in enumerate(class_names):
            folder = class_name.replace(" ", "+")
            for i in range(each):
                mode = "L" if (class_name, i) in grey else "RGB"
                content = picture(100 * label + i, (90, 70), mode, "jpg")
                if (class_name, i) in broken:
                    content = content[: len(content) // 2]
                name = f"JPEGImages/{folder}/{folder}_{10001 + i}.jpg"
                archive.writestr(f"Animals_with_Attributes2/{name}", content)
        archive.writestr("Animals_with_Attributes2/classes.txt", "not read")
    total = each * len(class_names)
    return {
        "MD5S": {path.name: md5(path)},
        "URL": "http://localhost:1",
        "NUM_EXAMPLES": {"train": total - total // 3, "test": total // 3},
    }
