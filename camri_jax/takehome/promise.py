"""A kept promise: what it rests on, checked again, made anew, and put to the test."""

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy

from camri_jax import guarantee
from camri_jax._files import UsageError, address, write_whole
from camri_jax.datasets import Dataset, copies
from camri_jax.datasets.dataset import Part, digest, nearest
from camri_jax.evidence.statistics import percent
from camri_jax.guarantee import Certificate, Certificates, Check, Price
from camri_jax.takehome import telling
from camri_jax.takehome.model import (
    Model,
    load_model,
    local,
    read_about,
    read_tensors,
    save_model,
    save_seen,
    seen,
)
from camri_jax.takehome.picking import Goal, not_below_zero

_FILE = "calibration.safetensors"


class Evidence(NamedTuple):
    """What a certificate is computed from.

    Attributes:
      goal: what is promised.
      relative: how far each part's offset is ahead, see `Goal.certify`.
      arrays: `scores` of the important classes' images where they are counted
        together, else `logits` and `labels` of all; and `groups`, if there are any.
    """

    goal: Goal
    relative: tuple[float, ...]
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        goal: Goal,
        logits: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray | None,
        relative: tuple[float, ...],
    ) -> "Evidence":
        """Returns what is to be kept of calibration images."""
        mine = np.isin(labels, goal.important)
        if goal.together:
            scores = guarantee.found_scores(logits, labels, goal.important)
            arrays = {"scores": scores}
            groups = None if groups is None else groups[mine]
        else:
            arrays = {"logits": np.asarray(logits, np.float32), "labels": labels}
        if groups is not None:
            arrays["groups"] = groups
        return cls(goal, relative, arrays)

    def certify(self, candidates: int) -> Certificate | Certificates:
        """Returns the certificate, from these numbers alone."""
        groups = self.arrays.get("groups")
        if self.goal.together:
            return guarantee.certify_scores(
                self.arrays["scores"],
                self.goal.important,
                recall=self.goal.recalls[0],
                confidence=self.goal.confidence,
                groups=groups,
                candidates=candidates,
            )
        logits, labels = self.arrays["logits"], self.arrays["labels"]
        return self.goal.certify(logits, labels, self.relative, groups, candidates)

    def digest(self) -> str:
        """Returns what changes with any of these numbers."""
        parts = [
            part for name in sorted(self.arrays) for part in (name, self.arrays[name])
        ]
        return digest(*parts, json.dumps([self.goal.important, self.relative]))


def save_evidence(directory: Path, evidence: Evidence) -> dict[str, Any]:
    """Writes what a certificate rests on beside the model.

    Args:
      directory: of the model.
      evidence: from calibration images.

    Returns:
      What `model.json` says of it.
    """
    arrays = {n: np.ascontiguousarray(a) for n, a in evidence.arrays.items()}
    header = {
        "goal": dataclasses.asdict(evidence.goal),
        "relative": evidence.relative,
    }
    content = safetensors.numpy.save(arrays, {"camri_jax": json.dumps(header)})
    write_whole(directory / _FILE, content)
    return {"file": _FILE, "digest": evidence.digest()}


