//! Large bodies and long lists: parts, their checksums, what a broken upload leaves, and the memory it all takes.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use veriff_sim::{Attempt, Effect, Endpoint, Fault, Media, Session, Simulator, SizeForm, World, id, media_sha256};

use crate::support::evidence::{Evidence, listed, media_of, small_world};
use crate::support::program::{Deployment, Ended, ended, results};
use crate::support::python;
use crate::support::s3::{WRITER, s3};

const MIB: u64 = 1024 * 1024;

fn session(name: &str, media: Vec<Media>) -> Session {
    let attempt = Attempt::approved(id(&format!("attempt of {name}"))).created(Some("2026-10-01T00:00:00.000Z"));
    Session::new(id(name)).attempt(media.into_iter().fold(attempt, Attempt::media))
}

fn video(name: &str, size_bytes: u64) -> Media {
    Media::video(id(name), "selfid_video", size_bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn long_bodies_go_in_parts_whose_checksum_anyone_can_compute_again() {
    let sizes = [16 * MIB, 16 * MIB + 1, 24 * MIB, 40 * MIB];
    let mut world = World::new();
    for size_bytes in sizes {
        let mut unknown = video(&format!("unknown {size_bytes}"), size_bytes).chunked();
        unknown.size_form = SizeForm::Missing;
        let media = vec![
            video(&format!("told {size_bytes}"), size_bytes),
            video(&format!("chunked {size_bytes}"), size_bytes).chunked(),
            unknown,
        ];
        // The longest one once is enough.
        let media = if size_bytes == 40 * MIB { media.into_iter().take(1).collect() } else { media };
        world.add_session(session(&size_bytes.to_string(), media));
    }
    let simulator = Simulator::start(world).await.unwrap();
    let bucket = s3().await.create_bucket("parts", true).await;
    let deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    deployment.write_ids(&simulator.world().session_ids());

    deployment.archive(&[]).await.expect(0);

    let evidence = Evidence::of_bucket(&bucket).await;
    evidence.expect_one_version_each();
    evidence.expect_whole(&simulator);
    evidence.expect_locks("COMPLIANCE", 5);
    assert_eq!(bucket.unfinished_uploads().await, 0);
    for item in listed(&simulator) {
        let sidecar = evidence.json(&format!("{}.meta.json", item.key));
        let checksum = &sidecar["object"]["checksum"];
        if item.media.size_bytes > 16 * MIB {
            assert_eq!(checksum["type"], "composite");
            assert_eq!(checksum["part_size_bytes"], 8 * MIB);
            let parts = item.media.size_bytes.div_ceil(8 * MIB);
            assert!(checksum["value"].as_str().unwrap().ends_with(&format!("-{parts}")), "{checksum}");
        } else {
            assert_eq!(checksum["type"], "full");
        }
        // What the store itself says of it.
        if let Some(shown) = &evidence.object(&item.key).unwrap().checksum {
            assert_eq!(checksum["value"].as_str(), Some(shown.as_str()));
        }
    }
    simulator.reset_requests();
    assert_eq!(deployment.archive(&[]).await.expect(0).count("unchanged"), sizes.len() as u64);
    assert_eq!(simulator.count(Endpoint::Media), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_body_that_always_breaks_off_leaves_no_upload_and_is_missing() {
    let names = ["truncated", "reset"];
    let mut world = World::new();
    for name in names {
        world.add_session(session(
            name,
            vec![video(name, 40 * MIB), Media::image(id(&format!("beside {name}")), "face", 9_000)],
        ));
    }
    let simulator = Simulator::start(world).await.unwrap();
    let after = 20 * MIB;
    simulator.set_fault(Fault::forever(Effect::Truncate { after }).on(Endpoint::Media).id(id("truncated")));
    simulator.set_fault(Fault::forever(Effect::Reset { after }).on(Endpoint::Media).id(id("reset")));
    let bucket = s3().await.create_bucket("broken", true).await;
    let deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    deployment.configure_more("[limits]\ntries = 2\n");
    deployment.write_ids(&simulator.world().session_ids());

    let run = deployment.archive(&["--results", "results.ndjson"]).await.expect(5);

    assert_eq!(run.count("failed"), 2);
    assert_eq!(bucket.unfinished_uploads().await, 0);
    let evidence = Evidence::of_bucket(&bucket).await;
    evidence.expect_one_version_each();
    evidence.expect_no_false_manifest();
    assert_eq!(evidence.media_keys().len(), 2);
    let codes = [("truncated", "media.truncated"), ("reset", "veriff.unavailable")];
    let lines = results(&deployment.path("results.ndjson"));
    for (name, code) in codes {
        let manifest = evidence.manifest(&id(name));
        assert_eq!(manifest["complete"], false);
        assert_eq!(media_of(&manifest).count(), 1);
        assert_eq!(manifest["missing"].as_array().unwrap().len(), 1);
        assert_eq!(manifest["missing"][0]["media_id"], id(name));
        assert_eq!(manifest["missing"][0]["code"], code, "{name}");
        let line = lines.iter().find(|line| line["session_id"] == id(name)).unwrap();
        assert_eq!((&line["outcome"], &line["code"]), (&"failed".into(), &code.into()));
    }

    simulator.clear_faults();
    deployment.archive(&[]).await.expect(0);
    let evidence = Evidence::of_bucket(&bucket).await;
    evidence.expect_one_version_each();
    evidence.expect_whole(&simulator);
}

/// Runs a command to its end and measures the most memory it ever had, in bytes.
async fn measured(command: &Command) -> (Ended, u64) {
    const MEASURE: &str = "
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], 'w').write(str(peak if sys.platform == 'darwin' else peak * 1024))
sys.exit(code)
";
    let folder = command.get_current_dir().unwrap();
    let report = folder.join("peak");
    let mut wrapped = Command::new(tokio::task::spawn_blocking(python::programs).await.unwrap().join("python"));
    wrapped.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped.args(["-c", MEASURE]).arg(&report).arg(command.get_program()).args(command.get_args());
    wrapped.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = ended(wrapped.spawn().unwrap()).await;
    (ended, std::fs::read_to_string(report).unwrap().parse().unwrap())
}

fn run_of<'a>(sessions: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words = ["run", "--sessions", sessions, "--progress", "none"];
    words.into_iter().chain(more.iter().copied()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_video_of_400_mib_among_images_takes_no_more_memory_than_allowed() {
    let mut world = World::new().session(session("long", vec![video("long", 400 * MIB)]));
    for number in 0..8 {
        let images = (0..4).map(|n| Media::image(id(&format!("{number} {n}")), "face", 3_000_000));
        world.add_session(session(&number.to_string(), images.collect()));
    }
    let simulator = Simulator::start(world).await.unwrap();
    let bucket = s3().await.create_bucket("memory", true).await;
    let deployment = Deployment::with_bucket(&simulator, &bucket, WRITER, None);
    // Nothing but the memory limits how much is under way at once.
    let configuration = std::fs::read_to_string(deployment.path("archive.toml")).unwrap();
    let wide = configuration.replacen("allow_http = true", "allow_http = true\nmax_concurrency = 40", 1);
    deployment.configure_whole(&format!("{wide}\n[limits]\nmemory = \"256MiB\"\n"));
    deployment.write_ids(&simulator.world().session_ids());
    let (ended, peak) = measured(&deployment.command(run_of("sessions.txt", &[]))).await;
    ended.expect(0);
    assert!(simulator.peak_concurrency() > 2, "the video and images were to be under way at once");
    assert!(peak < (256 + 64) * MIB, "{} MiB", peak / MIB);
    // Reading it all back would take longer than archiving it; that bytes arrive as sent is shown with shorter ones.
    let versions = bucket.versions().await;
    for item in listed(&simulator) {
        let key = format!("archive/{}", item.key);
        let stored: Vec<_> = versions.iter().filter(|version| version.key == key).collect();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].size_bytes.unsigned_abs(), item.media.size_bytes);
        let sidecar = bucket.bytes(&format!("{key}.meta.json"), None).await;
        let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
        assert_eq!(sidecar["object"]["sha256"], media_sha256(&item.media));
    }
}

const LINES: u64 = 2_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn two_million_lines_take_no_more_memory_than_a_few() {
    let simulator = Simulator::start(small_world(31, 2)).await.unwrap();
    let deployment = Deployment::with_directory(&simulator);
    let ids = simulator.world().session_ids();
    // Bad lines between good ones, so that all of them are read and each has an end of its own.
    let mut lines = format!("{}\n", ids[0]);
    for number in 2..LINES {
        writeln!(lines, "line {number} is no id").unwrap();
    }
    writeln!(lines, "{}", ids[1]).unwrap();
    deployment.write("sessions.txt", &lines);
    drop(lines);

    let words = ["plan", "--sessions", "sessions.txt", "--log-level", "off"];
    let (ended, peak) = measured(&deployment.command(words)).await;
    let source = &ended.expect(0).json()["source"];
    assert_eq!((&source["records"], &source["bad"]), (&2.into(), &(LINES - 2).into()));
    assert!(peak < 128 * MIB, "{} MiB", peak / MIB);

    let words = run_of("sessions.txt", &["--log-level", "off"]);
    let (ended, peak) = measured(&deployment.command(words)).await;
    let ended = ended.expect(3);
    assert_eq!(ended.json()["source"]["records"], LINES);
    assert_eq!((ended.count("archived"), ended.count("failed")), (2, LINES - 2));
    assert!(peak < 128 * MIB, "{} MiB", peak / MIB);
}
