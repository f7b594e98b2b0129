//! What every engine of the ledger must do alike with its backlog.

use std::collections::BTreeSet;
use std::time::Duration;

use veriff_archive::clock::Timestamp;
use veriff_archive::error::Code;
use veriff_archive::ledger::{
    self, Added, BacklogCounts, BacklogEntry, Claim, Claimed, Comeback, Cursor, Filter, Ledger, SessionEntry, State,
    Turn, Which,
};
use veriff_archive::model::request::SessionRequest;
use veriff_archive::model::{RunId, SessionId};

use super::ledger_samples::{ALARM, archived, at, failed, id, pending, run};

const LEASE: Duration = Duration::from_mins(5);

/// Everything that is checked of a fresh, empty ledger, each on its own.
pub(super) async fn suite(fresh: impl AsyncFn() -> String) {
    let open = async || ledger::open(&fresh().await).await.unwrap();
    adding_twice_changes_nothing(&*open().await).await;
    a_batch_may_name_a_session_twice(&*open().await).await;
    what_has_ended_is_left_and_what_may_change_is_added(&*open().await).await;
    unknown_deadlines_come_first_then_the_earliest(&*open().await).await;
    only_the_integrations_asked_for_are_handed_out(&*open().await).await;
    a_lease_lapses_unless_it_is_renewed(&*open().await).await;
    a_lease_that_was_taken_over_is_no_longer_ours(&*open().await).await;
    what_is_given_back_comes_again_in_its_time(&*open().await).await;
    what_a_run_left_is_handed_out_to_it_once_more(&*open().await).await;
    a_session_that_may_still_change_comes_again(&*open().await).await;
    a_deadline_that_is_learnt_moves_the_session(&*open().await).await;
    sessions_are_listed_by_deadline_and_in_pages(&*open().await).await;
    filters_hold_together(&*open().await).await;
    failed_sessions_are_opened_again(&*open().await).await;
    accepted_sessions_are_closed_and_stay_so(&*open().await).await;
    what_is_worked_on_is_neither_opened_nor_closed(&*open().await).await;
    many_holders_never_share_a_session(&fresh().await).await;
}

fn entry(session: &str, deadline: Option<i64>) -> BacklogEntry {
    BacklogEntry {
        record: SessionRequest::of(id(session)),
        integration: "default".into(),
        deadline_at: deadline.map(at),
    }
}

async fn add(ledger: &dyn Ledger, entries: &[BacklogEntry]) -> Added {
    ledger.add(entries, &run("add"), at(0)).await.unwrap()
}

fn claim(holder: &str, now: i64, limit: u32) -> Claim {
    Claim {
        holder: run(holder),
        integrations: vec!["default".into()],
        now: at(now),
        lease: LEASE,
        limit,
        which: Which::Due,
    }
}

async fn taken(ledger: &dyn Ledger, claim: &Claim) -> Vec<String> {
    names(&ledger.claim(claim).await.unwrap())
}

fn names(claimed: &[Claimed]) -> Vec<String> {
    claimed.iter().map(|claimed| claimed.record.session_id.to_string()).collect()
}

async fn counts(ledger: &dyn Ledger) -> (u64, u64, u64) {
    let BacklogCounts { ready, waiting, leased } = ledger.overview(at(0), ALARM).await.unwrap().backlog;
    (ready, waiting, leased)
}

async fn state(ledger: &dyn Ledger, session: &str) -> State {
    ledger.session(&id(session)).await.unwrap().unwrap().state
}

async fn listed(ledger: &dyn Ledger, filter: &Filter) -> Vec<String> {
    let found = ledger.list(filter, None, 100).await.unwrap();
    found.iter().map(|listed| listed.row.record.session_id.to_string()).collect()
}

async fn adding_twice_changes_nothing(ledger: &dyn Ledger) {
    let mut with_date = entry("a", Some(100));
    with_date.record.decided_at = Some(at(-10));
    assert_eq!(add(ledger, &[with_date, entry("b", None)]).await, Added { added: 2, waiting: 0, ended: 0 });
    let mut again = entry("a", None);
    again.record.reference = Some("order 7".into());
    let later = entry("b", Some(50));
    assert_eq!(add(ledger, &[again, later]).await, Added { added: 0, waiting: 2, ended: 0 });
    let row = ledger.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((row.state, row.visits, row.deadline_at), (State::Pending, 0, Some(at(100))));
    assert_eq!((row.record.decided_at, row.record.reference.as_deref()), (Some(at(-10)), Some("order 7")));
    assert_eq!(counts(ledger).await, (2, 0, 0));
    let overview = ledger.overview(at(0), ALARM).await.unwrap();
    assert_eq!((overview.sessions, overview.oldest_pending_at), (2, Some(at(0))));
}

