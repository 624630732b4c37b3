"""The formulas of the paper as plain loops over Python floats: slow, and plainly right.

Shares are decimals of sixty digits, as log(1 - h) in float64 has no digit left where
h is 1 - 1e-20. Nothing here knows of the package.
"""

import decimal
import functools
import math
from decimal import Decimal

import numpy as np

DIGITS = decimal.Context(prec=60, Emin=-(10**8), Emax=10**8)


def shares(logits):
    """softmax of one row, as decimals."""
    powers = [DIGITS.exp(Decimal(float(logit))) for logit in logits]
    total = powers[0]
    for power in powers[1:]:
        total = DIGITS.add(total, power)
    return [DIGITS.divide(power, total) for power in powers]


def ln(value):
    return float(DIGITS.ln(value))


def one_minus(value):
    return DIGITS.subtract(Decimal(1), value)


def cross_entropy(logits, labels):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        losses.append(-ln(shares(row)[label]))
    return np.array(losses)


def weighted_cross_entropy(logits, labels, *, class_weights):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        losses.append(-float(class_weights[label]) * ln(shares(row)[label]))
    return np.array(losses)


def real_world_weight_cross_entropy(
    logits, labels, *, false_negative_weights, false_positive_weights
):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        h = shares(row)
        loss = -float(false_negative_weights[label]) * ln(h[label])
        for k in range(len(h)):
            if k != label:
                weight = float(false_positive_weights[k][label])
                loss -= weight * ln(one_minus(h[k]))
        losses.append(loss)
    return np.array(losses)


def sinkhorn_plan(a, b, cost_matrix, epsilon, iterations=5000):
    """The plan of one pair of histograms, by alternating log-sum-exps."""
    n, m = len(a), len(b)
    f, g = [0.0] * n, [0.0] * m
    for _ in range(iterations):
        for i in range(n):
            terms = [(g[j] - cost_matrix[i][j]) / epsilon for j in range(m) if b[j] > 0]
            f[i] = epsilon * (log(a[i]) - logsumexp(terms))
        change = 0.0
        for j in range(m):
            terms = [(f[i] - cost_matrix[i][j]) / epsilon for i in range(n) if a[i] > 0]
            last, g[j] = g[j], epsilon * (log(b[j]) - logsumexp(terms))
            change = max(change, abs(g[j] - last) if b[j] > 0 else 0.0)
        if change < 1e-13:
            break
    plan = np.zeros((n, m))
    for i in range(n):
        for j in range(m):
            if a[i] > 0 and b[j] > 0:
                plan[i, j] = math.exp((f[i] + g[j] - cost_matrix[i][j]) / epsilon)
    return plan


def log(value):
    return math.log(value) if value > 0 else -math.inf


def logsumexp(terms):
    top = max(terms)
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


def transport_cost(plan, cost_matrix, epsilon):
    """<T, C> + epsilon sum T (log T - 1), with 0 log 0 = 0."""
    cost = 0.0
    for i in range(plan.shape[0]):
        for j in range(plan.shape[1]):
            mass = plan[i, j]
            if mass > 0:
                cost += mass * cost_matrix[i][j] + epsilon * mass * (log(mass) - 1)
    return cost


def wasserstein_with_integer_labels(logits, labels, *, cost_matrix, epsilon):
    """There is one plan for a one-hot target: all mass goes to its class."""
    losses = []
    for row, label in zip(logits, labels, strict=True):
        h = [float(share) for share in shares(row)]
        plan = np.zeros((len(h), len(h)))
        plan[:, label] = h
        losses.append(transport_cost(plan, cost_matrix, epsilon))
    return np.array(losses)


def cosine_similarity(features, prototypes):
    num_features, num_classes = np.shape(prototypes)
    cosines = np.zeros((len(features), num_classes))
    for n, z in enumerate(features):
        for k in range(num_classes):
            w = [float(prototypes[d][k]) for d in range(num_features)]
            z = [float(value) for value in z]
            lengths = math.hypot(*z) * math.hypot(*w)
            dot = math.fsum(p * q for p, q in zip(z, w, strict=True))
            cosines[n, k] = dot / lengths if lengths > 0 else 0.0
    return cosines


def widened_cosine(cosine, multiplier, margin, monotone):
    """cos(m1 theta + m2); past pi, if monotone, what ArcFace and SphereFace put."""
    angle = multiplier * math.acos(cosine) + margin
    turns = math.floor(angle / math.pi)
    if not monotone or turns == 0 or angle == math.pi:
        return math.cos(angle)
    if multiplier == 1:
        return cosine - max(margin * math.sin(margin), 1 - math.cos(margin))
    return (-1) ** turns * math.cos(angle) - 2 * turns


def angular_margin_logits(
    cosines,
    labels,
    *,
    margins,
    scale,
    monotone=False,
    multipliers=None,
    cosine_margins=None,
):
    logits = np.zeros(np.shape(cosines))
    for n, label in enumerate(labels):
        for k in range(len(cosines[n])):
            cosine = float(cosines[n][k])
            if k == label:
                multiplier = 1 if multipliers is None else float(multipliers[k])
                cosine = widened_cosine(cosine, multiplier, float(margins[k]), monotone)
                if cosine_margins is not None:
                    cosine -= float(cosine_margins[k])
            logits[n, k] = float(scale) * cosine
    return logits


