"""From images to a promised recall: what is cheapest, certified, and its price."""

import dataclasses
import functools
import html
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from camri_jax import guarantee
from camri_jax._files import (
    UsageError,
    fraction,
    whole_number,
    write_whole,
    written_whole,
)
from camri_jax.datasets import Dataset
from camri_jax.evidence import report, study
from camri_jax.sweeps import engine, rows, width
from camri_jax.sweeps.choices import RANKS, resolve
from camri_jax.sweeps.chunk import Placed
from camri_jax.sweeps.engine import OnProgress, Progress
from camri_jax.sweeps.plan import SCORED, Plan, SweepConfig, Trial, plan
from camri_jax.takehome import telling
from camri_jax.takehome.model import (
    Model,
    directory_of,
    load_model,
    local,
    save_model,
    save_seen,
    used,
)
from camri_jax.takehome.picking import (
    Finalist,
    Goal,
    Picked,
    Setting,
    costs,
    not_below_zero,
    pick,
    ranked,
    shortened,
    simplicity,
)
from camri_jax.takehome.promise import Evidence, save_evidence
from camri_jax.takehome.sweeping import provenance, shown
from camri_jax.training import classifier
from camri_jax.training.classifier import Classifier
from camri_jax.training.lift import placement, trial_mesh
from camri_jax.training.methods import BASELINE, DEFAULT_METHODS, Value
from camri_jax.training.recipe import Recipe


@dataclass(frozen=True)
class TuneConfig:
    """What is asked, and what is tried for it.

    Attributes:
      important: Classes that must not be missed, by name or index; a+b are counted
        together. Empty: the first of a known data set.
      recall: Recall to be promised: one number, or one for each important class.
      confidence: Of the promise, for all classes together.
      methods: Methods to try; cross-entropy is always tried.
      grid: Values to try in place of each method's own, as in a sweep.
      num_seeds: Trials of each setting that comes into the final.
      num_finalists: Settings that come into the final, cross-entropy among them.
      budget: Seconds of training at most (the command also takes 20m or 2h), else as
        long as it takes. Of what is planned, the last is left out.
      prior: Share of important images where the model is to work, for its price;
        else as in the test images.
      recipe: How trials are trained.
    """

    important: tuple[str, ...] = ()
    recall: tuple[float, ...] = (0.9,)
    confidence: float = 0.95
    methods: tuple[str, ...] = DEFAULT_METHODS
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    num_seeds: int = 3
    num_finalists: int = 3
    budget: float | None = None
    prior: float | None = None
    recipe: Recipe = field(default_factory=Recipe.light)

    def __post_init__(self) -> None:
        whole_number("num_finalists", self.num_finalists, 1)
        if self.budget is not None and not self.budget > 0:
            raise UsageError(f"budget must be above 0 seconds, got {self.budget}")
        if self.prior is not None:
            fraction("prior", self.prior)
        # Refuses what a sweep does, before data are loaded.
        SweepConfig(
            methods=(BASELINE, *self.methods),
            grid=self.grid,
            num_seeds=self.num_seeds,
            recipe=self.recipe,
        )


class Rung(NamedTuple):
    """A round of successive halving: how many settings, with how many seeds each."""

    num_settings: int
    num_seeds: int


@dataclass(frozen=True)
class TuneResult:
    """The result of tuning.

    Attributes:
      goal: what was asked.
      class_names: of the data.
      finalists: the cheapest on validation images first.
      chosen: the one to take.
      sentences: what is known of it, for people.
      table: a line a finalist.
      directory: of the model.
      files: what was written, by what it is.
    """

    goal: Goal
    class_names: tuple[str, ...]
    finalists: tuple[Finalist, ...]
    chosen: Finalist
    sentences: tuple[str, ...]
    table: pd.DataFrame
    directory: Path
    files: dict[str, Path]

    @property
    def certified(self) -> bool:
        """Whether the model comes with a promise."""
        return self.chosen.certified

    def load(self, backbone: Any = None) -> Model:
        """Reads the model; one's own backbone is needed again."""
        return load_model(self.directory, backbone)

    def _repr_html_(self) -> str:
        # What a notebook shows of a result.
        told = html.escape(" ".join(self.sentences), quote=False)
        return f"<p>{told}</p>" + self.table.to_html(index=False)