async fn a_batch_may_name_a_session_twice(ledger: &dyn Ledger) {
    let added = add(ledger, &[entry("a", None), entry("b", None), entry("a", Some(10)), entry("a", None)]).await;
    assert_eq!(added, Added { added: 2, waiting: 2, ended: 0 });
    assert_eq!(taken(ledger, &claim("w", 0, 10)).await.len(), 2);
    assert_eq!(add(ledger, &[]).await, Added::default());
}

async fn what_has_ended_is_left_and_what_may_change_is_added(ledger: &dyn Ledger) {
    ledger.commit(&archived("settled", 1, 1)).await.unwrap();
    ledger.commit(&SessionEntry { settled: false, ..archived("unsettled", 1, 1) }).await.unwrap();
    ledger.commit(&failed("failed", Code::MediaMissing)).await.unwrap();
    ledger.commit(&pending("pending")).await.unwrap();
    let given = ["settled", "unsettled", "failed", "pending", "new"].map(|session| entry(session, None));
    assert_eq!(add(ledger, &given).await, Added { added: 3, waiting: 0, ended: 2 });
    let mut found = taken(ledger, &claim("w", 0, 10)).await;
    found.sort();
    assert_eq!(found, ["new", "pending", "unsettled"]);
    assert_eq!(state(ledger, "unsettled").await, State::Archived);
    assert_eq!(state(ledger, "failed").await, State::Failed);
}

async fn unknown_deadlines_come_first_then_the_earliest(ledger: &dyn Ledger) {
    let given = [entry("late", Some(300)), entry("unknown", None), entry("b", Some(100)), entry("a", Some(100))];
    add(ledger, &given).await;
    assert_eq!(taken(ledger, &claim("w", 0, 3)).await, ["unknown", "a", "b"]);
    assert_eq!(taken(ledger, &claim("w", 0, 3)).await, ["late"]);
    assert_eq!(taken(ledger, &claim("w", 0, 3)).await, [""; 0]);
    assert_eq!(counts(ledger).await, (0, 0, 4));
}

async fn only_the_integrations_asked_for_are_handed_out(ledger: &dyn Ledger) {
    let us = |session: &str, deadline| BacklogEntry { integration: "us".into(), ..entry(session, deadline) };
    add(ledger, &[us("u1", Some(1)), entry("d2", Some(2)), us("u3", Some(3)), entry("d4", Some(4))]).await;
    assert_eq!(taken(ledger, &claim("w", 0, 1)).await, ["d2"]);
    let both = Claim { integrations: vec!["default".into(), "us".into()], ..claim("w", 0, 2) };
    let found = ledger.claim(&both).await.unwrap();
    assert_eq!(names(&found), ["u1", "u3"]);
    assert_eq!(found[0].integration, "us");
    let none = Claim { integrations: Vec::new(), ..claim("w", 0, 2) };
    assert_eq!(taken(ledger, &none).await, [""; 0]);
}

async fn a_lease_lapses_unless_it_is_renewed(ledger: &dyn Ledger) {
    add(ledger, &[entry("a", None), entry("b", None)]).await;
    let lease_s = i64::try_from(LEASE.as_secs()).unwrap();
    assert_eq!(taken(ledger, &claim("one", 0, 2)).await, ["a", "b"]);
    let kept = ledger.renew(&run("one"), &[id("a"), id("never-held")], at(2 * lease_s)).await.unwrap();
    assert_eq!(kept, [id("a")]);
    assert_eq!(taken(ledger, &claim("two", lease_s - 1, 2)).await, [""; 0]);
    let found = ledger.claim(&claim("two", lease_s, 2)).await.unwrap();
    assert_eq!(names(&found), ["b"]);
    assert_eq!(found[0].tries, 1, "a lease that lapsed was a try");
}

