"""Mistakes in labels and in the splits of a task."""

from __future__ import annotations

from mistakes.kinds import Mistake

LABELS = (
    Mistake(
        "labels from 1",
        (
            "label 3 is out of range",
            "0 to 2",
            "from 0",
        ),
        """
def task():
    return of(test=(X, Y + 1))
""",
    ),
    Mistake(
        "labels from 1 in train only",
        (
            "data: train: label 3 is out of range",
            "0 to 2",
        ),
        """
def task():
    return of(train=(X + 1, Y + 1))
""",
    ),
    Mistake(
        "labels one-hot",
        (
            "labels are float64 of shape (2, 3)",
            "argmax(1)",
        ),
        """
def task():
    return of(test=(X, np.eye(3)[Y]))
""",
    ),
    Mistake(
        "labels one-hot in train only",
        (
            "data: train: labels are float64",
            "argmax(1)",
        ),
        """
def task():
    return of(train=(X + 1, np.eye(3)[Y]))
""",
    ),
    Mistake(
        "labels of shape (n, 1)",
        (
            "of shape (2, 1)",
            "targets.reshape(-1)",
        ),
        """
def task():
    return of(test=(X, Y[:, None]))
""",
    ),
    Mistake(
        "labels as floats",
        (
            "labels are float32",
            "targets.astype(int)",
        ),
        """
def task():
    return of(test=(X, Y.astype(np.float32)))
""",
    ),
    Mistake(
        "labels as texts",
        (
            "data: test: holds texts",
            "numbers",
        ),
        """
def task():
    return of(test=(X, np.array(["cat", "dog", "cow"])[Y]))
""",
    ),
    Mistake(
        "labels as texts in a Dataset",
        (
            "data: test: the target holds texts",
            "Number the classes",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return X[i], ("cat", "dog", "cow")[Y[i]]


def task():
    return of(test=Own())
""",
    ),
    Mistake(
        "label -1 for unknown",
        (
            "label -1 is out of range",
            "Leave items without a label",
        ),
        """
def task():
    return of(test=(X, np.where(np.arange(180) == 7, -1, Y)))
""",
    ),
    Mistake(
        "regression targets with the default score",
        (
            "labels are float32",
            "negative_error",
        ),
        """
def task():
    return of(test=(X, X.mean((1, 2, 3))))
""",
    ),
    Mistake(
        "targets of another length",
        (
            "data: test: has 180 inputs and 100 targets",
            "one target per item",
        ),
        """
def task():
    return of(test=(X, Y[:100]))
""",
    ),
    Mistake(
        "train targets of another length",
        ("data: train: has 100 inputs and 180 targets",),
        """
def task():
    return of(train=(X[:100], Y))
""",
    ),
    Mistake(
        "NaN in regression targets",
        (
            "data: test: the target of item 7 is not finite",
            "Remove or replace",
        ),
        """
T = X.mean((1, 2, 3))[:, None] * np.ones((1, 3), np.float32)
T[7] = np.nan


def task():
    return of(test=(X, T), train=(X + 1, T), score="negative_error")
""",
    ),
    Mistake(
        "inputs and targets exchanged",
        ("has shape (2), the model takes (n, 3, 8, 8)",),
        """
def task():
    return of(test=(Y, X))
""",
    ),
    Mistake(
        "a dict of dataloaders misspelled",
        ("unexpected keyword argument 'tests'",),
        """
def task():
    return Task(tests=(X, Y))
""",
        line="return Task(tests=(X, Y))",
    ),
    Mistake(
        "a tuple in place of a Task",
        ("task() returned a tuple, not a Task",),
        """
def task():
    return X, Y
""",
    ),
    Mistake(
        "test is an empty array",
        (
            "data: test: is empty",
            "at least one item",
        ),
        """
def task():
    return of(test=(X[:0], Y[:0]))
""",
    ),
    Mistake(
        "train is an empty array",
        ("data: train: is empty",),
        """
def task():
    return of(train=(X[:0], Y[:0]))
""",
    ),
)
