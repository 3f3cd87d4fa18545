"""The decoder in C, compiled here: the same files as from the others, and no memory error where they are damaged."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from autocompress.download import files
from autocompress.download.acz_decoder import AczError
from autocompress.download.decoder import unpacked_content
from autocompress.download.encoder import packed_content

from .small_files import PACKED, damaged, described_otherwise, small_file, tiny_file

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler on this machine")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
FAST, SLOW = 150, 10_000
# reads downloads with their sizes from standard input; for each a byte, 0 where it is the file of the first argument
DRIVER = """
#include "acz_decoder.c"
int main(int count, char **arguments) {
    static uint8_t wanted[1 << 20];
    FILE *file = fopen(arguments[count - 1], "rb");
    size_t wanted_size = fread(wanted, 1, sizeof wanted, file);
    uint32_t size;
    fclose(file);
    while (fread(&size, 4, 1, stdin) == 1) {
        uint8_t *download = malloc(size ? size : 1), *found = NULL;
        long long found_size;
        int result = 1;
        if (!download || fread(download, 1, size, stdin) != size) return 3;
        found_size = acz_size(download, size);
        if (found_size >= 0 && found_size <= 1 << 24 && (found = malloc((size_t)found_size + 1))) {
            result = acz_unpack(download, size, found, (size_t)found_size) ? 1 : 0;
            if (!result && ((size_t)found_size != wanted_size || memcmp(found, wanted, wanted_size))) result = 2;
        }
        putchar(result);
        free(found);
        free(download);
    }
    return 0;
}
"""


def compiled(folder: Path, source: str, name: str, *options: str) -> Path | None:
    """The compiled program; None where the compiler does not know an option."""
    assert COMPILER is not None
    (folder / "acz_decoder.c").write_text(files.decoder_source("c"))
    (folder / f"{name}.c").write_text(source)
    made = folder / name
    done = subprocess.run(
        [COMPILER, *STRICT, *options, str(folder / f"{name}.c"), "-o", str(made)], capture_output=True, check=False
    )
    if done.returncode and options:
        return None
    assert done.returncode == 0, done.stderr.decode()
    return made


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the address and undefined behaviour sanitizers where the compiler has them."""
    folder = tmp_path_factory.mktemp("c")
    made = compiled(folder, DRIVER, "sanitized", *SANITIZED) or compiled(folder, DRIVER, "plain")
    assert made is not None
    return made


def results(driver: Path, downloads: list[bytes], wanted: bytes) -> list[int]:
    known = driver.parent / "wanted"
    known.write_bytes(wanted)
    given = b"".join(struct.pack("=I", len(one)) + one for one in downloads)
    done = subprocess.run([str(driver), str(known)], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    assert len(done.stdout) == len(downloads)
    return list(done.stdout)


def agrees(driver: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    content = tiny_file()
    download = packed_content(content, PACKED)
    broken = [described_otherwise(download, random) for _ in range(count // 20)]
    broken += [damaged(download, random) for _ in range(count - len(broken))]
    found = results(driver, [download, *broken], content)
    assert found[0] == 0
    assert 2 not in found
    assert sum(found) > 0.9 * count
    for one, result in zip(broken[::10], found[1::10], strict=True):
        try:
            assert unpacked_content(one, 1 << 24) == content
            assert result == 0
        except AczError:
            assert result == 1


def test_damaged_downloads_end_in_an_error(driver: Path) -> None:
    agrees(driver, FAST, seed=2)


@pytest.mark.slow
def test_ten_thousand_damaged_downloads_end_in_an_error(driver: Path) -> None:
    agrees(driver, SLOW, seed=3)


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(5_000), tiny_file(), small_file(), small_file(channels=100, seed=1)]
)
def test_the_file_comes_back(driver: Path, content: bytes) -> None:
    assert results(driver, [packed_content(content, PACKED)], content) == [0]


@pytest.mark.parametrize("length", [55, 56, 63, 64, 65, 119, 120, 128])
def test_its_hash_is_sha256_at_each_length_of_the_last_block(driver: Path, length: int) -> None:
    content = bytes(range(length))
    assert results(driver, [packed_content(content)], content) == [0]


def test_the_program_writes_whole_files(tmp_path: Path) -> None:
    program = compiled(tmp_path, '#define ACZ_MAIN\n#include "acz_decoder.c"\n', "acz")
    assert program is not None
    content = small_file()
    download = packed_content(content, PACKED)
    source, target = tmp_path / "model.onnx.acz", tmp_path / "model.onnx"
    source.write_bytes(download)
    subprocess.run([str(program), str(source), str(target)], check=True)
    assert target.read_bytes() == content
    source.write_bytes(download[:-1])
    done = subprocess.run([str(program), str(source), str(tmp_path / "no")], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: ")
    assert sorted(path.name for path in tmp_path.glob("no*")) == []
