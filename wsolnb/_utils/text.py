"""Text files as people have them, with a byte order mark or without one and the line ends of any system; and tables."""

from __future__ import annotations

from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Sequence
from pathlib import Path


def read_lines(path: Path) -> list[str]:
    r"""The lines of a text file, UTF-8 or marked UTF-16, without empty ones at the end.

    Raises:
        ValueError: The file has another encoding; file and line are named.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "a.txt").write_text("cat\r\ndog\r\n", encoding="utf-8-sig")
        ...     read_lines(Path(folder) / "a.txt")
        ['cat', 'dog']
    """
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line, byte = data.count(b"\n", 0, error.start) + 1, data[error.start]
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"{path}, line {line}: byte 0x{byte:02x} is no {name}: save it as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line} has a byte 0, as UTF-16 without a mark has: save it as UTF-8")
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    return text.split("\n") if text else []


def markdown_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    r"""The lines of a Markdown table; white space in cells becomes one blank, and `|` is escaped.

    Example:
        >>> markdown_table(["a", "b"], [[1, "x | y"]])
        ['| a | b |', '| --- | --- |', '| 1 | x \\| y |']
    """
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in row) + " |" for row in cells]
