"""The page in a real browser: sorted, filtered, culled, opened, compared, by mouse, by keyboard and on a phone."""

import csv
import io
import json
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def page(tab, report):
    """The report, freshly opened at the size of a desktop."""
    tab.errors.clear()
    tab.resize(1280, 900)
    tab.open(report.as_uri())
    tab.run("localStorage.clear()")
    tab.open(report.as_uri())
    yield tab
    assert tab.errors == []


def scores(page):
    """What stands on the cards made so far."""
    return page.run(
        "[...document.querySelectorAll('.card .line b')].map(node => Number(node.textContent))"
    )


def text(page, selector):
    return page.run(f"document.querySelector({selector!r}).textContent")


def says(page, selector, wanted):
    """Whether an element comes to say that."""
    return page.becomes(f"document.querySelector({selector!r})?.textContent", wanted)


def is_open(page, wanted=True):
    return page.becomes("document.querySelector('dialog').open", wanted)


def choose(page, selector, value):
    page.run(
        f"(() => {{ const node = document.querySelector({selector!r}); node.value = {value!r};"
        "node.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def test_it_opens_with_the_worst_first_and_makes_more_cards_as_one_scrolls(page):
    assert text(page, "h1") == "130 photos, by quality"
    assert text(page, "#count") == "130 of 130 shown"
    made = scores(page)
    assert made == sorted(made)
    assert made[0] == 0.01
    assert len(made) < 130
    scrolled = (
        "(scrollTo(0, document.body.scrollHeight), document.querySelectorAll('.card').length)"
    )
    assert page.becomes(scrolled, 130)


def test_a_hostile_name_is_text(page):
    choose(page, "#search", "script")
    assert text(page, ".card .name") == "<_script><b>7.jpg"
    assert page.run("document.querySelectorAll('.cards b').length") == 1


@pytest.mark.parametrize(("order", "first"), [("best", 0.93), ("name", 0.06), ("groups", 0.38)])
def test_it_sorts(page, order, first):
    choose(page, "#sort", order)
    assert scores(page)[0] == first


def test_it_filters_by_flaw_and_by_name(page):
    options = page.run(
        "[...document.querySelectorAll('#kind option')].map(node => node.textContent)"
    )
    assert options == [
        "any flaw or none (130)", "out of focus (13)", "noise (5)", "no flaw named (113)", "others of the same (3)",
    ]  # fmt: skip
    choose(page, "#kind", "noise")
    assert text(page, "#count") == "5 of 130 shown"
    assert "noise" in text(page, ".card .flaws")
    choose(page, "#search", "photo 10")
    assert text(page, "#count") == "1 of 130 shown"
    choose(page, "#kind", "none")
    assert text(page, "#count") == "8 of 130 shown"
    choose(page, "#search", "nowhere")
    assert text(page, "#nothing") == 'No photo shown has "nowhere" in its name.'
    assert not page.run("document.querySelector('#nothing').hidden")


def test_it_begins_with_what_is_recommended(page):
    assert (
        text(page, "#counts") == "47 keep \u00b7 42 check \u00b7 41 drop recommended from 0.60 on"
    )
    assert page.run("document.querySelectorAll('#histogram .line').length") == 1
    for show, number in (("keep", 47), ("check", 42), ("drop", 41), ("line", 14), ("all", 130)):
        choose(page, "#show", show)
        assert text(page, "#count") == f"{number} of 130 shown"
    choose(page, "#threshold", "0.9")
    assert text(page, "#counts").startswith("5 keep \u00b7 84 check \u00b7 41 drop")
    choose(page, "#threshold", "0.1")
    assert text(page, "#counts").startswith("117 keep \u00b7 0 check \u00b7 13 drop")


def test_only_the_best_of_the_same_can_be_kept(page):
    choose(page, "#kind", "groups")
    badges = page.run("[...document.querySelectorAll('.badge')].map(node => node.textContent)")
    assert badges == ["1 of 3 of the same", "1 of 3 of the same", "best of 3, but close"]
    page.click("#best")
    assert page.becomes("document.querySelectorAll('.card.drop').length", 2)
    assert text(page, "#counts").startswith("47 keep \u00b7 40 check \u00b7 43 drop")


def test_flags_and_stars_are_shown_undone_and_kept(page):
    page.run("document.querySelector('.card .open').focus()")
    for key in "p4":
        page.press(key)
    assert says(page, ".card .stars", "\u2605" * 4)
    assert page.run("document.querySelector('.card').className") == "card keep"
    assert text(page, "#counts").endswith("recommended from 0.60 on, 1 by your flags")
    page.click(".card:nth-child(2) [data-flag=P]")
    page.press("ArrowRight")
    page.press("x")
    page.open(page.run("location.href"))
    flags = "[...document.querySelectorAll('.card [aria-pressed=true]')].map(b => b.dataset.flag)"
    assert page.becomes(flags, ["P", "P", "X"])
    page.click(".card:nth-child(3) [data-flag=X]")
    assert page.becomes(flags, ["P", "P"])
    page.click("#undo")
    assert page.becomes(flags, ["P", "P", "X"])
    page.run("document.querySelector('.card .open').focus()")
    for key in "u0":
        page.press(key)
    assert page.becomes(flags, ["P", "X"])
    assert text(page, ".card .stars") == ""


def test_a_click_shows_the_file_and_its_maps_and_the_arrows_go_on(page):
    page.click(".card .open")
    assert is_open(page)
    assert page.becomes("document.querySelector('.photo img').src.endsWith('photo%200.jpg')", True)
    looks = page.run(
        "[...document.querySelectorAll('.views button')].map(node => node.textContent)"
    )
    assert looks[:2] == ["photo", "quality map"]
    assert looks[2] in ("blur", "noise", "dark")
    assert looks[3:] == ["query 1", "query 2", "query 3"]
    assert page.run("document.querySelector('canvas').hidden")
    page.click(".views button:nth-child(2)")
    assert page.becomes("document.querySelector('canvas').hidden", False)
    drawn = "(c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)"
    assert page.run(f"{drawn}(document.querySelector('canvas'))") > 3
    size = page.run(
        "(r => [r.width, r.height])(document.querySelector('canvas').getBoundingClientRect())"
    )
    assert size[0] / size[1] == pytest.approx(4 / 3, rel=0.03)
    page.click(".views button:nth-child(3)")
    assert says(page, ".scale", "not named herenamed firmly")
    page.click(".views summary")
    page.click(".views details button")
    assert says(page, ".scale", "looks littlelooks closely")
    page.run("document.querySelector('.close').focus()")
    for i in range(3):
        assert says(page, ".facts h2", f"photo {i}.jpg")
        page.press("ArrowRight")
    assert says(page, ".facts h2", "photo 3.jpg")
    assert "lifeiqa explain" in text(page, ".facts")  # maps of the three lowest scores only
    page.press("x")
    page.press("Escape")
    assert is_open(page, False)
    opened = "photo 3.jpg, score 0.03"
    assert page.becomes("document.activeElement.getAttribute('aria-label')", opened)
    assert page.run("document.activeElement.closest('.card').className") == "card drop"


def test_all_of_it_works_by_keyboard(page):
    page.run("document.querySelector('.card .open').focus()")
    page.press("ArrowRight")
    second = "photo 1.jpg, score 0.01"
    assert page.becomes("document.activeElement.getAttribute('aria-label')", second)
    page.press("c")
    page.press("ArrowDown")
    page.press("c")
    assert page.becomes("document.querySelectorAll('.both[aria-pressed=true]').length", 2)
    page.press("?")
    assert "stars" in text(page, "#keys")
    page.press("Escape")
    assert is_open(page, False)
    page.press("Enter")
    assert is_open(page)


PLACES = (
    "[...document.querySelectorAll('.photo')].map(n => [n.style.left, n.style.top, n.style.width])"
)


def test_two_photos_move_together_at_their_own_pixels(page):
    page.click(".card:nth-child(2) .both")
    assert says(page, "#tray", "choose one more to compareClear")
    page.click(".card:nth-child(4) .both")
    page.click("#tray .main")
    assert is_open(page)
    assert text(page, "#verdict") == (
        "Too close to call: 0.014 apart; of different scenes the scores are off by some 0.07."
    )
    assert page.run("document.querySelectorAll('.side').length") == 2
    page.run(
        "document.querySelectorAll('.stack').forEach(n => { n.style.width = n.style.height = '80px'; })"
    )
    assert page.becomes(f"{PLACES}[0][2]", "80px")
    page.run("document.querySelector('.stack').click()")
    assert page.becomes(PLACES, [["-40px", "-20px", "160px"]] * 2)
    page.run("document.querySelector('.stack').focus()")
    page.press("ArrowRight")
    assert page.becomes(PLACES, [["-80px", "-20px", "160px"]] * 2)
    page.press("x")
    assert page.becomes(
        "document.querySelectorAll('.side [aria-pressed=true][data-flag=X]').length", 1
    )
    page.press("Escape")
    assert is_open(page, False)
    page.click("#tray button:last-child")
    assert page.becomes("document.querySelector('#tray').hidden", True)
    assert page.run("document.querySelectorAll('.both[aria-pressed=true]').length") == 0


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (
            {"score": 0.51},
            "Too close to call: 0.010 apart; two shots of one scene differ by up to 0.02 by chance.",
        ),
        (
            {"score": 0.53},
            "a is better by 0.030; two shots of one scene differ by up to 0.02 by chance.",
        ),
        ({"copy": 1}, "This is the same picture twice."),
        (
            {"score": 0.6, "group": None},
            "a is better by 0.100; of different scenes the scores are off by some 0.07.",
        ),
    ],
)
def test_when_one_of_two_is_called_better(page, second, says):
    one = {"name": "b", "score": 0.5, "std": 0.05, "group": 4, "copy": 1, "chance": 0.02}
    assert (
        page.run(f"judge({json.dumps(one | {'name': 'a', 'copy': 2} | second)}, {json.dumps(one)})")
        == says
    )


