"""Train a random forest on data/train.csv, measure it on data/test.csv, and write the results to model/.

The forest grows in batches. After each, it is saved to checkpoints/; a run that starts with
TRAINSPOT_RESUME=1 goes on from there, and ends with the same bytes as one that was never interrupted.
"""

import gzip
import json
import os
import pickle
from pathlib import Path

import joblib
import matplotlib
import numpy
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, f1_score

matplotlib.use("Agg")  # draws to files: a rented machine has no display

MODEL = Path("model")
CHECKPOINT = Path("checkpoints/random_forest.joblib")
TREES = 200
BATCH = 25
SEED = 7


def load(name):
    """The rows of data/NAME.csv as (pixels, digits)."""
    rows = numpy.loadtxt(f"data/{name}.csv", delimiter=",", dtype=numpy.int64)
    return rows[:, :-1], rows[:, -1]


def start_or_resume():
    """The forest to go on with: the checkpointed one after an interruption, else an empty one."""
    if os.environ.get("TRAINSPOT_RESUME") == "1" and CHECKPOINT.exists():
        forest = joblib.load(CHECKPOINT)
        print(f"resuming with {len(forest.estimators_)} trees", flush=True)
        return forest
    return RandomForestClassifier(n_estimators=0, warm_start=True, oob_score=True, random_state=SEED)


def clear_padding(forest):
    """Zero the bytes between the fields of a tree's nodes: scikit-learn saves there what was in memory before."""
    for tree in forest.estimators_:
        nodes = tree.tree_.__getstate__()["nodes"]  # the tree's own memory, not a copy
        padding = numpy.ones(nodes.itemsize, dtype=bool)
        for kind, offset, *_ in nodes.dtype.fields.values():
            padding[offset : offset + kind.itemsize] = False
        nodes.view(numpy.uint8).reshape(len(nodes), -1)[:, padding] = 0


def save(forest, path):
    """Write beside the target and rename, so that whoever reads it never sees half a file."""
    clear_padding(forest)
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file, gzip.GzipFile("", "wb", 3, file, mtime=0) as packed:
        pickler = pickle.Pickler(packed, protocol=5)
        # Else the file tells which equal strings were one object in memory, and that changes when a forest is loaded.
        pickler.fast = True
        pickler.dump(forest)
    unfinished.replace(path)


def grow(forest, pixels, digits):
    while forest.n_estimators < TREES:
        forest.n_estimators = min(forest.n_estimators + BATCH, TREES)
        forest.fit(pixels, digits)
        save(forest, CHECKPOINT)
        print(f"{forest.n_estimators}/{TREES} trees, out-of-bag accuracy {forest.oob_score_:.4f}", flush=True)


def main():
    forest = start_or_resume()
    grow(forest, *load("train"))

    pixels, digits = load("test")
    predicted = forest.predict(pixels)
    metrics = {
        "accuracy": round(accuracy_score(digits, predicted), 4),
        "f1": round(f1_score(digits, predicted, average="macro"), 4),
        "n_estimators": forest.n_estimators,
        "test_rows": len(digits),
    }

    MODEL.mkdir(exist_ok=True)
    save(forest, MODEL / "random_forest.joblib")
    (MODEL / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    plot = ConfusionMatrixDisplay.from_predictions(digits, predicted, cmap="Blues", colorbar=False)
    # Without the name of the program that drew it, the same forest gives the same bytes, and so no commit.
    plot.figure_.savefig(MODEL / "confusion_matrix.png", dpi=120, metadata={"Software": None})
    print(f"accuracy {metrics['accuracy']}, f1 {metrics['f1']}")


if __name__ == "__main__":
    main()
