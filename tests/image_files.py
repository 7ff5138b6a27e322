"""Files of images, written as tests need them and Pillow does not."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    """Write a file by Pillow."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def box(kind: bytes, *parts: bytes) -> bytes:
    """Write a box, as AVIF, HEIF, CR3 and MP4 consist of."""
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    """Write a chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(*chunks: bytes) -> bytes:
    """Write a PNG of chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_png16(values: np.ndarray) -> bytes:
    """Write (H, W, C) uint16 as PNG, which Pillow cannot; every other row is filtered by difference."""
    height, width, channels = values.shape
    lines = []
    for i, row in enumerate(values.astype(">u2")):
        line = np.frombuffer(row.tobytes(), np.uint8)
        if i % 2:
            before = np.concatenate([np.zeros(2 * channels, np.uint8), line[: -2 * channels]])
            line = line - before
        lines.append(bytes([i % 2]) + line.tobytes())
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    data = zlib.compress(b"".join(lines))
    return png(chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))


def write_tiff(
    values: np.ndarray,
    order: str,
    photometric: int = 2,
    extra: tuple[int, ...] = (),
    sample_format: int = 1,
) -> bytes:
    """Write (H, W, C) as an uncompressed TIFF of one strip; ``extra`` says what its further channels are."""
    height, width, number = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    tags = {256: [width], 257: [height], 258: [8 * values.itemsize] * number, 259: [1]}
    tags |= {262: [photometric], 273: [0], 277: [number], 278: [height], 279: [len(data)]}
    tags |= {338: list(extra)} if extra else {}
    tags |= {339: [sample_format]}
    end = 8 + 2 + 12 * len(tags) + 4
    tags[273] = [end + sum(2 * len(v) for v in tags.values() if len(v) > 2)]
    more, entries = b"", b""
    for tag, numbers in tags.items():
        kind, letter = (4, "I") if tag in (273, 279) else (3, "H")
        packed = struct.pack(f"{order}{len(numbers)}{letter}", *numbers)
        if len(packed) > 4:
            packed, more = struct.pack(f"{order}I", end + len(more)), more + packed
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return head + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + more + data
