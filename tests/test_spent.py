"""The table and the bars of where a run's seconds went."""

import json
import re
from pathlib import Path

import pytest

from ssl_utils.errors import CourseError
from ssl_utils.figures import spent
from ssl_utils.training.stopwatch import PARTS

SECONDS = dict(data=1.0, forward=2.0, backward=4.0, optimiser=0.5, logging=0.5, validation=1.5, looking=0.5)


def test_seconds_become_milliseconds_of_a_step_and_shares():
    found = spent.table(SECONDS, steps=20)
    assert found.loc["backward"].to_dict() == {"seconds": 4.0, "ms per step": 200.0, "share %": 40.0}
    assert found["share %"].sum() == pytest.approx(100) and "looking inside" in found.index
    assert len(spent.table(dict.fromkeys(PARTS, 1.0), steps=1)) == len(PARTS), "every part of a run has its row"


@pytest.mark.parametrize(("seconds", "steps"), [({"data": 0.0}, 5), (SECONDS, 0)])
def test_nothing_to_divide_is_said(seconds, steps):
    with pytest.raises(CourseError, match="nothing to divide"):
        spent.table(seconds, steps=steps)


def test_bars_are_as_long_as_the_table_says():
    found = spent.table(SECONDS, steps=20)
    (axes,) = spent.bars(found, title="a run").axes
    assert [bar.get_width() for bar in axes.patches] == list(found["ms per step"])
    assert [text.get_text() for text in axes.texts] == ["10 %", "20 %", "40 %", "5 %", "15 %", "5 %", "5 %"]
    colours = {bar.get_facecolor() for bar in axes.patches}
    assert len(colours) == 3, "data, network, monitoring"


def test_the_page_on_speed_shows_how_to_read_the_times_of_a_run(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs" / "speed.md").read_text(encoding="utf-8")
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "spent" in block]
    folder = tmp_path / "runs/phantom/laptop/pretrain/restoration"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({"spent": SECONDS, "last": {"step": 20}}))
    monkeypatch.chdir(tmp_path)
    exec(compile(source, "speed.md", "exec"), {})
    assert "backward" in capsys.readouterr().out and (folder / "spent.png").stat().st_size > 1000
    assert "(../figures/expected_cost_growth.png)" in page
