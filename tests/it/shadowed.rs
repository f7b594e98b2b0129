//! What shadows the archive's own version of a key, over it or under it, in a real bucket: every command reads the same
//! version, says that it is shadowed, and names nothing but the shadow for deletion.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use veriff_archive::model::signature::SigningKey;
use veriff_sim::{Attempt, Effect, Endpoint, Fault, Session, Simulator, World, id};

use crate::support::program::{Deployment, ended};
use crate::support::s3::{ADMIN, Bucket, s3};

/// Nothing is locked, so that a test can put a delete marker under what stands.
const UNLOCKED: &str = "[retention]\nmode = \"none\"\n";

/// The five audits as they are typed.
const AUDITS: [&[&str]; 5] = [
    &["audit", "reconcile"],
    &["audit", "fixity"],
    &["audit", "retention"],
    &["audit", "coverage", "--ledger", "--without-veriff"],
    &["audit", "chain", "--public-key", "key.pem"],
];

/// Where something shadows an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shadow {
    MarkerOver,
    LaterVersion,
    MarkerUnder,
}

/// A simulator, a bucket with versions, and a deployment between them whose runs are signed.
struct Scene {
    simulator: Simulator,
    bucket: Bucket,
    deployment: Deployment,
    /// The session whose documents are shadowed.
    session: Session,
}

impl Scene {
    async fn new() -> Self {
        let sessions = ["shadowed", "sound"].map(|name| {
            let attempt = Attempt::approved(id(&format!("{name}: attempt"))).image("face", 9_000);
            Session::new(id(name)).attempt(attempt.image("document-front", 8_000))
        });
        let [session, sound] = sessions;
        let world = World::new().session(session.clone()).session(sound);
        let simulator = Simulator::start(world).await.unwrap();
        let bucket = s3().await.create_bucket("shadowed", true).await;
        let deployment = Deployment::with_bucket(&simulator, &bucket, ADMIN, Some(UNLOCKED));
        let key = SigningKey::generate();
        deployment.write("key.pem", &key.public().to_pem().unwrap());
        let path = deployment.write("signing.pem", key.to_pem().unwrap().expose_secret());
        deployment.configure_more(&format!("[signing]\nprivate_key = {{ file = \"{}\" }}\n", path.display()));
        deployment.write_ids(&simulator.world().session_ids());
        Self { simulator, bucket, deployment, session }
    }

    /// The keys of a media object of the session, of its sidecar and of the manifest, below the prefix.
    fn keys_of_session(&self) -> [String; 3] {
        let attempt = &self.session.attempts[0];
        let media = format!("sessions/{}/{}/{}.jpg", self.session.id, attempt.id, attempt.media[0].id);
        [format!("{media}.meta.json"), media, format!("sessions/{}/manifest/0001.json", self.session.id)]
    }

    /// Returns the only version of each key, by key below the prefix.
    async fn versions(&self) -> BTreeMap<String, String> {
        let versions = self.bucket.versions().await.into_iter();
        versions.map(|version| (version.key.strip_prefix("archive/").unwrap().to_owned(), version.id)).collect()
    }

    /// Shadows a key; returns the archive's own version and what shadows it.
    async fn shadow(&self, key: &str, shadow: Shadow) -> (String, String) {
        let whole = format!("archive/{key}");
        let own = self.versions().await[key].clone();
        match shadow {
            Shadow::MarkerOver => (own, self.bucket.put_delete_marker(&whole).await),
            Shadow::LaterVersion => (own, self.bucket.put_over(&whole, b"{}").await.unwrap()),
            Shadow::MarkerUnder => {
                let bytes = self.bucket.bytes(&whole, None).await;
                assert!(self.bucket.deletes(&whole, &own).await);
                let marker = self.bucket.put_delete_marker(&whole).await;
                (self.bucket.put_over(&whole, &bytes).await.unwrap(), marker)
            }
        }
    }

    /// Runs an audit and returns its findings of what shadows something, by key.
    async fn audit(&self, words: &[&str], exit: i32) -> BTreeMap<String, Value> {
        let words = [words, &["--output", "json"]].concat();
        let ended = self.deployment.run(&words).await.expect(exit);
        let findings = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_shadow = |finding: &Value| {
            matches!(finding["code"].as_str(), Some("object.hidden" | "object.shadowed")).then(|| {
                assert_eq!(finding["severity"], "error");
                finding["key"].as_str().unwrap().to_owned()
            })
        };
        findings.filter_map(|finding| Some((of_shadow(&finding)?, finding))).collect()
    }

