//! The page: one self-contained HTML file that shows the document and nothing else.
//!
//! Every number on it is read from the document by its place there, which is next to it, so that the two cannot differ.
//! No script, no request: the page's own policy forbids both.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use minijinja::value::{Serde, Value as Shown};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, context};
use serde_json::Value;

use super::chart::{self, Column, Part, Row, Unit, Words, bytes, escaped, grouped};
use super::data::{KindVolume, MonthOfSessions, Report, StandingCounts};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::model::digest::Sha256Digest;

const TEMPLATE: &str = include_str!("report.html");
const STYLE: &str = include_str!("report.css");

/// How many of the latest months a chart shows; the table beside it has all.
const SHOWN_MONTHS: usize = 36;

/// Why there is no page. A defect of this program, always.
#[derive(Debug, thiserror::Error)]
#[error("the page of the report cannot be written")]
pub struct PageError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl PageError {
    /// Returns the stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        Code::InternalError
    }
}

/// Shows a report as HTML.
///
/// # Errors
/// Retryable (a defect): the template asks for something that the document does not have.
pub fn page(report: &Report) -> Result<String, PageError> {
    let document = serde_json::to_value(report).map_err(|error| PageError(error.into()))?;
    render(report, document).map_err(|error| PageError(error.into()))
}

fn render(report: &Report, document: Value) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("report.html", TEMPLATE)?;
    let shown = Shown::from(Serde(&document));
    let document = Arc::new(document);
    let read = |write: fn(&str, &Value) -> Option<String>| {
        let document = Arc::clone(&document);
        move |at: &str| written(&document, at, write)
    };
    environment.add_function("n", read(number));
    environment.add_function("size", read(size));
    environment.add_function("percent", read(percent));
    environment.add_function("when", read(time));
    environment.add_function("marked", |text: &str| Shown::from_safe_string(marked(text)));
    environment.add_function("segment", |name: &str| name.replace('~', "~0").replace('/', "~1"));
    let safe = Shown::from_safe_string;
    environment.get_template("report.html")?.render(context! {
        r => shown,
        style => safe(STYLE.to_owned()),
        style_digest => format!("sha256-{}", BASE64.encode(Sha256Digest::of(STYLE.as_bytes()).as_bytes())),
        shown_months => SHOWN_MONTHS,
        charts => context! {
            sessions => safe(sessions_chart(report)),
            horizon => safe(horizon_chart(report)),
            volume => safe(volume_chart(report)),
            calendar => safe(calendar_chart(report)),
        },
    })
}

/// Writes the value at a place of the document; a dash where that is null.
fn written(document: &Value, at: &str, write: fn(&str, &Value) -> Option<String>) -> Result<Shown, Error> {
    let wrong = |what| Error::new(ErrorKind::InvalidOperation, format!("{at} {what}"));
    let value = document.pointer(at).ok_or_else(|| wrong("is not in the document"))?;
    let text = if value.is_null() { Some("–".to_owned()) } else { write(&escaped(at), value) };
    text.map(Shown::from_safe_string).ok_or_else(|| wrong("is of another kind"))
}