async fn a_lease_that_was_taken_over_is_no_longer_ours(ledger: &dyn Ledger) {
    add(ledger, &[entry("a", None)]).await;
    taken(ledger, &claim("one", 0, 1)).await;
    assert_eq!(taken(ledger, &claim("two", 1000, 1)).await, ["a"]);
    assert!(ledger.renew(&run("one"), &[id("a")], at(2000)).await.unwrap().is_empty());
    let again = Comeback { due_at: at(0), was_tried: true };
    assert!(!ledger.end_lease(&run("one"), &id("a"), Some(again)).await.unwrap());
    assert!(!ledger.end_lease(&run("one"), &id("a"), None).await.unwrap());
    // What it archived is evidence all the same; whose turn it is does not change.
    let look_again_at = Some(at(5000));
    ledger.commit(&SessionEntry { run_id: run("one"), look_again_at, ..archived("a", 1, 1) }).await.unwrap();
    assert_eq!(counts(ledger).await, (0, 0, 1));
    assert!(ledger.end_lease(&run("two"), &id("a"), None).await.unwrap());
    assert_eq!(counts(ledger).await, (0, 0, 0));
}

async fn what_is_given_back_comes_again_in_its_time(ledger: &dyn Ledger) {
    add(ledger, &[entry("tried", None), entry("untouched", None)]).await;
    taken(ledger, &claim("one", 0, 2)).await;
    let later = Comeback { due_at: at(30), was_tried: true };
    assert!(ledger.end_lease(&run("one"), &id("tried"), Some(later)).await.unwrap());
    let at_once = Comeback { due_at: at(0), was_tried: false };
    assert!(ledger.end_lease(&run("one"), &id("untouched"), Some(at_once)).await.unwrap());
    assert_eq!(counts(ledger).await, (1, 1, 0));
    let found = ledger.claim(&claim("two", 0, 2)).await.unwrap();
    assert_eq!((names(&found), found[0].tries), (vec!["untouched".to_owned()], 0));
    assert_eq!(counts(ledger).await, (0, 1, 1));
    let found = ledger.claim(&claim("two", 30, 2)).await.unwrap();
    assert_eq!((names(&found), found[0].tries), (vec!["tried".to_owned()], 1));
}

async fn what_a_run_left_is_handed_out_to_it_once_more(ledger: &dyn Ledger) {
    let sessions = ["left", "other-run", "for-good", "leased", "done"];
    add(ledger, &sessions.map(|session| entry(session, None))).await;
    taken(ledger, &claim("one", 0, 10)).await;
    for (session, code) in [
        ("left", Code::VeriffUnavailable),
        ("other-run", Code::VeriffUnavailable),
        ("for-good", Code::MediaMissing),
        ("leased", Code::VeriffUnavailable),
    ] {
        let run_id = run(if session == "other-run" { "two" } else { "one" });
        ledger.commit(&SessionEntry { run_id, ..failed(session, code) }).await.unwrap();
        if session != "leased" {
            let later = Comeback { due_at: at(9999), was_tried: true };
            ledger.end_lease(&run("one"), &id(session), Some(later)).await.unwrap();
        }
    }
    let left = Claim { which: Which::LeftByHolder, ..claim("one", 1, 10) };
    assert_eq!(taken(ledger, &left).await, ["left"]);
    assert_eq!(taken(ledger, &left).await, [""; 0]);
}

async fn a_session_that_may_still_change_comes_again(ledger: &dyn Ledger) {
    add(ledger, &[entry("mine", None)]).await;
    taken(ledger, &claim("one", 0, 1)).await;
    for session in ["mine", "never-added"] {
        let look_again_at = Some(at(600));
        let run_id = run("one");
        ledger
            .commit(&SessionEntry { run_id, look_again_at, settled: false, ..archived(session, 1, 1) })
            .await
            .unwrap();
    }
    assert!(!ledger.end_lease(&run("one"), &id("mine"), None).await.unwrap(), "the commit ended the lease");
    assert_eq!(counts(ledger).await, (0, 2, 0));
    assert_eq!(taken(ledger, &claim("two", 599, 10)).await, [""; 0]);
    let found = ledger.claim(&claim("two", 600, 10)).await.unwrap();
    assert_eq!(names(&found), ["mine", "never-added"]);
    assert!(found.iter().all(|claimed| claimed.tries == 0));
}

