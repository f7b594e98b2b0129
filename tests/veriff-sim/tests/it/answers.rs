//! The answers of a simulator in good health.

use serde_json::{Value, json};
use tokio::time::Instant;
use veriff_sim::{
    Attempt, AuthOutcome, Document, Endpoint, Gzip, Integration, Knobs, Media, Presence, Session, Signatures,
    Simulator, World, id, media_bytes, media_sha256, sign,
};

use crate::http::{End, Outcome, get, media, send};

fn two_attempts() -> Session {
    Session::new(id("s")).attempt(Attempt::resubmission_requested(id("a1")).image("face", 3000)).attempt(
        Attempt::approved(id("a2")).image("face", 4000).image("face", 5000).video("face-pre-video", 900_000).nfc(7000),
    )
}

fn ids(list: &Value) -> Vec<String> {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let ids = items.iter().filter_map(|i| i["id"].as_str());
    ids.map(str::to_owned).collect()
}

#[tokio::test]
async fn the_session_list_covers_the_latest_attempt_alone() -> Outcome {
    let sim = Simulator::start(World::new().session(two_attempts())).await?;
    let (session, first, second) = (id("s"), id("a1"), id("a2"));
    let attempts = get(&sim, "/v1/sessions/{id}/attempts", &session).await?.json();
    assert_eq!(ids(&attempts["verifications"]), [second.clone(), first.clone()]);
    let latest = get(&sim, "/v1/sessions/{id}/media", &session).await?;
    assert!(latest.is_signed_with(&sim.secret()));
    let latest = latest.json();
    assert_eq!(latest["images"].as_array().map(Vec::len), Some(2));
    let own = get(&sim, "/v1/attempts/{id}/media", &second).await?.json();
    assert_eq!(latest, own);
    let earlier = get(&sim, "/v1/attempts/{id}/media", &first).await?.json();
    assert_eq!(earlier["images"][0]["size"], 3000);
    assert_eq!(earlier["videos"], json!([]));
    Ok(())
}

#[tokio::test]
async fn files_come_whole_and_signed() -> Outcome {
    let world = World::new().session(two_attempts());
    let items: Vec<Media> = world.all_media().cloned().collect();
    let sim = Simulator::start(world).await?;
    for item in items {
        // The second time a large body's signature comes from memory.
        for _ in 0..2 {
            let reply = media(&sim, &item.id).await?;
            assert_eq!((reply.status, reply.end), (200, End::Whole));
            assert_eq!(reply.header("content-type"), Some(item.mimetype.as_str()));
            assert_eq!(reply.header("vrf-auth-client"), Some(sim.api_key().as_str()));
            assert!(reply.is_signed_with(&sim.secret()));
            assert!(reply.body == media_bytes(&item), "bytes differ");
        }
        assert_eq!(media_sha256(&item).len(), 64);
        assert_eq!(sim.media_gets(&item.id), 2);
    }
    Ok(())
}

#[tokio::test]
async fn each_way_to_fail_authentication_has_its_code() -> Outcome {
    let idle = Integration { active: false, ..Integration::new("idle") };
    let world = World::new().integration(idle.clone()).session(two_attempts());
    let sim = Simulator::start(world).await?;
    let (key, session) = (sim.api_key(), id("s"));
    let good = sign(&sim.secret(), session.as_bytes());
    let stranger = id("nobody");
    for (code, key, signature) in [
        ("1801", None, Some(good.as_str())),
        ("1802", Some("me"), Some(&good)),
        ("1803", Some(&stranger), Some(&good)),
        ("1804", Some(&idle.api_key), Some(&good)),
        ("1812", Some(&key), Some("deadbeef")),
        ("1815", Some(&key), None),
        ("1818", Some(&key), Some(&sign("other", session.as_bytes()))),
    ] {
        let headers: Vec<_> = [("x-auth-client", key), ("x-hmac-signature", signature)]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let reply = send(&sim, "GET", &format!("/v1/sessions/{session}/media"), &headers, "").await?;
        assert_eq!((reply.status, reply.code().as_str()), (401, code));
        assert_eq!(reply.json()["status"], "fail");
        assert_eq!(reply.header("x-hmac-signature"), None);
    }
    assert_eq!(sim.stats().bad_signatures, 7);
    assert_eq!(sim.requests()[6].auth, AuthOutcome::SignatureMismatch);
    Ok(())
}