fn data(at: &str, value: &Value, text: &str) -> String {
    format!(r#"<data value="{value}" data-at="{at}">{text}</data>"#)
}

fn number(at: &str, value: &Value) -> Option<String> {
    let text = match (value.as_u64(), value.as_i64()) {
        (Some(number), _) => grouped(number),
        (None, Some(number)) => format!("−{}", grouped(number.unsigned_abs())),
        (None, None) => return None,
    };
    Some(data(at, value, &text))
}

fn size(at: &str, value: &Value) -> Option<String> {
    value.as_u64().map(|number| data(at, value, &bytes(number)))
}

fn percent(at: &str, value: &Value) -> Option<String> {
    value.as_f64().map(|number| data(at, value, &format!("{number}\u{a0}%")))
}

fn time(at: &str, value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let utc = text.parse::<Timestamp>().ok()?.utc();
    let shown = format!("{} {:02}:{:02}", utc.date(), utc.hour(), utc.minute());
    Some(format!(r#"<time datetime="{}" data-at="{at}">{shown}</time>"#, escaped(text)))
}

/// Escapes a text and shows text between back ticks as code.
fn marked(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(number, part)| match number % 2 {
            0 => escaped(part),
            _ => format!("<code>{}</code>", escaped(part)),
        })
        .collect()
}

fn sessions_chart(report: &Report) -> String {
    let months = &report.sessions.months;
    let skipped = months.len().saturating_sub(SHOWN_MONTHS);
    let column = |(number, month): (usize, &MonthOfSessions)| {
        let at = |name: &str| format!("/sessions/months/{number}/{name}");
        let StandingCounts { settled, unsettled, incomplete, absent, failed, pending, accepted } = month.standing;
        let parts = [
            ("settled", "archived, settled", settled),
            ("unsettled", "archived, may still change", unsettled),
            ("incomplete", "archived, incomplete", incomplete),
            ("absent", "absent at Veriff", absent),
            ("failed", "failed", failed),
            ("pending", "pending", pending),
            ("accepted", "closed by a person", accepted),
        ];
        let part = |(class, name, value): (&'static str, &str, u64)| Part {
            class,
            name: name.to_owned(),
            value,
            at: at(class),
        };
        Column { label: month.month.clone(), parts: parts.into_iter().map(part).collect() }
    };
    let columns: Vec<Column> = months.iter().enumerate().skip(skipped).map(column).collect();
    let words = Words {
        id: "chart-sessions",
        title: "Sessions by month and state",
        description: "One column per month, divided by the current state of its sessions. The table \"Coverage by month, in \
                      numbers\" below has every number.",
    };
    chart::columns(words, &columns, Unit::Count, false)
}

fn horizon_chart(report: &Report) -> String {
    let bins = report.horizon.bins.iter().enumerate();
    let columns: Vec<Column> = bins
        .map(|(number, bin)| {
            let class = match bin.from_days {
                Some(0) => "pending",
                Some(_) => "settled",
                None if bin.label == "past" => "failed",
                None => "absent",
            };
            let at = format!("/horizon/bins/{number}/sessions");
            let part = Part { class, name: "sessions still to be done".to_owned(), value: bin.sessions, at };
            Column { label: bin.label.clone(), parts: vec![part] }
        })
        .collect();
    let words = Words {
        id: "chart-horizon",
        title: "Sessions still to be done by whole days left",
        description: "From those past their deadline, on the left, to those with an unknown deadline, on the right. The \
                      table \"Deadlines, in numbers\" below has every number.",
    };
    chart::columns(words, &columns, Unit::Count, true)
}

fn volume_chart(report: &Report) -> String {
    let months = &report.volume.months;
    let skipped = months.len().saturating_sub(SHOWN_MONTHS);
    let columns: Vec<Column> = months
        .iter()
        .enumerate()
        .skip(skipped)
        .map(|(number, month)| {
            let part = |(place, of_kind): (usize, &KindVolume)| Part {
                class: of_kind.kind.as_str(),
                name: of_kind.kind.as_str().to_owned(),
                value: of_kind.bytes,
                at: format!("/volume/months/{number}/kinds/{place}/bytes"),
            };
            Column { label: month.month.clone(), parts: month.kinds.iter().enumerate().map(part).collect() }
        })
        .collect();
    let words = Words {
        id: "chart-volume",
        title: "Bytes of archived media by month and kind",
        description: "One column per month, divided by kind of media. The table \"Volume by month, in numbers\" below has \
                      every number.",
    };
    chart::columns(words, &columns, Unit::Bytes, false)
}

fn calendar_chart(report: &Report) -> String {
    let rows: Vec<Row> = report
        .retention
        .years
        .iter()
        .enumerate()
        .map(|(number, year)| {
            let cell = |(month, value): (usize, &u64)| (*value, format!("/retention/years/{number}/months/{month}"));
            Row {
                label: year.year.to_string(),
                total: grouped(year.objects),
                cells: year.months.iter().enumerate().map(cell).collect(),
            }
        })
        .collect();
    let words = Words {
        id: "chart-calendar",
        title: "Objects by the month in which their lock ends",
        description: "One row per year, one cell per month; the darker, the more objects. The table \"The calendar, in numbers\" \
                      below has every number.",
    };
    chart::calendar(words, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_carry_their_place_and_what_is_not_known_is_a_dash() {
        let document = json!({ "days": -12, "many": 1234, "none": null, "share": 99.5 });
        let shown = |at, write| written(&document, at, write).unwrap().to_string();
        assert_eq!(shown("/many", number), r#"<data value="1234" data-at="/many">1,234</data>"#);
        assert_eq!(shown("/days", number), r#"<data value="-12" data-at="/days">−12</data>"#);
        assert_eq!(shown("/share", percent), "<data value=\"99.5\" data-at=\"/share\">99.5\u{a0}%</data>");
        assert_eq!(shown("/none", number), "–");
    }

    #[test]
    fn what_the_document_does_not_have_is_no_page() {
        let document = json!({ "text": "12" });
        assert!(written(&document, "/number", number).is_err());
        assert!(written(&document, "/text", number).is_err());
        assert!(written(&document, "/text", time).is_err());
    }

    #[test]
    fn code_stands_between_back_ticks_and_text_is_escaped() {
        assert_eq!(marked("type `a < b` & go"), "type <code>a &lt; b</code> &amp; go");
    }
}
