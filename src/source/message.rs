//! The body of a queue's message as a record: an id, a session request or a webhook, bare or inside envelopes.
//!
//! A pure function over text that may be anything. Of a webhook only the session's id and the time of the decision are
//! taken; the name, the document and whatever else it says about a person are skipped and stored nowhere. Reasons name
//! the field and the rule, never the text.

use serde_json::{Map, Value};

use super::parse::{Parsed, RawRecord, not_text, parse_plain};
use super::{BadRecord, Checks};
use crate::model::is_final_status;
use crate::model::request::SessionRequest;

/// How many envelopes may lie in one another: an event bus that feeds a topic that feeds a queue makes two.
const MAX_ENVELOPES: u32 = 4;

/// Why something is no record; the session is not known.
type Refused = (Option<crate::model::SessionId>, String);

/// Reads a body.
pub(super) fn parse_message(body: &str, checks: &Checks) -> Result<SessionRequest, BadRecord> {
    match parse_text(body, checks, MAX_ENVELOPES) {
        // Whether a results line is of a finished session matters to files alone: a message always has to be processed.
        Ok((record, _)) => Ok(record),
        Err((session_id, reason)) => Err(BadRecord { session_id, reason }),
    }
}

fn parse_text(text: &str, checks: &Checks, envelopes: u32) -> Parsed {
    let text = text.trim();
    if text.starts_with('"') {
        // What an input path of an event bus makes of an id.
        let id = serde_json::from_str::<String>(text).map_err(|_| refused("the message is not valid JSON"))?;
        return parse_plain(id.as_bytes(), checks);
    }
    if !text.starts_with('{') {
        return parse_plain(text.as_bytes(), checks);
    }
    let object =
        serde_json::from_str::<Map<String, Value>>(text).map_err(|_| refused("the message is not valid JSON"))?;
    if object.contains_key("session_id") && serde_json::from_str::<RawRecord>(text).is_err() {
        return Err(refused(&not_text(&object)));
    }
    parse_object(object, checks, envelopes)
}

fn parse_object(mut object: Map<String, Value>, checks: &Checks, envelopes: u32) -> Parsed {
    if let Some(inside) = take_enveloped(&mut object)? {
        let Some(left) = envelopes.checked_sub(1) else {
            return Err(refused("the message has too many envelopes in one another"));
        };
        return match inside {
            Value::String(text) => parse_text(&text, checks, left),
            Value::Object(object) => parse_object(object, checks, left),
            _ => Err(refused("the envelope holds neither text nor an object")),
        };
    }
    let raw = if object.contains_key("session_id") {
        let reason = not_text(&object);
        serde_json::from_value::<RawRecord>(Value::Object(object)).map_err(|_| refused(&reason))?
    } else {
        of_webhook(&object)?
    };
    raw.check(checks)
}

/// Takes what an SNS or `EventBridge` envelope holds; nothing if it is none.
fn take_enveloped(object: &mut Map<String, Value>) -> Result<Option<Value>, Refused> {
    let is_sns = object.get("Type").is_some_and(Value::is_string) && object.contains_key("TopicArn");
    if is_sns || object.get("Type").and_then(Value::as_str) == Some("Notification") {
        if object.get("Type").and_then(Value::as_str) != Some("Notification") {
            return Err(refused("the message is of SNS itself and notifies of nothing"));
        }
        return match object.remove("Message") {
            Some(text @ Value::String(_)) => Ok(Some(text)),
            _ => Err(refused("the SNS notification has no Message that is text")),
        };
    }
    if object.contains_key("detail-type") {
        return match object.remove("detail") {
            Some(detail @ Value::Object(_)) => Ok(Some(detail)),
            _ => Err(refused("the EventBridge event has no detail that is an object")),
        };
    }
    Ok(None)
}

