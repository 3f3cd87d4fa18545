"""Mistakes in inputs and in the items of a Dataset."""

from __future__ import annotations

from mistakes.kinds import Mistake

INPUTS = (
    Mistake(
        "images as (n, h, w, c)",
        (
            "input (2, 8, 8, 3)",
            "x.transpose(0, 3, 1, 2)",
        ),
        """
def task():
    return of(train=(X[:90].transpose(0, 2, 3, 1), Y[:90]), test=(X[90:].transpose(0, 2, 3, 1), Y[90:]))
""",
    ),
    Mistake(
        "images as (n, h, w, c) in test only",
        ("(2, 8, 8, 3), the model takes (n, 3, 8, 8)",),
        """
def task():
    return of(test=(X.transpose(0, 2, 3, 1), Y))
""",
    ),
    Mistake(
        "images as bytes",
        (
            "torch.uint8",
            "give float32, scaled as in training",
        ),
        """
B = (X * 50 + 128).clip(0, 255).astype(np.uint8)


def task():
    return of(train=(B[:90], Y[:90]), test=(B[90:], Y[90:]))
""",
    ),
    Mistake(
        "images as bytes in test only",
        (
            "holds uint8, the model takes float32",
            "Convert the data",
        ),
        """
B = (X * 50 + 128).clip(0, 255).astype(np.uint8)


def task():
    return of(test=(B, Y))
""",
    ),
    Mistake(
        "images without a channel",
        (
            "input (2, 8, 8)",
            "to have 3 channels",
        ),
        """
def task():
    return of(train=(X[:90, 0], Y[:90]), test=(X[90:, 0], Y[90:]))
""",
    ),
    Mistake(
        "a single image without batch",
        (
            "data: test: is a single number",
            "row per item",
        ),
        """
def task():
    return of(test=(X[0], Y[0]))
""",
    ),
    Mistake(
        "NaN in an input",
        (
            "data (test): input 'input' holds values that are not finite (first in item 7)",
            "Remove or replace",
        ),
        """
X[97, 0, 0, 0] = np.nan
""",
    ),
    Mistake(
        "NaN in a training input",
        (
            "data: train: input 0 of item 37 is not finite",
            "Remove or replace",
        ),
        """
X[37, 0, 0, 0] = np.nan
""",
    ),
    Mistake(
        "items of several sizes",
        (
            "data: test: input 0 has shape (3, 8, 8) in item 0 and shape (3, 8, 9) in item 37",
            "one shape",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return torch.zeros(3, 8, 8 + (i == 37)), i % 3


def task():
    return of(test=Own())
""",
    ),
    Mistake(
        "training items of several sizes",
        ("data: train: input 0 has shape (3, 8, 8) in item", "and shape (3, 8, 9) in item 37"),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return torch.zeros(3, 8, 8 + (i == 37)), i % 3


def task():
    return of(train=Own())
""",
    ),
    Mistake(
        "item 37 raises",
        ("data: test: item 37 raised OSError: image file is truncated",),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        if i == 37:
            raise OSError("image file is truncated")
        return X[i], Y[i]


def task():
    return of(test=Own())
""",
        line='raise OSError("image file is truncated")',
    ),
    Mistake(
        "training item 37 raises",
        ("data: train: item 37 raised OSError: image file is truncated",),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        if i == 37:
            raise OSError("image file is truncated")
        return X[i] + 1, Y[i]


def task():
    return of(train=Own())
""",
        line='raise OSError("image file is truncated")',
    ),
    Mistake(
        "a Dataset of PIL images",
        (
            "data: test: input 0 holds Image objects",
            "transform",
        ),
        """
class Image:
    size = 8, 8


class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return Image(), i % 3


def task():
    return of(test=Own())
""",
    ),
    Mistake(
        "a Dataset whose items are images only",
        ("data: test: items have no target",),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return X[i]


def task():
    return of(test=Own())
""",
    ),
    Mistake(
        "a Dataset that draws at random in test",
        (
            "data: test: item",
            "another one",
            "without random transforms",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return X[i] + torch.rand(1).numpy(), Y[i]


def task():
    return of(test=Own())
""",
    ),
    Mistake(
        "a Dataset without __len__",
        (
            "cannot be read from an Own",
            "__len__()",
        ),
        """
class Own(Dataset):
    def __getitem__(self, i):
        return X[i], Y[i]


def task():
    return of(test=Own())
""",
    ),
    Mistake(
        "a Dataset whose __len__ is too long",
        (
            "data: test: item",
            "IndexError",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 200

    def __getitem__(self, i):
        return X[i], Y[i]


def task():
    return of(test=Own())
""",
        line="return X[i], Y[i]",
    ),
    Mistake(
        "a Dataset class, not an object",
        (
            "cannot be read from the class Own",
            "Own(...)",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return X[i], Y[i]


def task():
    return of(test=Own)
""",
    ),
    Mistake(
        "a path in place of data",
        (
            "cannot be read from a str",
            "a Dataset",
        ),
        """
def task():
    return of(test="data/test")
""",
    ),
    Mistake(
        "text columns",
        (
            "data: test: column 'x' holds texts",
            "Tokenize",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return {"x": "a sentence", "label": i % 3}


def task():
    return of(test=Own(), train=None)
""",
    ),
    Mistake(
        "dict items with a misspelled key",
        (
            "forward() needs 'x', which no column gives",
            "image, label",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return {"image": X[i], "label": Y[i]}


def task():
    return of(test=Own(), train=None)
""",
    ),
    Mistake(
        "dict items without a target",
        (
            "without a target; keys: x, lable",
            "Task(targets=...)",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return {"x": X[i], "lable": Y[i]}


def task():
    return of(test=Own(), train=None)
""",
    ),
)
