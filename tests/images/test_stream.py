"""Many images in order, in this process or in others that crash, hang and are replaced."""

from __future__ import annotations

import functools
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from lifeiqa_plugin.images.processes import Decoders, prepare_images
from lifeiqa_plugin.images.refusals import ImageError
from lifeiqa_plugin.images.stream import Named, Recipe
from lifeiqa_plugin.network.crops import working_shape

RECIPE = Recipe(functools.partial(working_shape, crop_size=8, working_size=16))


class WhenSent:
    """Calls a function in the process that receives it."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def gray(level: int) -> np.ndarray:
    return np.full((20, 30), level, np.uint8)


def levels(prepared) -> list[float | str]:
    return [item.error or round(float(item.image.mean()) * 255) for item in prepared]


@pytest.mark.parametrize("workers", [0, 2])
def test_order_errors_and_every_kind_of_source(tmp_path, workers):
    Image.fromarray(gray(1)).save(tmp_path / "1.png")
    content = (tmp_path / "1.png").read_bytes()
    known = ImageError("x: known to be bad", "known to be bad")
    sources = [str(tmp_path / "1.png"), tmp_path / "no.png", content, content[:50], known, gray(2)]
    with open(tmp_path / "1.png", "rb") as file, Image.open(tmp_path / "1.png") as image:
        sources += [file, image, torch.full((1, 20, 30), 3 / 255), 7, gray(4)]
        images = [Named(str(i), source) for i, source in enumerate(sources)]
        prepared = list(prepare_images(images, RECIPE, workers))
    assert [item.name for item in prepared] == [str(i) for i in range(len(sources))]
    found = levels(prepared)
    assert "damaged image" in found.pop(3) or "cannot be read" in found[3]
    expected = [1, "no such file", 1, "known to be bad", 2, 1, 1, 3]
    assert found[:8] == expected
    assert found[8].startswith("an image must be a path")
    assert found[9] == 4
    assert prepared[0].image.shape == (3, 16, 24)
    assert (prepared[0].width, prepared[0].height) == (30, 20)


def test_a_crash_or_a_hang_costs_one_image():
    sources = [gray(1), WhenSent(os._exit, 3), gray(2), WhenSent(os.abort), gray(3)]
    sources += [WhenSent(time.sleep, 600), gray(4)]
    images = [Named(str(i), source) for i, source in enumerate(sources)]
    found = levels(prepare_images(images, RECIPE, workers=2, time_limit=2))
    died = "the process that decoded it died"
    assert found == [
        1, f"{died} (exit status 3)", 2, f"{died} (signal 6)", 3, "took longer than 2 s", 4,
    ]  # fmt: skip


def test_threads_that_wait_for_their_own_image():
    """More of them than processes, one of which dies and one of which hangs."""
    sources = [
        gray(1),
        WhenSent(os._exit, 3),
        gray(3),
        WhenSent(time.sleep, 600),
        *map(gray, range(4, 9)),
    ]
    decode = Decoders(RECIPE, workers=2, time_limit=2)
    with ThreadPoolExecutor(6) as threads:
        found = levels(threads.map(decode, [Named("", source) for source in sources]))
    died = "the process that decoded it died (exit status 3)"
    assert found == [1, died, 3, "took longer than 2 s", *range(4, 9)]


def test_a_process_that_cannot_start_is_an_error_each_time():
    decode = Decoders(Recipe(WhenSent(os._exit, 3)), workers=1, time_limit=2)
    for _ in range(2):
        with pytest.raises(ChildProcessError, match=r"ended as it began \(exit status 3\)"):
            decode(Named("", gray(1)))


STOP = "os.kill(os.getpid(), signal.SIGSTOP)"
STOPPED = {
    "as it decodes": f"[{STOP}, level][1]",
    "as it sends": "[setattr(Connection, '_send', lambda self, data, write=None: "
    f"(os.write(self.fileno(), bytes(data[: len(data) // 2])), {STOP})), level][1]",
    "as it waits": f"[threading.Timer(0.3, lambda: {STOP}).start(), level][1]",
}


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no such signal here")
@pytest.mark.parametrize("how", STOPPED)
def test_a_process_that_is_stopped_costs_one_image(how):
    """Whatever it does at that moment: in the middle of an answer, or while a large file is sent to it."""
    imports = "import os, signal, threading, numpy as np; from multiprocessing.connection import Connection"
    first = f"level := np.full((20, 30), 1, np.uint8), {STOPPED[how]}"
    stopped = WhenSent(eval, f"[exec({imports!r}, globals()), {first}][-1]")
    large = np.full((2000, 3000), 2, np.uint8)

    def images():
        yield Named("stopped", stopped)
        time.sleep(0.8)
        yield Named("large", large)
        yield Named("last", gray(3))

    expected = [1, "took longer than 1 s", 3]
    if how != "as it waits":
        expected = ["took longer than 1 s", 2, 3]
    assert levels(prepare_images(images(), RECIPE, workers=1, time_limit=1)) == expected


def test_what_cannot_be_sent_to_a_process_costs_itself():
    images = [Named("a", lambda: None), Named("b", gray(1))]
    found = levels(prepare_images(images, RECIPE, workers=1))
    assert found[0].startswith("cannot be sent to a process (")
    assert found[1] == 1


def test_an_image_whose_process_died_is_tried_once_more_alone(tmp_path):
    """As where many large images at once took all memory: the second time, nothing else is in work."""
    flag = str(tmp_path / "tried")
    first = f"not os.path.exists({flag!r}) and (open({flag!r}, 'x').close(), os.abort())"
    code = f"[exec('import os, numpy as np'), {first}, np.full((20, 30), 5, np.uint8)][-1]"
    sources = [gray(1), WhenSent(eval, code), gray(2), gray(3)]
    images = [Named(str(i), source) for i, source in enumerate(sources)]
    assert levels(prepare_images(images, RECIPE, workers=2)) == [1, 5, 2, 3]


def test_processes_have_a_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    code = "np.full((20, 30), int(os.environ['OMP_NUM_THREADS']), np.uint8)"
    threads = WhenSent(eval, f"[exec('import os, numpy as np', d := {{}}), eval({code!r}, d)][1]")
    assert levels(prepare_images([Named("", threads)], RECIPE, workers=1)) == [1]
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_images_are_taken_as_they_are_needed():
    taken = []

    def images():
        for i in range(100):
            taken.append(i)
            yield Named(str(i), gray(i))

    stream = prepare_images(images(), RECIPE, workers=1)
    assert levels([next(stream), next(stream)]) == [0, 1]
    assert len(taken) < 12
    stream.close()


def test_nothing_is_nothing():
    assert list(prepare_images([], RECIPE, workers=1)) == []


def test_a_process_that_cannot_start():
    recipe = Recipe(WhenSent(os._exit, 7))
    with pytest.raises(
        ChildProcessError, match=r"ended as it began \(exit status 7\); in a script, put"
    ):
        list(prepare_images([Named("a", gray(1))], recipe, workers=1))