def tune(
    dataset: Dataset,
    important: Any = (),
    recall: float | Sequence[float] = 0.9,
    *,
    output: str | os.PathLike[str],
    backbone: Any = None,
    command: str = "camri_jax.tune",
    on_progress: OnProgress | None = None,
    clock: Callable[[], float] = time.monotonic,
    **config: Any,
) -> TuneResult:
    """Finds the cheapest model whose recall on new images can be promised.

    Methods and settings are tried by successive halving: all with one seed, the
    better half with two, and so on; the finalists with `num_seeds`. Settings are
    ranked by their false alarms on validation images, at the least offset at which the
    asked recall is reached there; of each finalist the best seed is certified on
    calibration images, as one of as many candidates as there are finalists. Among what
    is certified the fewest false alarms on validation images win, at the certified
    offset; ties go to accuracy, then to simplicity. Test images tell the price.

    With too few calibration images for all finalists, as many are certified as can be,
    in the order of their validation costs. Rungs differ in seeds and not in epochs: a
    short training favours losses that learn fast, and all trials of a rung count in
    the next.

    Args:
      dataset: from `camri_jax.datasets.load`, with validation, calibration and test
        images.
      important: class, classes or groups of classes that must not be missed.
      recall: to be promised, between 0 and 1: one number, or one for each class.
      output: directory of rows, logits and models, and of the model to take. Started
        again it trains only what is missing.
      backbone: a Flax module from uint8 images and `train` to features, in place of
        the recipe's network.
      command: kept with the rows.
      on_progress: called after each epoch; default a bar, in notebooks too.
      clock: seconds, for the budget.
      **config: what else `TuneConfig` holds.

    Returns:
      The result; all its files are on disk.

    Raises:
      UsageError: an argument is out of range, a part has no images of an important
        class, or every trial diverged.

    Reference:
      Jamieson and Talwalkar, Non-stochastic best arm identification and hyperparameter
      optimization, AISTATS, 2016 (successive halving).
    """
    asked: Any = np.atleast_1d(important).tolist()
    recalls = np.atleast_1d(recall).tolist()
    settings = TuneConfig(tuple(asked), tuple(map(float, recalls)), **config)
    output = local(output)
    goal = goal_of(settings, dataset)
    lab = _Lab.of(settings, goal, dataset, output, backbone, command, clock)
    with shown(on_progress) as tell:
        finals, told = _halve(lab, settings, goal, tell)
    return _finish(lab, settings, goal, finals, told)


def goal_of(config: TuneConfig, dataset: Dataset) -> Goal:
    """Returns the goal, after all checks that need no training.

    Args:
      config: what is asked.
      dataset: the images.

    Raises:
      UsageError: a class is unknown, a part of the data is missing, or the numbers
        of classes and of recalls differ.
    """
    for part in ("validation", "calibration", "test"):
        if not len(dataset.parts[part].labels):
            raise UsageError(
                f"{dataset.name} has no {part} images; "
                + (
                    f"{part}_fraction holds some out"
                    if part != "test"
                    else "they tell the price"
                )
            )
    for each in config.important:
        if each in RANKS and each not in dataset.class_names:
            raise UsageError(
                f"important must be classes by name or index, got {each!r}, which only "
                "a sweep can tell"
            )
    choices = resolve(config.important, dataset)
    if not config.important:
        choices = choices[:1]
    together = tuple(sorted({k for choice in choices for k in choice}))
    if len(choices) == 1:
        if len(config.recall) > 1:
            raise UsageError(
                "recall must be one number for one class, or a group a+b that counts "
                f"together, got {len(config.recall)}"
            )
        return Goal(together, config.recall, config.confidence)
    if any(len(choice) > 1 for choice in choices):
        raise UsageError(
            "important must be single classes where there are several, or one group "
            "a+b; got both"
        )
    if len(config.recall) not in (1, len(choices)):
        raise UsageError(
            f"recall must be one number, or one for each of {len(choices)} important "
            f"classes, got {len(config.recall)}"
        )
    recalls = config.recall * (len(choices) if len(config.recall) == 1 else 1)
    own = dict(zip((k for (k,) in choices), recalls, strict=True))
    resolve((together,), dataset)
    return Goal(together, tuple(own[k] for k in together), config.confidence)


