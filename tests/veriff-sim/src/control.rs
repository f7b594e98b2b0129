//! The simulator's own paths, for use from outside the process: `/__stats`, `/__requests`, `/__reset`, `/__faults`.

use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde_json::json;

use crate::draft::plain_json;
use crate::faults::Fault;
use crate::server::Shared;
use crate::stream::{Line, SimBody};

pub(crate) async fn handle(shared: &Shared, line: &Arc<Line>, request: Request<Incoming>) -> Response<SimBody> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::GET, "/__stats") => plain_json(200, &shared.record.stats(), line),
        (&Method::GET, "/__requests") => plain_json(200, &shared.record.requests(), line),
        (&Method::POST, "/__reset") => {
            shared.record.reset();
            plain_json(200, &json!({ "status": "reset" }), line)
        }
        (&Method::DELETE, "/__faults") => {
            shared.faults().clear();
            plain_json(200, &json!({ "status": "cleared" }), line)
        }
        (&Method::POST, "/__faults") => {
            let body = request.into_body().collect().await;
            let bytes = body.map(http_body_util::Collected::to_bytes);
            match parse_faults(&bytes.unwrap_or_default()) {
                Ok(faults) => {
                    let mut book = shared.faults();
                    let ids: Vec<_> = faults.into_iter().map(|f| book.add(f)).collect();
                    plain_json(200, &json!({ "status": "set", "faults": ids }), line)
                }
                Err(why) => plain_json(400, &json!({ "error": why.to_string() }), line),
            }
        }
        _ => plain_json(404, &json!({ "error": "no such path of the simulator" }), line),
    }
}

/// Reads one fault or an array of them.
fn parse_faults(bytes: &[u8]) -> serde_json::Result<Vec<Fault>> {
    match serde_json::from_slice(bytes)? {
        list @ serde_json::Value::Array(_) => serde_json::from_value(list),
        single => Ok(vec![serde_json::from_value(single)?]),
    }
}
