"""The page in a real browser: sorted, filtered, culled, opened, compared, by mouse, by keyboard and on a phone."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def page(tab, report):
    """The report, freshly opened at the size of a desktop."""
    tab.errors.clear()
    tab.resize(1280, 900)
    tab.open(report.as_uri())
    yield tab
    assert tab.errors == []


def scores(page):
    """What stands on the cards made so far."""
    return page.run(
        "[...document.querySelectorAll('.card b')].map(node => Number(node.textContent))"
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
    assert page.run("document.querySelectorAll('main b').length") == 1


@pytest.mark.parametrize(
    ("order", "first"), [("best", 0.93), ("unsure", 0.93), ("name", 0.06), ("groups", 0.38)]
)
def test_it_sorts(page, order, first):
    choose(page, "#sort", order)
    assert scores(page)[0] == first


def test_it_filters_by_distortion_and_by_name(page):
    options = page.run(
        "[...document.querySelectorAll('#kind option')].map(node => node.textContent)"
    )
    assert options == [
        "all photos (130)", "blur (13)", "noise (5)", "dark (0)", "no distortion (113)", "near-duplicates (3)",
    ]  # fmt: skip
    choose(page, "#kind", "blur")
    assert text(page, "#count") == "13 of 130 shown"
    assert "blur" in text(page, ".card .flaws")
    choose(page, "#search", "photo 12")
    assert text(page, "#count") == "1 of 130 shown"
    choose(page, "#kind", "none")
    assert text(page, "#count") == "10 of 130 shown"


def test_the_threshold_counts_and_copies_what_is_kept(page):
    page.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
    assert text(page, "#kept") == "130 of 130 are kept at 0.00 and above"
    choose(page, "#threshold", "0.9")
    assert text(page, "#kept") == "5 of 130 are kept at 0.90 and above"
    assert page.run("document.querySelectorAll('.card.below').length") == len(scores(page))
    page.click("#copy")
    assert says(page, "#copied", "5 names copied, one on a line")
    names = page.run("copied").split("\n")
    assert sorted(names) == sorted(f"photos/photo {i}.jpg" for i in range(125, 130))
    page.click("#copy-below")
    assert says(page, "#copied", "125 names copied, one on a line")
    assert len(page.run("copied").split("\n")) == 125


def test_only_the_best_of_near_duplicates_can_be_kept(page):
    choose(page, "#kind", "groups")
    badges = page.run("[...document.querySelectorAll('.badge')].map(node => node.textContent)")
    assert badges == ["1 of 3 alike", "1 of 3 alike", "best of 3"]
    page.click("#best")
    assert says(page, "#kept", "1 of 3 are kept at 0.00 and above")


def test_a_click_shows_map_and_attention_and_the_arrows_go_on(page):
    page.click(".card .open")
    assert is_open(page)
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
    page.click(".views button:nth-child(4)")
    assert says(page, ".scale", "looks littlelooks closely")
    for i in range(3):
        assert says(page, ".facts h3", f"photos/photo {i}.jpg")
        page.press("ArrowRight")
    assert says(page, ".facts h3", "photos/photo 3.jpg")
    assert "lifeiqa explain" in text(page, ".facts")  # maps of the three lowest scores only
    page.press("Escape")
    assert is_open(page, False)
    opened = "photos/photo 3.jpg, score 0.03"
    assert page.becomes("document.activeElement.getAttribute('aria-label')", opened)


def test_all_of_it_works_by_keyboard(page):
    page.run("document.querySelector('.card .open').focus()")
    page.press("ArrowRight")
    second = "photos/photo 1.jpg, score 0.01"
    assert page.becomes("document.activeElement.getAttribute('aria-label')", second)
    page.press("c")
    page.press("ArrowDown")
    page.press("c")
    assert page.becomes("document.querySelectorAll('.pick:checked').length", 2)
    page.press("Enter")
    assert is_open(page)


def test_two_photos_stand_side_by_side_with_a_verdict(page):
    page.click(".card:nth-child(2) .pick")
    assert says(page, "#tray", "choose one more to compareClear")
    page.click(".card:nth-child(4) .pick")
    page.click("#tray .main")
    assert is_open(page)
    assert text(page, "#verdict").startswith("Too close to call: 0.01 apart")
    assert page.run("document.querySelectorAll('.side').length") == 2
    page.press("Escape")
    assert is_open(page, False)
    page.click("#tray button:last-child")
    assert page.becomes("document.querySelector('#tray').hidden", True)
    assert page.run("document.querySelectorAll('.pick:checked').length") == 0


def test_images_without_a_score_are_listed(page):
    assert text(page, "#failed h2") == "Not scored: 1"
    assert "damaged image" in text(page, "#failures")


def test_on_a_phone_nothing_sticks_out(page):
    page.resize(390, 844, phone=True)
    assert page.becomes("document.documentElement.scrollWidth", 390)
    page.click(".card .open")
    assert is_open(page)
    width = page.run("document.querySelector('dialog').getBoundingClientRect().width")
    assert width == 390
    assert page.run("document.querySelector('dialog').scrollWidth") <= 390
    low = page.run(
        "Math.min(...[...document.querySelectorAll('dialog button')].map(b => b.offsetHeight))"
    )
    assert low >= 32  # high enough for a finger