def rungs(num_settings: int, num_seeds: int, num_finalists: int) -> list[Rung]:
    """Returns the rounds of successive halving.

    >>> rungs(9, num_seeds=3, num_finalists=3)
    [Rung(num_settings=9, num_seeds=1), Rung(num_settings=5, num_seeds=2), \
Rung(num_settings=3, num_seeds=3)]
    """
    found, number, seeds = [], num_settings, 1
    while number > num_finalists and seeds < num_seeds:
        found.append(Rung(number, seeds))
        number, seeds = max(num_finalists, -(-number // 2)), 2 * seeds
    if not found and number > num_finalists:
        found.append(Rung(number, 1))
    return [*found, Rung(min(num_finalists, num_settings), num_seeds)]


def _grid(config: TuneConfig, goal: Goal) -> SweepConfig:
    """All trials that could be trained."""
    asked: Any = (goal.important,)
    return SweepConfig(
        important=asked,
        methods=tuple(dict.fromkeys((BASELINE, *config.methods))),
        grid=config.grid,
        num_seeds=config.num_seeds,
        keep_logits=True,
        recipe=config.recipe,
    )


@dataclass
class _Lab:
    """Trains trials, and reads of them what may be read."""

    planned: Plan
    dataset: Dataset
    output: Path
    backbone: Any
    command: str
    clock: Callable[[], float]
    deadline: float
    started: float
    seconds: dict[str, float]

    @classmethod
    def of(
        cls,
        config: TuneConfig,
        goal: Goal,
        dataset: Dataset,
        output: Path,
        backbone: Any,
        command: str,
        clock: Callable[[], float],
    ) -> "_Lab":
        placed = placement(trial_mesh())
        swept = _grid(config, goal)
        planned = plan(swept, dataset, placed, backbone=backbone)
        if width.measures(planned.placement):
            families = [c.family for c in planned.chunks for _ in c.trials]
            most = max(map(families.count, families)) // config.num_seeds
            form, best = width.best(planned, dataset)
            placed = placed._replace(convolution=form)
            best = min(best, -(-most // placed.mesh.size))
            wide = dataclasses.replace(swept, trials_per_device=max(1, best))
            planned = plan(wide, dataset, placed, backbone=backbone)
        rows.mend(output)
        started = clock()
        deadline = started + (math.inf if config.budget is None else config.budget)
        return cls(
            planned=planned,
            dataset=dataset,
            output=output,
            backbone=backbone,
            command=command,
            clock=clock,
            deadline=deadline,
            started=started,
            seconds={},
        )

    @functools.cached_property
    def data(self) -> Placed:
        """The images on the devices, from when the first are trained on."""
        engine.check(self.planned, self.dataset)
        rows.write_data(self.output, self.dataset)
        return engine.placed(self.planned, self.dataset)

    def kept(self) -> set[str]:
        """Trials of which all is on disk: rows, logits and weights."""
        ids = {trial.trial_id for trial in self.planned.trials}
        ids &= set(rows.read(self.output / "rows", ["trial_id"])["trial_id"])
        ids &= rows.with_logits(self.output)
        return {name for name in ids if self.weights(name).exists()}

    def weights(self, trial_id: str) -> Path:
        return self.output / "models" / f"{trial_id}.npz"

    def train(
        self,
        trials: Sequence[Trial],
        done: set[str],
        share: float,
        tell: Callable[[float, str], None],
    ) -> set[str]:
        """Trains what is missing of trials, within a share of the budget.

        Returns:
          What is done.
        """
        ids = {trial.trial_id for trial in trials}
        everything = {trial.trial_id for trial in self.planned.trials}
        others = everything - (ids - done)
        chunks = plan(
            self.planned.config,
            self.dataset,
            self.planned.placement,
            done=others,
            backbone=self.backbone,
        ).chunks
        facts = provenance(self.command)
        until = self.started + share * (self.deadline - self.started)
        done = set(done)
        for chunk in chunks:
            expected = self.seconds.get(
                chunk.family, max(self.seconds.values(), default=0.0)
            )
            start = self.clock()
            if done & everything and start + expected > until:
                break
            only = self.planned._replace(chunks=[chunk])
            own = {trial.trial_id for trial in chunk.trials}
            with_rows = own & rows.trained(self.output)
            # Another process may have finished them meanwhile.
            again = with_rows - self.kept() if with_rows else set()
            if again and rows.exist(self.output, chunk.name):
                rows.discard(self.output, chunk.name)

            def told(made: Progress, before: int = len(done)) -> None:
                tell(before + made.num_done, made.doing)

            engine.train_all(
                only,
                self.dataset,
                self.data,
                self.output,
                again=again,
                provenance=facts,
                on_progress=told,
            )
            self.seconds[chunk.family] = self.clock() - start
            done |= own
        return done

    def costs(self, goal: Goal, done: set[str]) -> dict[str, Picked | None]:
        """What the goal costs each trial on validation images; None: it diverged."""
        columns = ["trial_id", "method", "seed", "diverged"]
        known = rows.read(self.output / "rows", columns)
        lost = set(known["trial_id"][known["diverged"].eq(True)])
        labels = self.dataset.parts["validation"].labels
        return {name: None for name in done & lost} | {
            name: pick(goal, logits, labels)
            for name, logits in rows.read_logits(self.output, "validation", done - lost)
        }


def _halve(
    lab: _Lab, config: TuneConfig, goal: Goal, on_progress: OnProgress
) -> tuple[list[Setting], list[str]]:
    """Trains rung after rung; the finalists, and what there was no time for."""
    trials, done = lab.planned.trials, lab.kept()
    keys = list(dict.fromkeys(map(_key, trials)))
    schedule = rungs(len(keys), config.num_seeds, config.num_finalists)
    new = _new_trials(schedule)
    entered, settings, told = keys, [], []

    kept, missing = len(done), max(0, sum(new) - len(done))

    def tell(num_done: float, family: str) -> None:
        on_progress(Progress(min(num_done - kept, missing), missing, family))

    tell(kept, "compiling" if missing else "reading what was trained")
    for i, rung in enumerate(schedule):
        wanted = [t for t in trials if _key(t) in entered and t.seed < rung.num_seeds]
        share = sum(new[: i + 1]) / sum(new)
        done = lab.train(wanted, done, share, tell)
        # Seeds of later rungs, from before it was stopped, have no say here.
        known = done & {t.trial_id for t in wanted}
        settings = ranked(wanted, lab.costs(goal, known))
        short = sum(t.trial_id not in done for t in wanted)
        if short:
            told.append(
                f"Within the budget {short} of {len(wanted)} trials of round {i + 1} "
                "were left out."
            )
        following = schedule[i + 1] if i + 1 < len(schedule) else rung
        settings = shortened(settings, following.num_settings)
        entered = [(s.method, s.point) for s in settings]
    engine.clear(lab.output)
    if not settings:
        raise UsageError("every trial diverged; a smaller learning_rate may help")
    return settings, told


def _key(trial: Trial) -> tuple[str, tuple[tuple[str, Value], ...]]:
    return trial.method, tuple(trial.point.items())


def _new_trials(schedule: Sequence[Rung]) -> list[int]:
    """How many trials each rung adds."""
    before = [Rung(0, 0), *schedule]
    return [
        rung.num_settings * (rung.num_seeds - last.num_seeds)
        for last, rung in zip(before, schedule, strict=False)
    ]


def num_certifiable(goal: Goal, dataset: Dataset, most: int) -> int:
    """Returns how many models the calibration images can certify at once.

    It depends on how many images there are, and on nothing that is in them.

    Args:
      goal: what is asked.
      dataset: the images.
      most: models there are.

    Returns:
      From 1 to `most`; 1 also where not even one can be certified.
    """
    part = dataset.parts["calibration"]

    def enough(candidates: int) -> bool:
        return all(
            guarantee.sample_size(part.labels, classes, part.groups)
            >= guarantee.images_needed(
                recall, confidence=goal.confidence, candidates=candidates
            )
            for classes, recall in goal.parts
        )

    return next((m for m in range(most, 0, -1) if enough(m)), 1)


def _finish(
    lab: _Lab,
    config: TuneConfig,
    goal: Goal,
    settings: Sequence[Setting],
    told: Sequence[str],
) -> TuneResult:
    """Certifies and prices the finalists, and writes what is taken home.

    This is the only place that reads calibration images, after all was picked. What is
    said of a model is of its very weights: logits on disk may be of another training.
    """
    ids = [setting.best()[0].trial_id for setting in settings]
    models = {name: classifier.load(lab.weights(name), lab.backbone) for name in ids}
    logits = {
        part: {
            name: model.logits(lab.dataset.parts[part].images)
            for name, model in models.items()
        }
        for part in SCORED
    }
    finalists = _certify(lab, config, goal, settings, logits)
    chosen = min(finalists, key=_order)
    trained = models[chosen.trial_id]
    scored = logits["calibration"][chosen.trial_id]
    asked = (*goal.important, *goal.recalls, goal.confidence)
    directory = directory_of(lab.output, {"asked": dataclasses.asdict(goal)}, asked)
    _keep(lab, goal, finalists, chosen, trained, scored, directory)
    names = lab.dataset.class_names
    sentences = (*telling.paragraph(goal, names, finalists, chosen), *told)
    table = telling.table(finalists, chosen)
    files = {"rows": lab.output / "rows"}
    with written_whole(directory / "finalists.csv") as unfinished:
        table.to_csv(unfinished, index=False)
    files["finalists"] = directory / "finalists.csv"
    write_whole(directory / "promise.txt", "\n".join(sentences) + "\n")
    files["promise"] = directory / "promise.txt"
    try:
        page = _page(lab, goal, finalists, chosen, sentences)
    except UsageError as error:
        warnings.warn(f"no report is written: {error}", RuntimeWarning, stacklevel=1)
        # Of an earlier model.
        (directory / "report.html").unlink(missing_ok=True)
    else:
        write_whole(directory / "report.html", page)
        files["report"] = directory / "report.html"
    return TuneResult(
        goal=goal,
        class_names=names,
        finalists=tuple(finalists),
        chosen=chosen,
        sentences=sentences,
        table=table,
        directory=directory,
        files=files,
    )


def _order(finalist: Finalist) -> tuple[float, ...]:
    """Promised before not, cheap, accurate, simple: on validation images."""
    alarms, accuracy = finalist.validation
    simple = simplicity(finalist.method, finalist.point)
    missed = math.isinf(finalist.picked.false_alarms)
    if finalist.certified:
        return (0.0, 0.0, alarms, -accuracy, simple)
    return (1.0, float(missed), alarms, -accuracy, simple)


def _certify(
    lab: _Lab,
    config: TuneConfig,
    goal: Goal,
    settings: Sequence[Setting],
    logits: Mapping[str, Mapping[str, np.ndarray]],
) -> list[Finalist]:
    ids = [setting.best()[0].trial_id for setting in settings]
    number = num_certifiable(goal, lab.dataset, len(ids))
    certifiable = {name: logits["calibration"][name] for name in ids[:number]}
    logits = {**logits, "calibration": certifiable}
    found = [_finalist(lab, config, goal, each, logits, number) for each in settings]
    reference = next((each for each in found if each.method == BASELINE), None)
    if reference is None:
        return found

    def answers(each: Finalist) -> np.ndarray:
        own = logits["test"][each.trial_id]
        return guarantee.predict(own, goal.important, each.offset)

    part = lab.dataset.parts["test"]
    for i, each in enumerate(found):
        if each is not reference:
            against = guarantee.compare(
                answers(each),
                answers(reference),
                part.labels,
                goal.important,
                prior=config.prior,
                groups=part.groups,
            )
            found[i] = dataclasses.replace(each, against=against)
    return found


def _finalist(
    lab: _Lab,
    config: TuneConfig,
    goal: Goal,
    setting: Setting,
    logits: Mapping[str, Mapping[str, np.ndarray]],
    candidates: int,
) -> Finalist:
    """One of so many certified at once, if its calibration logits are given."""
    trial, picked = setting.best()
    name, parts = trial.trial_id, lab.dataset.parts
    offset, certificate = picked.offset, None
    if name in logits["calibration"]:
        own, part = logits["calibration"][name], parts["calibration"]
        certificate = goal.certify(
            own, part.labels, picked.relative, part.groups, candidates
        )
        if certificate.offset is not None:
            offset = not_below_zero(guarantee.with_room(certificate.offset, own))
    own, truth = logits["test"][name], parts["test"].labels
    right = guarantee.predict(own, goal.important, offset) == truth
    wanted = [np.isin(truth, classes) for classes, _ in goal.parts]
    return Finalist(
        method=trial.method,
        point=trial.point,
        trial_id=name,
        seeds=tuple(each.seed for each in setting.trials),
        picked=picked,
        certificate=certificate,
        offset=offset,
        validation=costs(
            logits["validation"][name],
            parts["validation"].labels,
            goal.important,
            offset,
        ),
        found=tuple((int(right[each].sum()), int(each.sum())) for each in wanted),
        price=guarantee.price(
            own,
            truth,
            goal.important,
            offset,
            prior=config.prior,
            groups=parts["test"].groups,
        ),
        against=None,
    )


def _keep(
    lab: _Lab,
    goal: Goal,
    finalists: Sequence[Finalist],
    chosen: Finalist,
    trained: Classifier,
    calibration: np.ndarray,
    directory: Path,
) -> None:
    """Writes the model, and what its promise rests on."""
    dataset = lab.dataset
    about = {
        "certificate": None
        if chosen.certificate is None
        else chosen.certificate.to_dict(),
        "price": chosen.price.to_dict(),
        "against_cross_entropy": chosen.against and chosen.against.to_dict(),
        "asked": dataclasses.asdict(goal),
        "method": chosen.method,
        "point": chosen.point,
        "settings": lab.planned.settings,
        "tried": [
            {
                "method": each.method,
                "point": each.point,
                "seeds": each.seeds,
                "trial_id": each.trial_id,
                "certified": each.certified,
                "validation_false_alarms": each.validation[0],
                "validation_accuracy": each.validation[1],
            }
            for each in finalists
        ],
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "grouped_by": dataset.grouped_by,
        "assumption": guarantee.ASSUMPTION,
        "made_by": provenance(lab.command),
    }
    evidence = Evidence.of(
        goal,
        calibration,
        dataset.parts["calibration"].labels,
        dataset.parts["calibration"].groups,
        chosen.picked.relative,
    )
    about["evidence"] = save_evidence(directory, evidence)
    save_model(directory, Model(trained, goal.important, chosen.offset, about))
    save_seen(directory, used(dataset))


def _page(
    lab: _Lab,
    goal: Goal,
    finalists: Sequence[Finalist],
    chosen: Finalist,
    sentences: Sequence[str],
) -> str:
    """The report on all that was tried."""
    name = "+".join(lab.dataset.class_names[k] for k in goal.important)
    num_images = len(lab.dataset.parts["test"].labels)
    lines = [
        {
            "method": each.method,
            "point": each.point,
            "trial_id": each.trial_id,
            "certified": each.certified,
            "recall": goal.recalls[0] if goal.together else math.nan,
            # As often as classes come in these data, whatever the prior of the price.
            "false_alarms": 1000 * each.price.false_alarms.count / num_images,
            "accuracy": each.price.accuracy.count / num_images,
        }
        for each in finalists
    ]
    promise = report.Promise(
        sentences,
        telling.sheet(telling.table(finalists, chosen), name),
        finalists.index(chosen),
        lines,
    )
    found = study.load(
        lab.output,
        important=[goal.important],
        settings=lab.planned.settings,
    )
    return report.page(
        found, recall=max(goal.recalls), command=lab.command, promise=promise
    )
