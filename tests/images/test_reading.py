"""Decode rules: one test for each line of ``docs/decoding.md``, and each way in which a file can be bad."""

from __future__ import annotations

import functools
import io
import os
import re
import threading

import numpy as np
import pytest
import torch
from image_files import encode, write_png16, write_tiff
from PIL import Image, ImageCms, ImageFile, ImageOps

from lifeiqa_plugin.images import opening
from lifeiqa_plugin.images.opening import check_image
from lifeiqa_plugin.images.reading import decode, decode_resized, read_image
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.images.resizing import resize

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (24, 36, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (24, 36, 3)).astype(np.uint16)


# What is decoded


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "TGA"])
def test_eight_bit_colors_are_taken_as_they_are(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encode(NOISE, kind, **options))
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_array_equal(decoded.pixels, NOISE)
    assert (decoded.height, decoded.width) == (24, 36)


def test_every_source_is_the_same_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(NOISE))
    tensor = torch.from_numpy(NOISE).permute(2, 0, 1)
    sources = [path, str(path), path.read_bytes(), path.open("rb"), Image.open(path), NOISE]
    sources += [tensor, tensor[None], NOISE.astype(np.uint16) * 257, tensor.float() / 255]
    for source in sources:
        np.testing.assert_allclose(read_image(source), tensor.float() / 255, atol=1e-7)
        if hasattr(source, "close"):
            source.close()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(NOISE, kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    decoded = decode(content)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert ((decoded.height, decoded.width) == (36, 24)) == (orientation >= 5)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_do_not_matter():
    content = encode(NOISE, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff\xff")
    assert decode(content).pixels.shape == (24, 36, 3)


def matrix_profile(swapped: bool) -> bytes:
    """Return sRGB's own profile, with red and green exchanged on request."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    if swapped:
        red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
        profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_profiles_are_applied(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encode(NOISE, kind, icc_profile=matrix_profile(True), **options))
    difference = decoded.pixels.astype(int) - NOISE[..., [1, 0, 2]]
    assert np.abs(difference).max() <= 1
    same = decode(encode(NOISE, kind, icc_profile=matrix_profile(False), **options))
    np.testing.assert_array_equal(same.pixels, NOISE)


def test_profiles_are_applied_to_16_bit_colors_and_below_transparency():
    swapped = matrix_profile(True)
    clear = np.dstack([NOISE, np.full((24, 36), 128, np.uint8)])
    decoded = decode(encode(clear, icc_profile=swapped)).pixels
    expected = 1 - 128 / 255 * (1 - NOISE[..., [1, 0, 2]] / 255)
    np.testing.assert_allclose(decoded, expected, atol=0.0025)


@pytest.mark.parametrize("profile", [b"no profile", matrix_profile(False)[:200]])
def test_profiles_that_cannot_be_read_are_ignored(profile):
    np.testing.assert_array_equal(decode(encode(NOISE, icc_profile=profile)).pixels, NOISE)


def test_profiles_of_another_color_space_are_ignored():
    gray = encode(NOISE[..., 0], icc_profile=matrix_profile(True))
    np.testing.assert_array_equal(decode(gray).pixels, np.repeat(NOISE[..., :1], 3, 2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(mode):
    image = Image.fromarray(np.dstack([NOISE, NOISE[..., 0]]))
    if mode == "P":
        image = image.quantize(64)
    image = image.convert(mode)
    expected = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    pixels = decode(encode(image)).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels * 255, np.asarray(expected.convert("RGB")), atol=1.01)


def test_a_transparent_color():
    content = encode(np.array([[10, 200]], np.uint8), transparency=10)
    np.testing.assert_allclose(decode(content).pixels[0, :, 0], [1, 200 / 255])


def test_an_opaque_alpha_channel_changes_nothing():
    opaque = np.dstack([NOISE, np.full((24, 36), 255, np.uint8)])
    np.testing.assert_array_equal(decode(encode(opaque)).pixels, NOISE)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray(kind):
    pixels = decode(encode(WIDE[..., 0], kind)).pixels
    np.testing.assert_allclose(pixels, np.repeat(WIDE[..., :1] / 65535, 3, 2), atol=1e-7)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_its_lower_bytes(channels):
    values = np.dstack([WIDE, np.full((24, 36), 65535, np.uint16)])[..., :channels]
    pixels = decode(write_png16(values)).pixels
    expected = np.broadcast_to(values[..., :3] / 65535, (24, 36, 3))
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_16_bit_transparency():
    values = np.dstack([WIDE, WIDE[..., :1]])
    expected = 1 - WIDE[..., :1] / 65535 * (1 - WIDE / 65535)
    np.testing.assert_allclose(decode(write_png16(values)).pixels, expected, atol=1e-6)


@pytest.mark.parametrize(("order", "compressed"), [("<", False), (">", False), ("<", True)])
def test_16_bit_color_tiff(order, compressed):
    cv2 = pytest.importorskip("cv2")  # of pyiqa; Pillow cannot write one
    written = cv2.imencode(".tiff", WIDE[..., ::-1])[1].tobytes()
    content = written if compressed else write_tiff(WIDE, order)
    np.testing.assert_allclose(decode(content).pixels, WIDE / 65535, atol=1e-6)


def test_float_tiff():
    values = RNG.random((24, 36), dtype=np.float32)
    pixels = decode(encode(Image.fromarray(values), "TIFF")).pixels
    np.testing.assert_array_equal(pixels, np.repeat(values[..., None], 3, 2))


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_tiff_whose_white_is_zero(kind):
    values = WIDE[..., :1].astype(kind)
    pixels = decode(write_tiff(values, "<", photometric=0)).pixels
    white = np.iinfo(kind).max
    pixels = pixels / 255 if kind == "u1" else pixels
    np.testing.assert_allclose(pixels, np.repeat(1 - values / white, 3, 2), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_modes_become_colors(mode):
    image = Image.fromarray(NOISE).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    np.testing.assert_array_equal(
        decode(encode(image, kind)).pixels, np.asarray(image.convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_newer_formats(kind):
    smooth = np.asarray(Image.fromarray(NOISE).resize((4, 4)).resize((64, 64)))
    pixels = decode(encode(smooth, kind, quality_layers=[0])).pixels
    assert np.abs(pixels.astype(int) - smooth).mean() < 8


def test_heif_where_its_codec_is_installed():
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(buffer)
    assert decode(buffer.getvalue()).pixels[32, 32].astype(int) == pytest.approx([255, 0, 0], abs=5)


@pytest.mark.parametrize(
    ("header", "package"),
    [(b"\0\0\0\x18ftypheic", "pillow-heif"), (b"\xff\x0a" + b"\0" * 9, "pillow-jxl-plugin")],
)
def test_a_missing_codec_is_named(monkeypatch, header, package):
    def not_installed(name):
        raise ImportError(name)

    monkeypatch.setattr("lifeiqa_plugin.pyiqa_compat.importlib.import_module", not_installed)
    monkeypatch.setattr(opening, "FORMATS", opening.COMMON)
    with pytest.raises(ImageError, match=f"needs pip install {package}"):
        decode(header)


def test_jpegs_may_be_decoded_smaller():
    content = encode(np.kron(NOISE, np.ones((20, 20, 1), np.uint8)), "JPEG")
    decoded = decode(content, at_least=100)
    assert decoded.pixels.shape == (120, 180, 3)
    assert (decoded.height, decoded.width) == (480, 720)
    assert decode(content, at_least=300).pixels.shape == (480, 720, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(Image.open(io.BytesIO(content)), "JPEG", exif=exif)
    decoded = decode(turned, at_least=100)
    assert decoded.pixels.shape == (180, 120, 3)
    assert (decoded.height, decoded.width) == (720, 480)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_resizing_while_decoding_is_resizing_afterwards(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(NOISE, "JPEG", exif=exif)
    whole = decode(content)
    seen = []

    def shape(height, width):
        seen.append((height, width))
        return 10, 17

    resized = decode_resized(content, shape)
    assert seen == [whole.pixels.shape[:2]] == [(resized.height, resized.width)]
    assert resized.pixels.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(resized.pixels, resize(whole.pixels, (10, 17)), atol=3e-7)


# What is refused


@functools.cache
def bad_contents() -> dict[str, bytes]:
    whole = encode(np.kron(NOISE, np.ones((9, 9, 1), np.uint8)), "PNG")
    jpeg = encode(np.kron(NOISE, np.ones((9, 9, 1), np.uint8)), "JPEG")
    return {
        "empty.jpg": b"",
        "text.jpg": b"<html>not found</html>",
        "noise.bin": bytes(range(1, 99)),
        "cut.png": whole[: len(whole) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "header.jpg": jpeg[:20],
        "damaged.png": whole[:200] + bytes(100) + whole[300:],
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "bomb.png": encode(Image.new("1", (20_000, 12_600))),
        "hot.tif": encode(Image.fromarray(np.full((4, 4), 1.5, np.float32)), "TIFF"),
        "nan.tif": encode(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
        "int.tif": encode(Image.fromarray(np.full((4, 4), 7, np.int32)), "TIFF"),
    }


@pytest.fixture
def make_bad(tmp_path):
    """Return a function that makes the bad file of a name in an empty folder."""
    content = bad_contents()

    def make(name: str):
        path = tmp_path / name
        if name in content:
            path.write_bytes(content[name])
        elif name == "folder.jpg":
            path.mkdir()
        elif name == "fifo.jpg":
            os.mkfifo(path)
        elif name == "link.jpg":
            path.symlink_to(tmp_path / "nowhere")
        elif name == "loop.jpg":
            path.symlink_to(path)
        return path

    return make


UNKNOWN = r"cannot be read as an image \(of no kind that is known\); expected JPEG, PNG or the like, so convert it"

TO_CONVERT = "; convert it to JPEG or PNG"

BAD = {
    "missing.jpg": "no such file",
    "empty.jpg": "empty file",
    "folder.jpg": "a folder, not a file",
    "fifo.jpg": "not a regular file, but a pipe, socket or device",
    "link.jpg": "link to a file that is not there",
    "loop.jpg": r"cannot be opened \(.*symbolic links.*\)",
    "text.jpg": r"cannot be read as an image \(it is a web page\); download the image itself",
    "script.eps": r"cannot be read as an image \(it is PostScript\); render its pages to PNG first",
    "noise.bin": UNKNOWN,
    "header.jpg": r"cannot be read as an image \(it is a JPEG that its reader refuses: .*\); convert it to JPEG or PNG",
    "cut.png": r"damaged image \(image file is truncated.*\)",
    "cut.jpg": r"damaged image \(the last 5\d % of it are missing\)",
    "damaged.png": r"damaged image \(.+\)",
    "bomb.png": r"too large \(20000 x 12600, 252 megapixels; at most 250 are decoded\); shrink it, or raise max_pixels",
    "hot.tif": r"cannot be read as an image \(float pixels must lie in \[0, 1\], got 1.5 to 1.5\)"
    + TO_CONVERT,
    "nan.tif": r"cannot be read as an image \(float pixels must lie in \[0, 1\], got nan to nan\)"
    + TO_CONVERT,
    "int.tif": r"cannot be read as an image \(pixels are 32-bit integers, whose white is not known\)"
    + TO_CONVERT,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(make_bad, name):
    path = make_bad(name)
    with pytest.raises(ImageError, match=f"^{re.escape(str(path))}: ({BAD[name]})$") as caught:
        decode(path)
    assert re.fullmatch(BAD[name], caught.value.reason)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """Tests may run as root, who may read everything."""
    (tmp_path / "a.png").write_bytes(encode(NOISE))

    def refuse(*arguments, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: no permission to read it$"):
        decode(tmp_path / "a.png")


def test_names_become_one_line_of_valid_text(tmp_path):
    undecodable = os.fsdecode(b"caf\xe9.png")
    (tmp_path / undecodable).write_bytes(encode(NOISE))
    assert decode(tmp_path / undecodable).pixels.shape == (24, 36, 3)
    with pytest.raises(ImageError, match=r"gone/caf\\xe9\.png: no such file"):
        decode(f"gone/{undecodable}")
    with pytest.raises(ImageError, match=r"^two\\nlines: no such file$"):
        decode("two\nlines")
    with pytest.raises(ImageError, match=r"^<bytes>: cannot be read as an image"):
        decode(b"nothing")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"expected \(H, W\), .* got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"with no empty side, got \(0, 4, 3\)"),
        (np.zeros((4, 4, 3), np.int64), "must be uint8, uint16 or floating point, got int64"),
        (np.full((4, 4, 3), 255.0), r"must lie in \[0, 1\], got 255 to 255"),
        (torch.full((3, 4, 4), float("nan")), r"must lie in \[0, 1\], got nan to nan"),
        (torch.zeros(4, 4), r"expected \(1, H, W\) or \(3, H, W\) .* got \(4, 4\)"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(ImageError, match=message):
        decode(array)


def test_gray_and_transparent_arrays():
    gray = NOISE[..., 0]
    np.testing.assert_array_equal(decode(gray).pixels, np.repeat(gray[..., None], 3, 2))
    clear = np.zeros((2, 2, 4), np.uint8)
    np.testing.assert_array_equal(decode(clear).pixels, np.ones((2, 2, 3)))


def test_headers_are_checked_without_decoding(tmp_path):
    whole = encode(NOISE)
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    check_image(tmp_path / "cut.png")
    with pytest.raises(ImageError, match="no such file"):
        check_image(tmp_path / "gone.png")


def test_pillows_own_settings_are_put_back(monkeypatch):
    """In every thread Pillow refuses cut files, whatever pyiqa told it; afterwards pyiqa's wish stands again."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    whole = encode(np.kron(NOISE, np.ones((9, 9, 1), np.uint8)), "JPEG")
    outcomes = []

    def attempt():
        for _ in range(20):
            try:
                outcomes.append(decode(whole[: len(whole) // 2]))
            except ImageError:
                outcomes.append("refused")

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["refused"] * 80
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 5


def test_reading_imports_neither_torch_nor_pyiqa(run_python, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(NOISE))
    code = "import sys\nfrom lifeiqa_plugin.images.reading import decode\nfrom lifeiqa_plugin.images.resizing "
    code += "import resize\nresize(decode('a.png').pixels, (8, 8))\n"
    code += "print({'torch', 'pyiqa', 'pandas', 'scipy'} & set(sys.modules))"
    done = run_python("-c", code, cwd=tmp_path, PYTHONPATH=os.getcwd())
    assert done.stdout == "set()\n", done.stderr
