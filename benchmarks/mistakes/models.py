"""Mistakes in the model."""

from __future__ import annotations

from mistakes.kinds import Mistake

MODELS = (
    Mistake(
        "a state dict in place of the module",
        (
            "mine.py: model() returned a state dict",
            "load_state_dict()",
        ),
        """
def model():
    return net().state_dict()
""",
    ),
    Mistake(
        "a class that needs arguments",
        (
            "mine.py: model() cannot be called without arguments",
            "'classes'",
        ),
        """
class model(Net):
    def __init__(self, classes):
        super().__init__()
""",
    ),
    Mistake(
        "a model that raises while it is built",
        (
            "Missing key(s) in state_dict",
            "Correct it there",
        ),
        """
def model():
    net().load_state_dict({})
""",
        line="net().load_state_dict({})",
    ),
    Mistake(
        "a model on the meta device",
        ("no weights: 'conv.weight' is on the meta device",),
        """
def model():
    with torch.device("meta"):
        return Net()
""",
    ),
    Mistake(
        "a model with a lazy layer",
        (
            "no weights yet",
            "Call the model once",
        ),
        """
def model():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
""",
    ),
    Mistake(
        "weights with NaN",
        (
            "not finite",
            "weights fc.weight are not finite",
        ),
        """
def model():
    m = net()
    m.fc.weight.data[0] = float("nan")
    return m
""",
    ),
    Mistake(
        "forward takes two inputs, the data give one",
        (
            "missing 1 required positional argument: 'mask'",
            "def forward(self, x, mask)",
        ),
        """
class Two(Net):
    def forward(self, x, mask):
        return super().forward(x * mask)


def model():
    return net(Two)
""",
    ),
    Mistake(
        "forward takes one input, the data give two",
        (
            "takes 2 positional arguments but 3 were given",
            "def forward(self, x)",
        ),
        """
def task():
    return of(train=((X, X), Y), test=((X + 1, X), Y))
""",
    ),
    Mistake(
        "forward returns loss and logits with labels",
        (
            "missing 1 required positional argument: 'labels'",
            "def forward(self, x, labels)",
        ),
        """
class Own(Net):
    def forward(self, x, labels):
        return nn.functional.cross_entropy(super().forward(x), labels)


def model():
    return net(Own)
""",
    ),
    Mistake(
        "forward returns the loss alone",
        (
            "needs outputs of shape (n, classes), not ()",
            "no loss",
        ),
        """
class Own(Net):
    def forward(self, x):
        return super().forward(x).mean()


def model():
    return net(Own)
""",
    ),
    Mistake(
        "forward returns None",
        (
            "returns a NoneType without tensors",
            "Return a tensor",
        ),
        """
class Own(Net):
    def forward(self, x):
        super().forward(x)


def model():
    return net(Own)
""",
    ),
    Mistake(
        "forward returns the chosen classes",
        (
            "needs outputs of shape (n, classes), not (2,)",
            "no chosen class",
        ),
        """
class Own(Net):
    def forward(self, x):
        return super().forward(x).argmax(1)


def model():
    return net(Own)
""",
    ),
    Mistake(
        "forward returns numpy",
        ("returns a ndarray without tensors",),
        """
class Own(Net):
    def forward(self, x):
        return super().forward(x).detach().numpy()


def model():
    return net(Own)
""",
    ),
    Mistake(
        "forward has a bug",
        (
            "mat1 and mat2 shapes",
            "Check that data",
        ),
        """
class Own(Net):
    def forward(self, x):
        return self.fc(x.view(len(x), -1))


def model():
    return net(Own)
""",
        line="return self.fc(x.view(len(x), -1))",
    ),
    Mistake(
        "forward uses a layer that does not exist",
        ("has no attribute 'head'",),
        """
class Own(Net):
    def forward(self, x):
        return self.head(x)


def model():
    return net(Own)
""",
        line="return self.head(x)",
    ),
    Mistake(
        "forward branches on the data",
        (
            "cannot be exported",
            "torch.where",
        ),
        """
class Own(Net):
    def forward(self, x):
        if x.sum() > 0:
            return super().forward(x)
        return super().forward(-x)


def model():
    return net(Own)
""",
        line="if x.sum() > 0:",
    ),
    Mistake(
        "forward draws at random",
        (
            "differs by",
            "randomness",
        ),
        """
class Own(Net):
    def forward(self, x):
        return super().forward(x + torch.rand_like(x))


def model():
    return net(Own)
""",
    ),
    Mistake(
        "the model is a function",
        ("model() returned a function, not an nn.Module",),
        """
def model():
    return nn.functional.relu
""",
    ),
    Mistake(
        "the model is a list of layers",
        ("model() returned a list, not an nn.Module",),
        """
def model():
    return [nn.Flatten(), nn.Linear(192, 3)]
""",
    ),
    Mistake(
        "the model is the class",
        ("model() returned the class Net, not an nn.Module",),
        """
def model():
    return Net
""",
    ),
    Mistake(
        "the model calls exit()",
        (
            "SystemExit: usage",
            "__main__",
        ),
        """
def model():
    raise SystemExit("usage: train.py")
""",
        line='raise SystemExit("usage: train.py")',
    ),
    Mistake(
        "the file reads its arguments",
        (
            "SystemExit",
            "__main__",
        ),
        """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", required=True)
args = parser.parse_args()
""",
        line="args = parser.parse_args()",
    ),
    Mistake(
        "the file opens a file that is not there",
        (
            "FileNotFoundError",
            "weights.bin",
        ),
        """
WEIGHTS = open("weights.bin")
""",
        line='WEIGHTS = open("weights.bin")',
    ),
    Mistake(
        "a syntax error",
        (
            "SyntaxError: expected ':'",
            "mine.py, line",
        ),
        """
def model()
    return net()
""",
    ),
    Mistake(
        "the module asks for CUDA",
        ("CUDA",),
        """
def model():
    return net().cuda()
""",
        line="return net().cuda()",
    ),
)
