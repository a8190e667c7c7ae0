//! Charts of bars.

use std::fmt::Write;

use crate::results::digits;

/// Bars in groups, one below the other.
#[derive(Debug, Default)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) groups: Vec<Group>,
}

/// Bars that belong together.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// A value, and between which others it lies.
#[derive(Debug, Default)]
pub(crate) struct Bar {
    pub(crate) name: String,
    /// A class of the style sheet.
    pub(crate) class: String,
    pub(crate) value: f64,
    pub(crate) spread: (f64, f64),
}

const WIDTH: f64 = 420.0;
const NAMES: f64 = 120.0;
const LONGEST: f64 = 230.0;
const LINE: f64 = 15.0;
const GAP: f64 = 8.0;

impl Chart {
    /// The chart as an element of a page.
    pub(crate) fn svg(&self) -> String {
        let most = self.bars().map(|bar| bar.spread.1).fold(f64::MIN_POSITIVE, f64::max);
        let lines = self.groups.len() + self.bars().count();
        let height = lines as f64 * LINE + self.groups.len() as f64 * GAP + 2.0 * LINE;
        let mut svg = format!(
            "<svg width=\"{WIDTH}\" height=\"{height}\"><text class=\"title\" y=\"{LINE}\">{}</text>",
            self.title
        );
        let mut y = 2.0 * LINE;
        for group in &self.groups {
            let _ = write!(svg, "<text class=\"group\" y=\"{:.0}\">{}</text>", y + LINE - 4.0, group.name);
            y += LINE;
            for bar in &group.bars {
                bar.draw(y, most, &mut svg);
                y += LINE;
            }
            y += GAP;
        }
        svg.push_str("</svg>");
        svg
    }

    fn bars(&self) -> impl Iterator<Item = &Bar> {
        self.groups.iter().flat_map(|group| &group.bars)
    }
}

impl Bar {
    fn draw(&self, y: f64, most: f64, svg: &mut String) {
        let length = |value: f64| value / most * LONGEST;
        let (middle, text_y) = (y + LINE / 2.0, y + LINE - 4.0);
        let (from, to) = (NAMES + length(self.spread.0), NAMES + length(self.spread.1));
        let _ = write!(
            svg,
            "<text x=\"{:.0}\" y=\"{text_y:.0}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{}\" x=\"{NAMES}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\"/>\
             <path d=\"M{from:.1} {middle:.1}H{to:.1}\"/><text x=\"{:.0}\" y=\"{text_y:.0}\">{}</text>",
            NAMES - 6.0,
            self.name,
            self.class,
            y + 1.0,
            length(self.value),
            LINE - 3.0,
            to + 6.0,
            digits(self.value),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_that_of_the_largest_value() {
        let bar = |value: f64| Bar { value, spread: (value, value), ..Bar::default() };
        let chart =
            Chart { groups: vec![Group { bars: vec![bar(1.0), bar(4.0)], ..Group::default() }], ..Chart::default() };
        let svg = chart.svg();
        assert!(svg.contains("width=\"57.5\"") && svg.contains("width=\"230.0\""), "{svg}");
    }
}
