//! An archive to be audited: some thirty sessions with everything that an archive may rightly hold, and the audits as
//! functions, so that hundreds of mutations can be tried.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use veriff_archive::audit::fixity::{Fixity, FixityMode, FixityTally, closing_findings};
use veriff_archive::audit::reach::Reach;
use veriff_archive::audit::runner::{AuditProgress, Question, Runner};
use veriff_archive::audit::scope::Scope;
use veriff_archive::audit::sessions::{Checked, Feed, SESSIONS_IN_FLIGHT, listed};
use veriff_archive::audit::walk::Walk;
use veriff_archive::audit::{AuditKind, Finding, FindingCode, Severity, archive};
use veriff_archive::clock::SystemClock;
use veriff_archive::ledger::{self, Ledger};
use veriff_archive::model::{ArchiveId, SessionId};
use veriff_archive::session::budget::Budget;
use veriff_archive::stop::Stop;
use veriff_archive::store::Store;
use veriff_archive::store::dir::DirStore;
use veriff_sim::{Attempt, Effect, Endpoint, Fault, Session, Simulator, id};

use super::evidence::{Evidence, small_world};
use super::program::Deployment;
use super::s3::{ADMIN, Bucket, READER, WRITER, s3};
use super::tamper::Tamperer;

/// Two classes, so that locks differ: five years for all, three for chip data.
pub(crate) const RETENTION: &str = "[retention]\nmode = \"COMPLIANCE\"\nperiod = \"5y\"\nmax_period = \"6y\"\nbasis = \"test\"\n\
     [retention.classes.chip]\nmode = \"GOVERNANCE\"\nperiod = \"3y\"\nmax_period = \"4y\"\nbasis = \"test\"\n\
     [[retention.rules]]\nwhen = { kind = [\"nfc\"] }\nclass = \"chip\"\n";

/// An archive, and how it came about.
pub(crate) struct Audited {
    pub(crate) simulator: Simulator,
    pub(crate) deployment: Deployment,
    pub(crate) bucket: Option<Bucket>,
    pub(crate) tamperer: Tamperer,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) archive: ArchiveId,
    /// All sessions that were asked for.
    pub(crate) ids: Vec<String>,
    /// One of them that Veriff does not have.
    pub(crate) absent: String,
    /// One of which an item cannot be had.
    pub(crate) incomplete: String,
    /// One with a second attempt that came later, and so two manifests.
    pub(crate) grown: String,
    /// One with two images of the same length.
    pub(crate) twins: String,
    /// One with a video that is stored in parts.
    pub(crate) long: String,
    /// The key that other bytes had taken.
    pub(crate) taken: String,
}

fn attempt(label: &str) -> Attempt {
    Attempt::approved(id(label)).created(Some("2026-10-05T08:00:00.000Z"))
}

impl Audited {
    /// Archives into a directory.
    pub(crate) async fn in_directory(seed: u64) -> Self {
        Self::make(seed, None).await
    }

    /// Archives into a bucket with versions and Object Lock.
    pub(crate) async fn in_bucket(seed: u64) -> Self {
        Self::make(seed, Some(s3().await.create_bucket("audited", true).await)).await
    }

