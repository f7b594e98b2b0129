//! `audit fixity`: nothing to say of an archive that was left alone, and everything of one that was not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use veriff_archive::audit::FindingCode as Code;
use veriff_archive::audit::fixity::{Fixity, FixityMode, FixityTally};
use veriff_archive::audit::runner::{AuditEnd, AuditError, Question};
use veriff_archive::audit::scope::Scope;
use veriff_archive::audit::sessions::{Checked, Feed, SessionsRunner, listed};
use veriff_archive::audit::walk::{Walk, WalkedSession};
use veriff_archive::audit::{AuditKind, Severity};
use veriff_archive::model::SessionId;
use veriff_archive::stop::Stop;
use veriff_archive::stop::Stopped;

use crate::support::audited::{Audited, begun_with, codes, flipped, names, serious, session_of};
use crate::support::evidence::{Evidence, Object};
use crate::support::program::Ended;
use crate::support::s3::READER;

/// A number that follows from others, for places that nobody chose.
fn spread(seed: usize, below: usize) -> usize {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    usize::try_from((mixed ^ (mixed >> 29)) % below as u64).unwrap()
}

fn is_document(key: &str) -> bool {
    key.ends_with(".meta.json") || key.contains("/manifest/")
}

/// The objects of sessions with the version that is the archive's.
fn objects(evidence: &Evidence) -> impl Iterator<Item = (&str, &Object)> {
    let of_sessions = evidence.objects.iter().filter(|(key, _)| key.starts_with("sessions/"));
    of_sessions.map(|(key, versions)| (key.as_str(), &versions[0]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_archive_has_nothing_to_say_in_a_directory_and_in_a_bucket() {
    let in_directory = Audited::in_directory(501).await;
    let in_bucket = Audited::in_bucket(502).await;
    for (audited, is_bucket) in [(&in_directory, false), (&in_bucket, true)] {
        for mode in [FixityMode::Head, FixityMode::Read] {
            let (findings, tally) = audited.fixity_of_all(mode, Scope::All).await;
            assert_eq!(serious(&findings), Vec::<&_>::new(), "{is_bucket} {mode:?}");
            // A directory says once that it keeps no checksums.
            assert_eq!(findings.len(), usize::from(!is_bucket && mode == FixityMode::Head));
            assert_eq!(tally.sessions, 32);
            assert!(tally.manifests >= 33 && tally.objects > 100, "{tally:?}");
            assert_eq!(tally.reread_objects, if mode == FixityMode::Read { tally.objects } else { 0 });
            assert_eq!(tally.reread_bytes, if mode == FixityMode::Read { tally.bytes } else { 0 });
            assert_eq!(tally.unchecked, if is_bucket { 0 } else { tally.objects });
            assert_eq!(tally.composite, u64::from(is_bucket));
            assert_eq!(tally.unvouched_manifests, 0);
            assert_eq!(tally.hidden_locks, 0);
        }
        // Without a ledger nothing tells the digest of the newest manifests of a directory, and the summary says so.
        let alone = Fixity { ledger: None, ..audited.fixity(FixityMode::Head) };
        let mut tally = FixityTally::default();
        for id in &audited.ids {
            let walked = listed(&*audited.store, &SessionId::parse(id).unwrap()).await.unwrap();
            let part = alone.check(walked).await.unwrap();
            assert_eq!(part.findings, []);
            veriff_archive::audit::sessions::AuditTally::add(&mut tally, part.tally);
        }
        assert_eq!(tally.unvouched_manifests, if is_bucket { 0 } else { 32 });
    }
}

/// Flips bits all over an archive. Documents show in both modes; media only when they are read.
async fn flip_everywhere(audited: &Audited, every: usize) {
    let evidence = audited.evidence().await;
    let mut tried = 0;
    for (number, (key, object)) in objects(&evidence).enumerate().filter(|(number, _)| number % every == 0) {
        let (version, bytes) = (object.version_id.as_deref(), &object.bytes);
        let last = bytes.len() - 1;
        let places: BTreeSet<usize> =
            [0, last, last / 2, spread(number, bytes.len()), spread(number + 7919, bytes.len())].into();
        // A long one is written whole for every flip.
        let places = places.into_iter().take(if bytes.len() > 1_000_000 { 2 } else { 5 });
        for at in places {
            audited.tamperer.write(key, version, &flipped(bytes, at));
            let read = audited.fixity_of(FixityMode::Read, session_of(key)).await;
            assert!(names(&read.findings, key), "byte {at} of {key} was flipped: {:?}", read.findings);
            let head = audited.fixity_of(FixityMode::Head, session_of(key)).await;
            assert_eq!(names(&head.findings, key), is_document(key), "byte {at} of {key}: {:?}", head.findings);
            let expected = codes(&read.findings, key);
            assert!(expected.contains(&Code::ObjectDigest), "{key}: {expected:?}");
            tried += 1;
        }
        audited.tamperer.write(key, version, bytes);
    }
    // Of archive.json a bucket's checksum tells every byte, a directory what it says: that is for run records to vouch for.
    let own = evidence.object("archive.json").unwrap();
    let id_at = own.bytes.windows(10).position(|window| window == b"archive_id").unwrap() + 16;
    let places = if audited.bucket.is_some() { vec![0, id_at, own.bytes.len() - 1] } else { vec![0, id_at] };
    for at in places {
        audited.tamperer.write("archive.json", own.version_id.as_deref(), &flipped(&own.bytes, at));
        let findings = audited.archive_findings().await;
        assert!(names(&findings, "archive.json"), "byte {at}: {findings:?}");
    }
    audited.tamperer.write("archive.json", own.version_id.as_deref(), &own.bytes);
    let (findings, _) = audited.fixity_of_all(FixityMode::Read, Scope::All).await;
    assert_eq!(serious(&findings), Vec::<&_>::new(), "all was put back");
    assert!(tried > 60, "{tried}");
    eprintln!("{tried} bits were flipped, each alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_is_found_in_a_directory() {
    flip_everywhere(&Audited::in_directory(503).await, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_flipped_bit_is_found_in_a_bucket_where_the_stores_own_checksum_was_left_as_it_was() {
    flip_everywhere(&Audited::in_bucket(504).await, 18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_single_byte_of_a_sidecar_and_of_manifests_counts() {
    let audited = Audited::in_directory(505).await;
    let evidence = audited.evidence().await;
    let manifests = [&audited.grown, &audited.absent].map(|session| evidence.manifest_keys(session));
    let sidecar = objects(&evidence)
        .map(|(key, _)| key)
        .find(|key| session_of(key) == audited.grown && key.ends_with(".meta.json"));
    // The sidecar of what stands beside a taken key, too.
    let beside = objects(&evidence).map(|(key, _)| key).find(|key| key.contains(".conflict-") && is_document(key));
    for key in manifests.into_iter().flatten().chain(sidecar).chain(beside) {
        let bytes = &evidence.object(key).unwrap().bytes;
        for at in 0..bytes.len() {
            audited.tamperer.write(key, None, &flipped(bytes, at));
            let part = audited.fixity_of(FixityMode::Head, session_of(key)).await;
            assert!(names(&part.findings, key), "byte {at} of {key}: {:?}", part.findings);
        }
        audited.tamperer.write(key, None, bytes);
    }
}

/// Takes objects away, renames and exchanges them.
async fn move_everywhere(audited: &Audited, every: usize) {
    let evidence = audited.evidence().await;
    for (key, object) in objects(&evidence).step_by(every) {
        let (version, session) = (object.version_id.as_deref(), session_of(key));
        // The only object of a session: then nothing of it is in the store, and only the ledger can tell.
        audited.tamperer.hide(key, version);
        for mode in [FixityMode::Head, FixityMode::Read] {
            let part = audited.fixity_of(mode, session).await;
            assert!(names(&part.findings, key), "{key} is gone: {:?}", part.findings);
        }
        audited.tamperer.bring_back(key, version);

        let (folder, name) = key.rsplit_once('/').unwrap();
        let renamed =
            if key.contains("/manifest/") { format!("{folder}/0009.json") } else { format!("{folder}/x{name}") };
        audited.tamperer.rename(key, version, &renamed);
        let part = audited.fixity_of(FixityMode::Head, session).await;
        assert!(names(&part.findings, key) && names(&part.findings, &renamed), "{key}: {:?}", part.findings);
        audited.tamperer.rename(&renamed, version, key);
    }
    let (findings, _) = audited.fixity_of_all(FixityMode::Head, Scope::All).await;
    assert_eq!(serious(&findings), Vec::<&_>::new(), "all was put back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_renamed_is_found_in_a_directory() {
    move_everywhere(&Audited::in_directory(506).await, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_renamed_is_found_in_a_bucket() {
    move_everywhere(&Audited::in_bucket(507).await, 16).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exchanged_for_something_of_the_same_length_is_found() {
    for audited in [Audited::in_directory(508).await, Audited::in_bucket(509).await] {
        let evidence = audited.evidence().await;
        let of = |session: &str, is_wanted: fn(&str) -> bool| -> Vec<(String, Option<String>)> {
            objects(&evidence)
                .filter(|(key, _)| session_of(key) == session && is_wanted(key))
                .map(|(key, object)| (key.to_owned(), object.version_id.clone()))
                .collect()
        };
        let pairs = [
            of(&audited.twins, |key| !is_document(key)),
            of(&audited.twins, |key| key.ends_with(".meta.json")),
            of(&audited.grown, |key| key.contains("/manifest/")),
        ];
        for pair in pairs {
            let [(a, of_a), (b, of_b)] = &pair[..] else { panic!("{pair:?}") };
            let swap = |from: &str, from_version: &Option<String>, to: &str, to_version: &Option<String>| {
                let (from_version, to_version) = (from_version.as_deref(), to_version.as_deref());
                audited.tamperer.hide(from, from_version);
                audited.tamperer.rename(to, to_version, from);
                // In a bucket a version keeps its id.
                audited.tamperer.bring_back(to, from_version);
            };
            swap(a, of_a, b, of_b);
            let session = session_of(a);
            let read = audited.fixity_of(FixityMode::Read, session).await;
            assert!(names(&read.findings, a) && names(&read.findings, b), "{a}: {:?}", read.findings);
            let head = audited.fixity_of(FixityMode::Head, session).await;
            let shows = audited.bucket.is_some() || is_document(a);
            assert_eq!(names(&head.findings, a) && names(&head.findings, b), shows, "{a}: {:?}", head.findings);
            swap(a, of_b, b, of_a);
            assert_eq!(serious(&audited.fixity_of(FixityMode::Read, session).await.findings), Vec::<&_>::new());
        }
        // The bytes exchanged, and in a bucket everything else left as it was.
        let [(a, of_a), (b, of_b)] = &of(&audited.twins, |key| !is_document(key))[..] else { panic!("twins") };
        let bytes = |key: &str| evidence.object(key).unwrap().bytes.clone();
        audited.tamperer.write(a, of_a.as_deref(), &bytes(b));
        audited.tamperer.write(b, of_b.as_deref(), &bytes(a));
        let read = audited.fixity_of(FixityMode::Read, &audited.twins).await;
        assert!(names(&read.findings, a) && names(&read.findings, b), "{:?}", read.findings);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_is_found_and_what_is_cut_or_grown_too() {
    let audited = Audited::in_directory(510).await;
    let evidence = audited.evidence().await;
    for session in audited.ids.iter().filter(|id| **id != audited.absent) {
        let key = format!("sessions/{session}/added-attempt/added.jpg");
        let place = audited.deployment.store().join(&key);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, b"added").unwrap();
        let part = audited.fixity_of(FixityMode::Head, session).await;
        assert_eq!(codes(&part.findings, &key), BTreeSet::from([Code::ObjectUnknown]));
        let manifest = evidence.manifest(session);
        let is_finished = manifest["complete"] == true && manifest["settled"] == true;
        let expected = if is_finished { Severity::Error } else { Severity::Warn };
        assert!(part.findings.iter().all(|finding| finding.severity == expected), "{session}");
        std::fs::remove_dir_all(place.parent().unwrap()).unwrap();
    }
    for (key, object) in objects(&evidence) {
        for bytes in [&object.bytes[..object.bytes.len() - 1], &[&object.bytes[..], b" "].concat(), b""] {
            audited.tamperer.write(key, None, bytes);
            let part = audited.fixity_of(FixityMode::Head, session_of(key)).await;
            assert!(names(&part.findings, key), "{key} has {} bytes: {:?}", bytes.len(), part.findings);
        }
        audited.tamperer.write(key, None, &object.bytes);
    }
    // Folders that are no session's, and archive.json.
    let store = audited.deployment.store();
    std::fs::create_dir(store.join("sessions/no session")).unwrap();
    std::fs::write(store.join("sessions/no session/x"), b"x").unwrap();
    let own = std::fs::read(store.join("archive.json")).unwrap();
    audited.tamperer.write("archive.json", None, &own[..own.len() / 2]);
    let (findings, _) = audited.fixity_of_all(FixityMode::Head, Scope::All).await;
    assert_eq!(codes(&findings, "sessions/no session/x"), BTreeSet::from([Code::ObjectUnknown]));
    assert_eq!(codes(&findings, "archive.json"), BTreeSet::from([Code::ArchiveInvalid]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_lies_over_an_object_in_a_bucket_is_found() {
    let audited = Audited::in_bucket(511).await;
    let bucket = audited.bucket.as_ref().unwrap();
    let evidence = audited.evidence().await;
    let some: Vec<&str> = objects(&evidence).map(|(key, _)| key).step_by(17).chain(["archive.json"]).collect();
    assert!(some.iter().any(|key| key.contains("/manifest/")) && some.iter().any(|key| key.ends_with(".meta.json")));
    for key in some {
        let full = format!("archive/{key}");
        let look = async || match key {
            "archive.json" => audited.archive_findings().await,
            key => audited.fixity_of(FixityMode::Head, session_of(key)).await.findings,
        };
        let later = bucket.put_over(&full, b"later").await.unwrap();
        let found = look().await;
        assert_eq!(codes(&found, key), BTreeSet::from([Code::ObjectShadowed]));
        assert!(found.iter().all(|finding| finding.version_id.as_ref() == Some(&later)), "{found:?}");
        assert!(bucket.deletes(&full, &later).await);
        let marker = bucket.put_delete_marker(&full).await;
        let found = look().await;
        assert_eq!(codes(&found, key), BTreeSet::from([Code::ObjectHidden]));
        assert!(bucket.deletes(&full, &marker).await);
        assert_eq!(serious(&look().await), Vec::<&_>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_together_are_everything_once() {
    let audited = Audited::in_directory(512).await;
    let (_, all) = audited.fixity_of_all(FixityMode::Read, Scope::All).await;
    let mut sum = FixityTally::default();
    for part in 1..=7 {
        let (findings, tally) =
            audited.fixity_of_all(FixityMode::Read, Scope::Share(format!("{part}/7").parse().unwrap())).await;
        assert_eq!(serious(&findings), Vec::<&_>::new());
        assert!(tally.sessions < all.sessions);
        veriff_archive::audit::sessions::AuditTally::add(&mut sum, tally);
    }
    assert_eq!(sum, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_is_stopped_goes_on_where_it_was() {
    let audited = Audited::in_directory(513).await;
    // One thing to be found in each of many sessions.
    let evidence = audited.evidence().await;
    for id in audited.ids.iter().filter(|id| **id != audited.absent) {
        let place = audited.deployment.store().join(format!("sessions/{id}/x/added.jpg"));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, b"added").unwrap();
    }
    drop(evidence);
    let state = audited.deployment.path("state.json");
    let question = || Question {
        state: Some(state.clone()),
        text: "all".into(),
        ..crate::support::audited::question(AuditKind::Fixity)
    };
    let (mut seen, mut starts, mut ids) = (BTreeMap::<String, usize>::new(), 0, BTreeSet::new());
    let fixity = audited.fixity(FixityMode::Head);
    let (counts, tally) = loop {
        starts += 1;
        let stop = Stop::default();
        let (mut runner, told): (SessionsRunner<FixityTally>, _) = begun_with(question(), stop.clone());
        ids.insert(runner.audit_id.clone());
        let after = runner.progress.mark.after.clone();
        let steps = Feed::Walk(Walk::of(&*audited.store, after.as_deref()), Scope::All).steps(0);
        let begun = AtomicUsize::new(0);
        let check = async |walked: WalkedSession| -> Result<Checked<FixityTally>, AuditError> {
            if begun.fetch_add(1, Ordering::SeqCst) == 11 {
                stop.terminate();
            }
            fixity.check(walked).await
        };
        runner.run(steps, 2, check).await.unwrap();
        for finding in told.lock().unwrap().iter() {
            *seen.entry(finding.key.as_ref().unwrap().to_string()).or_default() += 1;
        }
        match runner.stopped {
            Some(Stopped::Terminated) => {
                assert!(starts < 10, "it gets on");
                runner.finish(AuditEnd::default()).unwrap();
            }
            Some(other) => panic!("{other:?}"),
            None => break (runner.findings.counts, runner.progress.tally),
        }
    };
    assert!(starts > 2, "{starts}");
    assert_eq!(ids.len(), 1, "going on keeps the id");
    assert_eq!(seen.len(), 31);
    assert!(seen.values().all(|times| *times == 1), "nothing is told twice: {seen:?}");
    assert_eq!(tally.sessions, 32);
    assert_eq!(counts.error + counts.warn, 31);
}

/// The lines of an audit that the program printed: its findings and its summary.
fn lines(ended: &Ended) -> (Vec<serde_json::Value>, serde_json::Value) {
    let mut lines: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().expect("a summary");
    assert_eq!(summary["schema"], "veriff-archive/audit/v1");
    (lines, summary)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_audits_with_rights_to_read_only() {
    let mut audited = Audited::in_bucket(514).await;
    for (name, value) in READER.environment() {
        audited.deployment.set(name, value);
    }
    let before = audited.evidence().await;
    let ended = audited.deployment.run(["audit", "fixity", "--mode", "read"]).await.expect(0);
    let (findings, summary) = lines(&ended);
    assert_eq!(findings, Vec::<serde_json::Value>::new());
    assert_eq!(summary["audit"], "fixity");
    assert_eq!(summary["complete"], true);
    assert_eq!(summary["archive_id"], audited.archive.to_string());
    assert_eq!(summary["details"]["total_sessions_seen"], 32);
    assert_eq!(summary["details"]["reread_objects"], summary["details"]["objects"]);
    assert_eq!(summary["details"]["composite"], 1);
    assert_eq!(summary["next"], "nothing");
    assert_eq!(audited.evidence().await, before, "an audit only reads");

    let (key, object) = objects(&before).find(|(key, _)| !is_document(key)).unwrap();
    audited.tamperer.write(key, object.version_id.as_deref(), &flipped(&object.bytes, 5));
    let session = session_of(key);
    let words = ["audit", "fixity", "--mode", "read", "--session", session, "--session", &audited.twins];
    let (findings, summary) = lines(&audited.deployment.run(words).await.expect(4));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0]["code"], "object.digest");
    assert_eq!(findings[0]["severity"], "error");
    assert_eq!(findings[0]["key"], key);
    assert_eq!(findings[0]["version_id"], object.version_id.as_deref().unwrap());
    assert_eq!(summary["checked"]["sessions"], 2);
    let text = audited.deployment.run(words.into_iter().chain(["--output", "text"])).await.expect(4).stdout;
    assert!(text.contains("object.digest") && text.contains("audit fixity --mode read"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_draws_samples_and_takes_lists_and_stops_when_told() {
    let audited = Audited::in_directory(515).await;
    let sample = audited.deployment.run(["audit", "fixity", "--sample", "40%"]).await.expect(0);
    let (_, summary) = lines(&sample);
    let seed = summary["details"]["seed"].as_str().unwrap().to_owned();
    let again = audited.deployment.run(["audit", "fixity", "--sample", "40%", "--seed", &seed]).await.expect(0);
    assert_eq!(lines(&again).1["checked"], summary["checked"]);
    assert_eq!(summary["share"], "40%");
    assert!(summary["checked"]["sessions"].as_u64().unwrap() < 32);

    let list = audited.deployment.write("some.txt", &format!("{}\nno session!\n{}\n", audited.twins, audited.long));
    let words = ["audit", "fixity", "--sessions", list.to_str().unwrap(), "--mode", "read"];
    let (_, summary) = lines(&audited.deployment.run(words).await.expect(0));
    assert_eq!(summary["checked"]["sessions"], 2);
    assert_eq!(summary["complete"], true);

    // A list that does not end: told to stop, it says how far it came.
    let state = audited.deployment.path("state.json");
    let words = ["audit", "fixity", "--sessions", "-", "--state", state.to_str().unwrap()];
    let mut command = audited.deployment.command(words);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, format!("{}\n{}\n", audited.twins, audited.grown).as_bytes()).unwrap();
    let process = child.id().to_string();
    // It may be told to stop as soon as it listens for the signal; until then the signal would just end it.
    crate::support::until("it listens for SIGTERM", || {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 14) != 0)
    })
    .await;
    assert!(std::process::Command::new("kill").args(["-TERM", &process]).status().unwrap().success());
    let ended = crate::support::program::ended(child).await.expect(143);
    drop(input);
    let (_, summary) = lines(&ended);
    assert_eq!(summary["complete"], false);
    assert!(summary["next"].as_str().unwrap().contains("--state"));
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    assert_eq!(state["finished"], false);
    audited.deployment.run(["audit", "fixity", "--share", "8/7"]).await.expect(2);
    let other = audited.deployment.path("state.json");
    audited.deployment.run(["audit", "fixity", "--state", other.to_str().unwrap()]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_expired_by_plan_is_noted_and_what_is_left_is_still_compared() {
    let audited = Audited::in_directory(513).await;
    // Bytes without their sidecar, and a sidecar without its bytes: it was stopped between them.
    let evidence = audited.evidence().await;
    let items: Vec<_> = objects(&evidence).filter(|(key, _)| session_of(key) == audited.twins).collect();
    let of_media = |key: &str| !is_document(key);
    let (bytes, object) = items.iter().find(|(key, _)| of_media(key)).unwrap();
    let (sidecar, _) = items.iter().rfind(|(key, _)| key.ends_with(".meta.json")).unwrap();
    let document = audited.expire(&audited.twins, |key| [*bytes, *sidecar].contains(&key)).await;
    let whole = audited.expire(&audited.long, |_| false).await;
    for mode in [FixityMode::Head, FixityMode::Read] {
        let (findings, _) = audited.fixity_of_all(mode, Scope::All).await;
        assert_eq!(serious(&findings), Vec::<&_>::new(), "{mode:?}");
        let noted: Vec<_> = findings.iter().filter(|finding| finding.code == Code::SessionExpired).collect();
        assert_eq!(noted.len(), 2, "{mode:?}");
        assert_eq!(codes(&findings, &document), [Code::SessionExpired].into(), "{mode:?}");
        assert_eq!(codes(&findings, &whole), [Code::SessionExpired].into(), "{mode:?}");
    }

    audited.tamperer.write(bytes, None, &flipped(&object.bytes, 0));
    let read = audited.fixity_of(FixityMode::Read, &audited.twins).await;
    assert_eq!(codes(&read.findings, bytes), [Code::ObjectDigest].into());
    // A manifest does not go by plan.
    let manifest = evidence.manifest_keys(&audited.long)[0];
    audited.tamperer.hide(manifest, None);
    let head = audited.fixity_of(FixityMode::Head, &audited.long).await;
    assert_eq!(codes(&head.findings, manifest), [Code::ManifestInvalid].into());
}
