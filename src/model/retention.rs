//! Retention: which class an object belongs to, and until when it is locked.
//!
//! A policy names classes and rules; a [`Lock`] is what the store is asked for. Dates are calendar dates in UTC, rounded
//! up to midnight, so that an object never becomes deletable on the day it was promised for. Reads no clock: the caller
//! passes the store's time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::ToSpan as _;
use serde::{Deserialize, Serialize};

use super::MediaKind;
use crate::clock::Timestamp;

/// The least time a lock lasts: a date too near may pass between computing and using it.
pub const MIN_LOCK: Duration = Duration::from_hours(48);

/// The lock of a manifest that holds no media: long enough to be looked into, short because it proves little.
pub const ABSENT_LOCK_PERIOD: Period = Period { count: 30, unit: Unit::Days };

/// How strictly an object is kept. Ordered from weakest to strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Mode {
    /// Not locked by the store.
    #[serde(rename = "none")]
    None,
    /// Locked; a person with a special right may lift it.
    #[serde(rename = "GOVERNANCE")]
    Governance,
    /// Locked for everyone until the date.
    #[serde(rename = "COMPLIANCE")]
    Compliance,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Days,
    Months,
    Years,
}

/// A calendar period: `5y`, `18mo` or `30d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    count: u16,
    unit: Unit,
}

impl Period {
    /// Returns `start` moved by this period by the calendar of UTC; 29 February plus n years is 1 March where that year
    /// has no 29 February.
    #[must_use]
    pub fn after(self, start: Timestamp) -> Timestamp {
        let from = start.utc();
        let count = i32::from(self.count);
        let span = match self.unit {
            Unit::Days => count.days(),
            Unit::Months => count.months(),
            Unit::Years => count.years(),
        };
        let Ok(date) = from.date().checked_add(span) else {
            return Timestamp::from_unix_seconds(i64::MAX);
        };
        // The calendar library ends such a month on its last day; a keeping period must never be a day short.
        let cut = self.unit != Unit::Days && date.day() < from.date().day();
        let date = if cut { date.tomorrow().unwrap_or(date) } else { date };
        let midnight = Timestamp::midnight_of(date);
        let time_of_day = start.millis_since(Timestamp::midnight_of(from.date()));
        midnight.plus_millis(time_of_day)
    }

    /// Orders periods as they end when counted from the same instant.
    fn days_at_least(self) -> u32 {
        u32::from(self.count)
            * match self.unit {
                Unit::Days => 1,
                Unit::Months => 31,
                Unit::Years => 366,
            }
    }

    /// Returns whether this period is longer than another one for every start.
    #[must_use]
    pub fn is_longer_than(self, other: Self) -> bool {
        if self.unit == other.unit { self.count > other.count } else { self.days_at_least() > other.days_at_least() }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Days => "d",
            Unit::Months => "mo",
            Unit::Years => "y",
        };
        write!(f, "{}{unit}", self.count)
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit = match &text[split..] {
            "d" => Unit::Days,
            "mo" => Unit::Months,
            "y" => Unit::Years,
            _ => return Err("a period is a number and a unit: 5y, 18mo or 30d".to_owned()),
        };
        match text[..split].parse() {
            Ok(count) if (1..=36_500).contains(&count) => Ok(Self { count, unit }),
            _ => Err("a period counts from 1 to 36500".to_owned()),
        }
    }
}

impl Serialize for Period {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9]+(d|mo|y)$", "description": "calendar period: 30d, 18mo, 5y" })
    }
}

/// A lock that a store holds on an object: nobody deletes or overwrites that version before the date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Never [`Mode::None`]: no lock is `Option::None`.
    pub mode: Mode,
    /// The first instant at which the object may be deleted.
    pub retain_until: Timestamp,
}

impl Lock {
    /// Returns whether this lock is at least as strict and as long as `due`.
    #[must_use]
    pub fn covers(self, due: Self) -> bool {
        self.mode >= due.mode && self.retain_until >= due.retain_until
    }

    /// Returns the strictest mode and the latest date of two locks.
    #[must_use]
    pub fn strictest(self, other: Self) -> Self {
        Self { mode: self.mode.max(other.mode), retain_until: self.retain_until.max(other.retain_until) }
    }
}

/// A retention class: it states all of its own, nothing is inherited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// How strictly objects of this class are locked.
    pub mode: Mode,
    /// How long, counted from the decision where it is known, else from archiving. Required unless the mode is `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// A guard, counted from archiving: a longer lock is refused. Required unless the mode is `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_period: Option<Period>,
    /// The legal ground, copied into sidecars.
    #[serde(default)]
    pub basis: String,
}

