//! Command lines and settings that are wrong: refused before anything is asked or written.

use crate::support::scene::{Scene, session, world_of};

#[tokio::test]
async fn a_run_without_a_source_is_wrong_usage() {
    let scene = Scene::of(world_of([&session("one")])).await;
    let ended = scene.deployment.run(["run"]).await.expect(2);
    assert!(ended.stderr.contains("--sessions"), "{}", ended.stderr);
    assert!(ended.stdout.is_empty());
}

#[tokio::test]
async fn a_typo_in_a_key_exits_78_and_names_the_right_one() {
    let scene = Scene::of(world_of([&session("one")])).await;
    for (section, typo, right) in [
        ("limits", "trys = 3", "limits.trys: unknown key; did you mean `tries`"),
        ("store", "ulr = \"file:///tmp/x\"", "store.ulr: unknown key; known here: url"),
        ("integrations.default", "shared_secrt = { env = \"X\" }", "did you mean `shared_secret`"),
        ("retension", "mode = \"none\"", "did you mean `retention`"),
    ] {
        let text = format!(
            "{}\n[{section}]\n{typo}\n",
            match section {
                "integrations.default" => String::new(),
                _ => scene.deployment.default_integration(""),
            }
        );
        scene.deployment.configure_whole(&text);
        let ended = scene.archive(&[]).await.expect(78);
        assert!(ended.stderr.contains(right), "{typo}: {}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
    assert_eq!(scene.simulator.stats().requests, 0);
    scene.assert_nothing_written();
    assert!(!scene.deployment.path("ledger.db").exists());
}

#[tokio::test]
async fn a_secret_that_is_nowhere_exits_78_and_names_its_key() {
    let scene = Scene::of(world_of([&session("one")])).await;
    for content in [None, Some(""), Some(" \n")] {
        match content {
            Some(content) => drop(scene.deployment.write("shared-secret", content)),
            None => std::fs::remove_file(scene.deployment.path("shared-secret")).unwrap(),
        }
        let ended = scene.archive(&[]).await.expect(78);
        assert!(ended.stderr.contains("integrations.default.shared_secret"), "{}", ended.stderr);
    }
    scene.assert_nothing_written();
}

#[tokio::test]
async fn an_integration_that_is_not_configured_is_refused() {
    let scene = Scene::of(world_of([&session("one")])).await;
    let ended = scene.archive(&["--integration", "nowhere"]).await.expect(78);
    assert!(ended.stderr.contains("known: default"), "{}", ended.stderr);
    scene.assert_nothing_written();
}

#[tokio::test]
async fn a_bucket_without_a_policy_is_refused() {
    let scene = Scene::of(world_of([&session("one")])).await;
    let ended = scene.archive(&["--store", "s3://bucket/prefix"]).await.expect(78);
    assert!(ended.stderr.contains("retention"), "{}", ended.stderr);
    assert_eq!(scene.simulator.stats().requests, 0);
}