    async fn make(seed: u64, bucket: Option<Bucket>) -> Self {
        let label = |what: &str| id(&format!("{what} {seed}"));
        let taken = Session::new(label("taken")).attempt(attempt(&label("taken: a")).image("face", 9_000).nfc(3_000));
        let taken_key = format!("sessions/{}/{}/{}.jpg", taken.id, taken.attempts[0].id, taken.attempts[0].media[0].id);
        let broken =
            Session::new(label("broken")).attempt(attempt(&label("broken: a")).image("face", 8_000).nfc(2_000));
        let missing = broken.attempts[0].media[0].id.clone();
        let long = Session::new(label("long")).attempt(attempt(&label("long: a")).video("face-pre-video", 17_500_000));
        let twins = Session::new(label("twins"))
            .attempt(attempt(&label("twins: a")).image("face", 7_000).image("document-front", 7_000));
        let grown = Session::new(label("grown")).attempt(attempt(&label("grown: a")).image("face", 6_000));
        let (incomplete, long_id, twins_id, grown_id) =
            (broken.id.clone(), long.id.clone(), twins.id.clone(), grown.id.clone());
        let world =
            [taken, broken, long, twins, grown].into_iter().fold(small_world(seed, 26), veriff_sim::World::session);
        let simulator = Simulator::start(world).await.unwrap();
        simulator.set_fault(Fault::forever(Effect::status(404)).on(Endpoint::Media).id(missing));

        let deployment = match &bucket {
            None => Deployment::with_directory(&simulator),
            Some(bucket) => Deployment::with_bucket(&simulator, bucket, WRITER, Some(RETENTION)),
        };
        deployment.configure_more("[limits]\ntries = 3\n");
        let absent = label("absent");
        let mut ids = simulator.world().session_ids();
        ids.insert(3, absent.clone());
        deployment.write_ids(&ids);
        let others = b"what somebody else put there".as_slice();
        match &bucket {
            None => {
                let place = deployment.store().join(&taken_key);
                std::fs::create_dir_all(place.parent().unwrap()).unwrap();
                std::fs::write(place, others).unwrap();
            }
            Some(bucket) => {
                let put =
                    s3().await.client(ADMIN).put_object().bucket(&bucket.name).key(format!("archive/{taken_key}"));
                let put = put.checksum_sha256(BASE64.encode(Sha256::digest(others)));
                put.body(ByteStream::from_static(others)).send().await.expect("the bytes are put");
            }
        }
        deployment.archive(&[]).await.expect(3);
        let later = Attempt::approved(label("grown: b")).created(Some("2026-10-06T08:00:00.000Z"));
        assert!(simulator.add_attempt(&grown_id, later.image("face", 5_000).nfc(1_500)));
        deployment.archive(&[]).await.expect(3);

        let store: Arc<dyn Store> = match &bucket {
            None => Arc::new(DirStore::to_read(deployment.store(), Arc::new(SystemClock))),
            Some(bucket) => Arc::new(bucket.store("archive", READER).await),
        };
        store.check().await.unwrap();
        let tamperer = match &bucket {
            None => Tamperer::of_directory(&deployment.store()),
            Some(bucket) => Tamperer::of_bucket(s3().await, bucket),
        };
        let ledger = ledger::open(&format!("sqlite://{}", deployment.path("ledger.db").display())).await.unwrap();
        let archive = ledger.archive_id().await.unwrap().unwrap();
        Self {
            simulator,
            deployment,
            bucket,
            tamperer,
            store,
            ledger,
            archive,
            ids,
            absent,
            incomplete,
            grown: grown_id,
            twins: twins_id,
            long: long_id,
            taken: taken_key,
        }
    }

    /// Reads everything, by other means than the program's.
    pub(crate) async fn evidence(&self) -> Evidence {
        match &self.bucket {
            None => Evidence::of_directory(&self.deployment.store()),
            Some(bucket) => Evidence::of_bucket(bucket).await,
        }
    }

    /// Expires items of a session by plan, all whose keys are not to be kept; returns the key of the document that says so.
    pub(crate) async fn expire(&self, session: &str, is_kept: impl Fn(&str) -> bool) -> String {
        let folder = format!("sessions/{session}/");
        for (key, versions) in &self.evidence().await.objects {
            let is_item = key.starts_with(&folder) && !key.contains("/manifest/");
            if is_item && !is_kept(key) {
                self.tamperer.hide(key, versions[0].version_id.as_deref());
            }
        }
        let key = format!("{folder}expired/0001.json");
        match &self.bucket {
            None => {
                let place = self.deployment.store().join(&key);
                std::fs::create_dir(place.parent().unwrap()).unwrap();
                std::fs::write(place, b"{}").unwrap();
            }
            Some(bucket) => {
                let put = s3().await.client(ADMIN).put_object().bucket(&bucket.name).key(format!("archive/{key}"));
                put.body(ByteStream::from_static(b"{}")).send().await.expect("the document is put");
            }
        }
        key
    }

