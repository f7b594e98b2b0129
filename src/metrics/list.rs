//! The list: every metric there is, under the names that dashboards and alert rules use.
//!
//! Part of the outside contract: docs/metrics.md is compared with it. A name is never given another meaning. The OTLP name
//! and unit are such that the usual translation (dots become underscores, the unit is appended unless it is in
//! braces, counters end in `_total`) gives the Prometheus name.

use std::fmt;

/// How the values of a metric move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only upwards, from zero when the run starts.
    Counter,
    /// Up and down.
    Gauge,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        })
    }
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name in Prometheus.
    pub name: &'static str,
    /// How its values move.
    pub kind: Kind,
    /// Its name in OTLP.
    pub otlp: &'static str,
    /// Its unit in OTLP, a code of UCUM.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub meaning: &'static str,
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal, $otlp:literal in $unit:literal, $labels:expr, $meaning:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            pub const $constant: &Metric = &Metric {
                name: $name,
                kind: Kind::$kind,
                otlp: $otlp,
                unit: $unit,
                labels: &$labels,
                meaning: $meaning,
            };
        )+

        /// Every metric there is, in the order of docs/metrics.md.
        pub const ALL: &[&Metric] = &[$($constant,)+];
    };
}

metrics! {
    SESSIONS = Counter "veriff_archive_sessions_total", "veriff_archive.sessions" in "{session}",
        ["integration", "outcome"],
        "Sessions that ended, by outcome: archived, unchanged, absent, failed, pending";
    SESSION_CODES = Counter "veriff_archive_session_codes_total", "veriff_archive.session_codes" in "{session}",
        ["integration", "code"],
        "Sessions that ended failed, pending or absent, by code of the runbook";
    MEDIA_ARCHIVED = Counter "veriff_archive_media_archived_total", "veriff_archive.media_archived" in "{item}",
        [],
        "Media items that are new in the archive";
    MEDIA_RECEIVED = Counter "veriff_archive_media_received_bytes_total", "veriff_archive.media_received" in "By",
        [],
        "Bytes of media received from Veriff, including repeated tries";
    MEDIA_STORED = Counter "veriff_archive_media_stored_bytes_total", "veriff_archive.media_stored" in "By",
        [],
        "Bytes of media that the store accepted";
    VERIFF_REQUESTS = Counter "veriff_archive_veriff_requests_total", "veriff_archive.veriff_requests" in "{request}",
        ["integration"],
        "Requests sent to Veriff, including repeated tries";
    VERIFF_THROTTLED = Counter "veriff_archive_veriff_throttled_total", "veriff_archive.veriff_throttled" in "{answer}",
        ["integration"],
        "Answers 429 from Veriff";
    VERIFF_RETRIES = Counter "veriff_archive_veriff_retries_total", "veriff_archive.veriff_retries" in "{request}",
        ["integration"],
        "Requests to Veriff that were tried again";
    STORE_RETRIES = Counter "veriff_archive_store_retries_total", "veriff_archive.store_retries" in "{request}",
        [],
        "Requests to the store that were tried again";
    LEASES_LOST = Counter "veriff_archive_leases_lost_total", "veriff_archive.leases_lost" in "{lease}",
        [],
        "Leases that lapsed, or went to another worker, while their session was in progress";
    SESSIONS_IN_FLIGHT = Gauge "veriff_archive_sessions_in_flight", "veriff_archive.sessions_in_flight" in "{session}",
        [],
        "Sessions in progress";
    INTEGRATION_STOPPED = Gauge "veriff_archive_integration_stopped", "veriff_archive.integration_stopped" in "",
        ["integration"],
        "1 when the run has stopped the integration, because its credentials are refused or all its sessions are absent; else 0";
    HORIZON_NEAREST = Gauge "veriff_archive_horizon_nearest_seconds", "veriff_archive.horizon_nearest" in "s",
        [],
        "Time until the nearest deadline of a session still to be done, negative once past; absent if there is none";
    HORIZON_SESSIONS = Gauge "veriff_archive_horizon_sessions", "veriff_archive.horizon_sessions" in "{session}",
        ["risk"],
        "Sessions still to be done whose deadline is past, within_alarm or unknown";
    LEDGER_SESSIONS = Gauge "veriff_archive_ledger_sessions", "veriff_archive.ledger_sessions" in "{session}",
        ["state"],
        "Sessions in the ledger, by state";
    LAST_PROGRESS = Gauge "veriff_archive_last_progress_timestamp_seconds", "veriff_archive.last_progress_timestamp" in "s",
        [],
        "When Veriff or the store last gave a good answer, in seconds since 1970; absent before the first";
    RUN_STARTED = Gauge "veriff_archive_run_started_timestamp_seconds", "veriff_archive.run_started_timestamp" in "s",
        [],
        "When the run began, in seconds since 1970";
    RUN_FINISHED = Gauge "veriff_archive_run_finished_timestamp_seconds", "veriff_archive.run_finished_timestamp" in "s",
        [],
        "When the run ended, in seconds since 1970; 0 while it is running";
    RUN_EXIT_CODE = Gauge "veriff_archive_run_exit_code", "veriff_archive.run_exit_code" in "",
        [],
        "Exit code of the run; absent while it is running, so that only the last push has it";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What collectors make of an OTLP name.
    fn translated(metric: &Metric) -> String {
        let mut name = metric.otlp.replace('.', "_");
        name += match metric.unit {
            "By" => "_bytes",
            "s" => "_seconds",
            unit if unit.is_empty() || unit.starts_with('{') => "",
            unit => panic!("{unit} is not known here"),
        };
        if metric.kind == Kind::Counter {
            name += "_total";
        }
        name
    }

    #[test]
    fn the_usual_translation_of_the_otlp_name_is_the_prometheus_name() {
        for metric in ALL {
            assert_eq!(translated(metric), metric.name);
        }
    }

    #[test]
    fn names_are_unique_and_labels_are_known_words() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        // A new label is a new way to reveal something about a person: think before you add one.
        let known = ["integration", "outcome", "code", "risk", "state"];
        assert!(ALL.iter().flat_map(|metric| metric.labels).all(|label| known.contains(label)));
    }
}