/// Which media a rule is about: every key given must match one of its globs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// Names of integrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<Vec<String>>,
    /// `image`, `video`, `nfc`, `record`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Vec<String>>,
    /// Contexts as Veriff lists them; an item without one never matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<String>>,
    /// Status of the attempt the item belongs to; an item without one never matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Vec<String>>,
}

/// A rule that gives matching media a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What the rule is about.
    pub when: When,
    /// The class it gives.
    pub class: String,
}

/// The facts about an item that rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The class the session request asks for.
    pub record_class: Option<&'a str>,
    /// The name of the integration.
    pub integration: &'a str,
    /// The class of the integration.
    pub integration_class: &'a str,
    /// What the item is.
    pub kind: MediaKind,
    /// What it shows.
    pub context: Option<&'a str>,
    /// The status of its attempt.
    pub status: Option<&'a str>,
}

/// What is kept, how strictly and how long: the resolved policy.
#[derive(Debug, Clone)]
pub struct RetentionPolicy {
    classes: BTreeMap<String, Class>,
    rules: Vec<CompiledRule>,
}

#[derive(Debug, Clone)]
struct CompiledRule {
    integration: Option<globset::GlobSet>,
    kind: Option<globset::GlobSet>,
    context: Option<globset::GlobSet>,
    status: Option<globset::GlobSet>,
    class: String,
}

/// The name of the class that `[retention]` itself states.
pub const DEFAULT_CLASS: &str = "default";

impl RetentionPolicy {
    /// Composes a policy and checks it as a whole.
    ///
    /// # Errors
    /// Fatal (configuration): a text that names the key and what to do.
    pub fn new(default: Class, classes: BTreeMap<String, Class>, rules: &[Rule]) -> Result<Self, String> {
        if classes.contains_key(DEFAULT_CLASS) {
            return Err("retention.classes.default: the class `default` is what [retention] itself states".to_owned());
        }
        let mut all = classes;
        all.insert(DEFAULT_CLASS.to_owned(), default);
        for (name, class) in &all {
            check_class(name, class)?;
        }
        let rules =
            rules.iter().enumerate().map(|(index, rule)| compile(index, rule, &all)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { classes: all, rules })
    }

    /// A policy that locks nothing.
    #[must_use]
    pub fn unlocked() -> Self {
        let class = Class { mode: Mode::None, period: None, max_period: None, basis: String::new() };
        Self { classes: BTreeMap::from([(DEFAULT_CLASS.to_owned(), class)]), rules: Vec::new() }
    }

    /// Returns a class by its name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.classes.get(name)
    }

    /// Returns all classes by name.
    #[must_use]
    pub const fn classes(&self) -> &BTreeMap<String, Class> {
        &self.classes
    }

    /// Returns whether any class asks the store for locks.
    #[must_use]
    pub fn demands_locks(&self) -> bool {
        self.classes.values().any(|class| class.mode != Mode::None)
    }

    /// Lists the classes that items of an integration may get from the rules or from the integration itself.
    #[must_use]
    pub fn reachable<'a>(&'a self, integration: &str, integration_class: &'a str) -> Vec<&'a str> {
        let matching = self.rules.iter().filter(|rule| {
            let globs = rule.integration.as_ref();
            globs.is_none_or(|globs| globs.is_match(integration))
        });
        let mut classes: Vec<_> = matching.map(|rule| rule.class.as_str()).collect();
        classes.push(integration_class);
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    /// Resolves the class of an item: the record's own, then the first rule that matches, then the integration's.
    ///
    /// Class names were checked when they came in, so an unknown one falls through to the next source.
    #[must_use]
    pub fn resolve(&self, subject: Subject<'_>) -> (&str, &Class) {
        let matched = || self.rules.iter().find(|rule| rule.matches(subject)).map(|rule| rule.class.as_str());
        let named = subject.record_class.and_then(|name| self.classes.get_key_value(name));
        named
            .or_else(|| matched().and_then(|name| self.classes.get_key_value(name)))
            .or_else(|| self.classes.get_key_value(subject.integration_class))
            .or_else(|| self.classes.get_key_value(DEFAULT_CLASS))
            .map_or_else(
                || unreachable!("a policy always has its default class"),
                |(name, class)| (name.as_str(), class),
            )
    }
}

