//! Starting, stopping, large bodies, and worlds as files.

use std::io;

use veriff_sim::{Attempt, Media, Session, Simulator, World, id, media_sha256, some_faults};

use crate::http::{End, Outcome, get, media};

#[tokio::test]
async fn a_stopped_simulator_refuses_connections() -> Outcome {
    let on_thread = Simulator::start_on_thread(World::new())?;
    let here = Simulator::start(World::new()).await?;
    let addresses = [on_thread.address(), here.address()];
    on_thread.stop();
    here.shut_down().await;
    for address in addresses {
        let refused = tokio::net::TcpStream::connect(address).await.map(|_| ());
        let kind = refused.map_err(|e| e.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionRefused));
    }
    Ok(())
}

#[tokio::test]
async fn large_bodies_stream_signed() -> Outcome {
    let item = Media::video(id("big"), "selfid_video", 48 * 1024 * 1024 + 17);
    let attempt = Attempt::approved(id("a")).media(item.clone());
    let world = World::new().session(Session::new(id("s")).attempt(attempt));
    let sim = Simulator::start_on_thread(world)?;
    let reply = media(&sim, &item.id).await?;
    assert_eq!((reply.status, reply.end), (200, End::Whole));
    assert!(reply.is_signed_with(&sim.secret()));
    assert_eq!(hex::encode(sha256(&reply.body)), media_sha256(&item));
    assert_eq!(sim.stats().body_bytes, item.size_bytes);
    assert_eq!(sim.peak_concurrency(), 1);
    Ok(())
}

fn sha256(bytes: &[u8]) -> impl AsRef<[u8]> {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes)
}

#[tokio::test]
async fn a_made_up_world_is_served_whole() -> Outcome {
    let world = World::builder(11).sessions(16).image_bytes(100..=900).video_bytes(1000..=2000).build();
    let sim = Simulator::start(world.clone()).await?;
    for session in world.sessions() {
        let list = get(&sim, "/v1/sessions/{id}/attempts", &session.id).await?;
        assert_eq!(list.status, 200);
        for attempt in &session.attempts {
            let list = get(&sim, "/v1/attempts/{id}/media", &attempt.id).await?;
            assert_eq!(list.status, 200);
        }
    }
    for item in world.all_media() {
        let reply = media(&sim, &item.id).await?;
        assert_eq!((reply.status, reply.body.len() as u64), (200, item.size_bytes));
    }
    Ok(())
}

#[test]
fn a_world_survives_being_written_as_json() -> serde_json::Result<()> {
    let mut world = World::builder(2).sessions(16).build();
    world.faults = some_faults(&world);
    let text = serde_json::to_string(&world)?;
    let read: World = serde_json::from_str(&text)?;
    assert_eq!(read.sessions(), world.sessions());
    assert_eq!(read.faults, world.faults);
    assert_eq!(read.knobs, world.knobs);
    let small: World = serde_json::from_str(r#"{"sessions":[{"attempts":[{"media":[{}]}]}]}"#)?;
    assert_eq!(small.all_media().count(), 1);
    Ok(())
}
