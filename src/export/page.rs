//! Page: what a bag shows to people, as HTML that needs no server, no script and nothing from elsewhere.
//!
//! Views hold what the templates beside this file show. Every text is escaped by the templates; the pages' own policy
//! forbids scripts, and anything that is not in the bag.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

use super::Exported;
use super::view::{Outcome, ProblemView, SessionView, size};
use crate::model::digest::Sha256Digest;
use crate::model::event::Event;

const STYLE: &str = include_str!("style.css");

const TEMPLATES: [(&str, &str); 8] = [
    ("open.html", include_str!("open.html")),
    ("index.html", include_str!("index.html")),
    ("row.html", include_str!("row.html")),
    ("problem.html", include_str!("problem.html")),
    ("item.html", include_str!("item.html")),
    ("section.html", include_str!("section.html")),
    ("session.html", include_str!("session.html")),
    ("close.html", include_str!("close.html")),
];

/// Where the part of the index page above the table's lines ends, and the part below begins.
const ROWS: &str = "<!--rows-->";

/// Where the sessions are.
const SECTIONS: &str = "<!--sections-->";

/// Makes pages.
pub(super) struct Page(Environment<'static>);

/// The index page, apart from the lines of its table and the sessions, which may be many.
pub(super) struct IndexParts {
    pub(super) before_rows: String,
    pub(super) before_sections: String,
    pub(super) end: String,
}

impl Page {
    pub(super) fn new() -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        for (name, source) in TEMPLATES {
            environment.add_template(name, source)?;
        }
        environment.add_global("style", Value::from_safe_string(STYLE.to_owned()));
        environment.add_global("style_sha256", Sha256Digest::of(STYLE.as_bytes()).to_base64());
        Ok(Self(environment))
    }

    /// Makes the index page.
    pub(super) fn index(&self, view: &IndexView<'_>) -> Result<IndexParts, minijinja::Error> {
        let whole = self.0.get_template("index.html")?.render(Serde(view))?;
        let missing = || minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, "a mark is missing");
        let (before_rows, rest) = whole.split_once(ROWS).ok_or_else(missing)?;
        let (before_sections, end) = rest.split_once(SECTIONS).ok_or_else(missing)?;
        Ok(IndexParts {
            before_rows: before_rows.to_owned(),
            before_sections: before_sections.to_owned(),
            end: end.to_owned(),
        })
    }

    /// Makes a line of the index page's table.
    pub(super) fn row(&self, row: &RowView<'_>) -> Result<String, minijinja::Error> {
        self.0.get_template("row.html")?.render(Serde(row))
    }

    /// Makes a session's part of a page; `base` leads from the page to the session's folder.
    pub(super) fn section(&self, view: &SessionView, event: &Event, base: &str) -> Result<String, minijinja::Error> {
        self.0.get_template("section.html")?.render(context(view, event, base))
    }

    /// Makes a page of one session.
    pub(super) fn session(&self, view: &SessionView, event: &Event) -> Result<String, minijinja::Error> {
        self.0.get_template("session.html")?.render(context(view, event, ""))
    }
}

fn context(view: &SessionView, event: &Event, base: &str) -> Value {
    context! { session => Serde(view), event => Serde(event), base }
}

/// The index page.
#[derive(Serialize)]
pub(super) struct IndexView<'a> {
    event: &'a Event,
    event_key: String,
    answer: &'a Exported,
    size: String,
    problems: Vec<ProblemView>,
    has_problems: bool,
    untold: u64,
    is_one_page: bool,
}

impl<'a> IndexView<'a> {
    pub(super) fn of(event: &'a Event, answer: &'a Exported, has_problems: bool, is_one_page: bool) -> Self {
        let problems: Vec<ProblemView> = answer.first_problems.iter().map(ProblemView::of).collect();
        let counts = answer.problems;
        let untold = (counts.error + counts.warn + counts.info).saturating_sub(problems.len() as u64);
        let (event_key, size) = (event.key().to_string(), size(answer.bytes));
        Self { event, event_key, answer, size, problems, has_problems, untold, is_one_page }
    }
}

/// A line of the index page's table.
#[derive(Serialize)]
pub(super) struct RowView<'a> {
    session_id: &'a str,
    href: String,
    attempts: usize,
    items: u64,
    size: String,
    archived_at: &'a str,
    state: &'static str,
    is_good: bool,
}

impl<'a> RowView<'a> {
    pub(super) fn of(view: &'a SessionView, is_one_page: bool) -> Self {
        let id = view.session_id.as_str();
        let is_complete = view.facts.as_ref().is_some_and(|facts| facts.complete);
        let (state, is_good) = match view.outcome() {
            Outcome::Unarchived => ("not in the archive", false),
            Outcome::Damaged => ("problems, see below", false),
            Outcome::Expired => ("expired in part", false),
            Outcome::Absent => ("Veriff did not have it", false),
            Outcome::Whole if !is_complete => ("complete bag; archived incomplete", false),
            Outcome::Whole => ("whole", true),
        };
        Self {
            session_id: id,
            href: if is_one_page { format!("#session-{id}") } else { format!("{id}/index.html") },
            attempts: view.attempts.len(),
            items: view.items,
            size: size(view.bytes),
            archived_at: view.manifests.last().map_or("", |manifest| manifest.archived_at.as_str()),
            state,
            is_good,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::export::view::ProofView;
    use crate::model::SessionId;

    #[test]
    fn whatever_a_manifest_says_is_shown_as_text() {
        let page = Page::new().unwrap();
        let odd = "<script>alert(1)</script>\"'&";
        let mut view = SessionView::of(&SessionId::parse("s").unwrap());
        view.problems.push(ProblemView {
            is_error: true,
            code: odd.to_owned(),
            about: odd.to_owned(),
            expected: Some(odd.to_owned()),
            found: Some(odd.to_owned()),
            repair: odd.to_owned(),
        });
        view.proofs.push(ProofView {
            file: odd.to_owned(),
            run_id: odd.to_owned(),
            at: odd.to_owned(),
            text: odd.to_owned(),
        });
        let event = crate::model::event::Event::parse(include_bytes!("../../tests/fixtures/formats/event-v1.json"));
        let event = Event { reason: odd.to_owned(), actor: odd.to_owned(), ..event.unwrap() };
        let html = page.session(&view, &event).unwrap();
        assert!(!html.contains("<script") && !html.contains("alert(1)<"), "{html}");
        assert!(html.contains("&lt;script&gt;"), "{html}");
    }
}
