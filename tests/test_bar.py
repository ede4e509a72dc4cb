"""The frame of a chapter: the progress of long loops, and the end."""

import pytest

from course import chapter
from ssl_utils.errors import CourseError
from ssl_utils.figures import look
from ssl_utils.files import read_json


def test_headless_a_long_loop_is_one_line(capsys):
    progress = chapter.bar("Cached")
    for done in range(1, 101):
        progress(done, 100)
    shown = capsys.readouterr()
    assert shown.out == "Cached: 100 volumes\n"
    assert shown.err == ""


def test_live_a_bar_moves_and_closes(monkeypatch):
    import tqdm.auto

    bars = []

    class Bar:
        def __init__(self, total, desc, unit):
            self.n, self.total, self.closed = 0, total, False
            bars.append(self)

        def update(self, more):
            self.n += more

        def close(self):
            self.closed = True

    monkeypatch.setenv("JPY_SESSION_NAME", "chapter.ipynb")
    monkeypatch.delenv("SSL_HEADLESS", raising=False)
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    progress = chapter.bar("Examined", "cases")
    assert not bars, "nothing is shown before there is something to show"
    for done in (2, 3, 4):  # a loop may start in the middle: files that are there already
        progress(done, 4)
    assert [(bar.n, bar.total, bar.closed) for bar in bars] == [(4, 4, True)]


def test_the_end_of_a_chapter_is_its_cost_and_its_results(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    opened = chapter.start("05_results", scale="smoke", dataset="phantom", data=None, seed=0)
    with pytest.raises(CourseError, match=r"finish\(seconds=\.\.\.\): done\.json has this entry already") as error:
        opened.finish(seconds=0.1, floor=0.5)
    assert "\n" not in str(error.value) and not (opened.folder / "done.json").exists()
    opened.finish(floor=0.5)
    done = read_json(opened.folder / "done.json")
    assert (done["chapter"], done["floor"]) == ("05_results", 0.5) and done["peak_memory_gb"] > 0
    assert set(done) == {"chapter", "seconds", "peak_memory_gb", "versions", "floor"}
    assert capsys.readouterr().out.endswith(
        f"Chapter 05_results done: {done['seconds']:.0f} s, {done['peak_memory_gb']:.1f} GB at most.\n"
    )


def test_a_kept_figure_is_shown_as_it_was_saved(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_RUNS_ROOT", str(tmp_path))
    opened = chapter.start("05_results", scale="smoke", dataset="phantom", data=None, seed=0)
    figure, axes = look.sheet()
    axes.plot([0, 1])
    shown = opened.keep(figure, "line")
    (saved,) = tmp_path.rglob("05_results_line.png")
    assert shown._repr_png_() == saved.read_bytes()
    figure.kept = None
    assert figure._repr_png_() == saved.read_bytes(), "and as it is drawn"
