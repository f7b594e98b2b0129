//! Charts as inline SVG: columns in stacks and a calendar.
//!
//! Positions across are percentages and heights are pixels, so that a chart fills any width, on a phone and on paper, and
//! its text keeps its size. What is beside the columns is drawn into the margin that the style sheet leaves. Colours
//! are classes of the page's style sheet. Every bar carries its number and where that is in the document; a table
//! beside the chart says the same in words.

use std::fmt::Write as _;

/// The height of a chart of columns, its labels included.
const HEIGHT: f64 = 230.0;

/// Where the columns begin and end, from above.
const TOP: f64 = 22.0;
const BOTTOM: f64 = 200.0;

/// The widest that a column may be, in percent: a single one should not fill the page.
const WIDEST: f64 = 9.0;

/// How many labels fit below the columns on a phone.
const LABELS: usize = 6;

/// The height of a row of the calendar.
const ROW: f64 = 30.0;

/// A part of a column.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its class in the style sheet.
    pub(super) class: &'static str,
    /// What it is, for whoever points at it.
    pub(super) name: String,
    /// Its number.
    pub(super) value: u64,
    /// Where that number is in the document.
    pub(super) at: String,
}

/// A column of parts, the first at the bottom.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// What is written below it.
    pub(super) label: String,
    /// Its parts.
    pub(super) parts: Vec<Part>,
}

/// A row of twelve cells.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// What is written before it.
    pub(super) label: String,
    /// What is written behind it.
    pub(super) total: String,
    /// The numbers of its cells, and where each is in the document.
    pub(super) cells: Vec<(u64, String)>,
}

/// What is read out in place of a chart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    /// A name that no other chart of the page has.
    pub(super) id: &'a str,
    /// What it shows.
    pub(super) title: &'a str,
    /// What there is to see in it.
    pub(super) description: &'a str,
}

/// Whether a scale counts things or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Things.
    Count,
    /// Bytes.
    Bytes,
}

