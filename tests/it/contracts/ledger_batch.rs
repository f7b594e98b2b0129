//! Many visits in one transaction: they must say what they say one after another, from every engine.

use std::collections::BTreeMap;

use veriff_archive::error::Code;
use veriff_archive::ledger::{self, Filter, Ledger, LedgerError, LineEntry, SessionEntry, State};
use veriff_archive::model::{MediaKind, SessionId};

use super::ledger_samples::{archived, at, begin, failed, id, pending, run};
use super::ledger_survey::everything;

pub(super) async fn suite(fresh: &impl AsyncFn() -> String) {
    let open = async || ledger::open(&fresh().await).await.unwrap();
    many_at_once_say_what_they_say_one_after_another(&*open().await, &*open().await).await;
    of_many_that_are_refused_nothing_is_left(&*open().await).await;
    of_many_whose_run_is_closed_nothing_is_left(&*open().await).await;
    the_newest_manifest_of_many_is_known(&*open().await).await;
    batches_at_once_never_take_a_manifest_back(&fresh().await).await;
}

/// Numbers without an order, the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Visits to a dozen sessions, each in any state, with any manifest, in any order.
fn visits(count: u64) -> Vec<SessionEntry> {
    let mut numbers = Numbers(5);
    let mut line = 0;
    let visit = |place: u64| {
        let session = format!("s{}", numbers.below(12));
        let mut entry = match numbers.below(6) {
            0 => pending(&session),
            1 => failed(&session, Code::VeriffThrottled),
            2 => SessionEntry { code: Some(Code::VeriffAbsent), state: State::Absent, ..pending(&session) },
            _ => archived(
                &session,
                u32::try_from(1 + numbers.below(4)).unwrap(),
                u32::try_from(numbers.below(5)).unwrap(),
            ),
        };
        if entry.state == State::Archived && numbers.below(3) == 0 {
            (entry.state, entry.code, entry.complete) = (State::Failed, Some(Code::MediaMissing), false);
            entry.message = Some("one item is \0 missing".into());
        }
        for item in &mut entry.media {
            item.size_bytes = 10 + numbers.below(90);
            item.kind = if numbers.below(2) == 0 { MediaKind::Image } else { MediaKind::Video };
            item.version_id = (numbers.below(2) == 0).then(|| format!("v{place}"));
        }
        // The same item twice: the last counts.
        entry.media.extend(entry.media.first().cloned());
        let time = at(i64::try_from(place).unwrap());
        entry.at = time;
        entry.settled = numbers.below(2) == 0;
        entry.integration = format!("integration-{}", numbers.below(3));
        entry.record.reference = (numbers.below(3) == 0).then(|| format!("order {place}"));
        entry.record.integration = (numbers.below(3) == 0).then(|| "asked".to_owned());
        entry.record.retention_class = (numbers.below(3) == 0).then(|| "chip".to_owned());
        entry.record.decided_at = (numbers.below(3) == 0).then_some(time);
        entry.upstream_created_at = (numbers.below(3) == 0).then_some(time);
        entry.deadline_at = (numbers.below(3) == 0).then_some(time);
        entry.look_again_at = (numbers.below(4) == 0).then_some(time);
        entry.run_id = run(&format!("run-{}", numbers.below(2)));
        if entry.run_id == run("run-0") {
            line += 1;
            entry.line = Some(LineEntry { number: line, text: format!("line {line}"), media: 1, bytes: place });
        }
        entry
    };
    (0..count).map(visit).collect()
}

