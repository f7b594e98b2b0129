//! Made-up worlds: many sessions with everything odd the vendor's documents speak of.
//!
//! Session number *n* shows oddity *n* mod [`ODDITIES`], so that any world of that many sessions shows all of them.

use std::ops::RangeInclusive;

use serde_json::{Map, json};

use crate::faults::{Effect, Endpoint, Fault};
use crate::ids::Rng;
use crate::knobs::{Knobs, RetryAfter, Signatures};
use crate::media::{Kind, Media, SizeForm};
use crate::session::{Attempt, Session, later};
use crate::world::{Integration, World};

/// The number of oddities a made-up world cycles through.
pub(crate) const ODDITIES: usize = 16;

/// Settings of a made-up world.
#[derive(Clone, Debug)]
pub struct WorldBuilder {
    seed: u64,
    sessions: usize,
    attempts: RangeInclusive<u64>,
    image_bytes: RangeInclusive<u64>,
    video_bytes: RangeInclusive<u64>,
    nfc_bytes: RangeInclusive<u64>,
    odd: bool,
    base_time: String,
    integrations: Vec<Integration>,
    knobs: Knobs,
}

impl WorldBuilder {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            sessions: 25,
            attempts: 1..=4,
            image_bytes: 40_000..=300_000,
            video_bytes: 300_000..=1_500_000,
            nfc_bytes: 15_000..=40_000,
            odd: true,
            base_time: "2026-10-05T08:00:00.000Z".to_owned(),
            integrations: vec![Integration::default()],
            knobs: Knobs::default(),
        }
    }

    /// The number of sessions (25).
    #[must_use]
    pub fn sessions(mut self, n: usize) -> Self {
        self.sessions = n;
        self
    }

    /// Attempts of a session (1 to 4).
    #[must_use]
    pub fn attempts(mut self, range: RangeInclusive<u64>) -> Self {
        self.attempts = range;
        self
    }

    /// Sizes of images (40 to 300 kB).
    #[must_use]
    pub fn image_bytes(mut self, range: RangeInclusive<u64>) -> Self {
        self.image_bytes = range;
        self
    }

    /// Sizes of videos (0.3 to 1.5 MB).
    #[must_use]
    pub fn video_bytes(mut self, range: RangeInclusive<u64>) -> Self {
        self.video_bytes = range;
        self
    }

    /// Sizes of NFC documents (15 to 40 kB).
    #[must_use]
    pub fn nfc_bytes(mut self, range: RangeInclusive<u64>) -> Self {
        self.nfc_bytes = range;
        self
    }

    /// Shows the oddities (yes).
    #[must_use]
    pub fn odd(mut self, odd: bool) -> Self {
        self.odd = odd;
        self
    }

    /// The time of the first attempt, RFC 3339; the sessions follow an hour apart.
    #[must_use]
    pub fn base_time(mut self, time: &str) -> Self {
        time.clone_into(&mut self.base_time);
        self
    }

    /// Replaces the integrations; the sessions are dealt out to them in turn.
    #[must_use]
    pub fn integrations(mut self, integrations: Vec<Integration>) -> Self {
        self.integrations = integrations;
        self
    }

    /// Sets the behaviour of the service.
    #[must_use]
    pub fn knobs(mut self, knobs: Knobs) -> Self {
        self.knobs = knobs;
        self
    }

    /// Makes the world.
    #[must_use]
    pub fn build(self) -> World {
        let mut world = World::new().knobs(self.knobs.clone());
        for n in 0..self.sessions {
            world.add_session(self.session(n));
        }
        world.integrations = self.integrations;
        world
    }

    fn session(&self, n: usize) -> Session {
        let mut rng = Rng::new(crate::ids::mix(self.seed) ^ crate::ids::mix(n as u64 + 1));
        let mut session = Session::new(rng.id());
        if let Some(owner) = self.integrations.get(n % self.integrations.len().max(1)) {
            session.integration.clone_from(&owner.name);
        }
        session.vendor_data = Some(format!("cust-{n:05}"));
        let start = later(&self.base_time, 3600 * n as u64);
        let attempts = rng.within(&self.attempts);
        for k in 0..attempts {
            let last = k + 1 == attempts;
            let status = match (last, rng.within(&(0..=9))) {
                (false, _) => "resubmission_requested",
                (true, 0..=7) => "approved",
                (true, _) => "declined",
            };
            let mut attempt = Attempt::new(rng.id(), status);
            attempt.created_time = Some(later(&start, 600 * k));
            attempt.media = self.usual_media(&mut rng);
            session.attempts.push(attempt);
        }
        if self.odd {
            self.make_odd(n % ODDITIES, &mut session, &mut rng);
        }
        session
    }

    fn usual_media(&self, rng: &mut Rng) -> Vec<Media> {
        let mut media = vec![self.image("document-front", rng), self.image("face", rng)];
        if rng.within(&(0..=1)) == 0 {
            media.push(self.image("document-back", rng));
        }
        if rng.within(&(0..=2)) == 0 {
            media.push(self.video("face-pre-video", rng));
        }
        if rng.within(&(0..=3)) == 0 {
            media.push(self.nfc(rng));
        }
        media
    }

    fn image(&self, context: &str, rng: &mut Rng) -> Media {
        Media::image(rng.id(), context, rng.within(&self.image_bytes))
    }

    fn video(&self, context: &str, rng: &mut Rng) -> Media {
        let mut media = Media::video(rng.id(), context, rng.within(&self.video_bytes));
        media.duration = Some(f64::from(u16::try_from(rng.within(&(15..=120))).unwrap_or(15)) / 10.0);
        media
    }

    fn nfc(&self, rng: &mut Rng) -> Media {
        Media::nfc(rng.id(), rng.within(&self.nfc_bytes))
    }

    fn make_odd(&self, oddity: usize, session: &mut Session, rng: &mut Rng) {
        let Some(latest) = session.attempts.last_mut() else {
            return;
        };
        match oddity {
            1 => latest.media.extend(["face", "face", "document-front"].map(|c| self.image(c, rng))),
            2 => {
                latest.media.extend(["face-pre", "document-front-pre"].map(|c| self.image(c, rng)));
                latest.media.extend(["document-front-pre-video", "selfid_video"].map(|c| self.video(c, rng)));
            }
            3 => {
                for mimetype in ["jpg", "application/pdf", "image/heic", "image/webp", "image/png"] {
                    latest.media.push(self.image("address-front", rng).mimetype(mimetype));
                }
                latest.media.push(self.video("selfid_video", rng).mimetype("video/mp4"));
            }
            4 => {
                session.nfc_in_session_list_only = true;
                latest.media.push(self.nfc(rng));
            }
            5 => latest.media.clear(),
            6 => {
                latest.media.retain(|m| m.kind == Kind::Image);
                latest.omit_empty_arrays = true;
            }
            7 => latest.media.extend(["hologram-sweep", "\"face\"", "Dokument vorne/1"].map(|c| self.image(c, rng))),
            8 => add_extra_fields(latest),
            9 => latest.media.iter_mut().for_each(|m| m.size_form = SizeForm::Text),
            10 => self.share_media(session, rng),
            11 => session.repeat_attempt = true,
            12 => latest.created_time = None,
            13 => latest.user_defined_data.push(json!({
                "status": "Second look", "statusCode": "second_look", "reason": "Typed by an agent",
                "reasonCode": null, "createdAt": later(&self.base_time, 7200),
            })),
            14 => latest.media.iter_mut().for_each(|m| m.content_length = false),
            15 => latest.media.push(self.image("face-cropped", rng).mimetype("image/png")),
            _ => {}
        }
    }

    /// Lists one item of the latest attempt in an earlier one too.
    fn share_media(&self, session: &mut Session, rng: &mut Rng) {
        if session.attempts.len() < 2 {
            let mut earlier = Attempt::resubmission_requested(rng.id());
            earlier.created_time = Some(later(&self.base_time, 60));
            earlier.media = self.usual_media(rng);
            session.attempts.insert(0, earlier);
        }
        let shared = session.attempts.last().and_then(|latest| rng.pick_from(&latest.media));
        session.attempts[0].media.extend(shared);
    }
}