    /// Returns the store as an audit asks it.
    pub(crate) fn reach(&self) -> Reach<'_> {
        Reach::of(&*self.store, 16, self.bucket.is_some())
    }

    /// Returns the audit.
    pub(crate) fn fixity(&self, mode: FixityMode) -> Fixity<'_> {
        Fixity {
            reach: self.reach(),
            ledger: Some(&*self.ledger),
            archive: Some(self.archive.clone()),
            mode,
            budget: Budget::of_memory(256 << 20),
        }
    }

    /// Looks at one session.
    pub(crate) async fn fixity_of(&self, mode: FixityMode, session: &str) -> Checked<FixityTally> {
        let session = SessionId::parse(session).unwrap();
        let walked = listed(&*self.store, &session).await.unwrap();
        self.fixity(mode).check(walked).await.unwrap()
    }

    /// Looks at `archive.json`.
    pub(crate) async fn archive_findings(&self) -> Vec<Finding> {
        archive::read(&self.reach(), Some(&self.archive)).await.unwrap().1
    }

    /// Looks at everything, or a share of it.
    pub(crate) async fn fixity_of_all(&self, mode: FixityMode, scope: Scope) -> (Vec<Finding>, FixityTally) {
        let (mut runner, found) = begun(AuditKind::Fixity);
        let fixity = self.fixity(mode);
        runner.findings.add_all(archive::read(&fixity.reach, Some(&self.archive)).await.unwrap().1).unwrap();
        let steps = Feed::Walk(Walk::of(&*self.store, None), scope).steps(0);
        runner.run(steps, SESSIONS_IN_FLIGHT, |walked| fixity.check(walked)).await.unwrap();
        assert_eq!(runner.stopped, None);
        runner.conclude(closing_findings(&fixity.reach, mode, &runner.progress.tally)).unwrap();
        (found.lock().unwrap().clone(), runner.progress.tally)
    }
}

/// A question without a state.
pub(crate) fn question(kind: AuditKind) -> Question {
    Question { kind, mode: None, share: None, text: String::new(), state: None, seed: None }
}

/// Findings that are kept.
pub(crate) type Collected = Arc<Mutex<Vec<Finding>>>;

/// An audit that is begun, and what it will find.
pub(crate) fn begun<P: AuditProgress>(kind: AuditKind) -> (Runner<P>, Collected) {
    begun_with(question(kind), Stop::default())
}

/// The same with a question and a stop of its own.
pub(crate) fn begun_with<P: AuditProgress>(question: Question, stop: Stop) -> (Runner<P>, Collected) {
    let found = Collected::default();
    let into = Arc::clone(&found);
    let sink = Box::new(move |finding: &Finding| {
        into.lock().unwrap().push(finding.clone());
        Ok(())
    });
    (Runner::begin(question, sink, Arc::new(SystemClock), stop).unwrap(), found)
}

/// Those that are more than good to know.
pub(crate) fn serious(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|finding| finding.severity != Severity::Info).collect()
}

/// Tells whether a finding names an object.
pub(crate) fn names(findings: &[Finding], key: &str) -> bool {
    serious(findings).iter().any(|finding| finding.key.as_ref().is_some_and(|named| named.as_str() == key))
}

/// The codes with which an object is named.
pub(crate) fn codes(findings: &[Finding], key: &str) -> BTreeSet<FindingCode> {
    let of_key = findings.iter().filter(|finding| finding.key.as_ref().is_some_and(|named| named.as_str() == key));
    of_key.map(|finding| finding.code).collect()
}

/// The session that a key belongs to.
pub(crate) fn session_of(key: &str) -> &str {
    key.strip_prefix("sessions/").unwrap().split('/').next().unwrap()
}

/// Changes one bit.
pub(crate) fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at] ^= 1;
    changed
}