async fn a_deadline_that_is_learnt_moves_the_session(ledger: &dyn Ledger) {
    add(ledger, &[entry("a", Some(10)), entry("z", None)]).await;
    taken(ledger, &claim("one", 0, 1)).await;
    let learnt = SessionEntry { deadline_at: Some(at(20)), ..failed("z", Code::VeriffUnavailable) };
    ledger.commit(&learnt).await.unwrap();
    let at_once = Comeback { due_at: at(0), was_tried: true };
    ledger.end_lease(&run("one"), &id("z"), Some(at_once)).await.unwrap();
    assert_eq!(taken(ledger, &claim("one", 0, 2)).await, ["a", "z"]);
}

async fn sessions_are_listed_by_deadline_and_in_pages(ledger: &dyn Ledger) {
    let given: Vec<BacklogEntry> =
        (0..25).map(|number| entry(&format!("s{number:02}"), (number % 5 != 0).then_some(number / 2))).collect();
    add(ledger, &given).await;
    ledger.commit(&archived("not-in-it", 1, 1)).await.unwrap();
    let filter = Filter { in_backlog: true, ..Filter::default() };
    let mut found: Vec<(Option<Timestamp>, String)> = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let page = ledger.list(&filter, after.as_ref(), 4).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 4);
        after = Some(Cursor::behind(&last.row));
        found.extend(page.iter().map(|listed| (listed.row.deadline_at, listed.row.record.session_id.to_string())));
    }
    assert_eq!(found.len(), 25);
    assert!(found.is_sorted(), "{found:?}");
    let one = ledger.list(&filter, None, 1).await.unwrap().remove(0);
    let waiting = one.waiting.unwrap();
    assert_eq!((waiting.turn, waiting.due_at, waiting.leased_by, waiting.tries), (Turn::Ready, at(0), None, 0));
    taken(ledger, &claim("w", 0, 1)).await;
    let one = ledger.list(&filter, None, 1).await.unwrap().remove(0).waiting.unwrap();
    assert_eq!((one.turn, one.leased_by), (Turn::Leased, Some(run("w"))));
}

async fn filters_hold_together(ledger: &dyn Ledger) {
    add(ledger, &[entry("waiting", None)]).await;
    ledger.commit(&archived("archived", 1, 1)).await.unwrap();
    ledger.commit(&failed("missing", Code::MediaMissing)).await.unwrap();
    ledger
        .commit(&SessionEntry { run_id: run("two"), at: at(500), ..failed("gone", Code::MediaMissing) })
        .await
        .unwrap();
    ledger.commit(&failed("throttled", Code::VeriffThrottled)).await.unwrap();
    let all = Filter::default();
    assert_eq!(listed(ledger, &all).await, ["archived", "gone", "missing", "throttled", "waiting"]);
    let states = Filter { states: vec![State::Failed, State::Pending], ..all.clone() };
    assert_eq!(listed(ledger, &states).await, ["gone", "missing", "throttled", "waiting"]);
    let codes = Filter { codes: vec!["media.missing".into()], ..states.clone() };
    assert_eq!(listed(ledger, &codes).await, ["gone", "missing"]);
    assert_eq!(listed(ledger, &Filter { run_id: Some(run("two")), ..codes.clone() }).await, ["gone"]);
    assert_eq!(listed(ledger, &Filter { before: Some(at(500)), ..codes.clone() }).await, ["missing"]);
    assert_eq!(listed(ledger, &Filter { sessions: Some(vec![id("gone"), id("waiting")]), ..codes }).await, ["gone"]);
    assert_eq!(listed(ledger, &Filter { sessions: Some(Vec::new()), ..all.clone() }).await, [""; 0]);
    assert_eq!(listed(ledger, &Filter { in_backlog: true, ..all }).await, ["waiting"]);
}

