//! Many workers around one database and one bucket, and what happens when either of these goes away for a while.

use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use veriff_sim::{Effect, Endpoint, Fault, Simulator};

use crate::backlog::{a_fleet_archives_everything_once, work_off_the_rest};
use crate::queue::fleet_world;
use crate::support::evidence::{Evidence, small_world};
use crate::support::postgres::{PostgresServer, postgres};
use crate::support::program::{Deployment, ended};
use crate::support::s3::{Bucket, S3Server, WRITER, s3};
use crate::support::scene::assert_in_equals_out;
use crate::support::until;

/// A deployment over a bucket, whose ledger is the database at this URL.
fn deployment(simulator: &Simulator, bucket: &Bucket, ledger: &str, limits: &str) -> Deployment {
    let mut deployment = Deployment::with_bucket(simulator, bucket, WRITER, None);
    deployment.set("VERIFF_ARCHIVE__LEDGER__URL", ledger);
    deployment.configure_more(&format!("[limits]\n{limits}"));
    deployment
}

/// Fails unless all of it is there, once.
async fn expect_all_of_it_once(simulator: &Simulator, bucket: &Bucket) {
    let evidence = Evidence::of_bucket(bucket).await;
    evidence.expect_one_version_each();
    evidence.expect_whole(simulator);
    assert!(!evidence.objects.keys().any(|key| key.contains(".conflict-")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_that_loses_workers_archives_the_backlog_of_a_database_once() {
    let simulator = Simulator::start(fleet_world()).await.unwrap();
    let bucket = s3().await.create_bucket("fleet", true).await;
    let ledger = postgres().await.create_ledger().await;
    let deployment = deployment(&simulator, &bucket, &ledger, "lease = \"3s\"\n");
    a_fleet_archives_everything_once(&simulator, &deployment).await;
    expect_all_of_it_once(&simulator, &bucket).await;
    let evidence = Evidence::of_bucket(&bucket).await;
    for id in simulator.world().session_ids() {
        assert_eq!(evidence.manifest_keys(&id).len(), 1, "{id}");
    }
    deployment.expect_reconciled().await;
}

/// How long an outage lasts at most: longer than the leases.
const OUTAGE: Duration = Duration::from_secs(5);

/// Begins to work a backlog off, takes something away in the middle of it and brings it back, and lets a second run end
/// what is left.
async fn an_outage(simulator: &Simulator, deployment: &Deployment, stop: impl FnOnce(), start: impl FnOnce()) {
    deployment.write_ids(&simulator.world().session_ids());
    deployment.run(["backlog", "add", "--sessions", "sessions.txt"]).await.expect(0);
    // So that the run is in the middle of it for as long as it takes.
    let slowly = Effect::Slow { bytes: 4 * 1024, every_ms: 20 };
    simulator.set_fault(Fault::forever(slowly).on(Endpoint::Media));
    let worker = deployment.start(["run", "--backlog", "--progress", "none", "--idle-exit", "2s"]);
    until("it is at work", || simulator.count(Endpoint::Media) > 10).await;
    let before = simulator.count(Endpoint::Media);
    tokio::task::block_in_place(stop);
    // An outage ends at some time, also where the worker has given up what it held and stands still.
    let goes_on = until("it goes on", || simulator.count(Endpoint::Media) > before + 2);
    tokio::time::timeout(OUTAGE, goes_on).await.ok();
    tokio::task::block_in_place(start);
    simulator.clear_faults();
    let met = ended(worker).await;
    assert!(matches!(met.code, Some(0 | 5)), "{:?}\n{}\n{}", met.code, met.stdout, met.stderr);
    if !met.stdout.is_empty() {
        assert_in_equals_out(&met);
    }
    work_off_the_rest(deployment).await;
    deployment.expect_reconciled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_and_comes_back_loses_and_doubles_nothing() {
    let simulator = Simulator::start(small_world(81, 30)).await.unwrap();
    let server = PostgresServer::private().await;
    let ledger = server.create_ledger().await;
    let bucket = s3().await.create_bucket("outage", true).await;
    let deployment = deployment(&simulator, &bucket, &ledger, "lease = \"3s\"\n");
    an_outage(&simulator, &deployment, || server.stop(), || server.start()).await;
    expect_all_of_it_once(&simulator, &bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_and_comes_back_loses_and_doubles_nothing() {
    let simulator = Simulator::start(small_world(82, 30)).await.unwrap();
    let server = S3Server::private().await;
    let bucket = server.create_bucket("outage", true).await;
    let ledger = postgres().await.create_ledger().await;
    let deployment = deployment(&simulator, &bucket, &ledger, "lease = \"3s\"\n");
    an_outage(&simulator, &deployment, || server.stop(), || server.restart()).await;
    let evidence = Evidence::of_bucket_on(&server, &bucket).await;
    evidence.expect_one_version_each();
    evidence.expect_whole(&simulator);
}

/// Has the database refuse the first eight changes of a session, as often as a commit is tried.
const REFUSE_EIGHT: &str = "
    CREATE SEQUENCE asked;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('asked') <= 8 THEN RAISE 'not now'; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION refuse();";

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_failed_for_good_is_tried_before_any_other_and_keeps_its_line() {
    let simulator = Simulator::start(small_world(83, 6)).await.unwrap();
    let ledger = postgres().await.create_ledger().await;
    let mut database = PgConnection::connect(&ledger).await.unwrap();
    sqlx::raw_sql(REFUSE_EIGHT).execute(&mut database).await.unwrap();
    let bucket = s3().await.create_bucket("refused", true).await;
    let deployment = deployment(&simulator, &bucket, &ledger, "");
    deployment.write_ids(&simulator.world().session_ids());
    let told = deployment.archive(&[]).await.expect(5).json();
    let archived = told["counts"]["archived"].as_i64().unwrap();
    assert!(archived >= 1, "others were under way: {told}");
    let known =
        "SELECT (SELECT count(*) FROM sessions WHERE state = 'archived'), (SELECT sum(record_lines)::bigint FROM runs)";
    let (sessions, lines): (i64, i64) = sqlx::query_as(known).fetch_one(&mut database).await.unwrap();
    assert_eq!((sessions, lines), (archived + 1, archived + 1));
    deployment.archive(&[]).await.expect(0);
    expect_all_of_it_once(&simulator, &bucket).await;
    deployment.expect_reconciled().await;
}
