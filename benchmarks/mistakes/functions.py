"""Mistakes in score, loss and augmentation."""

from __future__ import annotations

from mistakes.kinds import Mistake

FUNCTIONS = (
    Mistake(
        "a score of one argument",
        ("score: raised TypeError",),
        """
def task():
    return of(score=lambda outputs: outputs.argmax(1))
""",
        line="return of(score=lambda outputs: outputs.argmax(1))",
    ),
    Mistake(
        "a score that gives the mean",
        (
            "score: returned shape () for 2 items",
            "One score per item",
        ),
        """
def score(outputs, targets):
    return (outputs.argmax(1) == targets).mean()


def task():
    return of(score=score)
""",
        line="def score(outputs, targets):",
    ),
    Mistake(
        "a score that takes arrays for tensors",
        ("score: raised TypeError",),
        """
def score(outputs, targets):
    return (outputs.argmax(dim=1) == targets).float()


def task():
    return of(score=score)
""",
        line="return (outputs.argmax(dim=1) == targets).float()",
    ),
    Mistake(
        "a score from scikit-learn",
        (
            "score: raised ValueError",
            "scores each item",
        ),
        """
def task():
    from sklearn.metrics import accuracy_score
    return of(score=accuracy_score)
""",
    ),
    Mistake(
        "a score that prints and returns nothing",
        ("score: returned None",),
        """
def score(outputs, targets):
    print((outputs.argmax(1) == targets).mean())


def task():
    return of(score=score)
""",
        line="def score(outputs, targets):",
    ),
    Mistake(
        "a misspelled score",
        (
            "no score named 'accuracy'",
            "top1",
        ),
        """
def task():
    return of(score="accuracy")
""",
    ),
    Mistake(
        "top5 of three classes",
        (
            "top5 of 3 classes is always right",
            "Use top1",
        ),
        """
def task():
    return of(score="top5")
""",
    ),
    Mistake(
        "a score that is a number",
        ("score: is a float, not a function",),
        """
def task():
    return of(score=0.9)
""",
    ),
    Mistake(
        "a loss with reduction none",
        (
            "loss: returned a tensor of shape (2,)",
            "one number",
        ),
        """
def task():
    return of(loss=nn.CrossEntropyLoss(reduction="none"))
""",
    ),
    Mistake(
        "a loss class, not an object",
        (
            "loss: is the class CrossEntropyLoss",
            "CrossEntropyLoss()",
        ),
        """
def task():
    return of(loss=nn.CrossEntropyLoss)
""",
    ),
    Mistake(
        "a loss that expects probabilities",
        (
            "loss: raised RuntimeError",
            "between 0 and 1",
        ),
        """
def task():
    return of(loss=lambda o, t: nn.functional.binary_cross_entropy(o, nn.functional.one_hot(t, 3).float()))
""",
        line="return of(loss=lambda o, t: nn.functional.binary_cross_entropy(o, nn.functional.one_hot(t, 3).float()))",
    ),
    Mistake(
        "a loss that takes the logarithm of logits",
        ("loss: returned nan",),
        """
def task():
    return of(loss=lambda o, t: nn.functional.nll_loss(torch.log(o), t))
""",
        line="return of(loss=lambda o, t: nn.functional.nll_loss(torch.log(o), t))",
    ),
    Mistake(
        "a loss in numpy",
        (
            "loss: raised RuntimeError",
            "numpy()",
        ),
        """
def task():
    return of(loss=lambda o, t: np.mean((o.numpy() - t.numpy()) ** 2))
""",
        line="return of(loss=lambda o, t: np.mean((o.numpy() - t.numpy()) ** 2))",
    ),
    Mistake(
        "a loss that ends in item()",
        ("loss: returned a float",),
        """
def task():
    return of(loss=lambda o, t: nn.functional.cross_entropy(o, t).item())
""",
        line="return of(loss=lambda o, t: nn.functional.cross_entropy(o, t).item())",
    ),
    Mistake(
        "a loss by name",
        (
            "loss: is a str, not a function",
            "CrossEntropyLoss()",
        ),
        """
def task():
    return of(loss="cross_entropy")
""",
    ),
    Mistake(
        "a loss on exchanged arguments",
        ("loss: raised NotImplementedError",),
        """
def task():
    return of(loss=lambda t, o: nn.functional.cross_entropy(o, t))
""",
        line="return of(loss=lambda t, o: nn.functional.cross_entropy(o, t))",
    ),
    Mistake(
        "a loss of targets in another type",
        (
            "loss: raised RuntimeError",
            "these targets beside these outputs",
        ),
        """
def task():
    return of(loss=nn.MSELoss())
""",
    ),
    Mistake(
        "an augmentation in numpy",
        (
            "augment: returned a numpy array",
            "Return a tensor",
        ),
        """
def task():
    return of(augment=lambda x: np.flip(x.numpy(), 3).copy())
""",
        line="return of(augment=lambda x: np.flip(x.numpy(), 3).copy())",
    ),
    Mistake(
        "an augmentation that returns None",
        ("augment: returned None",),
        """
def task():
    return of(augment=lambda x: None)
""",
        line="return of(augment=lambda x: None)",
    ),
    Mistake(
        "an augmentation of one image",
        ("augment: raised ValueError",),
        """
def augment(image):
    c, h, w = image.shape
    return image.flip(2)


def task():
    return of(augment=augment)
""",
        line="c, h, w = image.shape",
    ),
    Mistake(
        "an augmentation that crops",
        ("augment: returned what the model cannot take",),
        """
def task():
    return of(augment=lambda x: x[:, :1])
""",
        line="return of(augment=lambda x: x[:, :1])",
    ),
    Mistake(
        "an augmentation in double precision",
        (
            "augment: returned what the model cannot take",
            "torch.float64",
        ),
        """
def task():
    return of(augment=lambda x: x.double())
""",
        line="return of(augment=lambda x: x.double())",
    ),
    Mistake(
        "an augmentation by name",
        ("augment: is a str, not a function",),
        """
def task():
    return of(augment="flip")
""",
    ),
    Mistake(
        "an augmentation that gives bytes",
        (
            "augment: returned what the model cannot take",
            "torch.uint8",
        ),
        """
def task():
    return of(augment=lambda x: (x * 255).byte())
""",
        line="return of(augment=lambda x: (x * 255).byte())",
    ),
    Mistake(
        "an augmentation that gives NaN",
        (
            "augment: returned what the model cannot take",
            "not finite",
        ),
        """
def task():
    return of(augment=lambda x: x / 0 * 0)
""",
        line="return of(augment=lambda x: x / 0 * 0)",
    ),
    Mistake(
        "bounds that the score leaves",
        (
            "outside of its bounds 0 to 1",
            "score_bounds",
        ),
        """
def task():
    return of(score=lambda o, t: o[:, 0] * 100, score_bounds=(0, 1))
""",
    ),
    Mistake(
        "bounds the wrong way round",
        ("two finite numbers, the smaller one first",),
        """
def task():
    return of(score=lambda o, t: o[:, 0], score_bounds=(1, 0))
""",
    ),
    Mistake(
        "targets= names what is not there",
        (
            "no column 'labels', which targets= names",
            "x, label",
        ),
        """
class Own(Dataset):
    def __len__(self):
        return 100

    def __getitem__(self, i):
        return {"x": X[i], "label": Y[i]}


def task():
    return of(test=Own(), train=None, targets="labels")
""",
    ),
)
