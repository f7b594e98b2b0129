//! Each scripted fault, as a client meets it.

use std::io::Read as _;

use tokio::time::Instant;
use veriff_sim::{
    Attempt, Effect, Endpoint, Fault, Gzip, Media, RateLimit, RetryAfter, Session, Signatures, Simulator, World, id,
    media_bytes,
};

use crate::http::{End, Outcome, Reply, get, media, send};

const SIZE: u64 = 300_000;

fn item() -> Media {
    Media::image(id("m"), "face", SIZE)
}

async fn simulator() -> std::io::Result<Simulator> {
    let attempt = Attempt::approved(id("a")).media(item());
    Simulator::start(World::new().session(Session::new(id("s")).attempt(attempt))).await
}

/// Sets a fault on the file, and fetches it under the fault and after it.
async fn under(effect: Effect) -> std::io::Result<(Reply, Reply)> {
    let sim = simulator().await?;
    sim.set_fault(Fault::once(effect).on(Endpoint::Media).id(id("m")));
    let hit = media(&sim, &id("m")).await?;
    assert_eq!(sim.stats().faulted, 1);
    Ok((hit, media(&sim, &id("m")).await?))
}

async fn list_under(effect: Effect) -> std::io::Result<Reply> {
    let sim = simulator().await?;
    sim.set_fault(Fault::once(effect).on(Endpoint::SessionMedia));
    get(&sim, "/v1/sessions/{id}/media", &id("s")).await
}

#[tokio::test]
async fn replies_replace_the_answer_and_pass() -> Outcome {
    let json = "application/json";
    for (effect, status, content_type, code) in [
        (Effect::status(500), 500, json, ""),
        (Effect::status(503), 503, json, ""),
        (Effect::status(403), 403, json, ""),
        (Effect::status(404), 404, json, "1104"),
        (Effect::status(410), 410, json, "1104"),
        (Effect::too_many(None), 429, json, ""),
        (Effect::unauthorized("1804"), 401, json, "1804"),
        (Effect::Html { status: 502 }, 502, "text/html; charset=utf-8", ""),
        (Effect::Html { status: 200 }, 200, "text/html; charset=utf-8", ""),
        (Effect::Empty { status: 200 }, 200, json, ""),
        (Effect::ErrorWith200 { code: "1101".into() }, 200, json, "1101"),
    ] {
        let (hit, after) = under(effect).await?;
        assert_eq!(hit.status, status);
        assert_eq!(hit.header("content-type"), Some(content_type));
        assert_eq!((hit.code().as_str(), hit.end), (code, End::Whole));
        assert_eq!((after.status, after.body.len() as u64), (200, SIZE));
    }
    Ok(())
}

#[tokio::test]
async fn retry_after_comes_in_both_forms() -> Outcome {
    let (hit, _) = under(Effect::too_many(Some(RetryAfter::Seconds(3)))).await?;
    assert_eq!(hit.header("retry-after"), Some("3"));
    let (hit, _) = under(Effect::too_many(Some(RetryAfter::Date(30)))).await?;
    let date = hit.header("retry-after").unwrap_or("");
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    Ok(())
}

#[tokio::test]
async fn a_redirect_names_the_place_given() -> Outcome {
    let location = "http://elsewhere.test/x".to_owned();
    let (hit, _) = under(Effect::Redirect { location }).await?;
    assert_eq!((hit.status, hit.header("location")), (302, Some("http://elsewhere.test/x")));
    Ok(())
}

#[tokio::test]
async fn a_hangup_gives_no_answer() -> Outcome {
    let sim = simulator().await?;
    sim.set_fault(Fault::once(Effect::Hangup));
    assert!(media(&sim, &id("m")).await.is_err());
    assert_eq!(sim.requests()[0].status, 0);
    Ok(())
}

#[tokio::test]
async fn bodies_break_off_where_told() -> Outcome {
    let true_bytes = media_bytes(&item());
    for (after, sent) in [(0, 0), (70_000, 70_000), (u64::MAX, SIZE / 2)] {
        let (hit, _) = under(Effect::Truncate { after }).await?;
        assert_eq!((hit.status, hit.end), (200, End::CutShort));
        assert_eq!(hit.header("content-length"), Some("300000"));
        assert_eq!(hit.body.len() as u64, sent);
        assert!(true_bytes.starts_with(&hit.body));
        let (hit, _) = under(Effect::Reset { after }).await?;
        assert_eq!((hit.status, hit.end), (200, End::Reset));
    }
    Ok(())
}

#[tokio::test]
async fn twists_of_one_request_add_up() -> Outcome {
    let sim = simulator().await?;
    sim.set_fault(Fault::once(Effect::Chunked));
    sim.set_fault(Fault::once(Effect::Truncate { after: 1000 }));
    let hit = media(&sim, &id("m")).await?;
    assert_eq!(hit.header("content-length"), None);
    assert_eq!((hit.end, hit.body.len()), (End::CutShort, 1000));
    Ok(())
}

