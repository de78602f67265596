"""How often a generated flower shows what its caption names."""

import numpy as np

from stackgan_tf import bootstrap


def compute(predicted: np.ndarray, true: np.ndarray, mentions: np.ndarray,
            names: tuple[str, ...]) -> dict[str, float]:
    """Accuracy of each attribute over the captions that name it.

    A caption that is silent about an attribute leaves the generator free, so it counts neither
    way. Attributes that no caption names are left out.

    Args:
        predicted: int (N, A), what a classifier reads off the generated pictures.
        true: int (N, A), the attributes of the pictures that the captions were written for.
        mentions: bool (N, A), what each caption names.
        names: of the A attributes.

    Returns:
        `accuracy/<name>`; `chance/<name>`, what the same pictures would score against captions
        dealt out at random (exactly, no shuffling); `count/<name>`, captions naming it; and
        `accuracy/mean` and `chance/mean` over the attributes.
    """
    predicted, true, mentions = np.asarray(predicted), np.asarray(true), np.asarray(mentions, bool)
    if not predicted.shape == true.shape == mentions.shape == (len(true), len(names)):
        raise ValueError(f"predicted {predicted.shape}, true {true.shape}, mentions "
                         f"{mentions.shape} and {len(names)} names do not fit together.")
    result, means = {}, {"accuracy": [], "chance": []}
    for i, name in enumerate(names):
        named = true[mentions[:, i], i]
        if not len(named):
            continue
        means["accuracy"].append(np.mean(predicted[mentions[:, i], i] == named))
        # sum over values of P(a picture shows it) P(a caption naming the attribute names it)
        means["chance"].append(np.mean(predicted[:, i][:, None] == named[None, :]))
        result[f"accuracy/{name}"] = float(means["accuracy"][-1])
        result[f"chance/{name}"] = float(means["chance"][-1])
        result[f"count/{name}"] = float(len(named))
    if means["accuracy"]:
        result |= {f"{kind}/mean": float(np.mean(values)) for kind, values in means.items()}
    return result


def intervals(predicted: np.ndarray, true: np.ndarray, mentions: np.ndarray,
              names: tuple[str, ...], seed: int = 0) -> dict[str, float]:
    """The 95 % intervals of `compute`'s accuracies: {"accuracy/<name>/low": ..., ".../high": ...}.

    Args:
        as of `compute`.
    """
    mentions = np.asarray(mentions, bool)
    right = np.equal(predicted, true) & mentions
    made = {name: bootstrap.share(name, right[mentions[:, i], i])
            for i, name in enumerate(names) if mentions[:, i].any()}
    if not made:
        return {}
    counts = bootstrap.counts(len(right), seed=seed)  # of captions, which name several
    named = counts @ mentions  # (resamples, A)
    accuracy = np.divide(counts @ right, named, out=np.full(named.shape, np.nan), where=named > 0)
    drawn = np.nanmean(accuracy[named.any(1)], 1)
    value = np.mean([made[name][name] for name in made])
    made["mean"] = bootstrap.interval("mean", value, len(right), drawn, 0.0, 1.0)
    result = {f"accuracy/{name}/{end}": values[f"{name}/{end}"]
              for name, values in made.items() for end in ("low", "high")}
    if result["accuracy/mean/low"] is None:  # all right, all wrong or few: resamples cannot tell
        result |= {f"accuracy/mean/{end}": float(np.mean([
            result[f"accuracy/{name}/{end}"] for name in made if name != "mean"]))
            for end in ("low", "high")}
    return result
