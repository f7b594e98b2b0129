//! Answers: what each endpoint says of the world, as JSON.

use serde_json::{Map, Value, json};

use crate::faults::Endpoint;
use crate::ids::Rng;
use crate::knobs::Knobs;
use crate::media::{Kind, Media, SizeForm};
use crate::session::{Attempt, Document, Presence, Session, later};
use crate::world::{Integration, Place, World};

/// What an endpoint answers when nothing goes wrong on the way.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(Value),
    Media(Box<Media>),
    Refused { status: u16, body: Value },
}

impl Answer {
    pub(crate) fn refused(status: u16, code: Option<&str>) -> Self {
        Self::Refused { status, body: error_body(status, code) }
    }
}

/// Writes an error the way Veriff does.
pub(crate) fn error_body(status: u16, code: Option<&str>) -> Value {
    let code = code.or(match status {
        400 => Some("1101"),
        401 => Some("1815"),
        404 | 410 => Some("1104"),
        _ => None,
    });
    let message = match status {
        401 => crate::auth::AUTH_FAILURE_MESSAGE,
        404 | 410 => "not found",
        429 => "too many requests",
        500.. => "something went wrong",
        _ => "the request did not pass validation",
    };
    let mut body = json!({ "status": "fail", "message": message });
    if let Some(code) = code {
        body["code"] = json!(code);
    }
    body
}

/// What lists depend on beside the world.
#[derive(Clone, Debug)]
pub(crate) struct ListStyle {
    /// Scheme and host of `url`.
    pub(crate) url_base: String,
    /// Added to each size.
    pub(crate) size_off_by: i64,
    /// Seed of this call's order.
    pub(crate) shuffle: Option<u64>,
}

/// Answers a request of an authenticated caller.
pub(crate) fn answer(
    world: &mut World,
    caller: &Integration,
    endpoint: Endpoint,
    id: &str,
    style: &ListStyle,
) -> Answer {
    if world.knobs.check_uuid && uuid::Uuid::try_parse(id).is_err() {
        return Answer::refused(400, Some("1002"));
    }
    let place = match endpoint {
        Endpoint::AttemptMedia => world.find_attempt(id),
        Endpoint::Media => world.find_item(id),
        _ => world.find_session(id),
    };
    let Some(place) = place else {
        return Answer::refused(404, None);
    };
    let session = world.session_at(place);
    if session.integration != caller.name {
        return Answer::refused(world.knobs.foreign_status, None);
    }
    if session.presence != Presence::Present {
        return Answer::refused(world.knobs.gone_status, None);
    }
    world.ask(place);
    let session = world.session_at(place);
    let lists =
        Lists { session, knobs: &world.knobs, drop_videos: world.knobs.test_drops_videos && !caller.live, style };
    match endpoint {
        Endpoint::SessionMedia => Answer::Json(lists.session_media()),
        Endpoint::Attempts => Answer::Json(lists.attempts()),
        Endpoint::AttemptMedia => lists.attempt_media(world.attempt_at(place)),
        Endpoint::Media => lists.media(world, place),
        Endpoint::Decision => document(&session.decision, "verification", || decision(session)),
        Endpoint::Person => document(&session.person, "person", || person(session)),
        Endpoint::Watchlist => document(&session.watchlist, "data", || watchlist(session)),
        Endpoint::Delete => delete(world, id),
        Endpoint::Other => Answer::refused(404, None),
    }
}

struct Lists<'w> {
    session: &'w Session,
    knobs: &'w Knobs,
    drop_videos: bool,
    style: &'w ListStyle,
}

impl Lists<'_> {
    /// The media of the newest attempt alone.
    fn session_media(&self) -> Value {
        match self.session.visible_attempts().next_back() {
            Some(attempt) => self.list(attempt, true),
            None => self.list(&Attempt::default(), true),
        }
    }

    fn attempt_media(&self, attempt: &Attempt) -> Answer {
        if !self.is_visible(attempt) {
            return Answer::refused(404, None);
        }
        let nfc = self.knobs.nfc_per_attempt && !self.session.nfc_in_session_list_only;
        Answer::Json(self.list(attempt, nfc))
    }

    fn media(&self, world: &World, place: Place) -> Answer {
        let media = world.media_at(place);
        let dropped = self.drop_videos && media.kind == Kind::Video;
        if dropped || !self.is_visible(world.attempt_at(place)) {
            return Answer::refused(404, None);
        }
        Answer::Media(Box::new(media.clone()))
    }

    fn is_visible(&self, attempt: &Attempt) -> bool {
        self.session.visible_attempts().any(|a| a.id == attempt.id)
    }

    fn attempts(&self) -> Value {
        let mut entries: Vec<Value> = self.session.visible_attempts().rev().map(attempt_entry).collect();
        if self.session.repeat_attempt {
            entries.extend(entries.first().cloned());
        }
        self.shuffle(&mut entries, 0);
        json!({ "status": "success", "verifications": entries })
    }

    fn list(&self, attempt: &Attempt, nfc: bool) -> Value {
        let mut list = Map::from_iter([("status".to_owned(), json!("success"))]);
        for (n, (name, kind)) in
            [("images", Kind::Image), ("videos", Kind::Video), ("nfcDocuments", Kind::Nfc)].into_iter().enumerate()
        {
            if kind == Kind::Nfc && !nfc {
                continue;
            }
            let mut items: Vec<Value> = attempt
                .media
                .iter()
                .filter(|m| m.kind == kind && !(kind == Kind::Video && self.drop_videos))
                .map(|m| self.item(m))
                .collect();
            self.shuffle(&mut items, n as u64);
            if !(items.is_empty() && attempt.omit_empty_arrays) {
                list.insert(name.to_owned(), Value::Array(items));
            }
        }
        list.extend(attempt.extra.clone());
        Value::Object(list)
    }

    fn item(&self, media: &Media) -> Value {
        let mut item = json!({
            "id": media.id,
            "url": format!("{}/v1/media/{}", self.style.url_base, media.id),
            "sessionId": self.session.id,
        });
        if media.kind != Kind::Nfc {
            item["timestamp"] = Value::Null;
        }
        if let Some(context) = &media.context {
            item["name"] = json!(context);
            item["context"] = json!(context);
        }
        if !media.mimetype.is_empty() {
            item["mimetype"] = json!(media.mimetype);
        }
        if let Some(duration) = media.duration {
            item["duration"] = json!(duration);
        }
        let size = media.listed_size.unwrap_or(media.size_bytes).saturating_add_signed(self.style.size_off_by);
        match media.size_form {
            SizeForm::Number => item["size"] = json!(size),
            SizeForm::Text => item["size"] = json!(size.to_string()),
            SizeForm::Missing => {}
        }
        for (name, value) in &media.extra {
            item[name.as_str()] = value.clone();
        }
        item
    }

    fn shuffle(&self, items: &mut [Value], salt: u64) {
        if let Some(seed) = self.style.shuffle {
            Rng::new(seed ^ salt).shuffle(items);
        }
    }
}

