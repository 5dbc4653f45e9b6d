"""The parts of a report that are functions: texts, colours, labels that keep apart, figures of any shape."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from html import unescape
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.colors import Colormap, to_rgb

from mote.harness.drawing import CLASS_COLOURS, NARROW, RESONANCE, SEQUENTIAL, WIDE, Layout, drawing
from mote.harness.report.curve_drawings import Series, draw_direction, draw_dose, draw_thirds, draw_trade_off
from mote.harness.report.curve_tables import curve_tables
from mote.harness.report.embedding_figure import colourings, embed, thin
from mote.harness.report.figure_data import Bench
from mote.harness.report.generations_packet import pack_rows
from mote.harness.report.map_figures import draw_map, draw_resonance, spread_out
from mote.harness.report.model_text import HEAD, clip, compare, visible
from mote.harness.report.mt_bench_figure import draw_bench
from mote.harness.report.null_figure import NullParts, draw_null
from mote.harness.report.ranking_figure import NAMES, draw_rankings, ranking_rows
from mote.harness.report.token_figure import draw_tokens, panels_of
from mote.harness.report.transition_figure import Panel, draw_matrices, percent, shown
from mote.harness.science.transitions import transition_matrix
from mote.harness.store.token_rows import TokenRows, long_table

CLASSES = ("0-REFUSED", "1-ALIGNED", "2-REASONED")
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)


def lightness(colour: object) -> float:
    """Relative luminance: what is left of a colour in greyscale."""
    parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]  # type: ignore[arg-type]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@given(ANY_TEXT)
def test_nothing_that_acts_unseen_is_left(text: str) -> None:
    shown_text = visible(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown_text)
    shown_text.encode()


@given(ANY_TEXT, ANY_TEXT)
def test_marks_change_no_character(before: str, after: str) -> None:
    for text, marked in zip((before, after), compare(before, after), strict=True):
        assert unescape(re.sub("</?mark>", "", str(marked.head))) == unescape(visible(text[:HEAD])) or "&" in text


def test_only_what_the_other_has_not_is_marked() -> None:
    before, after = compare("the old bridge was opened in spring", "the old bridge was closed in spring")
    assert str(before.head) == "the old bridge was <mark>opened</mark> in spring"
    assert str(after.head) == "the old bridge was <mark>closed</mark> in spring"


def test_texts_that_share_nothing_are_marked_by_a_bar() -> None:
    before, after = compare("I cannot answer that.", "Trams stood still all day long.")
    assert before.whole
    assert after.whole
    assert "<mark>" not in before.head + after.head


def test_markup_in_a_marked_text_is_escaped() -> None:
    before, _ = compare("<b>bold words here</b> and <script>x</script>", "<b>bold words here</b> and nothing")
    assert "<script>" not in before.head
    assert "&lt;script&gt;" in str(before.head).replace("<mark>", "").replace("</mark>", "")


def test_clip_says_how_much_is_left_out() -> None:
    assert clip("x" * 1500, 500) == "x" * 500 + " … [1,000 more characters]"
    assert clip("short", 500) == "short"


def test_packet_keeps_a_text_once() -> None:
    frame = pd.DataFrame(
        {
            "prompt_id": ["a", "b"],
            "profile": ["baseline", "baseline"],
            "label": ["0-REFUSED", None],
            "raw": ["the same" * 100_000, "the same" * 100_000],
            "evidence": ['[{"rule": "r", "span": "s", "start": 0, "end": 1}]', None],
            "messages": [json.dumps([{"role": "user", "content": "What?"}])] * 2,
        }
    )
    packet = pack_rows(frame)
    assert packet.rows == 2
    assert packet.cut == 1
    assert len(packet.data) < 2000


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted), st.floats(0.1, 6))
def test_names_keep_apart_in_order_and_inside(wanted: list[float], gap: float) -> None:
    spots = spread_out(wanted, gap, 0, 100)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(spots))
    if gap * len(wanted) <= 100:
        assert min(spots) >= -1e-6
        assert max(spots) <= 100 + 1e-6
    far = all(b - a >= gap for a, b in pairwise(wanted))
    if far:
        assert spots == pytest.approx(wanted)


def test_shares_only_get_darker() -> None:
    values = [lightness(SEQUENTIAL(x)) for x in np.linspace(0, 1, 64)]
    assert all(b < a for a, b in pairwise(values))


def test_both_directions_of_resonance_get_dark_alike() -> None:
    ranking: Colormap = colormaps.get_cmap(RESONANCE)
    negative = [lightness(ranking(x)) for x in np.linspace(0.5, 0, 64)]
    positive = [lightness(ranking(x)) for x in np.linspace(0.5, 1, 64)]
    for side in (negative, positive):
        assert side[0] > 0.9
        assert all(b < a for a, b in pairwise(side))
        assert side[-1] < 0.04
    assert max(abs(a - b) for a, b in zip(negative, positive, strict=True)) < 0.08


def test_classes_differ_in_greyscale() -> None:
    values = sorted(lightness(colour) for colour in CLASS_COLOURS[:3])
    assert all(b - a > 0.03 for a, b in pairwise(values))


def test_states_that_never_occur_are_not_shown() -> None:
    before = pd.Series(["0-REFUSED", "1-ALIGNED"], index=["a", "b"])
    after = pd.Series(["DEGENERATE", "1-ALIGNED"], index=["a", "b"])
    assert shown([transition_matrix(before, after, CLASSES)]) == ([*CLASSES], [*CLASSES, "DEGENERATE"])


@pytest.mark.parametrize(("share", "text"), [(0.0, "0%"), (0.003, "0.3%"), (0.4, "40%"), (1.0, "100%"), (np.nan, "–")])
def test_small_share_is_not_rounded_away(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize("layout", [WIDE, NARROW], ids=lambda layout: layout.name)
@pytest.mark.parametrize("shape", [(1, 8), (6, 64), (58, 256)], ids=str)
def test_maps_of_any_shape_are_drawn_with_every_name(layout: Layout, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    ranking = rng.normal(size=shape)
    layers = tuple(range(3, 3 + shape[0]))
    experts = [(layers[i % shape[0]], (7 * i) % shape[1]) for i in range(min(8, shape[1]))]
    with warnings.catch_warnings(), drawing("test"):
        # A layout that does not fit is a warning of matplotlib's.
        warnings.simplefilter("error")
        buffer = io.BytesIO()
        draw_resonance(ranking, layers, experts, layout, "activations").savefig(buffer, format="svg")
        draw_map(rng.integers(0, 9, shape), layers, layout, "tokens").savefig(io.BytesIO(), format="svg")
    svg = buffer.getvalue().decode()
    assert all(f"({layer}, {expert})" in svg for layer, expert in experts)


@pytest.mark.parametrize("layout", [WIDE, NARROW], ids=lambda layout: layout.name)
def test_figures_of_outcomes_are_drawn_without_a_warning(layout: Layout) -> None:
    labels = pd.Series(["0-REFUSED", "1-ALIGNED", "2-REASONED", "TRUNCATED"] * 3000)
    after = pd.Series(["0-REFUSED", "DEGENERATE", "UNSCORED", "1-ALIGNED"] * 3000)
    matrix = transition_matrix(labels, after, CLASSES)
    values = pd.DataFrame({"kind": ["random-uniform"] * 60, "share": [0.0] * 50 + [0.1] * 9 + [0.9]})
    with warnings.catch_warnings(), drawing("test"):
        warnings.simplefilter("error")
        draw_matrices([Panel("Title", "note", matrix)] * 5, layout).savefig(io.BytesIO(), format="svg")
        tuned, p = ("Top 1 suppressed", 0.4, 0.3, 0.5), {"random-uniform": 0.0328, "retest": math.nan}
        svg = io.BytesIO()
        draw_null(NullParts(values, tuned, [0.02], p), layout).savefig(svg, format="svg")
        assert b"p = 0.033" in svg.getvalue()
        assert b"p open" in svg.getvalue()
        curves = curve_tables(*many_profiles(), "suppress-3", "all", "0-REFUSED")
        assert [len(frame) for frame in curves] == [3, 5, 4, 6]
        for figure in (
            draw_dose(curves.doses, curves.sets, 3, 0.05, layout),
            draw_direction(curves.direction, layout),
            draw_trade_off([Series("k", curves.doses, ["1", "3", "5"], "#000", "D", True)], curves.sets, "", layout),
            draw_thirds(curves.thirds, 0.05, layout),
        ):
            figure.savefig(io.BytesIO(), format="svg")
            assert figure.axes[0].get_title(loc="left")
            assert figure.axes[0].get_ylabel()


def test_what_a_curve_shows_is_named_within_the_figure() -> None:
    curves = curve_tables(*many_profiles(), "suppress-3", "all", "0-REFUSED")
    dose, direction = draw_dose(curves.doses, curves.sets, 3, 0.05, WIDE), draw_direction(curves.direction, WIDE)
    names = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in (dose, direction)]
    assert names[0] == [
        *("flips", "others changed", "broken text", "95% interval of flips"),
        *("others changed by another seed", "random sets of 3: least, mean, most"),
    ]
    assert names[1] == [
        *("flips", "reverse flips", "broken text", "95% interval of flips", "95% interval of reverse flips"),
        *("flips, other seed alone", "reverse flips, other seed alone"),
    ]


def test_rankings_stand_in_a_table_too() -> None:
    table = pd.DataFrame({"ranking": ["resonance", "causal"], "k": 5, "share": 0.1, "low": 0.0, "high": 0.3})
    table = table.assign(matched_mean=0.02, matched_max=0.15, spearman=[-0.1, math.nan])
    columns, rows = ranking_rows(table.assign(spearman_low=-0.2, spearman_high=0.1))
    assert columns == ["ranking", "agreement with the scan", "top 5 flips", "random sets of 5, mean (most)"]
    flips, sets = "10.0% (0.0% to 30.0%)", "2.0% (15.0%)"
    assert rows == [["resonance", "−0.10 (−0.20 to 0.10)", flips, sets], ["causal scan", "–", flips, sets]]
    assert ranking_rows(pd.DataFrame()) == ([], [])


def many_profiles() -> tuple[pd.DataFrame, dict[tuple[str, str], pd.DataFrame]]:
    """Profiles of every kind that curves sort, with matrices in which ever more of forty refused prompts flip."""
    named = [(f"suppress-{k}", "suppress", k, 0.0) for k in (5, 1, 3)]
    named += [("scale-3-2", "scale", 3, 2.0), ("scale-3-0.5", "scale", 3, 0.5), ("retest-1", "retest", 0, 1.0)]
    named += [("stimulate-3", "stimulate", 3, math.inf), ("late-1", "third", 1, 0.0), ("early-1", "third", 1, 0.0)]
    named += [("middle-1", "third", 1, 0.0), ("suppress-9", "other", 9, 0.0)]
    named += [(f"random-{kind}-{i}", f"random-{kind}", 3, 0.0) for kind in ("uniform", "layers") for i in (1, 2, 3)]
    before = pd.Series(["0-REFUSED"] * 40 + ["1-ALIGNED"] * 40)
    matrices = {}
    for flips, (name, *_) in enumerate(named):
        after = pd.Series(["1-ALIGNED"] * flips + ["0-REFUSED"] * (40 - flips) + ["1-ALIGNED"] * 40)
        matrices[name, "all"] = transition_matrix(before, after, CLASSES)
    return pd.DataFrame(named, columns=["profile", "kind", "k", "factor"]), matrices


def test_curves_sort_profiles_by_what_was_varied() -> None:
    curves = curve_tables(*many_profiles(), "suppress-3", "all", "0-REFUSED")
    assert list(curves.doses["k"]) == [1, 3, 5]
    assert list(curves.doses["flips_hits"]) == [1, 2, 0]
    assert list(curves.direction["profile"]) == ["suppress-3", "scale-3-0.5", "retest-1", "scale-3-2", "stimulate-3"]
    assert list(curves.thirds["part"]) == ["early", "middle", "late", "all"]
    # Early 8, middle 9, late 7 of 40, and the whole 2.
    assert list(curves.thirds["share"].iloc[:3]) == pytest.approx([8 / 2, 9 / 2, 7 / 2])
    assert list(curves.sets["flips_hits"]) == [11, 12, 13, 14, 15, 16]
    nothing = curve_tables(*many_profiles(), "suppress-3", "measured", "0-REFUSED")
    assert [len(frame) for frame in nothing] == [0, 0, 0, 0]


def test_single_tokens_show_the_longest_word_and_the_last_tokens() -> None:
    chosen = np.arange(12, dtype=np.uint16).reshape(3, 2, 2)
    prompts = [
        TokenRows("t/b", ("What", " happened", "?"), chosen),
        TokenRows("t/a", (" happened", " Rome", "<longest>"), chosen + 3),
    ]
    panels = panels_of(prompts, {"t/a": "0-REFUSED", "t/b": "1-ALIGNED"}, "0-REFUSED")
    assert [panel.note for panel in panels] == ["t/a", "t/a", "t/b"]
    assert panels[0].title.startswith("“Rome”, token 2")
    np.testing.assert_array_equal(panels[0].chosen, chosen[1] + 3)
    np.testing.assert_array_equal(panels[2].chosen, chosen[2])
    for layout in (WIDE, NARROW):
        draw_tokens(panels, (4, 7), 16, {(4, 5)}, layout).savefig(io.BytesIO(), format="svg")
    assert long_table(prompts, (4, 7), {}).groupby("prompt_id").size().tolist() == [12, 12]


def test_mt_bench_is_drawn_beside_the_papers_rows() -> None:
    rows = [(model, name, "all", 7.0 + i, 0) for model in ("a", "b") for i, name in enumerate(("coding", "math"))]
    scores = pd.DataFrame(rows, columns=["model", "category", "turn", "mean", "unscored"])
    bench = Bench("judge", ("a", "b"), scores.assign(low=scores["mean"] - 1, high=scores["mean"] + 1))
    for layout in (WIDE, NARROW):
        assert draw_bench(bench, layout).get_size_inches()[0] == layout.width


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 5000))
def test_embedded_prompts_are_few_enough_and_distinct(count: int) -> None:
    chosen = thin(count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, 2000)
    assert chosen[-1] == count - 1


def test_embedding_puts_like_maps_together() -> None:
    rng = np.random.default_rng(0)
    maps = rng.poisson(0.2, size=(60, 2, 16))
    maps[:30, 0, 3] += 6
    maps[30:, 1, 9] += 6
    points = embed(maps)
    first, second = points[:30], points[30:]
    apart = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert (
        apart > 2 * max(first.std(), second.std())
        or apart > np.linalg.norm(first - first.mean(axis=0), axis=1).mean() * 2
    )


def test_attributes_with_a_handful_of_values_give_panels() -> None:
    frame = pd.DataFrame(
        {
            "time": [f"in {year}" for year in range(1980, 1992)],
            "decade": ["1980s", "1990s", "relative"] * 4,
            "place_group": ["europe", "asia"] * 6,
        }
    )
    panels = colourings(["0-REFUSED", "1-ALIGNED"] * 6, frame, CLASSES)
    assert [panel.title for panel in panels] == ["by class", "by place", "by time"]
    shades = panels[2].colours
    assert lightness(shades["1980s"]) > lightness(shades["1990s"])
    assert list(shades)[-1] == "relative"


def test_only_the_causal_scan_is_said_to_be_itself_where_there_is_no_correlation() -> None:
    order = ["resonance", "router_weight_resonance", "resonance_last_token", "frequency", "causal"]
    table = pd.DataFrame({"ranking": order, "k": 5, "share": 0.1, "low": 0.0, "high": 0.3})
    table = table.assign(matched_mean=0.0, matched_max=0.1, spearman=0.1, spearman_low=0.0, spearman_high=0.2)
    table.loc[table["ranking"].isin(["frequency", "causal"]), ["spearman", "spearman_low", "spearman_high"]] = math.nan
    first = draw_rankings(table, order, WIDE).axes[0]
    assert [(text.get_text(), text.xy[1]) for text in first.texts] == [("none", 3), ("itself", 4)]  # type: ignore[attr-defined]
    assert [label.get_text() for label in first.get_yticklabels()] == [NAMES[name] for name in order]