def angular_loss(cosines, labels, **margins):
    zeros = np.zeros(len(cosines[0]))
    logits = angular_margin_logits(cosines, labels, **{"margins": zeros} | margins)
    return cross_entropy(logits, labels)


def l2_softmax(cosines, labels, *, scale):
    return angular_loss(cosines, labels, scale=scale)


def camri(cosines, labels, *, margins, scale, monotone=False):
    return angular_loss(
        cosines, labels, margins=margins, scale=scale, monotone=monotone
    )


def arcface(cosines, labels, *, margin, scale, monotone=False):
    margins = [margin] * len(cosines[0])
    return camri(cosines, labels, margins=margins, scale=scale, monotone=monotone)


def cosface(cosines, labels, *, margin, scale):
    margins = [margin] * len(cosines[0])
    return angular_loss(cosines, labels, cosine_margins=margins, scale=scale)


def class_sensitive_cosface(cosines, labels, *, cosine_margins, scale):
    return angular_loss(cosines, labels, cosine_margins=cosine_margins, scale=scale)


def ldam(cosines, labels, *, class_counts, margin, scale):
    rarest = min(class_counts)
    margins = [margin * (rarest / count) ** 0.25 for count in class_counts]
    return angular_loss(cosines, labels, cosine_margins=margins, scale=scale)


def sphereface(cosines, labels, *, margin, scale, monotone=True):
    multipliers = [margin] * len(cosines[0])
    return angular_loss(
        cosines, labels, multipliers=multipliers, scale=scale, monotone=monotone
    )


def focal(logits, labels, *, gamma):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        share = shares(row)[label]
        hard = math.exp(float(gamma) * ln(one_minus(share)))
        losses.append(-hard * ln(share))
    return np.array(losses)


def weighted_focal(logits, labels, *, class_weights, gamma):
    weights = np.array([float(class_weights[label]) for label in labels])
    return weights * focal(logits, labels, gamma=gamma)


def smoothed_cross_entropy(logits, labels, *, smoothing):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        h = shares(row)
        loss = 0.0
        for k in range(len(h)):
            target = float(smoothing) / len(h) + (k == label) * (1 - float(smoothing))
            loss -= target * ln(h[k])
        losses.append(loss)
    return np.array(losses)


def logit_adjusted_cross_entropy(
    logits, labels, *, class_priors, strength=1.0, offsets=None
):
    adjusted = np.array(logits, np.float64)
    for k in range(adjusted.shape[1]):
        adjusted[:, k] += float(strength) * math.log(class_priors[k])
        adjusted[:, k] -= 0.0 if offsets is None else float(offsets[k])
    return cross_entropy(adjusted, labels)


def balanced_softmax(logits, labels, *, class_counts):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        h = shares(row)
        shifted = [
            DIGITS.multiply(Decimal(int(n)), x)
            for n, x in zip(class_counts, h, strict=True)
        ]
        total = functools.reduce(DIGITS.add, shifted)
        losses.append(ln(DIGITS.divide(total, shifted[label])))
    return np.array(losses)


def recall_constrained_cross_entropy(logits, labels, *, multipliers, class_priors):
    losses = []
    for row, label in zip(logits, labels, strict=True):
        weight = 1 + float(multipliers[label]) / float(class_priors[label])
        losses.append(-weight * ln(shares(row)[label]))
    return np.array(losses)


def next_multipliers(multipliers, logits, labels, *, class_priors, least_recalls, rate):
    num_classes = len(multipliers)
    counted = [n for n in range(len(labels)) if 0 <= labels[n] < num_classes]
    found = []
    for k in range(num_classes):
        own = [n for n in counted if labels[n] == k]
        hits = [max(range(num_classes), key=lambda j: logits[n][j]) == k for n in own]
        step = 0.0
        if own:
            lacking = float(least_recalls[k]) - sum(hits) / len(own)
            step = rate * len(own) / (len(counted) * float(class_priors[k])) * lacking
        found.append(max(0.0, float(multipliers[k]) + step))
    return np.array(found)


def confusion_matrix(labels, predictions, num_classes):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for label, prediction in zip(labels, predictions, strict=True):
        if 0 <= label < num_classes and 0 <= prediction < num_classes:
            counts[label, prediction] += 1
    return counts


def angle_statistics(features, prototypes, labels):
    num_classes = np.shape(prototypes)[1]
    cosines = cosine_similarity(features, prototypes)
    means, stds = [], []
    for k in range(num_classes):
        angles = [
            math.acos(max(-1.0, min(1.0, cosines[n, k])))
            for n in range(len(labels))
            if labels[n] == k
        ]
        if not angles:
            means.append(math.nan)
            stds.append(math.nan)
            continue
        mean = math.fsum(angles) / len(angles)
        means.append(mean)
        stds.append(math.sqrt(math.fsum((x - mean) ** 2 for x in angles) / len(angles)))
    return np.array(means), np.array(stds)