/// Finds the session that a webhook names. The places differ by its type; where several are filled they must agree.
fn of_webhook(object: &Map<String, Value>) -> Result<RawRecord, Refused> {
    let verification = object.get("verification");
    let in_data = object.get("data").and_then(|data| data.get("verification"));
    // Many documents have an `id`; only together with the other two is it an event's.
    let is_event = has_text(object, "attemptId") && (has_text(object, "action") || has_text(object, "feature"));
    let places = [
        ("verification.id", verification.and_then(|it| it.get("id"))),
        ("sessionId", object.get("sessionId")),
        ("data.verification.id", in_data.and_then(|it| it.get("id"))),
        ("id", object.get("id").filter(|_| is_event)),
    ];
    let mut found: Option<&str> = None;
    for (place, value) in places {
        let id = match value {
            None | Some(Value::Null) => continue,
            Some(Value::String(id)) => id.as_str(),
            Some(_) => return Err(refused(&format!("{place} is not text"))),
        };
        if found.is_some_and(|other| other != id) {
            return Err(refused("the message names two sessions"));
        }
        found = Some(id);
    }
    let Some(id) = found else {
        return Err(refused("the message is neither a session request nor a webhook that names a session"));
    };
    let decided_at = verification.and_then(decision_time);
    Ok(RawRecord { session_id: Some(id.to_owned()), decided_at, ..RawRecord::default() })
}

/// Returns when Veriff decided, if that is final: after any other decision the session goes on, and another one comes.
/// A time in a form that is not ours is left out, since a session must not be lost over it: unknown is safe.
fn decision_time(verification: &Value) -> Option<String> {
    let status = verification.get("status")?.as_str()?;
    let time = verification.get("decisionTime")?.as_str()?;
    (is_final_status(status) && super::parse::parse_time(time).is_some()).then(|| time.to_owned())
}

fn has_text(object: &Map<String, Value>, name: &str) -> bool {
    object.get(name).is_some_and(Value::is_string)
}

