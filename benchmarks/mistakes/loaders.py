"""Mistakes with loaders, streams and collate functions."""

from __future__ import annotations

from mistakes.kinds import Mistake

LOADERS = (
    Mistake(
        "a stream in test",
        (
            "cannot be read from an Own",
            "Give a DataLoader over it",
        ),
        """
class Own(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y)


def task():
    return of(test=Own())
""",
    ),
    Mistake(
        "an empty stream",
        ("data: test: is empty",),
        """
class Own(IterableDataset):
    def __iter__(self):
        return iter(())


def task():
    return of(test=DataLoader(Own()))
""",
    ),
    Mistake(
        "a shuffled stream in test",
        (
            "other items, or another order, each time",
            "fixed order",
        ),
        """
class Own(IterableDataset):
    def __iter__(self):
        for i in torch.randperm(180).tolist():
            yield X[i], Y[i]


def task():
    return of(test=DataLoader(Own(), batch_size=8))
""",
    ),
    Mistake(
        "a generator",
        ("cannot be read from a generator",),
        """
def task():
    return of(test=((x, y) for x, y in zip(X, Y)))
""",
    ),
    Mistake(
        "a loader over a generator",
        (
            "a DataLoader over a generator",
            "Give it a Dataset",
        ),
        """
def task():
    return of(test=DataLoader(((x, y) for x, y in zip(X, Y)), batch_size=8))
""",
    ),
    Mistake(
        "an empty loader",
        ("data: test: draws no items",),
        """
def task():
    return of(test=DataLoader(tensors(X[:0], Y[:0])))
""",
    ),
    Mistake(
        "drop_last leaves nothing",
        (
            "data: test: draws no items",
            "drop_last",
        ),
        """
def task():
    return of(test=DataLoader(tensors(X[:20], Y[:20]), batch_size=64, drop_last=True))
""",
    ),
    Mistake(
        "a weighted sampler in test",
        (
            "WeightedRandomSampler",
            "not clear which items",
            "Subset",
        ),
        """
def task():
    from torch.utils.data import WeightedRandomSampler
    return of(test=DataLoader(tensors(), sampler=WeightedRandomSampler([1.0] * 180, 90)))
""",
    ),
    Mistake(
        "collate returns the inputs alone",
        (
            "gave a tensor of shape",
            "Return (inputs, ..., targets)",
        ),
        """
def collate(items):
    return torch.stack([x for x, _ in items])


def task():
    return of(test=DataLoader(tensors(), batch_size=8, collate_fn=collate))
""",
        line="def collate(items):",
    ),
    Mistake(
        "collate returns None",
        (
            "gave None",
            "Return (inputs, ..., targets)",
        ),
        """
def collate(items):
    torch.stack([x for x, _ in items])


def task():
    return of(test=DataLoader(tensors(), batch_size=8, collate_fn=collate))
""",
        line="def collate(items):",
    ),
    Mistake(
        "collate drops an item",
        ("putting items into a batch raised",),
        """
def collate(items):
    return torch.stack([x for x, _ in items[1:]]), torch.stack([y for _, y in items[1:]])


def task():
    return of(test=DataLoader(tensors(), batch_size=8, collate_fn=collate))
""",
        line="return torch.stack([x for x, _ in items[1:]]), torch.stack([y for _, y in items[1:]])",
    ),
    Mistake(
        "collate raises",
        ("putting items into a batch raised TypeError",),
        """
def collate(items):
    return torch.stack([x["image"] for x in items])


def task():
    return of(test=DataLoader(tensors(), batch_size=8, collate_fn=collate))
""",
        line='return torch.stack([x["image"] for x in items])',
    ),
    Mistake(
        "collate swaps inputs and targets",
        ("has shape (2), the model takes (n, 3, 8, 8)",),
        """
def collate(items):
    return torch.stack([y for _, y in items]), torch.stack([x for x, _ in items])


def task():
    return of(test=DataLoader(tensors(), batch_size=8, collate_fn=collate))
""",
    ),
    Mistake(
        "the list of batches of a loader",
        ("data: test: input 0 has shape (8, 3, 8, 8) in item 1 and shape (4, 3, 8, 8)",),
        """
def task():
    return of(test=list(DataLoader(tensors(), batch_size=8)))
""",
    ),
    Mistake(
        "an iterator of a loader",
        (
            "cannot be read from a _SingleProcessDataLoaderIter",
            "a DataLoader",
        ),
        """
def task():
    return of(test=iter(DataLoader(tensors(), batch_size=8)))
""",
    ),
    Mistake(
        "a Dataset that fails in a loader with workers",
        ("data: test: item 0 raised KeyError",),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        raise KeyError(i)


def task():
    return of(test=DataLoader(Own(), num_workers=2))
""",
        line="raise KeyError(i)",
    ),
)