def read_evidence(directory: Path) -> Evidence:
    """Reads what `save_evidence` wrote.

    Args:
      directory: of the model.

    Raises:
      UsageError: there is none, or it is damaged.
    """
    path = directory / _FILE
    try:
        arrays, text = read_tensors(path)
        header = json.loads(text)
        own = header["goal"]
        goal = Goal(tuple(own["important"]), tuple(own["recalls"]), own["confidence"])
        needed = {"scores"} if goal.together else {"logits", "labels"}
        if missing := sorted(needed - arrays.keys()):
            raise KeyError(*missing)
        return Evidence(goal, tuple(header["relative"]), arrays)
    except (
        safetensors.SafetensorError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise UsageError(
            f"{path} holds no calibration scores ({error!r}): there is nothing that a "
            "promise could be checked by"
        ) from error


class Verification(NamedTuple):
    """Whether a model's certificate follows from its calibration scores.

    Attributes:
      holds: whether there is a promise and all that it says is so.
      sentences: for people.
    """

    holds: bool
    sentences: tuple[str, ...]


def verify(path: str | os.PathLike[str]) -> Verification:
    """Computes a model's certificate again, from its calibration scores alone.

    The network is not run: that the scores are the model's is for `recalibrate` to
    show, on images.

    Args:
      path: of a model directory.

    Returns:
      What was found.

    Raises:
      UsageError: it is no model directory.
    """
    directory = address(path)
    about = read_about(directory)
    stated = certificate_of(about)
    names = about["classes"]
    if stated is None or not stated.certified:
        reason = [] if stated is None else telling.limits(stated, names)
        told = ("The model comes without a promise.", *reason)
        return Verification(False, told)
    evidence = read_evidence(directory)
    wrong = []
    named = about.get("evidence")
    if not isinstance(named, dict) or evidence.digest() != named.get("digest"):
        wrong.append("The calibration scores are not those that the model came with.")
    again = evidence.certify(stated.parts[0].candidates)
    if not _same(again, stated):
        wrong.append(
            "The certificate does not follow from the calibration scores, which give: "
            + (
                f"offset {again.offset}."
                if again.certified
                else " ".join(telling.limits(again, names))
            )
        )
    served = tuple(names.index(each) for each in about["important"])
    if served != tuple(stated.important):
        wrong.append(
            f"The offset raises {', '.join(about['important'])}, and the certificate "
            f"is of {', '.join(names[k] for k in stated.important)}."
        )
    if not _keeps(about["offset"], stated.offset):
        wrong.append(
            f"The model's offset {about['offset']} is below the certified one, "
            f"{stated.offset}."
        )
    if about.get("weights") != weights_digest(directory):
        wrong.append("The weights are not those that the model came with.")
    if wrong:
        return Verification(False, tuple(wrong))
    return Verification(
        True,
        (
            "The certificate follows from the calibration scores: the model "
            + telling.promised(stated, names),
            f"Assumption: {guarantee.ASSUMPTION}",
        ),
    )


def weights_digest(directory: Path) -> str:
    """Returns what changes with any weight of a model directory."""
    try:
        content = (directory / "weights.safetensors").read_bytes()
    except OSError as error:
        raise UsageError(f"{directory} holds no weights ({error})") from error
    return digest(np.frombuffer(content, np.uint8))


def certificate_of(about: Mapping[str, Any]) -> Certificate | Certificates | None:
    """Returns the certificate that a `model.json` holds.

    Args:
      about: what it says.
    """
    values = about.get("certificate")
    if values is None:
        return None
    try:
        kind = Certificates if "certificates" in values else Certificate
        return kind.from_dict(values)
    except (KeyError, TypeError) as error:
        raise UsageError(
            f"model.json holds no whole certificate ({error!r})"
        ) from error


def _same(
    again: Certificate | Certificates, stated: Certificate | Certificates
) -> bool:
    """Whether two certificates say the same, up to another library's last digit."""

    def told(found: Certificate | Certificates) -> tuple:
        parts = (dataclasses.replace(c, largest_certifiable=0.0) for c in found.parts)
        return *parts, getattr(found, "accuracy", None)

    def limits(found: Certificate | Certificates) -> list[float]:
        return [part.largest_certifiable for part in found.parts]

    return told(again) == told(stated) and np.allclose(
        limits(again), limits(stated), rtol=1e-9, atol=0
    )


def _keeps(offset: Any, certified: Any) -> bool:
    """Whether an offset keeps the promise of a certified one: all raised alike."""
    raised = np.ravel(offset) - np.ravel(certified)
    return bool((raised >= 0).all() and np.ptp(raised) < 1e-4)


def recalibrate(
    path: str | os.PathLike[str],
    dataset: Dataset,
    recall: float | tuple[float, ...],
    *,
    output: str | os.PathLike[str],
    confidence: float = 0.95,
    backbone: Any = None,
) -> tuple[Model, tuple[str, ...]]:
    """Certifies a model on new images; nothing is trained.

    Args:
      path: of a model directory, which stays as it is.
      dataset: labelled images: all of them certify, or if it has a calibration part,
        that one alone. Those that the model was trained, picked or certified on are
        left out, which is said.
      recall: to be promised: one number, or one for each important class; one number
        is meant as it was when the model was made: for each class, or for all together.
      output: a new model directory.
      confidence: of the promise.
      backbone: the Flax module that was trained, where it is not one of ours.

    Returns:
      The new model, which is on disk, and what is promised now. Without a certificate
      the model keeps its offset, and comes without a promise.

    Raises:
      UsageError: `output` is there already, or no image is new.
    """
    directory = address(path)
    output = local(output)
    if output.exists():
        raise UsageError(f"{output} is there already; a new directory is needed")
    model = load_model(path, backbone)
    recalls = tuple(map(float, np.atleast_1d(recall)))
    if len(recalls) == 1:
        # A promise of each class must not become one of all their images together.
        recalls *= len(model.about.get("asked", {}).get("recalls", recalls))
    goal = Goal(model.important, recalls, confidence)
    images, labels, groups, left_out = gathered(
        model, directory, dataset, part="calibration"
    )
    logits = model.raw_logits(images)
    relative = (0.0,) * len(goal.parts)
    if not goal.together and isinstance(model.offset, tuple):
        # Picked when the model was; these images must not pick.
        relative = tuple(float(c) - min(model.offset) for c in model.offset)
    certificate = goal.certify(logits, labels, relative, groups, 1)
    offset = model.offset
    if certificate.offset is not None:
        offset = not_below_zero(guarantee.with_room(certificate.offset, logits))
    evidence = Evidence.of(goal, logits, labels, groups, relative)
    about = model.about | {
        "certificate": certificate.to_dict(),
        "price": None,
        "against_cross_entropy": None,
        "asked": dataclasses.asdict(goal),
        "recalibrated_on": {
            "dataset": dataset.name,
            "fingerprint": dataset.fingerprint,
        },
        "evidence": save_evidence(output, evidence),
    }
    new = Model(model.classifier, model.important, offset, about)
    save_model(output, new)
    save_seen(output, [images], before=directory)
    names = model.class_names
    if not certificate.certified:
        return new, (
            *left_out,
            *telling.limits(certificate, names),
            "The model keeps its offset and comes WITHOUT a promise.",
        )
    return new, (
        *left_out,
        f"The model {telling.promised(certificate, names)}",
        f"Offset {telling.offset_text(offset)} instead of "
        f"{telling.offset_text(model.offset)}. What it costs now is told by other "
        "labelled images: camri check.",
        f"Assumption: {guarantee.ASSUMPTION}",
    )


class Checked(NamedTuple):
    """How a model does on new labelled images.

    Attributes:
      checks: of each part of its promise, once and sequentially.
      price: what the offset costs there; None where all or none are important.
      holds: whether no check that is looked at once calls the promise broken.
      sentences: for people.
    """

    checks: tuple[tuple[Check, Check], ...]
    price: Price | None
    holds: bool
    sentences: tuple[str, ...]


def check(
    path: str | os.PathLike[str],
    dataset: Dataset,
    recall: float | None = None,
    *,
    confidence: float = 0.95,
    backbone: Any = None,
) -> Checked:
    """Asks whether new labelled images contradict, or show, a model's promise.

    Images of one group are not independent: one of each counts, drawn by a hash of
    pixels, which is the same however many groups there are. Groups must be whole.

    Args:
      path: of a model directory.
      dataset: labelled images; all parts count. Those that the model was trained,
        picked or certified on are left out, which is said.
      recall: in place of what was promised.
      confidence: chance that a kept promise is not called broken, for all its classes
        together.
      backbone: the Flax module that was trained, where it is not one of ours.

    Returns:
      The checks.

    Raises:
      UsageError: the model promises nothing and no recall is given, or there are no
        images of an important class.
    """
    model = load_model(path, backbone)
    stated = certificate_of(model.about)
    parts = () if stated is None else stated.parts
    asked = [(part.important, part.recall) for part in parts if part.certified]
    if recall is not None:
        known = [part.important for part in parts] or [model.important]
        asked = [(classes, float(recall)) for classes in known]
    if not asked:
        raise UsageError("the model promises nothing: recall must say what to check")
    directory = address(path)
    images, labels, groups, left_out = gathered(model, directory, dataset)
    raw = model.raw_logits(images)
    logits = guarantee.moved(raw, model.important, model.offset)
    right = logits.argmax(-1) == labels
    # Of several promises kept, none is called broken.
    each = 1 - (1 - confidence) / len(asked)
    checks, told = [], [*left_out]
    for classes, share in asked:
        mine = np.flatnonzero(np.isin(labels, classes))
        name = "+".join(model.class_names[k] for k in classes)
        if not len(mine):
            raise UsageError(f"{dataset.name} has no images of {name} to check by")
        drawn = mine if groups is None else one_a_group(mine, groups, images)
        found, total = int(right[drawn].sum()), len(drawn)
        once, ever = (
            guarantee.check_recall(
                found,
                total,
                recall=share,
                confidence=each,
                sequential=sequential,
            )
            for sequential in (False, True)
        )
        checks.append((once, ever))
        drawn_from = None if total == len(mine) else len(mine)
        told += _verdicts(name, once, ever, drawn_from, promised=recall is None)
    price = None
    inside = np.isin(labels, model.important)
    if 0 < inside.sum() < len(labels):
        price = guarantee.price(
            raw, labels, model.important, model.offset, groups=groups
        )
        told.append(
            f"Price here: {telling.counted(price.false_alarms, 1, telling.ALARMS)}, "
            f"accuracy {telling.counted(price.accuracy)}."
        )
    holds = all(once.verdict != "broken" for once, _ in checks)
    return Checked(tuple(checks), price, holds, tuple(told))


_VERDICTS = {
    "kept": "the promise is kept",
    "broken": "the promise is BROKEN",
    "open": "neither kept nor broken is shown",
}


def _verdicts(
    name: str, once: Check, ever: Check, images: int | None, *, promised: bool
) -> list[str]:
    drawn = "" if images is None else f" (one of each group, of {images:,} images)"
    bound = percent(once.confidence)

    def low(check: Check) -> str:
        return f"{guarantee.rounded_down(check.low):.3f}"

    def high(check: Check) -> str:
        return f"{-guarantee.rounded_down(-check.high):.3f}"

    return [
        f"{name}: found {once.found:,} of {once.total:,}{drawn}; "
        f"{percent(once.recall)} was {'promised' if promised else 'asked'}.",
        f"Looked at once: {_VERDICTS[once.verdict]} (recall at least {low(once)}, "
        f"at most {high(once)}, each at {bound} confidence; p = "
        f"{once.p_value:.2g}).",
        f"Looked at as often as you like, as {'images' if images is None else 'groups'}"
        f" come: {_VERDICTS[ever.verdict]} ({low(ever)} to {high(ever)}; "
        f"p = {ever.p_value:.2g}).",
    ]


def one_a_group(mine: np.ndarray, groups: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Returns one image of each group, drawn as neither a seed nor others change.

    Equal images count as often as they are there, as they do for the certificate.

    Args:
      mine: indices of the images to draw from.
      groups: of all images.
      images: all of them.
    """
    own = pd.DataFrame(
        {"group": groups[mine], "pixels": copies.fingerprints(images[mine])}
    )
    copy = own.groupby(["group", "pixels"]).cumcount()
    lots = copies.fingerprints(np.stack([own["pixels"], copy], axis=1))
    drawn = mine[np.argsort(lots)]
    return drawn[np.unique(groups[drawn], return_index=True)[1]]


def gathered(
    model: Model, directory: Path, dataset: Dataset, part: str | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Returns what is new of a data set to a model.

    Args:
      model: whose classes count.
      directory: of the model.
      dataset: labelled images.
      part: taken alone if it has images; else all parts are joined.

    Returns:
      Images, labels by the model's classes, groups, and sentences on what is left out
      and on groups that are missing.

    Raises:
      UsageError: it has classes that the model does not know, or no image is new.
    """
    known = {name: k for k, name in enumerate(model.class_names)}
    used = [
        p
        for name, p in dataset.parts.items()
        if len(p.labels)
        and (name == part or part is None or not len(dataset.parts[part].labels))
    ]
    labels = np.concatenate([each.labels for each in used])
    there = {dataset.class_names[k] for k in np.unique(labels)}
    if unknown := sorted(there - set(known)):
        raise UsageError(
            f"{dataset.name}: the model knows no class {unknown[0]!r}; "
            + nearest(unknown[0], list(known))
        )
    as_model = np.array([known.get(name, -1) for name in dataset.class_names], np.int32)
    groups = _groups_of(used)
    images = model.prepared(np.concatenate([each.images for each in used]))
    new = ~seen(directory, images)
    if groups is not None:
        # Images beside a known one are as little new as it is.
        new &= ~np.isin(groups, groups[~new])
    if not new.any():
        raise UsageError(
            f"{dataset.name}: the model was trained, picked or certified on all "
            f"{len(new):,} images; a promise takes new ones"
        )
    kin = "" if groups is None else ", or on others of their groups"
    told = [] if new.all() else [_LEFT_OUT.format((~new).sum(), len(new), kin)]
    alone = groups is None or len(np.unique(groups[new])) == new.sum()
    stated = certificate_of(model.about)
    if alone and stated is not None and any(map(telling.in_groups, stated.parts)):
        told.append(_UNGROUPED)
    return (
        images[new],
        as_model[labels][new],
        None if groups is None else groups[new],
        tuple(told),
    )


def _groups_of(parts: Sequence[Part]) -> np.ndarray | None:
    """Groups of all images: one an image in a part without, if others have some."""
    known = [part.groups for part in parts if part.groups is not None]
    if not known:
        return None
    fresh = itertools.count(max(int(each.max()) for each in known) + 1)
    return np.concatenate(
        [
            [next(fresh) for _ in part.labels] if part.groups is None else part.groups
            for part in parts
        ]
    )


_LEFT_OUT = (
    "{:,} of {:,} images are left out: the model was trained, picked or certified on "
    "them{}."
)
_UNGROUPED = (
    "The model was certified on groups of images, and each of these counts as a group "
    "of its own: if several show the same thing, say which belong together (groups)."
)