async fn many_at_once_say_what_they_say_one_after_another(one: &dyn Ledger, many: &dyn Ledger) {
    let visits = visits(240);
    for ledger in [one, many] {
        begin(ledger, "run-0", Some("{}")).await;
        ledger.commit_all(&[]).await.unwrap();
    }
    for (round, batch) in visits.chunks(40).enumerate() {
        for entry in batch {
            one.commit(entry).await.unwrap();
        }
        many.commit_all(batch).await.unwrap();
        assert_eq!(everything(many, 100).await, everything(one, 100).await, "batch {round}");
        let filter = Filter::default();
        assert_eq!(
            many.list(&filter, None, 100).await.unwrap(),
            one.list(&filter, None, 100).await.unwrap(),
            "batch {round}"
        );
        let lines = async |ledger: &dyn Ledger| ledger.waiting_lines(&run("run-0"), 0, 1000).await.unwrap();
        assert_eq!(lines(many).await, lines(one).await);
        if round == 2 {
            for ledger in [one, many] {
                assert!(
                    ledger
                        .accept(&Filter { states: vec![State::Failed], ..filter.clone() }, "lost", at(0))
                        .await
                        .unwrap()
                        > 0
                );
            }
        }
        // Whatever is told again changes nothing but the number of visits, and that alike.
        if round == 3 {
            for entry in batch {
                one.commit(entry).await.unwrap();
            }
            many.commit_all(batch).await.unwrap();
        }
    }
    assert_eq!(everything(many, 100).await.len(), 12);
}

async fn of_many_that_are_refused_nothing_is_left(ledger: &dyn Ledger) {
    ledger.commit(&pending("s")).await.unwrap();
    let lie = SessionEntry { manifest: None, ..archived("t", 1, 2) };
    assert!(ledger.commit_all(&[archived("s", 1, 2), lie, archived("u", 1, 2)]).await.is_err());
    let row = ledger.session(&id("s")).await.unwrap().unwrap();
    assert_eq!((row.state, row.media, row.visits), (State::Pending, 0, 1));
    assert_eq!(everything(ledger, 10).await.len(), 1);
    ledger.commit_all(&[archived("s", 1, 2), archived("u", 1, 2)]).await.unwrap();
    assert_eq!(everything(ledger, 10).await.len(), 2);
}

async fn of_many_whose_run_is_closed_nothing_is_left(ledger: &dyn Ledger) {
    let line = Some(LineEntry { number: 1, text: "line".into(), media: 0, bytes: 0 });
    let closed = SessionEntry { line, run_id: run("unknown"), ..archived("t", 1, 1) };
    let error = ledger.commit_all(&[archived("s", 1, 1), closed]).await.unwrap_err();
    assert!(matches!(&error, LedgerError::RunClosed(closed) if *closed == run("unknown")), "{error}");
    assert_eq!(everything(ledger, 10).await, []);
}

async fn the_newest_manifest_of_many_is_known(ledger: &dyn Ledger) {
    ledger.commit_all(&[archived("a", 1, 1), archived("a", 2, 1), archived("A", 7, 0), pending("b")]).await.unwrap();
    let asked: Vec<SessionId> = ["A", "a", "b", "c"].map(id).into();
    let known = ledger.known_manifests(&asked).await.unwrap();
    assert_eq!(known, BTreeMap::from([(id("A"), 7), (id("a"), 2), (id("b"), 0)]));
    assert_eq!(ledger.known_manifests(&[]).await.unwrap(), BTreeMap::new());
}

/// Two workers bring the same sessions, in orders that would wait for each other crosswise.
async fn batches_at_once_never_take_a_manifest_back(url: &str) {
    let (one, two) = (ledger::open(url).await.unwrap(), ledger::open(url).await.unwrap());
    for round in 0..10 {
        let ids: Vec<String> = (0..20).map(|number| format!("s{round}-{number}")).collect();
        let older: Vec<SessionEntry> = ids.iter().map(|session| archived(session, 1, 2)).collect();
        let newer: Vec<SessionEntry> = ids.iter().rev().map(|session| archived(session, 2, 3)).collect();
        let (first, second) = tokio::join!(one.commit_all(&older), two.commit_all(&newer));
        first.unwrap();
        second.unwrap();
        for session in &ids {
            let row = one.session(&id(session)).await.unwrap().unwrap();
            assert_eq!((row.manifest.unwrap().sequence, row.media, row.bytes, row.visits), (2, 3, 30, 2));
        }
    }
}
