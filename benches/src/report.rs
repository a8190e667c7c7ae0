//! What was measured, as text for documents and as a page for browsers.

use std::fmt::Write;

use crate::plot::{self, Plot};

/// Sections one below the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The name of the page.
    pub title: String,
    /// What whoever looks at it should know first.
    pub lead: String,
    /// What was measured.
    pub sections: Vec<Section>,
}

/// A table, plots of its figures, and what follows from them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// What it is about.
    pub title: String,
    /// The figures.
    pub table: Table,
    /// For the page alone.
    pub plots: Vec<Plot>,
    /// Sentences below the table.
    pub notes: Vec<String>,
}

/// Rows of as many cells as there are columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// What is in the cells.
    pub rows: Vec<Vec<String>>,
}

const STYLE: &str = "\
body { font: 14px sans-serif; margin: 2em; color: #222; background: #fff }
section { display: flex; flex-wrap: wrap; gap: 2em; align-items: flex-start }
table { border-collapse: collapse }
th, td { text-align: right; padding: .2em .8em; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }";

impl Report {
    /// All sections as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        self.sections.iter().map(Section::markdown).collect()
    }

    /// A page without anything outside of it.
    #[must_use]
    pub fn html(&self) -> String {
        let (title, lead) = (escaped(&self.title), escaped(&self.lead));
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
             <style>{STYLE}\n{}</style><h1>{title}</h1><p>{lead}</p>",
            plot::STYLE
        );
        self.sections.iter().for_each(|section| section.write_html(&mut page));
        page.push_str("</html>\n");
        page
    }
}

impl Section {
    /// Title, table and notes as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("{}:\n\n{}\n", self.title, self.table.markdown());
        for note in &self.notes {
            let _ = write!(text, "{note}\n\n");
        }
        text
    }

    fn write_html(&self, page: &mut String) {
        let _ = write!(page, "<h2>{}</h2><section>", escaped(&self.title));
        page.extend(self.plots.iter().map(Plot::svg));
        page.push_str("<div>");
        self.table.write_html(page);
        for note in &self.notes {
            let _ = write!(page, "<p>{}</p>", escaped(note));
        }
        page.push_str("</div></section>");
    }
}

impl Table {
    /// The table as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.columns.len()));
        line(&self.columns) + &rule + &self.rows.iter().map(|row| line(row)).collect::<String>()
    }

    fn write_html(&self, page: &mut String) {
        let line = |tag: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
            format!("<tr>{cells}</tr>")
        };
        page.push_str("<table>");
        page.push_str(&line("th", &self.columns));
        page.extend(self.rows.iter().map(|row| line("td", row)));
        page.push_str("</table>");
    }
}

/// Text as it stands in elements and in attributes.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Line, Point};

    fn section() -> Section {
        let table = Table {
            columns: vec!["callers".to_owned(), "a < b".to_owned()],
            rows: vec![vec!["1".to_owned(), "2.5".to_owned()], vec!["4".to_owned(), "1.5".to_owned()]],
        };
        let line = Line { name: "raw_get".to_owned(), points: vec![Point::single(1.0, 2.5)] };
        let plots = vec![Plot { lines: vec![line], ..Plot::default() }];
        Section { title: "A raw get".to_owned(), table, plots, notes: vec!["Exponent: 0.".to_owned()] }
    }

    #[test]
    fn markdown_has_the_table_and_the_notes() {
        let expected = "A raw get:\n\n| callers | a < b |\n|---|---|\n| 1 | 2.5 |\n| 4 | 1.5 |\n\nExponent: 0.\n\n";
        assert_eq!(section().markdown(), expected);
    }

    #[test]
    fn the_page_has_plots_too_and_nothing_outside_of_it() {
        let page = Report { sections: vec![section(); 2], ..Report::default() }.html();
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("<th>a &lt; b</th>") && page.contains("<td>2.5</td>") && page.contains("Exponent: 0."));
        assert!(["http", "src=", "href=", "url("].iter().all(|outside| !page.contains(outside)), "{page}");
    }
}