/// Draws columns. With `is_labelled`, each has its sum above it and its own label below it.
pub(super) fn columns(words: Words<'_>, columns: &[Column], unit: Unit, is_labelled: bool) -> String {
    let sum = |column: &Column| column.parts.iter().map(|part| part.value).fold(0, u64::saturating_add);
    let top = round_up(columns.iter().map(sum).max().unwrap_or(0));
    let mut svg = opening(words, "chart", HEIGHT);
    for step in 0..=4_u32 {
        let y = BOTTOM - (BOTTOM - TOP) * f64::from(step) / 4.0;
        let value = part_of(top, step);
        let _ = write!(svg, r#"<line class="grid" x1="0" x2="100%" y1="{y:.1}" y2="{y:.1}"/>"#);
        // A scale up to less than four has steps that are no whole numbers.
        if value * 4 == top * u64::from(step) {
            let label = short(value, unit);
            let _ = write!(svg, r#"<text class="scale" x="-8" y="{:.1}">{label}</text>"#, y + 4.0);
        }
    }
    let step = 100.0 / as_f64(columns.len().max(1) as u64);
    let width = (step * 0.72).min(WIDEST);
    let every = if is_labelled { 1 } else { columns.len().div_ceil(LABELS).max(1) };
    for (number, column) in columns.iter().enumerate() {
        let middle = step * (as_f64(number as u64) + 0.5);
        let mut base = BOTTOM;
        for part in column.parts.iter().filter(|part| part.value > 0) {
            let height = (BOTTOM - TOP) * as_f64(part.value) / as_f64(top);
            base -= height;
            let (label, name, value) = (escaped(&column.label), escaped(&part.name), part.value);
            let (class, at, x) = (part.class, &part.at, middle - width / 2.0);
            let shown = if unit == Unit::Bytes { bytes(value) } else { grouped(value) };
            let _ = write!(
                svg,
                r#"<rect class="bar c-{class}" x="{x:.3}%" y="{base:.2}" width="{width:.3}%" height="{height:.2}" data-value="{value}" data-at="{at}"><title>{label}, {name}: {shown}</title></rect>"#
            );
        }
        if is_labelled {
            let _ = write!(
                svg,
                r#"<text class="above" x="{middle:.3}%" y="{:.1}">{}</text>"#,
                base - 5.0,
                short(sum(column), unit)
            );
        }
        if number % every == 0 {
            let _ = write!(
                svg,
                r#"<text class="below" x="{middle:.3}%" y="{:.1}">{}</text>"#,
                BOTTOM + 18.0,
                escaped(&column.label)
            );
        }
    }
    svg + "</svg>"
}

/// Draws a row a year with a cell a month; the darker, the more.
pub(super) fn calendar(words: Words<'_>, rows: &[Row]) -> String {
    const MONTHS: [&str; 12] = ["J", "F", "M", "A", "M", "J", "J", "A", "S", "O", "N", "D"];
    let step = 100.0 / 12.0;
    let most = rows.iter().flat_map(|row| &row.cells).map(|(value, _)| *value).max().unwrap_or(0);
    let mut svg = opening(words, "chart calendar", 24.0 + ROW * as_f64(rows.len() as u64));
    for (number, month) in MONTHS.iter().enumerate() {
        let x = step * (as_f64(number as u64) + 0.5);
        let _ = write!(svg, r#"<text class="below" x="{x:.3}%" y="14">{month}</text>"#);
    }
    for (number, row) in rows.iter().enumerate() {
        let y = 22.0 + ROW * as_f64(number as u64);
        let text = y + 18.0;
        let _ = write!(svg, r#"<text class="scale" x="-8" y="{text:.1}">{}</text>"#, escaped(&row.label));
        let _ = write!(svg, r#"<text class="total" x="100%" dx="8" y="{text:.1}">{}</text>"#, escaped(&row.total));
        for (month, (value, at)) in row.cells.iter().enumerate() {
            let x = step * as_f64(month as u64) + 0.25;
            let level = level(*value, most);
            let (width, height, label, month) = (step - 0.5, ROW - 5.0, escaped(&row.label), month + 1);
            let shown = grouped(*value);
            let _ = write!(
                svg,
                r#"<rect class="cell heat-{level}" x="{x:.3}%" y="{y:.1}" width="{width:.3}%" height="{height:.1}" rx="3" data-value="{value}" data-at="{at}"><title>{label}-{month:02}: {shown}</title></rect>"#
            );
        }
    }
    svg + "</svg>"
}

fn opening(words: Words<'_>, class: &str, height: f64) -> String {
    let Words { id, title, description } = words;
    let (title, description) = (escaped(title), escaped(description));
    format!(
        r#"<svg class="{class}" role="img" aria-labelledby="{id}-title {id}-description" width="100%" height="{height}" xmlns="http://www.w3.org/2000/svg"><title id="{id}-title">{title}</title><desc id="{id}-description">{description}</desc>"#
    )
}

/// Returns how dark a cell is, from 0 to 5. By the root, because one month may hold most of an archive.
fn level(value: u64, most: u64) -> usize {
    if value == 0 {
        return 0;
    }
    let part = (as_f64(value) / as_f64(most)).sqrt();
    [0.2, 0.4, 0.6, 0.8].iter().filter(|limit| part > **limit).count() + 1
}

/// Rounds up to a number of which a quarter is a round one, too.
fn round_up(most: u64) -> u64 {
    if let Some(small) = [1, 2, 4, 8].into_iter().find(|small| *small >= most) {
        return small;
    }
    let mut power: u64 = 1;
    loop {
        for digits in [10, 12, 16, 20, 24, 32, 40, 60, 80] {
            let candidate = power.saturating_mul(digits);
            if candidate >= most {
                return candidate;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn part_of(top: u64, step: u32) -> u64 {
    u64::try_from(u128::from(top) * u128::from(step) / 4).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a bar is drawn in pixels")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

/// Writes a number with commas between groups of three digits.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a number of bytes in decimal units with three digits, such as `1.23 GB`.
pub(super) fn bytes(value: u64) -> String {
    with_unit(value, &["bytes", "kB", "MB", "GB", "TB", "PB", "EB"], " ")
}

/// Writes a number for the scale of a chart.
fn short(value: u64, unit: Unit) -> String {
    match unit {
        _ if value == 0 => "0".to_owned(),
        Unit::Bytes => bytes(value),
        Unit::Count => with_unit(value, &["", "k", "M", "G", "T", "P", "E"], ""),
    }
}

fn with_unit(value: u64, units: &[&str], space: &str) -> String {
    let mut unit = 0;
    let mut divisor: u64 = 1;
    while value / divisor >= 1000 && unit + 1 < units.len() {
        divisor *= 1000;
        unit += 1;
    }
    // Rounded down: nothing is shown as more than it is.
    let (whole, rest) = (value / divisor, u128::from(value % divisor) * 100 / u128::from(divisor));
    let digits = match whole {
        0..10 => format!("{whole}.{rest:02}"),
        10..100 => format!("{whole}.{}", rest / 10),
        _ => whole.to_string(),
    };
    let digits = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}{space}{}", units[unit])
}

/// Escapes a text for HTML and SVG.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words<'_> = Words { id: "x", title: "A & B", description: "less than <b>" };

    fn column(label: &str, values: &[u64]) -> Column {
        let part = |(number, value): (usize, &u64)| Part {
            class: "settled",
            name: "archived".to_owned(),
            value: *value,
            at: format!("/x/{number}"),
        };
        Column { label: label.to_owned(), parts: values.iter().enumerate().map(part).collect() }
    }

    #[test]
    fn numbers_are_grouped_and_shortened_downwards() {
        assert_eq!(["0", "999", "1,000", "1,234,567"].map(str::to_owned), [0, 999, 1000, 1_234_567].map(grouped));
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1_239_999), "1.23 MB");
        assert_eq!(bytes(20_000_000_000), "20 GB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
        assert_eq!(short(12_000, Unit::Count), "12k");
    }

    #[test]
    fn a_scale_ends_just_above_the_highest_column() {
        assert_eq!([0, 1, 3, 7, 9, 80, 81, 12_345].map(round_up), [1, 1, 4, 8, 10, 80, 100, 16_000]);
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn bars_are_as_high_as_their_numbers_and_stand_on_one_another() {
        let svg = columns(WORDS, &[column("2026-11", &[4, 0, 4])], Unit::Count, true);
        let heights: Vec<&str> = svg.split(" height=\"").skip(2).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(heights, ["89.00", "89.00"]);
        assert!(svg.contains(r#"y="111.00""#) && svg.contains(r#"y="22.00""#), "{svg}");
        assert!(svg.contains(r#"data-value="4" data-at="/x/2""#), "{svg}");
        assert!(svg.contains("A &amp; B") && svg.contains("&lt;b&gt;"), "{svg}");
    }

    #[test]
    fn nothing_draws_an_empty_chart() {
        assert!(!columns(WORDS, &[], Unit::Bytes, false).contains("NaN"));
        assert!(!columns(WORDS, &[column("a", &[0])], Unit::Bytes, true).contains("NaN"));
        assert!(!calendar(WORDS, &[]).contains("NaN"));
    }

    #[test]
    fn the_darkest_cell_holds_most() {
        assert_eq!([0, 1, 50, 100].map(|value| level(value, 100)), [0, 1, 4, 5]);
    }
}