HOSTILE = [
    "it's.jpg", "two\nlines.jpg", "-rf.jpg", "a; rm x.jpg", "$(touch x) `y`.jpg", 'say "hi" \\.jpg', "\udcff.jpg",
    "deep/\u2019 \u56f3.jpg",
]  # fmt: skip


def run_bash(script, folder):
    return subprocess.run(["bash"], input=script, capture_output=True, text=True, cwd=folder)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash on this machine")
def test_a_script_moves_photos_and_one_moves_them_back(page, tmp_path):
    photos, dropped = tmp_path / "my 'photos'", tmp_path / "-dropped"
    for number, name in enumerate(HOSTILE):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text(str(number))
    page.run(f"data.base = {json.dumps(str(photos))}; data.dropped = {json.dumps(str(dropped))}")
    listed = json.dumps([{"path": name} for name in HOSTILE])
    away, back = (page.run(f"toScript('bash', {listed}, {is_back})") for is_back in ("0", "1"))
    for script, full, empty in ((away, dropped, photos), (back, photos, dropped)):
        done = run_bash(script, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert [(full / name).read_text() for name in HOSTILE] == [*map(str, range(len(HOSTILE)))]
        assert not [path for path in empty.rglob("*") if path.is_file()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["-dropped", "my 'photos'"]
    (dropped / "it's.jpg").write_text("another")
    assert "left where it is, the name is taken" in run_bash(away, tmp_path).stderr
    assert (photos / "it's.jpg").read_text() == "0"


def test_powershell_takes_a_name_as_one_word(page):
    assert page.run('quotePowerShell("it\'s \\u2019 $x `y")') == "'it''s \u2019\u2019 $x `y'"


def test_what_is_saved(page):
    page.run("save = (name, text) => { window.saved = [name, text]; }")
    page.click("#export summary")
    page.click("#save-csv")
    assert page.becomes("saved[0]", "photos.csv")
    rows = list(csv.DictReader(io.StringIO(page.run("saved[1]"))))
    assert len(rows) == 130
    assert rows[0]["path"].endswith("/photos/photo 0.jpg")
    row = rows[5]
    assert (row["score"], row["verdict"], row["sentence"]) == (
        "0.0429",
        "drop",
        "bad: cause not named",
    )
    for button, number in (("kept", 47), ("dropped", 41)):
        page.click(f"#save-{button}")
        assert page.becomes("saved[1].trim().split('\\n').length", number)
    for button, name, number in (("move", "move-dropped.sh", 41), ("back", "move-back.sh", 130)):
        page.click(f"#save-{button}")
        assert page.becomes("saved[0]", name)
        assert page.run("saved[1].match(/^move '/gm).length") == number


def test_only_what_is_kept_is_printed(page):
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.call("Emulation.setEmulatedMedia", media="print")
    visible = "[...document.querySelectorAll('.card')].filter(n => n.offsetParent).length"
    assert page.becomes(visible, 47)
    controls = "[...document.querySelectorAll('button:not(.open), select, input')]"
    assert page.run(f"{controls}.filter(node => node.offsetParent).length") == 0
    page.call("Emulation.setEmulatedMedia", media="")


def test_images_without_a_score_are_listed(page):
    assert text(page, "#failed h2") == "Not scored: 1"
    assert "damaged image" in text(page, "#failures")


def test_on_a_phone_nothing_sticks_out_and_two_photos_are_seen_together(page):
    page.resize(390, 844, phone=True)
    assert page.becomes("document.documentElement.scrollWidth", 390)
    page.click(".card .open")
    assert is_open(page)
    width = page.run("document.querySelector('dialog').getBoundingClientRect().width")
    assert width == 390
    assert page.run("document.querySelector('dialog').scrollWidth") <= 390
    low = page.run(
        "Math.min(...[...document.querySelectorAll('dialog button')].map(b => b.offsetHeight || 99))"
    )
    assert low >= 32  # high enough for a finger
    page.run("compare([images[0], images[1]])")
    lowest = "document.querySelectorAll('.stack')[1].getBoundingClientRect().bottom <= innerHeight"
    assert page.becomes(lowest, True)
