"""What scripts/bench makes of figures: ratios, spreads, plots that are well formed and in proportion."""

import sys
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "lib"))

from bench import growth, plots, profile, turns  # noqa: E402
from bench.measuring import Spread, stripe_event  # noqa: E402
from bench.report import Report, number  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


class Page(Report):
    """A report that nobody started a benchmark for."""

    def __init__(self):
        self.name, self.parts, self.files = "page", ["# Page"], {}


class Figures(unittest.TestCase):
    def test_numbers_keep_three_digits(self):
        self.assertEqual([number(value) for value in (0, 0.1234, 1.234, 12.34, 1234.5)], ["0", "0.12", "1.23", "12.3", "1,234"])

    def test_a_spread_is_the_median_and_both_ends(self):
        self.assertEqual(Spread.of([5, 1, 3]), Spread(3, 1, 5))

    def test_a_bar_is_met_or_missed(self):
        self.assertEqual([turns.verdict(140, 140), turns.verdict(140.1, 140)], ["met", "**missed**"])

    def test_growth_is_told_against_the_smallest(self):
        page = Page()
        growth.tables(page, "keys", [{"keys": 1, "us": 10}, {"keys": 1000, "us": 15}, {"keys": 1000, "us": 25}], "keys", {"us": "CPU"})
        self.assertIn("| 1,000 | **2.00 ×** | 20.0 (15.0–25.0) |", page.parts[-1])

    def test_an_event_has_about_its_size_and_a_place_for_its_number(self):
        event = stripe_event(2000)
        self.assertTrue(2000 <= len(event) < 2200, len(event))
        self.assertEqual(event.count("{n}"), 2)


class Plots(unittest.TestCase):
    def test_bars_are_in_proportion(self):
        svg = xml.fromstring(plots.bars("a < b", {"one": Spread(10, 9, 11), "two & three": Spread(20, 20, 20)}))
        widths = [float(bar.get("width")) for bar in svg.iter(f"{SVG}rect")][1:]
        self.assertAlmostEqual(widths[1] / widths[0], 2, places=1)
        self.assertIn("two & three", [text.text for text in svg.iter(f"{SVG}text")])

    def test_equal_factors_are_equally_far_apart_where_x_is_logarithmic(self):
        svg = xml.fromstring(plots.lines("rows", "rows", {"p50": [(10, 1), (100, 2), (1000, 3)]}, logarithmic=True))
        first, second, third = (float(point.get("cx")) for point in svg.iter(f"{SVG}circle"))
        self.assertAlmostEqual(second - first, third - second, delta=0.2)

    def test_nothing_measured_is_said(self):
        self.assertIn("nothing was measured", plots.lines("rows", "rows", {}))


class Flames(unittest.TestCase):
    SCRIPT = """
          1f inner::h0123456789abcdef
          2f outer+0x1b

          1f inner::h0123456789abcdef
          2f outer+0x1b

          3f alone
          2f outer+0x1b
"""

    def test_stacks_are_counted_from_the_outside_without_hashes(self):
        self.assertEqual(profile.folded(self.SCRIPT), {("outer", "inner"): 2, ("outer", "alone"): 1})

    def test_a_frame_is_as_wide_as_its_share(self):
        svg = xml.fromstring(profile.flame("all", profile.folded(self.SCRIPT)))
        frames = {group.find(f"{SVG}title").text: float(group.find(f"{SVG}rect").get("width")) for group in svg.iter(f"{SVG}g")}
        self.assertEqual(frames, {"outer: 100.0%": 1200, "inner: 66.7%": 800, "alone: 33.3%": 400})


class Data(unittest.TestCase):
    def test_raw_figures_are_csv_with_every_column(self):
        page = Page()
        page.data([{"round": 0, "us": 1.5}, {"round": 1, "gap": [1, 2]}], "raw")
        self.assertEqual(page.files["page-raw.csv"], 'round,us,gap\n0,1.5,\n1,,"[1, 2]"\n')


if __name__ == "__main__":
    unittest.main()