fn refused(reason: &str) -> Refused {
    (None, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::model::SessionId;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const ID: &str = "c0a8f7de-1111-4c1e-8f00-3d6a1b2c3d4e";
    const OTHER: &str = "b6f0a2c4-0d53-4f0f-9a57-52a1c3d4e5f6";

    fn checks() -> Checks {
        Checks {
            classes: BTreeSet::from(["biometric".to_owned()]),
            integrations: BTreeSet::from(["us".to_owned()]),
            clock: Arc::new(ManualClock::at("2026-11-23T12:00:00Z".parse().unwrap())),
        }
    }

    fn read(body: &str) -> Result<SessionRequest, BadRecord> {
        parse_message(body, &checks())
    }

    fn session() -> SessionId {
        SessionId::parse(ID).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn reason(body: &str) -> String {
        read(body).unwrap_err().reason
    }

    fn decision(status: &str) -> Value {
        json!({
            "status": "success",
            "verification": {
                "id": ID, "attemptId": OTHER, "code": 9001, "status": status, "reason": null, "reasonCode": null,
                "acceptanceTime": "2026-03-02T09:10:00.000000Z", "decisionTime": "2026-03-02T09:14:30.123456Z",
                "vendorData": "cust-0042", "endUserId": OTHER,
                "person": {"firstName": "ADA", "lastName": "LOVELACE", "idNumber": "47101010033"},
                "document": {"type": "ID_CARD", "number": "AB1234567"}
            },
            "technicalData": {"ip": "203.0.113.7"}
        })
    }

    fn event() -> Value {
        json!({
            "id": ID, "attemptId": OTHER, "feature": "selfid", "code": 7002, "action": "submitted",
            "vendorData": "cust-0042", "endUserId": OTHER
        })
    }

    fn full_auto() -> Value {
        json!({
            "status": "success", "eventType": "fullauto", "sessionId": ID, "attemptId": OTHER, "vendorData": "cust-0042",
            "data": {"verification": {"decision": "approved", "person": {"firstName": {"value": "ADA"}}}}
        })
    }

    fn sns(message: &str) -> Value {
        json!({
            "Type": "Notification", "MessageId": OTHER, "TopicArn": "arn:aws:sns:eu-central-1:123456789012:veriff",
            "Message": message, "Timestamp": "2026-03-02T09:14:31.000Z", "SignatureVersion": "1"
        })
    }

    fn event_bridge(detail: &Value) -> Value {
        json!({
            "version": "0", "id": OTHER, "detail-type": "decision", "source": "veriff", "account": "123456789012",
            "time": "2026-03-02T09:14:31Z", "region": "eu-central-1", "resources": [], "detail": detail
        })
    }

    #[test]
    fn a_bare_id_is_a_record() {
        for body in [ID.to_owned(), format!(" {ID}\n"), format!("\"{ID}\"")] {
            assert_eq!(read(&body).unwrap(), SessionRequest::of(session()), "{body}");
        }
    }

    #[test]
    fn a_session_record_has_the_fields_of_a_line() {
        let body = json!({
            "session_id": ID, "integration": "us", "decided_at": "2026-03-02T09:14:30Z", "retention_class": "biometric",
            "reference": "order 7", "outcome": "failed", "more": [1]
        });
        for body in [body.to_string(), sns(&body.to_string()).to_string(), event_bridge(&body).to_string()] {
            let record = read(&body).unwrap();
            assert_eq!(record.session_id.as_str(), ID);
            assert_eq!(record.integration.as_deref(), Some("us"));
            assert_eq!(record.decided_at, Some(time("2026-03-02T09:14:30Z")));
            assert_eq!(record.retention_class.as_deref(), Some("biometric"));
            assert_eq!(record.reference.as_deref(), Some("order 7"));
        }
    }

    #[test]
    fn a_decision_webhook_names_its_session_and_when_a_final_decision_was_made() {
        for status in ["approved", "declined", "expired", "abandoned"] {
            let record = read(&decision(status).to_string()).unwrap();
            assert_eq!(record.session_id.as_str(), ID);
            assert_eq!(record.decided_at, Some(time("2026-03-02T09:14:30.123456Z")), "{status}");
        }
        for status in ["resubmission_requested", "review", "a status of next year"] {
            assert_eq!(read(&decision(status).to_string()).unwrap().decided_at, None, "{status}");
        }
    }

    #[test]
    fn a_decision_webhook_may_lack_everything_but_the_id() {
        for verification in [
            json!({"id": ID}),
            json!({"id": ID, "status": null, "decisionTime": null}),
            json!({"id": ID, "status": "approved", "decisionTime": "2 March"}),
            json!({"id": ID, "status": 9001, "decisionTime": 1_772_442_870}),
        ] {
            let record = read(&json!({"verification": verification}).to_string()).unwrap();
            assert_eq!(record, SessionRequest::of(session()));
        }
    }

    #[test]
    fn other_webhooks_name_their_session_too() {
        let watchlist =
            json!({"checkType": "initial_result", "sessionId": ID, "attemptId": OTHER, "matchStatus": "no_match"});
        let user_status =
            json!({"eventType": "user-status.added", "attemptId": OTHER, "data": {"verification": {"id": ID}}});
        let started = json!({"id": ID, "attemptId": OTHER, "action": "started"});
        let feature = json!({"id": ID, "attemptId": OTHER, "feature": "selfid"});
        for body in [event(), full_auto(), watchlist, user_status, started, feature] {
            assert_eq!(read(&body.to_string()).unwrap(), SessionRequest::of(session()), "{body}");
        }
    }

    #[test]
    fn envelopes_are_opened_also_in_one_another() {
        for payload in [decision("approved"), event(), full_auto(), json!({"session_id": ID})] {
            let text = payload.to_string();
            for body in [
                sns(&text),
                event_bridge(&payload),
                sns(&event_bridge(&payload).to_string()),
                event_bridge(&sns(&text)),
                sns(&sns(&sns(&sns(&text).to_string()).to_string()).to_string()),
            ] {
                assert_eq!(read(&body.to_string()).unwrap().session_id.as_str(), ID, "{body}");
            }
        }
        assert_eq!(read(&sns(ID).to_string()).unwrap().session_id.as_str(), ID);
    }

    #[test]
    fn what_is_no_record_is_told_by_its_reason_and_never_echoed() {
        let mut deep = ID.to_owned();
        for _ in 0..5 {
            deep = sns(&deep).to_string();
        }
        let mut confirmation = sns("Ada");
        confirmation["Type"] = json!("SubscriptionConfirmation");
        let mut two = decision("approved");
        two["sessionId"] = json!(OTHER);
        for (body, expected) in [
            (String::new(), "there is no session_id"),
            ("Ada Lovelace".into(), "the session id has a character outside A-Z a-z 0-9 _ -"),
            ("[\"Ada\"]".into(), "the session id has a character outside A-Z a-z 0-9 _ -"),
            ("{\"name\":\"Ada".into(), "the message is not valid JSON"),
            ("\"Ada".into(), "the message is not valid JSON"),
            ("{\"session_id\":\"a\",\"session_id\":\"Ada\"}".into(), "a field occurs twice"),
            (json!({"session_id": 7}).to_string(), "session_id is not text"),
            (json!({"session_id": null}).to_string(), "there is no session_id"),
            (
                event_bridge(&json!({"session_id": "s", "reference": {"name": "Ada"}})).to_string(),
                "reference is not text",
            ),
            (json!({"session_id": "s", "integration": "Ada"}).to_string(), "integration is not a configured one"),
            (json!({"verification": {"id": 7}}).to_string(), "verification.id is not text"),
            (
                json!({"verification": {"id": "Ada Lovelace"}}).to_string(),
                "the session id has a character outside A-Z a-z 0-9 _ -",
            ),
            (
                json!({"verification": null, "status": "success"}).to_string(),
                "the message is neither a session request nor a webhook that names a session",
            ),
            (
                json!({"id": ID, "name": "Ada"}).to_string(),
                "the message is neither a session request nor a webhook that names a session",
            ),
            (
                json!({"attemptId": OTHER}).to_string(),
                "the message is neither a session request nor a webhook that names a session",
            ),
            ("{}".into(), "the message is neither a session request nor a webhook that names a session"),
            (two.to_string(), "the message names two sessions"),
            (confirmation.to_string(), "the message is of SNS itself and notifies of nothing"),
            (
                json!({"Type": "Notification", "Message": {"session_id": "s"}}).to_string(),
                "the SNS notification has no Message that is text",
            ),
            (
                json!({"detail-type": "x", "id": ID, "attemptId": OTHER, "action": "Ada"}).to_string(),
                "the EventBridge event has no detail that is an object",
            ),
            (deep, "the message has too many envelopes in one another"),
        ] {
            let found = reason(&body);
            assert_eq!(found, expected, "{body}");
            assert!(!found.contains("Ada"), "{found}");
        }
    }

    #[test]
    fn a_decision_that_lies_ahead_of_our_clock_is_not_believed() {
        let mut body = decision("approved");
        body["verification"]["decisionTime"] = json!("2026-11-23T12:05:00Z");
        let bad = read(&body.to_string()).unwrap_err();
        assert_eq!(bad.reason, "decided_at is in the future");
        assert_eq!(bad.session_id.unwrap().as_str(), ID);
    }

    #[test]
    fn nothing_of_a_person_is_kept() {
        for body in [decision("approved"), event(), full_auto(), sns(&decision("declined").to_string())] {
            let kept = format!("{:?}", read(&body.to_string()).unwrap());
            for word in ["ADA", "LOVELACE", "cust-0042", "AB1234567", "47101010033", "203.0.113.7", OTHER] {
                assert!(!kept.contains(word), "{kept}");
            }
        }
    }

    /// Texts and objects built of what decides something.
    fn bodies() -> impl Strategy<Value = Value> {
        let names = proptest::sample::select(vec![
            "session_id",
            "id",
            "attemptId",
            "action",
            "feature",
            "sessionId",
            "verification",
            "data",
            "status",
            "decisionTime",
            "Type",
            "TopicArn",
            "Message",
            "detail",
            "detail-type",
            "decided_at",
            "reference",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            proptest::sample::select(vec![
                ID,
                "Notification",
                "approved",
                "2026-03-02T09:14:30Z",
                "{}",
                "{\"id\":",
                "\"",
                ""
            ])
            .prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 6, move |inner| {
            prop_oneof![
                4 => proptest::collection::btree_map(names.clone().prop_map(str::to_owned), inner.clone(), 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
                1 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                1 => inner.prop_map(|value| Value::from(value.to_string())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(body in "\\PC{0,64}") {
            let _ = read(&body);
        }

        #[test]
        fn no_text_like_json_is_a_panic(body in "[{}\\[\\]\":,a-z0-9 \\\\-]{0,64}") {
            let _ = read(&body);
        }

        #[test]
        fn no_document_is_a_panic_and_its_reason_repeats_nothing(body in bodies(), secret in "[A-Z]{12}") {
            let text = body.to_string().replace("2026-03", &secret);
            if let Err(bad) = read(&text) {
                prop_assert!(!bad.reason.contains(&secret), "{}", bad.reason);
            }
        }

        #[test]
        fn deep_nesting_is_refused_and_not_a_panic(depth in 0usize..3000) {
            let body = format!("{}{}", "{\"detail-type\":\"x\",\"detail\":".repeat(depth), "{}".to_owned() + &"}".repeat(depth));
            prop_assert!(read(&body).is_err());
        }
    }
}
