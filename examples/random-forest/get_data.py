"""Write the data set to data/train.csv and data/test.csv: 8×8 pixel digits, one a row, the digit last.

The digits ship with scikit-learn, so nothing is downloaded. In a project of your own, this is where
`dvc pull` or a query would stand.
"""

from pathlib import Path

import numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

DATA = Path("data")
SEED = 7


def main():
    digits = load_digits()
    rows = numpy.column_stack([digits.data, digits.target])
    train, test = train_test_split(rows, test_size=0.25, random_state=SEED, stratify=digits.target)
    DATA.mkdir(exist_ok=True)
    for name, part in [("train", train), ("test", test)]:
        numpy.savetxt(DATA / f"{name}.csv", part, fmt="%d", delimiter=",")
        print(f"{name}: {len(part)} rows")


if __name__ == "__main__":
    main()
