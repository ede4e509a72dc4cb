"""The progress of long loops in a chapter."""

from course import chapter


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
