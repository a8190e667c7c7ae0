//! Plots of lines over logarithmic axes, on which a power of the size is a straight line.

use std::fmt::Write;

use crate::report::escaped;

/// Lines over a common pair of axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    /// What all lines show.
    pub title: String,
    /// What the axis from left to right counts.
    pub x: String,
    /// The unit of the axis from below to above.
    pub y: String,
    /// In the order of the legend.
    pub lines: Vec<Line>,
}

/// Points that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    /// As the legend calls it.
    pub name: String,
    /// From left to right. Those that have no place on a logarithmic axis are left out.
    pub points: Vec<Point>,
}

/// A value, and between which others it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The size.
    pub x: f64,
    /// The value.
    pub y: f64,
    /// The lowest and the highest value.
    pub spread: (f64, f64),
}

/// What a page with plots needs in its style sheet.
pub(crate) const STYLE: &str = "\
svg { font: 11px sans-serif; fill: #222 }
svg .title { font-size: 13px; font-weight: bold }
svg .decade { stroke: #ccc } svg .step { stroke: #f0f0f0 }
svg .line { fill: none; stroke: currentColor; stroke-width: 2 }
svg .spread { stroke: currentColor; stroke-opacity: .5; stroke-width: 4 }
svg circle { fill: currentColor }
.c0 { color: #1f6fb4 } .c1 { color: #d9731a } .c2 { color: #2c8c5a } .c3 { color: #b03a6f }";

/// The colours of that style sheet.
const COLOURS: usize = 4;

const WIDTH: f64 = 500.0;
/// Of the lines: titles, numbers and names lie around.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 484.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 286.0;
const TEXT: f64 = 17.0;

/// From a number to its place.
struct Axis {
    /// Logarithms to base ten.
    from: f64,
    to: f64,
    /// Where these lie.
    first: f64,
    last: f64,
}

impl Point {
    /// A value without others around it.
    #[must_use]
    pub fn single(x: f64, y: f64) -> Self {
        Point { x, y, spread: (y, y) }
    }

    fn has_place(&self) -> bool {
        [self.x, self.y, self.spread.0, self.spread.1].iter().all(|value| value.is_finite() && *value > 0.0)
    }
}

impl Line {
    fn placed(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|point| point.has_place())
    }
}

impl Plot {
    /// The plot as an element of a page; empty if there is no point.
    #[must_use]
    pub fn svg(&self) -> String {
        let points: Vec<&Point> = self.lines.iter().flat_map(Line::placed).collect();
        if points.is_empty() {
            return String::new();
        }
        let x = Axis::around(points.iter().map(|point| point.x), LEFT, RIGHT);
        let y = Axis::of_decades(points.iter().flat_map(|point| [point.spread.0, point.spread.1]), BOTTOM, TOP);
        let height = BOTTOM + TEXT * (self.lines.len() as f64 + 2.5);
        let (title, x_title, y_title) = (escaped(&self.title), escaped(&self.x), escaped(&self.y));
        let mut svg = format!(
            "<svg width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\
             <text class=\"title\" y=\"14\">{title}</text><text x=\"4\" y=\"{:.0}\">{y_title}</text>\
             <text x=\"{RIGHT}\" y=\"{:.0}\" text-anchor=\"end\">{x_title}</text>",
            TOP - 14.0,
            BOTTOM + 2.0 * TEXT,
        );
        y.draw_across(&mut svg);
        x.draw_upright(&mut svg);
        for (number, line) in self.lines.iter().enumerate() {
            let _ = write!(svg, "<g class=\"c{}\">", number % COLOURS);
            line.draw(&x, &y, &mut svg);
            line.draw_name(BOTTOM + TEXT * (number as f64 + 3.0), &mut svg);
            svg.push_str("</g>");
        }
        svg.push_str("</svg>");
        svg
    }
}

impl Line {
    fn draw(&self, x: &Axis, y: &Axis, svg: &mut String) {
        let mut path = String::new();
        for point in self.placed() {
            let (left, middle) = (x.place(point.x), y.place(point.y));
            let (low, high) = (y.place(point.spread.0), y.place(point.spread.1));
            let _ = write!(path, "{}{left:.1} {middle:.1}", if path.is_empty() { 'M' } else { 'L' });
            let _ = write!(
                svg,
                "<path class=\"spread\" d=\"M{left:.1} {low:.1}V{high:.1}\"/>\
                 <circle cx=\"{left:.1}\" cy=\"{middle:.1}\" r=\"3.5\"><title>{}: {}</title></circle>",
                label(point.x),
                label(point.y)
            );
        }
        let _ = write!(svg, "<path class=\"line\" d=\"{path}\"/>");
    }

    fn draw_name(&self, y: f64, svg: &mut String) {
        let (middle, name) = (y - 4.0, escaped(&self.name));
        let _ = write!(
            svg,
            "<path class=\"line\" d=\"M{LEFT} {middle}h24\"/><text x=\"{}\" y=\"{y}\">{name}</text>",
            LEFT + 32.0
        );
    }
}

impl Axis {
    /// From the lowest value to the highest, with a little space around them.
    fn around(values: impl Iterator<Item = f64>, first: f64, last: f64) -> Self {
        let (lowest, highest) = bounds(values);
        let space = (highest - lowest).max(1.0) * 0.04;
        Axis { from: lowest - space, to: highest + space, first, last }
    }

    /// From a power of ten to another one, so that there are two numbers at least and that flat lines look flat.
    fn of_decades(values: impl Iterator<Item = f64>, first: f64, last: f64) -> Self {
        let (lowest, highest) = bounds(values);
        let from = lowest.floor();
        Axis { from, to: highest.ceil().max(from + 1.0), first, last }
    }

    fn place(&self, value: f64) -> f64 {
        self.first + (value.log10() - self.from) / (self.to - self.from) * (self.last - self.first)
    }

    /// The powers of ten on the axis.
    fn decades(&self) -> impl Iterator<Item = f64> + use<> {
        (self.from.ceil() as i32..=self.to.floor() as i32).map(|power| 10_f64.powi(power))
    }

    /// What lies between these, and the class and place of each.
    fn lines(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let first = 10_f64.powi(self.from.floor() as i32);
        let before = std::iter::once(first).filter(|first| first.log10() < self.from);
        let steps = before.chain(self.decades()).flat_map(|decade| (2..10).map(move |step| decade * f64::from(step)));
        let steps = steps.map(|value| ("step", value)).filter(|(_, value)| {
            let log = value.log10();
            self.from <= log && log <= self.to
        });
        steps.chain(self.decades().map(|value| ("decade", value))).map(|(class, value)| (class, self.place(value)))
    }

    /// An axis from below to above: its lines go across.
    fn draw_across(&self, svg: &mut String) {
        for (class, y) in self.lines() {
            let _ = write!(svg, "<path class=\"{class}\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
        }
        for decade in self.decades() {
            let (x, y) = (LEFT - 6.0, self.place(decade) + 4.0);
            let _ = write!(svg, "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>", label(decade));
        }
    }

    fn draw_upright(&self, svg: &mut String) {
        for (class, x) in self.lines() {
            let _ = write!(svg, "<path class=\"{class}\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>");
        }
        for decade in self.decades() {
            let (x, y) = (self.place(decade), BOTTOM + TEXT);
            let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>", label(decade));
        }
    }
}

/// The logarithms of the lowest and of the highest.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lowest, highest), value| {
        (lowest.min(value.log10()), highest.max(value.log10()))
    })
}

