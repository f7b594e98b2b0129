//! What only an engine with a server has: a schema that opening never changes, outages, TLS, several processes, plans.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _};
use veriff_archive::clock::Timestamp;
use veriff_archive::error::Code;
use veriff_archive::ledger::{
    self, BacklogEntry, Claim, Filter, Ledger, LedgerError, Migrated, SessionEntry, VolumeQuery, Which,
};
use veriff_archive::model::request::SessionRequest;

use super::ledger::{Engine, suite};
use super::ledger_samples::{ALARM, archived, at, failed, id, pending, run};
use super::ledger_survey::closed;
use crate::support::postgres::{PostgresServer, make_certificates, postgres};

/// How many migrations there are.
const LATEST: i64 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract_of_the_ledger() {
    let server = postgres().await;
    let engine = Engine {
        fresh: async || server.create_ledger().await,
        upgrade: async |url: &str| {
            execute(
                url,
                "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9999, 'of a later version', true, '\\x00', 0)",
            )
            .await;
        },
    };
    suite(engine).await;
}

#[tokio::test]
async fn every_engine_has_every_migration_under_the_same_name() {
    let names = |engine: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(engine);
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names("postgres"), names("sqlite"));
    let file = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/ledger.db", file.path().display());
    for url in [sqlite, postgres().await.create_database().await] {
        let migrated = ledger::migrate(&url).await.unwrap();
        assert_eq!(usize::try_from(migrated.to).unwrap(), names("sqlite").len());
    }
}