impl CompiledRule {
    fn matches(&self, subject: Subject<'_>) -> bool {
        let one = |globs: &Option<globset::GlobSet>, value: Option<&str>| {
            globs.as_ref().is_none_or(|globs| value.is_some_and(|value| globs.is_match(value)))
        };
        one(&self.integration, Some(subject.integration))
            && one(&self.kind, Some(subject.kind.as_str()))
            && one(&self.context, subject.context)
            && one(&self.status, subject.status)
    }
}

fn check_class(name: &str, class: &Class) -> Result<(), String> {
    let place = if name == DEFAULT_CLASS { "retention".to_owned() } else { format!("retention.classes.{name}") };
    if class.mode == Mode::None {
        return Ok(());
    }
    let Some(period) = class.period else {
        return Err(format!("{place}.period: missing; a locked class needs one"));
    };
    let Some(max_period) = class.max_period else {
        return Err(format!("{place}.max_period: missing; a locked class needs this guard"));
    };
    if period.is_longer_than(max_period) {
        return Err(format!("{place}.period: {period} is longer than max_period {max_period}"));
    }
    Ok(())
}

fn compile(index: usize, rule: &Rule, classes: &BTreeMap<String, Class>) -> Result<CompiledRule, String> {
    let place = format!("retention.rules[{index}]");
    if !classes.contains_key(&rule.class) {
        return Err(format!("{place}.class: no class of this name; known: {}", known(classes)));
    }
    if rule.when == When::default() {
        return Err(format!("{place}.when: empty; a rule for everything is the integration's retention_class"));
    }
    let globs = |key: &str, patterns: &Option<Vec<String>>| -> Result<Option<globset::GlobSet>, String> {
        let Some(patterns) = patterns else { return Ok(None) };
        let mut set = globset::GlobSetBuilder::new();
        for pattern in patterns {
            set.add(globset::Glob::new(pattern).map_err(|error| format!("{place}.when.{key}: {error}"))?);
        }
        set.build().map(Some).map_err(|error| format!("{place}.when.{key}: {error}"))
    };
    Ok(CompiledRule {
        integration: globs("integration", &rule.when.integration)?,
        kind: globs("kind", &rule.when.kind)?,
        context: globs("context", &rule.when.context)?,
        status: globs("status", &rule.when.status)?,
        class: rule.class.clone(),
    })
}

