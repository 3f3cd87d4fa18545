import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "autocompress"
MOST_CHARACTERS = 100
# words that the field does not use, or that only the author would understand
OLD_WORDS = ("ladder", "way down", "ways down", "workbench", "on the shelf", "the journal", "design:")


def files() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert found
    return found


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield f"{path.relative_to(PACKAGE)}: {getattr(node, 'name', 'module')}", text


def comments(path: Path) -> Iterator[tuple[str, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield f"{path.relative_to(PACKAGE)}: line {token.start[0]}", token.string


def test_the_first_line_of_a_docstring_is_short() -> None:
    lines = ((where, text.splitlines()[0]) for path in files() for where, text in docstrings(path))
    assert [where for where, line in lines if len(line) > MOST_CHARACTERS] == []


def test_docstrings_and_comments_use_the_words_of_the_field() -> None:
    texts = ((where, text) for path in files() for where, text in (*docstrings(path), *comments(path)))
    found = [(where, word) for where, text in texts for word in OLD_WORDS if word in " ".join(text.lower().split())]
    assert found == []