async fn failed_sessions_are_opened_again(ledger: &dyn Ledger) {
    for (session, code) in [("m1", Code::MediaMissing), ("m2", Code::MediaMissing), ("e", Code::VeriffEmpty)] {
        ledger.commit(&SessionEntry { deadline_at: Some(at(90)), ..failed(session, code) }).await.unwrap();
    }
    ledger.commit(&SessionEntry { settled: false, ..archived("archived", 1, 1) }).await.unwrap();
    let filter = Filter { codes: vec!["media.missing".into()], ..Filter::default() };
    assert_eq!(ledger.retry(&filter, at(7)).await.unwrap(), 2);
    assert_eq!(ledger.retry(&filter, at(7)).await.unwrap(), 0, "they have no code any more");
    let row = ledger.session(&id("m1")).await.unwrap().unwrap();
    assert_eq!((row.state, row.code, row.message), (State::Pending, None, None));
    let archived = Filter { states: vec![State::Archived], ..Filter::default() };
    assert_eq!(ledger.retry(&archived, at(7)).await.unwrap(), 1);
    assert_eq!(state(ledger, "archived").await, State::Archived, "it is looked at again and stays what it is");
    assert_eq!(taken(ledger, &claim("w", 7, 10)).await, ["archived", "m1", "m2"]);
    assert_eq!(state(ledger, "e").await, State::Failed);
}

async fn accepted_sessions_are_closed_and_stay_so(ledger: &dyn Ledger) {
    add(ledger, &[entry("gone", None), entry("kept", None)]).await;
    ledger.commit(&failed("lost", Code::MediaMissing)).await.unwrap();
    ledger.commit(&archived("archived", 1, 1)).await.unwrap();
    let named = |sessions: &[&str]| Filter {
        sessions: Some(sessions.iter().map(|session| id(session)).collect()),
        ..Filter::default()
    };
    let filter = named(&["gone", "lost", "archived"]);
    assert_eq!(ledger.accept(&filter, "deleted at the vendor before we came", at(5)).await.unwrap(), 2);
    assert_eq!(ledger.accept(&filter, "again", at(6)).await.unwrap(), 0);
    let row = ledger.session(&id("lost")).await.unwrap().unwrap();
    assert_eq!(row.state, State::Accepted);
    assert_eq!(row.accepted_reason.as_deref(), Some("deleted at the vendor before we came"));
    assert_eq!(state(ledger, "archived").await, State::Archived);
    assert_eq!(counts(ledger).await, (1, 0, 0));
    assert_eq!(add(ledger, &[entry("gone", None)]).await, Added { added: 0, waiting: 0, ended: 1 });
    ledger.commit(&failed("lost", Code::MediaMissing)).await.unwrap();
    assert_eq!(state(ledger, "lost").await, State::Accepted);
    ledger.commit(&archived("lost", 1, 1)).await.unwrap();
    assert_eq!(state(ledger, "lost").await, State::Archived, "what turns up after all is archived");
    let accepted = Filter { states: vec![State::Accepted], ..Filter::default() };
    assert_eq!(ledger.retry(&accepted, at(8)).await.unwrap(), 1);
    let row = ledger.session(&id("gone")).await.unwrap().unwrap();
    assert_eq!((row.state, row.accepted_reason), (State::Pending, None));
}

async fn what_is_worked_on_is_neither_opened_nor_closed(ledger: &dyn Ledger) {
    add(ledger, &[entry("a", None)]).await;
    taken(ledger, &claim("one", 0, 1)).await;
    assert_eq!(ledger.retry(&Filter::default(), at(1)).await.unwrap(), 0);
    assert_eq!(ledger.accept(&Filter::default(), "no", at(1)).await.unwrap(), 0);
    assert_eq!(counts(ledger).await, (0, 0, 1));
    assert_eq!(state(ledger, "a").await, State::Pending);
}

async fn many_holders_never_share_a_session(url: &str) {
    const SESSIONS: i64 = 600;
    let first = ledger::open(url).await.unwrap();
    let given: Vec<BacklogEntry> =
        (0..SESSIONS).map(|number| entry(&format!("s{number}"), Some(number * 7 % SESSIONS))).collect();
    add(&*first, &given).await;
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let ledger = ledger::open(url).await.unwrap();
        tasks.spawn(async move {
            let holder: RunId = run(&format!("worker-{worker}"));
            let mut mine: Vec<SessionId> = Vec::new();
            loop {
                let claim = Claim { holder: holder.clone(), ..claim("any", 0, 7) };
                let found = ledger.claim(&claim).await.unwrap();
                if found.is_empty() {
                    return mine;
                }
                mine.extend(found.into_iter().map(|claimed| claimed.record.session_id));
            }
        });
    }
    let mine = tasks.join_all().await;
    let all: Vec<SessionId> = mine.into_iter().flatten().collect();
    assert_eq!(all.len(), usize::try_from(SESSIONS).unwrap());
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}