#[tokio::test]
async fn chunked_bodies_state_no_length() -> Outcome {
    let (hit, _) = under(Effect::Chunked).await?;
    assert_eq!(hit.header("content-length"), None);
    assert_eq!(hit.header("transfer-encoding"), Some("chunked"));
    assert!(hit.end == End::Whole && hit.body == media_bytes(&item()));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn slow_and_stalled_bodies_arrive_whole_in_the_end() -> Outcome {
    for (effect, least_ms) in [
        (Effect::Stall { after: 100_000, for_ms: 40_000 }, 40_000),
        (Effect::Slow { bytes: 100_000, every_ms: 15_000 }, 30_000),
        (Effect::DelayHead { for_ms: 40_000 }, 40),
    ] {
        let start = Instant::now();
        let (hit, _) = under(effect).await?;
        assert!(hit.end == End::Whole && hit.body == media_bytes(&item()));
        assert!(start.elapsed().as_millis() >= least_ms);
    }
    Ok(())
}

#[tokio::test]
async fn wrong_bytes_keep_length_and_true_signature() -> Outcome {
    let (hit, after) = under(Effect::WrongBytes).await?;
    assert_eq!(hit.body.len() as u64, SIZE);
    assert!(hit.body != media_bytes(&item()));
    assert_eq!(hit.header("x-hmac-signature"), after.header("x-hmac-signature"));
    Ok(())
}

#[tokio::test]
async fn heads_can_lie_about_type_and_signature() -> Outcome {
    let (hit, _) = under(Effect::ContentType { value: "text/plain".into() }).await?;
    assert_eq!(hit.header("content-type"), Some("text/plain"));
    let mode = Signatures::Corrupt;
    let (hit, after) = under(Effect::Signatures { mode }).await?;
    assert_ne!(hit.header("x-hmac-signature"), after.header("x-hmac-signature"));
    assert!(hit.body == after.body);
    Ok(())
}

#[tokio::test]
async fn lists_can_lie() -> Outcome {
    let wrong = list_under(Effect::WrongSize { by: -5 }).await?.json();
    assert_eq!(wrong["images"][0]["size"], SIZE - 5);
    let base = "https://evil.test".to_owned();
    let elsewhere = list_under(Effect::UrlBase { base }).await?.json();
    let url = format!("https://evil.test/v1/media/{}", id("m"));
    assert_eq!(elsewhere["images"][0]["url"], url);
    let broken = list_under(Effect::InvalidJson).await?;
    assert!(broken.status == 200 && broken.json().is_null() && !broken.body.is_empty());
    Ok(())
}

#[tokio::test]
async fn lists_can_be_compressed_and_are_signed_as_they_were_before() -> Outcome {
    let sim = simulator().await?;
    let path = "/v1/sessions/{id}/media";
    let plain = get(&sim, path, &id("s")).await?;
    sim.set_fault(Fault::once(Effect::Gzip));
    let packed = get(&sim, path, &id("s")).await?;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut text)?;
    assert_eq!(text, plain.body);
    assert_eq!(packed.header("x-hmac-signature"), plain.header("x-hmac-signature"));
    sim.set_knobs(|k| k.gzip = Gzip::WhenAsked);
    assert_eq!(get(&sim, path, &id("s")).await?.header("content-encoding"), None);
    Ok(())
}

#[tokio::test]
async fn requests_above_the_rate_are_refused() -> Outcome {
    let sim = simulator().await?;
    sim.set_knobs(|k| {
        k.rate_limit = Some(RateLimit { per_second: 0.001, burst: 2, retry_after: Some(RetryAfter::Seconds(7)) });
    });
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(media(&sim, &id("m")).await?.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    Ok(())
}

#[tokio::test]
async fn faults_are_set_and_read_from_outside() -> Outcome {
    let sim = simulator().await?;
    let faults = r#"[{"endpoint":"media","times":1,"effect":{"status":{"status":500}}}]"#;
    assert_eq!(send(&sim, "POST", "/__faults", &[], faults).await?.status, 200);
    assert_eq!(send(&sim, "POST", "/__faults", &[], r#"{"x":1}"#).await?.status, 400);
    assert_eq!(media(&sim, &id("m")).await?.status, 500);
    assert_eq!(media(&sim, &id("m")).await?.status, 200);
    let stats = send(&sim, "GET", "/__stats", &[], "").await?.json();
    assert_eq!(stats["by_endpoint"]["media"]["500"], 1);
    assert_eq!(stats["faulted"], 1);
    send(&sim, "POST", "/__reset", &[], "").await?;
    let stats = send(&sim, "GET", "/__stats", &[], "").await?.json();
    assert_eq!(stats["requests"], 0);
    Ok(())
}