async fn execute(url: &str, statements: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// The error with all its causes, as it is printed.
fn whole(error: LedgerError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// Whatever the collation of a database: pages of ids come in the order in which the store lists them.
#[tokio::test]
async fn ids_are_ordered_by_their_bytes_in_every_database() {
    let url = postgres().await.create_ledger().await;
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let otherwise: Vec<(String, String)> = sqlx::query_as(
        "SELECT table_name::text, column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND column_name IN ('session_id', 'media_id', 'run_id')
            AND collation_name IS DISTINCT FROM 'C'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    assert_eq!(otherwise, []);
}

#[tokio::test]
async fn opening_a_database_never_changes_it() {
    let url = postgres().await.create_database().await;
    assert!(!ledger::exists(&url).await.unwrap());
    let missing = ledger::open(&url).await.unwrap_err();
    assert_eq!(missing.code(), Code::LedgerSchema);
    assert!(missing.to_string().contains("run `veriff-archive ledger migrate`"), "{missing}");
    assert!(!ledger::exists(&url).await.unwrap());

    assert_eq!(ledger::migrate(&url).await.unwrap(), Migrated { engine: "postgres", from: None, to: LATEST });
    assert!(ledger::exists(&url).await.unwrap());
    assert_eq!(ledger::migrate(&url).await.unwrap(), Migrated { engine: "postgres", from: Some(LATEST), to: LATEST });

    execute(&url, "DELETE FROM _sqlx_migrations WHERE version > 1").await;
    let older = ledger::open(&url).await.unwrap_err();
    assert_eq!(older.code(), Code::LedgerSchema);
    assert!(older.to_string().contains("older than this program"), "{older}");
    assert!(older.to_string().contains("run `veriff-archive ledger migrate`"), "{older}");
}

#[tokio::test]
async fn a_migration_that_was_edited_is_refused_by_all() {
    let url = postgres().await.create_ledger().await;
    execute(&url, "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    for error in [ledger::open(&url).await.unwrap_err(), ledger::migrate(&url).await.unwrap_err()] {
        assert_eq!(error.code(), Code::LedgerSchema);
        assert!(error.to_string().contains("not the one this program knows"), "{error}");
    }
}

#[tokio::test]
async fn a_ledger_of_the_first_schema_is_upgraded_and_keeps_what_it_holds() {
    let url = postgres().await.create_database().await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::migrate::Migrator::new(folder).await.unwrap().run_to(1, &mut connection).await.unwrap();
    connection.close().await.unwrap();
    execute(
        &url,
        "INSERT INTO sessions (session_id, integration, state, code, complete, settled, media, bytes, visits, run_id,
             first_visited_at, last_visited_at)
         VALUES ('s', 'eu', 'failed', 'veriff.empty', false, true, 0, 0, 3, 'r', 1000, 2000)",
    )
    .await;
    assert_eq!(ledger::migrate(&url).await.unwrap(), Migrated { engine: "postgres", from: Some(1), to: LATEST });
    let row = ledger::open(&url).await.unwrap().session(&id("s")).await.unwrap().unwrap();
    assert_eq!((row.integration.as_str(), row.code.as_deref(), row.visits), ("eu", Some("veriff.empty"), 3));
    assert_eq!(
        (row.first_visited_at, row.last_visited_at),
        (Timestamp::from_unix_seconds(1), Timestamp::from_unix_seconds(2))
    );
}

/// Workers of two versions run at once: what one has prepared must not break when the other's schema has more columns.
#[tokio::test]
async fn what_was_prepared_before_a_migration_is_answered_after_it() {
    let url = postgres().await.create_ledger().await;
    let ledger = ledger::open(&url).await.unwrap();
    let query = VolumeQuery { now: at(0), horizon_alarm: ALARM, runs: 10, audits: 10 };
    let look = async |place: u32| {
        let session = id(&format!("s{place}"));
        ledger.commit(&SessionEntry { look_again_at: Some(at(0)), ..archived(session.as_str(), 1, 2) }).await.unwrap();
        ledger.session(&session).await.unwrap();
        assert_eq!(ledger.claim(&claim(8)).await.unwrap().len(), 1);
        ledger.end_lease(&run("w"), &session, None).await.unwrap();
        ledger.list(&Filter::default(), None, 10).await.unwrap();
        ledger.list(&Filter { in_backlog: true, ..Filter::default() }, None, 10).await.unwrap();
        ledger.survey(None, 10).await.unwrap();
        ledger.survey_session(&session).await.unwrap();
        ledger.adopt_run(&closed(&format!("run-{place}"), place)).await.unwrap();
        ledger.closed_runs(None, 10).await.unwrap();
        ledger.record(&run("run-1")).await.unwrap();
        ledger.chunks(&run("run-1")).await.unwrap();
        ledger.waiting_lines(&run("run-1"), 0, 10).await.unwrap();
        ledger.chain_head("default").await.unwrap();
        ledger.retryable_of_run(&run("run-1"), None, 10).await.unwrap();
        ledger.audits(10).await.unwrap();
        ledger.overview(at(0), ALARM).await.unwrap();
        ledger.volume(&query).await.unwrap();
    };
    look(1).await;
    for table in ["archive", "runs", "sessions", "media", "backlog", "audits", "run_lines", "run_chunks"] {
        execute(&url, &format!("ALTER TABLE {table} ADD COLUMN of_a_later_version TEXT")).await;
    }
    look(2).await;
}

#[tokio::test]
async fn no_password_is_told_by_an_error() {
    let server = postgres().await;
    let url = server.create_ledger().await;
    let (before, host) = url.rsplit_once('@').unwrap();
    let user = before.rsplit_once(':').unwrap().0;
    let wrong = format!("{user}:hunter2@{host}");
    let nowhere = format!("{user}:hunter2@127.0.0.1:1/ledger");
    let absent = format!("{before}@{}/absent", host.split_once('/').unwrap().0);
    for (url, reason) in [(wrong, "password authentication failed"), (nowhere, "refused"), (absent, "does not exist")] {
        let error = ledger::open(&url).await.unwrap_err();
        assert_eq!(error.code(), Code::LedgerUnavailable);
        let text = whole(error);
        assert!(text.contains(reason), "{text}");
        assert!(!text.contains("hunter2") && !text.contains(before.rsplit_once(':').unwrap().1), "{text}");
    }
}

#[tokio::test]
async fn text_that_postgres_cannot_hold_fails_no_session() {
    let ledger = ledger::open(&postgres().await.create_ledger().await).await.unwrap();
    let mut entry = failed("s", Code::VeriffUnexpected);
    entry.record.reference = Some("order\0 7".into());
    entry.message = Some("\0".into());
    ledger.commit(&entry).await.unwrap();
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(row.record.reference.as_deref(), Some("order\u{FFFD} 7"));
    assert_eq!(row.message.as_deref(), Some("\u{FFFD}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_two_workers_bring_at_once_is_put_in_once() {
    let url = postgres().await.create_ledger().await;
    let workers = [ledger::open(&url).await.unwrap(), ledger::open(&url).await.unwrap()];
    for round in 0..30 {
        let session = format!("s{round}");
        let (one, other) = (archived(&session, 1, 2), archived(&session, 2, 3));
        let (one, other) = tokio::join!(workers[0].commit(&one), workers[1].commit(&other));
        one.unwrap();
        other.unwrap();
        let row = workers[0].session(&id(&session)).await.unwrap().unwrap();
        assert_eq!((row.manifest.unwrap().sequence, row.media, row.bytes, row.visits), (2, 3, 30, 2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_costs_no_call() {
    let server = PostgresServer::private().await;
    let ledger = ledger::open(&server.create_ledger().await).await.unwrap();
    // All connections of the pool are there, and all of them break.
    let calls = (0..8).map(|number| {
        let (ledger, session) = (&ledger, format!("before-{number}"));
        async move { ledger.commit(&archived(&session, 1, 1)).await.unwrap() }
    });
    futures_util::future::join_all(calls).await;
    for round in 0..2 {
        server.stop();
        server.start();
        let session = format!("after-{round}");
        ledger.commit(&archived(&session, 1, 1)).await.unwrap();
        assert!(ledger.session(&id(&session)).await.unwrap().is_some());
    }
    assert_eq!(ledger.overview(at(0), ALARM).await.unwrap().sessions, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waits_for_a_server_that_is_away() {
    let server = PostgresServer::private().await;
    let ledger = ledger::open(&server.create_ledger().await).await.unwrap();
    ledger.commit(&archived("s", 1, 1)).await.unwrap();
    server.stop();
    let later = archived("s", 2, 2);
    let mut call = Box::pin(ledger.commit(&later));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut call).await;
    assert!(waited.is_err(), "{waited:?}");
    server.start();
    call.await.unwrap();
    assert_eq!(ledger.session(&id("s")).await.unwrap().unwrap().media, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_is_told_and_found_again() {
    let server = PostgresServer::private().await;
    let url = server.create_ledger().await;
    let ledger = ledger::open(&url).await.unwrap();
    ledger.commit(&archived("s", 1, 1)).await.unwrap();
    server.stop();
    let session = id("s");
    let (opened, called) = tokio::join!(ledger::open(&url), ledger.session(&session));
    for error in [opened.unwrap_err(), called.unwrap_err()] {
        assert_eq!(error.code(), Code::LedgerUnavailable);
        assert!(error.code().is_retryable());
    }
    server.start();
    assert!(ledger.session(&session).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_only_with_the_certificate_that_is_asked_for() {
    let server = PostgresServer::with_tls().await;
    let url = server.create_ledger().await;
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let authority = server.authority().display().to_string();
    let wrong = other.path().join("client.pem").display().to_string();
    let by_name = url.replace("127.0.0.1", "localhost");

    for (url, options) in [
        (&url, "sslmode=disable".to_owned()),
        (&url, "sslmode=prefer".to_owned()),
        (&url, "sslmode=require".to_owned()),
        (&url, format!("sslmode=require&sslrootcert={authority}")),
        (&url, format!("sslmode=verify-ca&sslrootcert={authority}")),
        (&url, format!("sslmode=verify-full&sslrootcert={authority}")),
        // It vouches for the address only.
        (&by_name, format!("sslmode=verify-ca&sslrootcert={authority}")),
    ] {
        let opened = ledger::open(&format!("{url}?{options}")).await;
        let ledger = opened.unwrap_or_else(|error| panic!("{options}: {}", whole(error)));
        ledger.archive_id().await.unwrap();
    }
    for (url, options) in [
        (&url, "sslmode=verify-full".to_owned()),
        (&url, format!("sslmode=require&sslrootcert={wrong}")),
        (&url, format!("sslmode=verify-ca&sslrootcert={wrong}")),
        (&url, format!("sslmode=verify-full&sslrootcert={wrong}")),
        (&by_name, format!("sslmode=verify-full&sslrootcert={authority}")),
    ] {
        let error = ledger::open(&format!("{url}?{options}")).await.unwrap_err();
        assert_eq!(error.code(), Code::LedgerUnavailable, "{options}");
        let text = whole(error);
        assert!(text.contains("certificate"), "{options}: {text}");
    }
    let plain = postgres().await.create_ledger().await;
    let text = whole(ledger::open(&format!("{plain}?sslmode=require")).await.unwrap_err());
    assert!(text.contains("does not support TLS"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_many_hand_out_each_session_once_and_the_earliest_first() {
    const SESSIONS: i64 = 4000;
    const WORKERS: usize = 4;
    let url = postgres().await.create_ledger().await;
    let first = ledger::open(&url).await.unwrap();
    add(&*first, (0..SESSIONS).map(|number| (format!("s{number}"), Some(number * 37 % SESSIONS)))).await;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let ledger = ledger::open(&url).await.unwrap();
        tasks.spawn(async move {
            let holder = run(&format!("worker-{worker}"));
            let mut mine = Vec::new();
            loop {
                let claim = Claim { holder: holder.clone(), ..claim(8) };
                let found = ledger.claim(&claim).await.unwrap();
                if found.is_empty() {
                    return mine;
                }
                let found: Vec<_> = found.into_iter().map(|claimed| claimed.record).collect();
                assert!(found.is_sorted_by_key(|record| record.decided_at), "{found:?}");
                mine.push(found);
            }
        });
    }
    let claims = tasks.join_all().await;
    let all: Vec<_> = claims.iter().flatten().flatten().collect();
    assert_eq!(all.len(), usize::try_from(SESSIONS).unwrap());
    assert_eq!(all.iter().map(|record| &record.session_id).collect::<BTreeSet<_>>().len(), all.len());
    for claims in &claims {
        // What one worker gets is never earlier than what it got before.
        let deadlines: Vec<_> = claims.iter().flatten().map(|record| record.decided_at).collect();
        assert!(deadlines.is_sorted());
    }
}

fn claim(limit: u32) -> Claim {
    Claim {
        holder: run("w"),
        integrations: vec!["default".into()],
        now: at(0),
        lease: Duration::from_mins(5),
        limit,
        which: Which::Due,
    }
}

/// Adds sessions; their deadline stands in `decided_at`, too, where a claim shows it.
async fn add(ledger: &dyn Ledger, sessions: impl Iterator<Item = (String, Option<i64>)>) {
    let entries: Vec<_> = sessions
        .map(|(session, deadline)| BacklogEntry {
            record: SessionRequest { decided_at: deadline.map(at), ..SessionRequest::of(id(&session)) },
            integration: "default".into(),
            deadline_at: deadline.map(at),
        })
        .collect();
    for batch in entries.chunks(1000) {
        ledger.add(batch, &run("add"), at(0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_commits_and_numbers_are_answered_by_indexes() {
    let server = postgres().await;
    let url = server.create_ledger().await;
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    let writer = ledger::open(&url).await.unwrap();
    add(&*writer, (0..6000).map(|number| (format!("s{number:05}"), (number % 3 != 0).then_some(number)))).await;
    let lonely = BacklogEntry {
        record: SessionRequest::of(id("lonely")),
        integration: "few".into(),
        deadline_at: Some(at(5000)),
    };
    writer.add(&[lonely], &run("add"), at(0)).await.unwrap();
    for number in 0..600 {
        writer.commit(&failed(&format!("s{:05}", number * 7), Code::VeriffUnavailable)).await.unwrap();
    }
    for number in 0..40 {
        writer.commit(&archived(&format!("a{number}"), 1, 50)).await.unwrap();
    }
    writer.close().await;
    // The server writes down the plans of this database's statements as they are made.
    execute(
        &url,
        &format!(
            "ALTER DATABASE {name} SET session_preload_libraries = 'auto_explain';
             ALTER DATABASE {name} SET auto_explain.log_min_duration = 0;
             ALTER DATABASE {name} SET auto_explain.log_nested_statements = on"
        ),
    )
    .await;
    execute(&url, "VACUUM ANALYZE").await;

    let ledger = ledger::open(&url).await.unwrap();
    let claimed = ledger.claim(&claim(8)).await.unwrap();
    assert_eq!(claimed.len(), 8);
    // One integration has next to nothing, the other thousands: its claim must not read through all of these.
    let few = Claim { integrations: vec!["few".into()], ..claim(8) };
    assert_eq!(ledger.claim(&few).await.unwrap().len(), 1);
    let held = claimed[0].record.session_id.clone();
    ledger.renew(&run("w"), std::slice::from_ref(&held), at(600)).await.unwrap();
    ledger.commit(&SessionEntry { look_again_at: Some(at(9)), ..archived(held.as_str(), 1, 3) }).await.unwrap();
    ledger.commit(&pending("new")).await.unwrap();
    ledger.end_lease(&run("w"), &claimed[1].record.session_id, None).await.unwrap();
    ledger.retryable_of_run(&run("run-1"), Some(&id("s00100")), 10).await.unwrap();
    let page = Filter { in_backlog: true, ..Filter::default() };
    ledger.list(&page, None, 10).await.unwrap();
    ledger.close().await;
    // There are too few sessions for the server to prefer an index over reading them all: here it is asked to.
    execute(&url, &format!("ALTER DATABASE {name} SET enable_seqscan = off")).await;
    let ledger = ledger::open(&url).await.unwrap();
    ledger.overview(at(0), ALARM).await.unwrap();
    ledger.close().await;

    let log = server.log();
    let plans: Vec<&str> = log
        .split(&format!("[{name}] LOG:"))
        .skip(1)
        .map(|entry| entry.split("\n[").next().unwrap())
        .filter(|entry| entry.contains("plan:"))
        .collect();
    let plan = |statement: &str| {
        let found = plans.iter().find(|plan| plan.split_whitespace().collect::<Vec<_>>().join(" ").contains(statement));
        *found.unwrap_or_else(|| panic!("no plan of {statement} in {plans:#?}"))
    };
    for (statement, index) in [
        ("WITH next AS", "using backlog_next on backlog"),
        ("WITH over_now AS", "using backlog_due on backlog"),
        ("SELECT state, manifest_sequence", "using sessions_pkey on sessions"),
        ("UPDATE backlog SET due_at", "using backlog_pkey on backlog"),
        ("DELETE FROM backlog", "using backlog_pkey on backlog"),
        ("UPDATE sessions SET", "using sessions_pkey on sessions"),
        ("UPDATE sessions SET", "media_pkey on media"),
        ("WHERE run_id = $1 AND session_id > $2", "sessions_left_by_run"),
        ("queue_deadline_at", "using backlog_by_deadline on backlog"),
        ("FROM sessions GROUP BY state, code", "Index Only Scan using sessions_overview on sessions"),
        ("min(first_visited_at)", "Index Only Scan using sessions_oldest_pending on sessions"),
    ] {
        let plan = plan(statement);
        assert!(plan.contains(index), "{index}: {plan}");
        assert!(!plan.contains("Seq Scan"), "{plan}");
    }
    for plan in plans.iter().filter(|plan| plan.contains("WITH next AS")) {
        assert!(plan.contains("using backlog_next on backlog"), "{plan}");
        assert!(!plan.contains("Seq Scan") && !plan.contains("Sort Key: backlog"), "{plan}");
    }
}
