"""What the first bytes of a file say it is, and what to do about one that is not read."""

from __future__ import annotations

from typing import NamedTuple

BYTES = 272
"""How many of the first bytes are looked at."""

CONVERT = "convert it to JPEG or PNG"
EXPORT = "export it as PNG"
FRAME = "take a frame of it, for example with ffmpeg"
GIVE = "give images"
RENDER = "render its pages to PNG first"
UNPACK = "unpack it"


class Kind(NamedTuple):
    """What a file is, and what to do; ``is_read`` where a file of that kind may well be read."""

    name: str
    advice: str
    is_read: bool = False


HEIF, AVIF = Kind("a HEIF", CONVERT, True), Kind("an AVIF", CONVERT, True)
VIDEO = Kind("a video (MP4 or QuickTime)", FRAME)
DRAWING = Kind("a drawing (SVG)", RENDER)
WEB_PAGE = Kind("a web page", "download the image itself")

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1 avci avcs".split())

STARTS: tuple[tuple[int, tuple[bytes, ...], Kind], ...] = (
    (0, (b"\xff\xd8\xff",), Kind("a JPEG", CONVERT, True)),
    (0, (b"\x89PNG\r\n\x1a\n",), Kind("a PNG", CONVERT, True)),
    (0, (b"II*\0", b"MM\0*"), Kind("a TIFF", CONVERT, True)),
    (0, (b"II+\0", b"MM\0+"), Kind("a BigTIFF", CONVERT, True)),
    (0, (b"8BPS",), Kind("a Photoshop file", "flatten it and save it as PNG or TIFF", True)),
    (0, (b"BM",), Kind("a BMP", CONVERT, True)),
    (0, (b"GIF8",), Kind("a GIF", CONVERT, True)),
    (0, (b"DDS ",), Kind("a DDS texture", CONVERT, True)),
    (0, (b"\0\0\1\0", b"icns"), Kind("an icon", CONVERT, True)),
    (0, (b"qoif",), Kind("a QOI", CONVERT, True)),
    (0, (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n"), Kind("a JPEG 2000", CONVERT, True)),
    (0, (b"\xff\x0a", b"\0\0\0\x0cJXL "), Kind("a JPEG XL", CONVERT, True)),
    (8, (b"WEBP",), Kind("a WebP", CONVERT, True)),
    (8, (b"AVI ",), Kind("a video (AVI)", FRAME)),
    (8, (b"WAVE",), Kind("sound (WAV)", GIVE)),
    (0, (b"\x1a\x45\xdf\xa3",), Kind("a video (Matroska or WebM)", FRAME)),
    (0, (b"\0\0\x01\xba", b"\0\0\x01\xb3"), Kind("a video (MPEG)", FRAME)),
    (0, (b"OggS",), Kind("a video or sound (Ogg)", FRAME)),
    (0, (b"FLV\x01",), Kind("a video (Flash)", FRAME)),
    (0, (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",), Kind("a video or sound (Windows Media)", FRAME)),
    (0, (b"ID3",), Kind("sound (MP3)", GIVE)),
    (0, (b"fLaC",), Kind("sound (FLAC)", GIVE)),
    (0, (b"%PDF",), Kind("a PDF", RENDER)),
    (0, (b"%!PS",), Kind("PostScript", RENDER)),
    (0, (b"\xc5\xd0\xd3\xc6",), Kind("PostScript (EPS)", RENDER)),
    (0, (b"\xd7\xcd\xc6\x9a",), Kind("a drawing (WMF)", RENDER)),
    (40, (b" EMF",), Kind("a drawing (EMF)", RENDER)),
    (0, (b"SIMPLE  =",), Kind("a FITS file of astronomy", CONVERT)),
    (0, (b"v/1\x01",), Kind("an OpenEXR", CONVERT)),
    (0, (b"#?RADIANCE", b"#?RGBE"), Kind("a Radiance HDR", CONVERT)),
    (0, (b"II\xbc\x01",), Kind("a JPEG XR", CONVERT)),
    (0, (b"BPG\xfb",), Kind("a BPG", CONVERT)),
    (0, (b"gimp xcf",), Kind("a GIMP file", EXPORT)),
    (0, (b"KRIT",), Kind("a Krita file", EXPORT)),
    (0, (b"PK\x03\x04",), Kind("a ZIP archive", UNPACK)),
    (0, (b"PK\x05\x06",), Kind("an empty ZIP archive", GIVE)),
    (0, (b"Rar!",), Kind("a RAR archive", UNPACK)),
    (0, (b"7z\xbc\xaf\x27\x1c",), Kind("a 7z archive", UNPACK)),
    (0, (b"\x1f\x8b",), Kind("compressed with gzip", UNPACK)),
    (0, (b"BZh",), Kind("compressed with bzip2", UNPACK)),
    (0, (b"\xfd7zXZ\0",), Kind("compressed with xz", UNPACK)),
    (0, (b"\x28\xb5\x2f\xfd",), Kind("compressed with zstd", UNPACK)),
    (257, (b"ustar",), Kind("a tar archive", "give its name an ending of .tar")),
    (0, (b"PAR1",), Kind("a Parquet table", "give its name an ending of .parquet")),
    (0, (b"\x93NUMPY",), Kind("a NumPy array", "load it, and give the array")),
    (0, (b"\x89HDF",), Kind("an HDF5 file", CONVERT)),
    (128, (b"DICM",), Kind("a DICOM image", CONVERT)),
    (0, (b"\x7fELF", b"MZ"), Kind("a program", GIVE)),
    (0, (b"SQLite format 3",), Kind("a database", GIVE)),
    (0, (b"version https://git-lfs",), Kind("a pointer of Git LFS, not the file", "run git lfs pull")),
    (0, (b"\0\5\x16\7",), Kind("an AppleDouble file, which holds no pixels", "give the file without ._")),
    (4, (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"), VIDEO),
)  # fmt: skip
"""Where the mark of a kind stands, and the bytes that it may be."""

TEXTS = (
    (b"<svg", DRAWING),
    (b"<html", WEB_PAGE),
    (b"<!doctype html", WEB_PAGE),
    (b"<?xml", Kind("XML", GIVE)),
    (b"{", Kind("JSON", GIVE)),
)


class UnsupportedError(ValueError):
    """An image that is not damaged, but of a kind that is not read."""


def kind_of(start: bytes) -> Kind | None:
    """Say what a file is by its first ``BYTES``; None if they are of no kind that is known."""
    if start[4:8] == b"ftyp":
        return _kind_of_boxes(start)
    for offset, marks, kind in STARTS:
        if start.startswith(marks, offset):
            return kind
    if start and not start.strip(b"\0"):
        return Kind("nothing but zeros", "copy it again, its content is lost")
    return _kind_of_text(start)


def _kind_of_boxes(start: bytes) -> Kind:
    """Tell apart what begins with a box of its brands: the main one, and those it is compatible with."""
    stop = min(int.from_bytes(start[:4], "big"), len(start))
    brands = {start[8:12], *(start[i : i + 4] for i in range(16, stop - 3, 4))}
    if brands & AVIF_BRANDS:
        return AVIF
    return HEIF if brands & HEIF_BRANDS else VIDEO


def _kind_of_text(start: bytes) -> Kind | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begin, kind in TEXTS:
        if text.startswith(begin):
            return kind
    if b"<svg" in text:
        return DRAWING
    if text and all(byte >= 32 or byte in b"\t\r\n\f" for byte in text[:200]):
        return Kind("text", GIVE)
    return None