fn known(classes: &BTreeMap<String, Class>) -> String {
    classes.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl Class {
    /// Computes the lock an object of this class is due, or none where the class does not lock.
    ///
    /// `counted_from` is the decision where it is known, else the time of archiving; `now` is the store's clock.
    ///
    /// # Errors
    /// Permanent: the lock would last longer than the class's `max_period` allows.
    pub fn lock(&self, counted_from: Timestamp, now: Timestamp) -> Result<Option<Lock>, TooLongError> {
        let (Mode::Governance | Mode::Compliance, Some(period)) = (self.mode, self.period) else {
            return Ok(None);
        };
        let retain_until = lock_date(period, counted_from, now);
        if let Some(max_period) = self.max_period
            && retain_until > ceil_to_midnight(max_period.after(now)).max(ceil_to_midnight(now.plus(MIN_LOCK)))
        {
            return Err(TooLongError { retain_until, max_period });
        }
        Ok(Some(Lock { mode: self.mode, retain_until }))
    }

    /// Returns the least lock that an object of this class may have, its period counted from then; whenever it was given.
    #[must_use]
    pub fn least(&self, counted_from: Timestamp) -> Option<Lock> {
        let (mode, period) = (self.mode, self.period?);
        let retain_until = ceil_to_midnight(period.after(counted_from));
        (mode != Mode::None).then_some(Lock { mode, retain_until })
    }

    /// Returns the latest date that a lock of this class may have, if it was given by then.
    #[must_use]
    pub fn latest(&self, given_by: Timestamp) -> Option<Timestamp> {
        let max_period = self.max_period.filter(|_| self.mode != Mode::None)?;
        Some(lock_date(max_period, given_by, given_by))
    }
}

/// Computes the date of a lock: the period by the calendar, up to the next midnight, at least two days from now.
#[must_use]
pub fn lock_date(period: Period, counted_from: Timestamp, now: Timestamp) -> Timestamp {
    ceil_to_midnight(period.after(counted_from)).max(ceil_to_midnight(now.plus(MIN_LOCK)))
}

fn ceil_to_midnight(time: Timestamp) -> Timestamp {
    let date = time.utc().date();
    let midnight = Timestamp::midnight_of(date);
    if midnight == time { time } else { date.tomorrow().map_or(time, Timestamp::midnight_of) }
}

/// A lock that would last longer than the guard allows; nobody could take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lock until {retain_until} would exceed max_period {max_period}")]
pub struct TooLongError {
    /// The date that was computed.
    pub retain_until: Timestamp,
    /// The guard it exceeds.
    pub max_period: Period,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn class(mode: Mode, period: &str) -> Class {
        Class {
            mode,
            period: Some(period.parse().unwrap()),
            max_period: Some("10y".parse().unwrap()),
            basis: String::new(),
        }
    }

    #[test]
    fn dates_are_calendar_dates_rounded_up_to_midnight() {
        let now = time("2026-11-23T09:00:00Z");
        let due = |from: &str, period: &str| lock_date(period.parse().unwrap(), time(from), now).to_string();
        assert_eq!(due("2026-03-02T09:14:30Z", "5y"), "2031-03-03T00:00:00.000Z");
        assert_eq!(due("2026-03-02T00:00:00Z", "5y"), "2031-03-02T00:00:00.000Z");
        assert_eq!(due("2024-02-29T00:00:00Z", "3y"), "2027-03-01T00:00:00.000Z");
        assert_eq!(due("2024-02-29T12:00:00Z", "4y"), "2028-03-01T00:00:00.000Z");
        assert_eq!(due("2026-10-31T00:00:00Z", "4mo"), "2027-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_lock_is_never_nearer_than_two_days() {
        let now = time("2026-11-23T09:00:00Z");
        let lock = class(Mode::Compliance, "30d").lock(time("2020-01-01T00:00:00Z"), now).unwrap().unwrap();
        assert_eq!(lock.retain_until.to_string(), "2026-11-26T00:00:00.000Z");
    }

    #[test]
    fn the_guard_refuses_a_longer_lock() {
        let now = time("2026-11-23T09:00:00Z");
        let long = Class { max_period: Some("1y".parse().unwrap()), ..class(Mode::Compliance, "5y") };
        assert!(long.lock(now, now).is_err());
        assert!(RetentionPolicy::new(long, BTreeMap::new(), &[]).unwrap_err().contains("retention.period"));
        assert!(class(Mode::None, "5y").lock(now, now).unwrap().is_none());
    }

    #[test]
    fn the_first_rule_that_matches_comes_after_the_record_and_before_the_integration() {
        let rule = |when: When, class: &str| Rule { when, class: class.to_owned() };
        let faces = When {
            integration: Some(vec!["us".into()]),
            context: Some(vec!["*face*".into(), "selfid_video".into()]),
            ..When::default()
        };
        let chips = When { kind: Some(vec!["nfc".into()]), ..When::default() };
        let classes = ["biometric", "chip", "short"].map(|name| (name.to_owned(), class(Mode::Governance, "3y")));
        let policy = RetentionPolicy::new(
            class(Mode::Compliance, "5y"),
            classes.into(),
            &[rule(faces, "biometric"), rule(chips, "chip")],
        )
        .unwrap();
        let subject = Subject {
            record_class: None,
            integration: "us",
            integration_class: DEFAULT_CLASS,
            kind: MediaKind::Image,
            context: Some("face-pre"),
            status: None,
        };
        let name = |subject| policy.resolve(subject).0.to_owned();
        assert_eq!(name(subject), "biometric");
        assert_eq!(name(Subject { record_class: Some("short"), ..subject }), "short");
        assert_eq!(name(Subject { integration: "eu", ..subject }), "default");
        assert_eq!(name(Subject { kind: MediaKind::Nfc, context: None, ..subject }), "chip");
        assert_eq!(name(Subject { context: Some("document-front"), ..subject }), "default");
    }

    proptest! {
        #[test]
        fn a_lock_always_covers_the_period(seconds in 1_420_070_400i64..1_900_000_000, years in 1u16..10) {
            let from = Timestamp::from_unix_seconds(seconds);
            let period = Period { count: years, unit: Unit::Years };
            let until = lock_date(period, from, from);
            prop_assert_eq!(until.unix_seconds() % 86_400, 0);
            let days = (until.unix_seconds() - seconds) / 86_400;
            prop_assert!(days >= i64::from(years) * 365 && days <= i64::from(years) * 366 + 1);
        }
    }
}