#[tokio::test]
async fn answers_are_signed_with_the_secret_that_signed_the_request() -> Outcome {
    let sim = Simulator::start(World::new().session(two_attempts())).await?;
    let old = sim.secret();
    let fetch = async |secret: &str| {
        let (key, signature) = (sim.api_key(), sign(secret, id("s").as_bytes()));
        let headers = [("x-auth-client", key.as_str()), ("x-hmac-signature", &signature)];
        send(&sim, "GET", &format!("/v1/sessions/{}/media", id("s")), &headers, "").await
    };
    sim.rotate_secret("default", "new-secret", true);
    assert!(fetch("new-secret").await?.is_signed_with("new-secret"));
    assert!(fetch(&old).await?.is_signed_with(&old));
    sim.rotate_secret("default", "newer-secret", false);
    assert_eq!(fetch("new-secret").await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn the_signature_headers_follow_the_mode() -> Outcome {
    let sim = Simulator::start(World::new().session(two_attempts())).await?;
    for (mode, old, new) in [
        (Signatures::All, true, true),
        (Signatures::XOnly, true, false),
        (Signatures::VrfOnly, false, true),
        (Signatures::None, false, false),
        (Signatures::Corrupt, true, true),
    ] {
        sim.set_knobs(|k| k.signatures = mode);
        let reply = get(&sim, "/v1/sessions/{id}/media", &id("s")).await?;
        assert_eq!(reply.header("x-hmac-signature").is_some(), old);
        assert_eq!(reply.header("vrf-hmac-signature").is_some(), new);
        assert_eq!(reply.is_signed_with(&sim.secret()), mode == Signatures::All);
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_seen_is_refused() -> Outcome {
    let world = World::new()
        .integration(Integration::new("other"))
        .session(two_attempts())
        .session(Session::new(id("foreign")).integration("other"))
        .session(Session { presence: Presence::Archived, ..Session::new(id("archived")) });
    let sim = Simulator::start(world).await?;
    let list = "/v1/sessions/{id}/attempts";
    for absent in ["unknown", "foreign", "archived"] {
        assert_eq!(get(&sim, list, &id(absent)).await?.status, 404);
    }
    let odd = get(&sim, list, "not-a-uuid").await?;
    assert_eq!((odd.status, odd.code().as_str()), (400, "1002"));
    sim.set_knobs(|k| (k.foreign_status, k.gone_status, k.check_uuid) = (401, 410, false));
    assert_eq!(get(&sim, list, &id("foreign")).await?.status, 401);
    assert_eq!(get(&sim, list, &id("archived")).await?.status, 410);
    assert_eq!(get(&sim, list, "not-a-uuid").await?.status, 404);
    sim.delete_session(&id("s"));
    let item = sim.world().all_media().next().map(|m| m.id.clone());
    assert_eq!(get(&sim, list, &id("s")).await?.status, 410);
    assert_eq!(media(&sim, &item.unwrap_or_default()).await?.status, 410);
    Ok(())
}

#[tokio::test]
async fn nfc_documents_can_hide_from_attempt_lists_and_videos_from_tests() -> Outcome {
    let sim = Simulator::start(World::new().session(two_attempts())).await?;
    sim.set_knobs(|k| k.nfc_per_attempt = false);
    sim.world().integrations[0].live = false;
    let session = get(&sim, "/v1/sessions/{id}/media", &id("s")).await?.json();
    assert_eq!(session["nfcDocuments"].as_array().map(Vec::len), Some(1));
    assert_eq!(session["videos"], json!([]));
    let attempt = get(&sim, "/v1/attempts/{id}/media", &id("a2")).await?.json();
    assert_eq!(attempt["nfcDocuments"], Value::Null);
    Ok(())
}

#[tokio::test]
async fn an_attempt_can_appear_between_two_calls() -> Outcome {
    let session = two_attempts().attempt(Attempt::approved(id("a3")).image("face", 100).appears_after(2));
    let sim = Simulator::start(World::new().session(session)).await?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        let list = get(&sim, "/v1/sessions/{id}/attempts", &id("s")).await?.json();
        seen.push(ids(&list["verifications"]).len());
    }
    assert_eq!(seen, [2, 2, 3]);
    sim.add_attempt(&id("s"), Attempt::declined(id("a4")));
    let list = get(&sim, "/v1/sessions/{id}/attempts", &id("s")).await?.json();
    assert_eq!(ids(&list["verifications"])[0], id("a4"));
    Ok(())
}

#[tokio::test]
async fn arrays_come_in_another_order_when_shuffled() -> Outcome {
    let mut attempt = Attempt::approved(id("a"));
    for _ in 0..12 {
        attempt = attempt.image("face", 10);
    }
    let knobs = Knobs { shuffle: true, ..Knobs::default() };
    let world = World::new().knobs(knobs).session(Session::new(id("s")).attempt(attempt));
    let sim = Simulator::start(world).await?;
    let one = get(&sim, "/v1/sessions/{id}/media", &id("s")).await?.json();
    let two = get(&sim, "/v1/sessions/{id}/media", &id("s")).await?.json();
    let (mut one, mut two) = (ids(&one["images"]), ids(&two["images"]));
    assert_ne!(one, two);
    one.sort();
    two.sort();
    assert_eq!(one, two);
    Ok(())
}

#[tokio::test]
async fn decisions_are_null_or_of_every_status() -> Outcome {
    let mut world = World::new().session(Session {
        decision: Document::Null,
        person: Document::Absent,
        ..Session::new(id("null"))
    });
    let statuses = [
        ("approved", json!(9001)),
        ("declined", json!(9102)),
        ("resubmission_requested", json!(9103)),
        ("expired", json!(9104)),
        ("abandoned", json!(9104)),
        ("review", json!(9121)),
        ("submitted", Value::Null),
    ];
    for (status, _) in &statuses {
        world.add_session(Session::new(id(status)).attempt(Attempt::new(id("a"), status)));
    }
    let sim = Simulator::start(world).await?;
    for (status, code) in statuses {
        let reply = get(&sim, "/v1/sessions/{id}/decision", &id(status)).await?.json();
        assert_eq!(reply["verification"]["code"], code, "{status}");
        if let Some(time) = reply["verification"]["decisionTime"].as_str() {
            assert_eq!(time, "2026-10-05T09:19:42.047512Z");
        }
    }
    let null = get(&sim, "/v1/sessions/{id}/decision", &id("null")).await?;
    assert_eq!((null.status, null.json()), (200, json!({ "status": "success", "verification": null })));
    assert_eq!(get(&sim, "/v1/sessions/{id}/person", &id("null")).await?.status, 404);
    let watch = get(&sim, "/v1/sessions/{id}/watchlist-screening", &id("review")).await?.json();
    assert_eq!(watch["data"]["sessionId"], id("review"));
    Ok(())
}

#[tokio::test]
async fn deletion_is_enabled_limited_and_at_once() -> Outcome {
    let mut world = World::new().session(Session::new(id("busy")).attempt(Attempt::new(id("b"), "submitted")));
    for n in 0..6 {
        world.add_session(Session::new(id(&format!("d{n}"))));
    }
    let sim = Simulator::start(world).await?;
    let delete = async |session: &str| {
        let (key, signature) = (sim.api_key(), sign(&sim.secret(), session.as_bytes()));
        let headers = [("x-auth-client", key.as_str()), ("x-hmac-signature", &signature)];
        send(&sim, "DELETE", &format!("/v1/sessions/{session}"), &headers, "").await
    };
    assert_eq!(delete(&id("d0")).await?.status, 403);
    sim.world().integrations[0].delete_enabled = true;
    let busy = delete(&id("busy")).await?;
    assert_eq!((busy.json()["status"].as_u64(), busy.code().as_str()), (Some(400), "1306"));
    for n in 0..4 {
        assert_eq!(delete(&id(&format!("d{n}"))).await?.status, 200);
    }
    assert_eq!(delete(&id("d5")).await?.status, 429);
    assert_eq!(get(&sim, "/v1/sessions/{id}/media", &id("d0")).await?.status, 404);
    assert_eq!(sim.count_status(Endpoint::Delete, 200), 4);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_service_as_a_whole_is_turned_by_knobs() -> Outcome {
    let sim = Simulator::start(World::new().session(two_attempts())).await?;
    sim.set_knobs(|k| {
        k.latency_ms = 5000;
        k.sign_errors = true;
        k.gzip = Gzip::WhenAsked;
        k.url_base = Some("https://elsewhere.test".to_owned());
    });
    let start = Instant::now();
    let absent = get(&sim, "/v1/sessions/{id}/media", &id("nobody")).await?;
    assert!(absent.status == 404 && absent.is_signed_with(&sim.secret()));
    assert!(start.elapsed().as_secs() >= 5);
    let list = get(&sim, "/v1/sessions/{id}/media", &id("s")).await?;
    let url = list.json()["images"][0]["url"].to_string();
    assert!(url.starts_with("\"https://elsewhere.test/v1/media/"));
    let (key, signature) = (sim.api_key(), sign(&sim.secret(), id("s").as_bytes()));
    let headers = [("x-auth-client", key.as_str()), ("x-hmac-signature", &signature), ("accept-encoding", "br, gzip")];
    let path = format!("/v1/sessions/{}/media", id("s"));
    let packed = send(&sim, "GET", &path, &headers, "").await?;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    Ok(())
}