    /// Does what the repairs of findings say, word for word.
    async fn repair(&self, findings: &BTreeMap<String, Value>) {
        for (key, finding) in findings {
            let version_id = finding["version_id"].as_str().unwrap();
            let repair = finding["repair"].as_str().unwrap();
            let command = format!(
                "aws s3api delete-object --bucket {} --key archive/{key} --version-id {version_id} ",
                self.bucket.name
            );
            assert!(repair.starts_with(&command), "{finding}");
            assert!(self.bucket.deletes(&format!("archive/{key}"), version_id).await);
        }
    }

    /// Runs the commands that write or need to know which archive this is, and expects that each refuses.
    async fn expect_refused(&self, shadow: &str, own: Option<&str>) {
        let before = (self.bucket.versions().await, self.simulator.stats().requests);
        let session = self.session.id.as_str();
        let commands: [&[&str]; 5] = [
            &["run", "--sessions", "sessions.txt", "--progress", "none"],
            &["run", "--sessions", "sessions.txt", "--progress", "none", "--dry-run"],
            &["ledger", "rebuild"],
            &["export", "--session", session, "--to", "refused", "--reason", "a test"],
            &["prove", session],
        ];
        for words in commands {
            let refused = self.deployment.run(words).await.expect(77);
            assert!(refused.stderr.contains("archive.json is shadowed"), "{words:?}: {}", refused.stderr);
            assert!(refused.stderr.contains(&format!("(version {shadow})")), "{words:?}: {}", refused.stderr);
            let stays = own.map(|own| format!("version {own} is the archive's and stays"));
            assert!(stays.is_none_or(|stays| refused.stderr.contains(&stays)), "{words:?}: {}", refused.stderr);
        }
        assert_eq!(
            (self.bucket.versions().await, self.simulator.stats().requests),
            before,
            "nothing is written or asked"
        );
        let doctor = self.deployment.run(["doctor", "--output", "json"]).await.expect(77).json();
        let checks = doctor["checks"].as_array().unwrap();
        let archive = checks.iter().find(|check| check["name"] == "archive").unwrap();
        assert_eq!(archive["status"], "fail", "{archive}");
        assert!(archive["detail"].as_str().unwrap().contains(shadow), "{archive}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_marker_on_a_fresh_archive_json_ends_a_run_before_its_first_write() {
    let scene = Scene::new().await;
    let marker = scene.bucket.put_delete_marker("archive/archive.json").await;
    scene.expect_refused(&marker, None).await;
    for words in AUDITS {
        let found = scene.audit(words, 4).await;
        assert_eq!(found["archive.json"]["version_id"], marker.as_str(), "{words:?}");
    }
    assert!(scene.bucket.deletes("archive/archive.json", &marker).await);
    scene.deployment.archive(&[]).await.expect(0);
    for words in AUDITS {
        assert_eq!(scene.audit(words, 0).await, BTreeMap::new(), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadowed_archive_json_is_found_by_every_command_and_no_repair_names_the_archives_own_version() {
    let scene = Scene::new().await;
    scene.deployment.archive(&[]).await.expect(0);
    for shadow in [Shadow::MarkerOver, Shadow::LaterVersion, Shadow::MarkerUnder] {
        let (own, by) = scene.shadow("archive.json", shadow).await;
        scene.expect_refused(&by, Some(&own)).await;
        let mut repair = BTreeMap::new();
        for words in AUDITS {
            let found = scene.audit(words, 4).await;
            assert_eq!(found.keys().collect::<Vec<_>>(), ["archive.json"], "{shadow:?} {words:?}");
            assert_eq!(found["archive.json"]["version_id"], by.as_str(), "{shadow:?} {words:?}");
            repair = found;
        }
        scene.repair(&repair).await;
        assert_eq!(scene.versions().await["archive.json"], own);
        for words in AUDITS {
            assert_eq!(scene.audit(words, 0).await, BTreeMap::new(), "{shadow:?} {words:?}");
        }
        assert_eq!(scene.deployment.archive(&[]).await.expect(0).count("unchanged"), 2, "{shadow:?}");
    }
}

/// Archives with a delete marker first under a media object, its sidecar and the manifest of a session: put there after the
/// run looked for them and before it wrote.
async fn archive_over_markers(scene: &Scene) {
    let media = scene.session.attempts[0].media[0].id.clone();
    let late = Fault::forever(Effect::DelayHead { for_ms: 3_000 }).on(Endpoint::Media).id(media);
    scene.simulator.set_fault(late);
    let run = scene.deployment.start(["run", "--sessions", "sessions.txt", "--progress", "none"]);
    while scene.simulator.count(Endpoint::Media) < 4 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for key in scene.keys_of_session() {
        scene.bucket.put_delete_marker(&format!("archive/{key}")).await;
    }
    ended(run).await.expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_reads_the_archives_own_version_of_each_kind_of_document_and_offers_only_shadows_for_deletion() {
    for shadow in [Shadow::MarkerOver, Shadow::LaterVersion, Shadow::MarkerUnder] {
        let scene = Scene::new().await;
        if shadow == Shadow::MarkerUnder {
            archive_over_markers(&scene).await;
        } else {
            scene.deployment.archive(&[]).await.expect(0);
        }
        let session = scene.session.id.as_str();
        let prove = async || scene.deployment.run(["prove", session]).await.expect(0).stdout;
        let export = async |to: &str, exit| {
            let words = ["export", "--session", session, "--to", to, "--reason", "a test", "--output", "json"];
            scene.deployment.run(words).await.expect(exit).json()
        };
        let (proof, exported) =
            (prove().await, export("before", if shadow == Shadow::MarkerUnder { 4 } else { 0 }).await);

        // The rest of what a run writes, and an event.
        let versions = scene.versions().await;
        let of_archive: Vec<&String> = versions.keys().filter(|key| !key.starts_with("sessions/")).collect();
        let of_archive: Vec<&String> = of_archive.into_iter().filter(|key| *key != "archive.json").collect();
        assert_eq!(of_archive.len(), 6, "record, chunk, entry, two signatures, event: {of_archive:?}");
        let mut owns = BTreeMap::new();
        for key in of_archive {
            owns.insert(key.clone(), scene.shadow(key, shadow).await);
        }
        for key in scene.keys_of_session() {
            let own = versions[&key].clone();
            let by = match shadow {
                Shadow::MarkerUnder => None,
                _ => Some(scene.shadow(&key, shadow).await.1),
            };
            owns.insert(key, (own, by.unwrap_or_default()));
        }

        // Each audit finds what is within its reach, and all of it in that place alone.
        let mut repairs = BTreeMap::new();
        for (words, prefixes) in AUDITS.into_iter().zip([
            &["sessions/", "runs/", "events/"][..],
            &["sessions/"],
            &["sessions/", "runs/", "events/"],
            &["sessions/"],
            &["runs/"],
        ]) {
            let found = scene.audit(words, 4).await;
            let within = |key: &&String| prefixes.iter().any(|prefix| key.starts_with(prefix));
            let expected: BTreeSet<&String> = owns.keys().filter(within).collect();
            assert_eq!(found.keys().collect::<BTreeSet<_>>(), expected, "{shadow:?} {words:?}");
            for (key, finding) in &found {
                let (own, by) = &owns[key];
                assert_ne!(finding["version_id"], own.as_str(), "{shadow:?} {words:?}");
                assert!(by.is_empty() || finding["version_id"] == by.as_str(), "{shadow:?} {words:?}: {finding}");
                assert!(!finding["repair"].as_str().unwrap().contains(own.as_str()), "{shadow:?} {words:?}: {finding}");
            }
            repairs.extend(found);
        }

        let run = scene.deployment.archive(&["--results", "results.ndjson"]).await.expect(3);
        assert_eq!((run.count("failed"), run.count("unchanged")), (1, 1), "{shadow:?}");
        assert_eq!(run.json()["codes"][0]["code"], "store.shadowed", "{shadow:?}");
        assert_eq!(prove().await, proof, "{shadow:?}");
        let after = export("after", 4).await;
        assert_eq!((&after["objects"], &after["bytes"]), (&exported["objects"], &exported["bytes"]), "{shadow:?}");
        scene.deployment.lose_ledger();
        let rebuilt = scene.deployment.run(["ledger", "rebuild", "--output", "json"]).await.expect(0).json();
        assert_eq!((&rebuilt["new"], &rebuilt["problems"]), (&2.into(), &0.into()), "{shadow:?}: {rebuilt}");

        scene.repair(&repairs).await;
        let repaired = scene.versions().await;
        assert!(owns.iter().all(|(key, (own, _))| repaired[key] == *own), "{shadow:?}");
        for words in AUDITS {
            assert_eq!(scene.audit(words, 0).await, BTreeMap::new(), "{shadow:?} {words:?}");
        }
        assert_eq!(scene.deployment.archive(&[]).await.expect(0).count("unchanged"), 2, "{shadow:?}");
    }
}