fn attempt_entry(attempt: &Attempt) -> Value {
    let mut entry = json!({ "id": attempt.id, "status": attempt.status });
    if let Some(time) = &attempt.created_time {
        entry["createdTime"] = json!(time);
    }
    if !attempt.user_defined_data.is_empty() {
        entry["userDefinedData"] = json!(attempt.user_defined_data);
    }
    for (name, value) in &attempt.extra {
        entry[name.as_str()] = value.clone();
    }
    entry
}

fn document(kind: &Document, name: &str, derive: impl Fn() -> Value) -> Answer {
    let content = match kind {
        Document::Derived => derive(),
        Document::Null => Value::Null,
        Document::Content(content) => content.clone(),
        Document::Absent => return Answer::refused(404, None),
    };
    let mut body = json!({ "status": "success" });
    body[name] = content;
    Answer::Json(body)
}

fn decision(session: &Session) -> Value {
    let Some(attempt) = session.visible_attempts().next_back() else {
        return Value::Null;
    };
    let code = match attempt.status.as_str() {
        "approved" => 9001,
        "declined" => 9102,
        "resubmission_requested" => 9103,
        "expired" | "abandoned" => 9104,
        "review" => 9121,
        _ => return Value::Null,
    };
    let created = attempt.created_time.as_deref();
    let microseconds = |seconds| {
        created.map(|t| {
            let time = later(t, seconds);
            format!("{}512Z", time.trim_end_matches('Z'))
        })
    };
    json!({
        "id": session.id,
        "attemptId": attempt.id,
        "code": code,
        "status": attempt.status,
        "reason": null,
        "reasonCode": if code == 9102 { json!(106) } else { Value::Null },
        "acceptanceTime": microseconds(0),
        "decisionTime": microseconds(312),
        "vendorData": session.vendor_data,
        "endUserId": null,
        "person": { "firstName": "TEST", "lastName": "PERSON", "citizenship": null, "addresses": [] },
        "document": { "type": "ID_CARD", "country": "EE", "number": "XX0000000", "validUntil": null },
        "comments": [],
    })
}

fn person(session: &Session) -> Value {
    json!({
        "id": crate::ids::id(&format!("person {}", session.id)),
        "firstName": "TEST", "lastName": "PERSON", "idCode": null, "dateOfBirth": null, "gender": null,
        "nationality": null, "placeOfBirth": null, "citizenships": [], "pepSanctionMatches": [],
    })
}

fn watchlist(session: &Session) -> Value {
    let attempt = session.visible_attempts().next_back();
    json!({
        "attemptId": attempt.map(|a| &a.id), "sessionId": session.id, "vendorData": session.vendor_data,
        "checkType": "initial_result", "matchStatus": "no_match", "monitorStatus": "not_monitored",
        "searchTerm": { "name": "TEST PERSON", "year": null }, "totalHits": 0,
        "createdAt": attempt.and_then(|a| a.created_time.as_ref()), "hits": [],
    })
}

fn delete(world: &mut World, id: &str) -> Answer {
    let status = world.find(id).and_then(|s| s.visible_attempts().next_back()).map_or("created", |a| a.status.as_str());
    let code = match status {
        "created" | "started" | "approved" | "declined" | "resubmission_requested" | "expired" | "abandoned" => None,
        "submitted" => Some("1306"),
        _ => Some("1305"),
    };
    if let Some(code) = code {
        // Here, and only here, the vendor's `status` is a number.
        let mut body = error_body(400, Some(code));
        body["status"] = json!(400);
        return Answer::Refused { status: 400, body };
    }
    world.set_presence(id, Presence::Deleted);
    Answer::Json(json!({ "status": "success", "verification": { "id": id } }))
}