/// Thousands apart; of small numbers, three digits.
fn label(value: f64) -> String {
    if value < 100.0 {
        let digits = if value < 0.01 { 4 } else { 2 };
        let text = format!("{value:.digits$}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Plot {
        let points = points.iter().map(|(x, y)| Point::single(*x, *y)).collect();
        Plot { lines: vec![Line { name: "a & b".to_owned(), points }], ..Plot::default() }
    }

    /// Where the points of a line lie.
    fn places(svg: &str) -> Vec<(f64, f64)> {
        let number = |text: &str| text.split('"').next().and_then(|number| number.parse().ok()).expect("a number");
        let circles = svg.split("<circle cx=\"").skip(1);
        circles.map(|circle| (number(circle), number(circle.split("cy=\"").nth(1).expect("a place")))).collect()
    }

    #[test]
    fn a_power_of_the_size_is_a_straight_line() {
        let places = places(&plot(&[(1.0, 20.0), (10.0, 200.0), (100.0, 2_000.0), (1000.0, 20_000.0)]).svg());
        let steps: Vec<_> = places.windows(2).map(|pair| (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1)).collect();
        assert_eq!(places.len(), 4);
        // To the right, and up, each as far as the first; to a tenth, as places are written.
        assert!(steps.iter().all(|step| step.0 > 0.0 && step.1 < 0.0), "{places:?}");
        assert!(steps.iter().all(|step| (step.0 - steps[0].0).abs() < 0.2 && (step.1 - steps[0].1).abs() < 0.2));
    }

    #[test]
    fn axes_have_numbers_at_powers_of_ten_that_lie_around_the_values() {
        let svg = plot(&[(3.0, 0.3), (4_096.0, 0.5)]).svg();
        let numbers: Vec<_> = svg.split("</text>").filter_map(|text| text.rsplit('>').next()).collect();
        assert!(["10", "100", "1,000", "0.1", "1"].iter().all(|number| numbers.contains(number)), "{numbers:?}");
        assert!(!numbers.contains(&"10,000") && !numbers.contains(&"0.01"), "{numbers:?}");
        let (places, ends) = (places(&svg), LEFT..=RIGHT);
        assert!(places.iter().all(|(x, y)| ends.contains(x) && (TOP..=BOTTOM).contains(y)), "{places:?}");
    }

    #[test]
    fn the_spread_is_within_the_plot_even_where_the_value_is_in_another_decade() {
        let mut plot = plot(&[(1.0, 5.0)]);
        plot.lines[0].points[0].spread = (0.5, 50.0);
        let svg = plot.svg();
        assert!(["0.1", "100"].iter().all(|number| svg.contains(&format!(">{number}</text>"))), "{svg}");
    }

    #[test]
    fn what_has_no_place_on_a_logarithmic_axis_is_left_out() {
        let svg = plot(&[(1.0, f64::NAN), (2.0, 7.0), (4.0, 0.0), (0.0, 7.0)]).svg();
        assert_eq!(places(&svg).len(), 1);
        assert_eq!(plot(&[(1.0, f64::NAN)]).svg(), "");
    }

    #[test]
    fn names_are_text_whatever_they_contain() {
        assert!(plot(&[(1.0, 1.0)]).svg().contains(">a &amp; b</text>"));
    }

    #[test]
    fn numbers_are_written_as_people_do() {
        let written = [0.001, 0.25, 1.0, 12.34, 100.0, 1234.5, 1e6].map(label);
        assert_eq!(written, ["0.001", "0.25", "1", "12.34", "100", "1,234", "1,000,000"]);
    }
}