fn add_extra_fields(attempt: &mut Attempt) {
    attempt.extra =
        Map::from_iter([("schemaHint".to_owned(), json!({ "version": 3 })), ("warnings".to_owned(), json!([]))]);
    for media in &mut attempt.media {
        media.extra =
            Map::from_iter([("quality".to_owned(), json!(0.93)), ("timestamp".to_owned(), json!({ "url": null }))]);
    }
}

/// Gives one passing fault of each sort, spread over the media and lists of a world.
///
/// A client that tries again archives every session all the same.
#[must_use]
pub fn some_faults(world: &World) -> Vec<Fault> {
    let media: Vec<&str> = world.all_media().map(|m| m.id.as_str()).collect();
    let sessions = world.sessions();
    let on_media = [
        Effect::too_many(Some(RetryAfter::Seconds(1))),
        Effect::too_many(None),
        Effect::status(500),
        Effect::Html { status: 502 },
        Effect::status(503),
        Effect::Truncate { after: 20_000 },
        Effect::Reset { after: 20_000 },
        Effect::Html { status: 200 },
        Effect::ErrorWith200 { code: "1101".to_owned() },
        Effect::Empty { status: 200 },
        Effect::Signatures { mode: Signatures::Corrupt },
        Effect::Hangup,
        Effect::Chunked,
        Effect::Slow { bytes: 64 * 1024, every_ms: 20 },
    ];
    let on_lists = [
        (Endpoint::Attempts, Effect::status(500)),
        (Endpoint::SessionMedia, Effect::InvalidJson),
        (Endpoint::Attempts, Effect::too_many(Some(RetryAfter::Date(1)))),
        (Endpoint::SessionMedia, Effect::Gzip),
    ];
    let spread = |n: usize, of: usize, len: usize| n * len / of;
    let lists = on_lists.iter().enumerate().filter_map(|(n, (kind, effect))| {
        let session = sessions.get(spread(n, on_lists.len(), sessions.len()))?;
        Some(Fault::once(effect.clone()).on(*kind).id(&session.id))
    });
    let items = on_media.iter().enumerate().filter_map(|(n, effect)| {
        let id = media.get(spread(n, on_media.len(), media.len()))?;
        Some(Fault::once(effect.clone()).on(Endpoint::Media).id(*id))
    });
    items.chain(lists).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_world() {
        let make = |seed| World::builder(seed).sessions(ODDITIES).build();
        assert_eq!(make(7).sessions(), make(7).sessions());
        assert_ne!(make(7).sessions(), make(8).sessions());
    }

    #[test]
    fn sessions_differ_and_have_one_to_four_attempts() {
        let world = World::builder(3).sessions(100).build();
        let ids: HashSet<_> = world.session_ids().into_iter().collect();
        assert_eq!(ids.len(), 100);
        let counts: HashSet<_> = world.sessions().iter().map(|s| s.attempts.len()).collect();
        assert_eq!(counts, HashSet::from([1, 2, 3, 4]));
    }

    #[test]
    fn every_oddity_shows() {
        let world = World::builder(5).sessions(ODDITIES).build();
        let sessions = world.sessions();
        let attempts = || sessions.iter().flat_map(|s| &s.attempts);
        let mimetypes: HashSet<_> = world.all_media().map(|m| m.mimetype.as_str()).collect();
        for wanted in ["jpg", "application/pdf", "image/heic", "image/webp", "video/mp4"] {
            assert!(mimetypes.contains(wanted), "{wanted}");
        }
        assert!(sessions.iter().any(|s| s.nfc_in_session_list_only));
        assert!(sessions.iter().any(|s| s.repeat_attempt));
        assert!(attempts().any(|a| a.media.is_empty()));
        assert!(attempts().any(|a| a.omit_empty_arrays));
        assert!(attempts().any(|a| a.created_time.is_none()));
        assert!(attempts().any(|a| !a.user_defined_data.is_empty()));
        assert!(attempts().any(|a| !a.extra.is_empty()));
        assert!(world.all_media().any(|m| m.size_form == SizeForm::Text));
        assert!(world.all_media().any(|m| !m.content_length));
        let ids: HashSet<_> = world.all_media().map(|m| &m.id).collect();
        assert!(ids.len() < world.all_media().count(), "one is shared");
    }
}
